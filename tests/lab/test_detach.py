"""How a run ends: nothing stays attached, unless it was told to keep it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from running import CTWEB

from lab.hooks import hooks
from lab.network import IPV4, Namespace, client_router_server, network, wait_for
from lab.tracked import Tracked, refused
from lab.traffic import ping

HELD = {"tc": {"tcx ingress", "tcx egress"}, "xdp": {"xdp", "tcx egress"}}


@pytest.fixture
def machines() -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    with network() as net:
        yield client_router_server(net)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_attached(machines, hook, number, tmp_path):
    client, router, _ = machines
    ctweb = Tracked(router, tmp_path, "--hook", hook)
    expected = HELD[hook]
    assert hooks(router) == {"lo": {"tcx egress"}, "lan": expected, "wan": expected}
    status = ctweb.end(number)
    assert status == (-signal.SIGKILL if number == signal.SIGKILL else 0), ctweb.log.read_text()
    wait_for("nothing is attached", lambda: hooks(router) == {})
    ping(client, IPV4.server, 3)


def test_a_kept_run_stays_until_the_next_one_or_detach(machines, bpffs, tmp_path):
    _, router, _ = machines
    arguments = ("--hook", "xdp", "--interface", "lan", "--interface", "wan")
    kept = {"lan": HELD["xdp"], "wan": HELD["xdp"]}
    for number in (signal.SIGTERM, signal.SIGKILL):
        ctweb = Tracked(router, tmp_path, *arguments, "--keep")
        assert ctweb.end(number) == (0 if number == signal.SIGTERM else -number)
        assert hooks(router) == kept
    removed = router.run(CTWEB, "detach", *ctweb.options)
    assert "link" in removed
    assert hooks(router) == {}


def test_only_named_interfaces_are_tracked_until_ctrl_c(machines, tmp_path):
    client, router, _ = machines
    ctweb = Tracked(router, tmp_path, "--interface", "wan")
    assert hooks(router) == {"wan": HELD["tc"]}
    ping(client, IPV4.router, 3)
    ping(client, IPV4.server, 3)
    row = ctweb.row(protocol="icmp")
    assert row["dst-address"] == IPV4.server
    assert ctweb.end(signal.SIGINT) == 0, ctweb.log.read_text()
    assert hooks(router) == {}


def test_an_interface_that_is_not_there_or_cannot_is_one_clear_line(machines, tmp_path):
    _, router, _ = machines
    router.ip("link add br0 type bridge")
    for arguments, words in (
        (["--interface", "lan", "--interface", "nope"], "no interface 'nope'"),
        (["--interface", "lan", "--interface", "br0", "--hook", "xdp"], "'br0' cannot take --hook xdp"),
    ):
        status, said = refused(router, tmp_path, *arguments)
        assert status == 2
        errors = [line for line in said.splitlines() if words in line]
        assert len(errors) == 1, said
        assert "Traceback" not in said
        assert hooks(router) == {}
