"""Behind NAT each fast connection has a place of its own, of which there are no more than connections."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from lab.network import IPV4, client_router_server, network, wait_for
from lab.tracked import CONFIG, Tracked

from fasttrack.conftest import FASTTRACK, MASQUERADED, RULES, Lab, fast, ready
from fasttrack.wire import Quiet, quiet

PLACES = 40


@pytest.fixture
def lab(tmp_path: Path):
    with network() as net:
        client, router, server = machines = client_router_server(net)
        ready(machines)
        router.run("nft", "-f", "-", input=RULES)
        config = f"max-entries = {PLACES}\n" + CONFIG + FASTTRACK
        # Not on lo: what this asks ctweb would fill the table.
        options = ("--hook", "xdp", "--interface", "lan", "--interface", "wan")
        ctweb = Tracked(router, tmp_path, *options, config=config)
        yield Lab(client, router, server, ctweb)
        assert ctweb.end() == 0, ctweb.log.read_text()


def all_go_fast(lab: Lab, flows: list[Quiet]) -> None:
    """Exchange packets until those of each go fast."""
    before = {flow.source: fast(row) for flow in flows for row in lab.rows(flow)}

    def slow() -> list[str]:
        assert all(flow.exchange() for flow in flows)
        now = {row["src-address"]: fast(row) for row in lab.ctweb.rows(protocol="udp", fasttrack="yes")}
        return [flow.source for flow in flows if now.get(flow.source, 0) <= before.get(flow.source, 0)]

    wait_for("packets of all go fast", lambda: not slow(), slow)


def test_who_has_a_place_keeps_it_under_other_rules(lab: Lab):
    with ExitStack() as stack:
        flows = [stack.enter_context(quiet(lab, IPV4, MASQUERADED + number)) for number in range(PLACES)]
        all_go_fast(lab, flows)
        lab.reload(FASTTRACK + 'protocol = "udp"\n')  # another stamp: all of them are decided about anew
        all_go_fast(lab, flows)
