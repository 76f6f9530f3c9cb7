"""A router that fasttracks: client - router - server, plain and translated, by port; what is invalid is dropped."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from lab.network import IPV4, IPV6, Ends, Namespace, client_router_server, network, wait_for
from lab.tracked import CONFIG, Row, Tracked

PORTS = PLAIN, MASQUERADED, FORWARDED = 5000, 6000, 7000  # at the server, as the client asks for them
RULES = """
table inet lab {
    chain post {
        type nat hook postrouting priority srcnat
        oifname "wan" meta l4proto { tcp, udp } th dport 6000-6999 masquerade
    }
    chain pre {
        type nat hook prerouting priority dstnat
        iifname "lan" meta nfproto ipv4 meta l4proto { tcp, udp } th dport 7000-7999 dnat ip to 10.9.2.2:7001
        iifname "lan" meta nfproto ipv6 meta l4proto { tcp, udp } th dport 7000-7999 dnat ip6 to [fd09:2::2]:7001
    }
    chain met {
        type filter hook prerouting priority -500
        iifname "lan" meta l4proto { tcp, udp } counter
    }
    chain through {
        type filter hook forward priority filter
        ct state invalid counter drop
        ct state established,related counter accept
    }
}
"""
FASTTRACK = '[[rule]]\naction = "fasttrack-connection"\nconnection-state = "established,related"\n'


class Flow(Protocol):
    """A connection from the client: `source` is its address and port as the table shows them."""

    protocol: str
    source: str


def fast(row: Row) -> int:
    """Packets of the connection that went fast, both ways."""
    return int(row["orig-fasttrack-packets"]) + int(row["repl-fasttrack-packets"])


@dataclass(frozen=True)
class Lab:
    client: Namespace
    router: Namespace
    server: Namespace
    ctweb: Tracked

    def invalid(self) -> int:
        """Packets that nf_conntrack called invalid, and that were dropped for it."""
        said = self.router.run("nft", "list", "chain", "inet", "lab", "through")
        return int(re.search(r"invalid counter packets (\d+)", said)[1])

    def by_stack(self) -> int:
        """TCP and UDP packets from the client that the router's stack has met."""
        said = self.router.run("nft", "list", "chain", "inet", "lab", "met")
        return int(re.search(r"counter packets (\d+)", said)[1])

    def rows(self, flow: Flow) -> list[Row]:
        return self.ctweb.rows(protocol=flow.protocol, src_address=flow.source)

    def row(self, flow: Flow) -> Row:
        return self.ctweb.row(protocol=flow.protocol, src_address=flow.source)

    def wait_until_fast(self, flow: Flow, more: int = 1) -> Row:
        """Wait until `more` packets have gone fast in the original direction, which something else sends."""
        rows = self.rows(flow)
        enough = more + (int(rows[0]["orig-fasttrack-packets"]) if rows else 0)

        def is_fast() -> bool:
            rows[:] = self.rows(flow)
            return bool(rows) and rows[0]["fasttrack"] == "true" and int(rows[0]["orig-fasttrack-packets"]) >= enough

        wait_for("packets go fast", is_fast, lambda: (rows, self.ctweb.log.read_text()))
        return rows[0]

    def settle(self) -> None:
        """Two sweeps later all that came before has been noticed, and counted."""
        seq = self.health()["sweep"]
        wait_for("two sweeps", lambda: self.health()["sweep"] >= seq + 2)

    def health(self) -> dict[str, Any]:
        """Also when a sweep is late, as it may be on a busy machine."""
        found: dict[str, Any] = json.loads(self.ctweb.ask("GET", "/healthz")[1])
        return found

    def reload(self, rules: str) -> None:
        (self.ctweb.log.parent / "ctweb.toml").write_text(CONFIG + rules)
        before = self.ctweb.log.stat().st_size
        self.ctweb.process.send_signal(signal.SIGHUP)
        wait_for("reloaded", lambda: b"reloaded: " in self.ctweb.log.read_bytes()[before:])


def ready(machines: tuple[Namespace, Namespace, Namespace]) -> None:
    """Make their interfaces such that redirected packets arrive: GRO on, and whole checksums from both ends."""
    client, router, server = machines
    for machine, names in ((client, ["eth0"]), (router, ["lan", "wan"]), (server, ["eth0"])):
        for name in names:
            machine.run("ethtool", "-K", name, "gro", "on")
    for end in (client, server):
        end.run("ethtool", "-K", "eth0", "tx", "off")


@contextmanager
def fasttracking(directory: Path) -> Iterator[Lab]:
    with network() as net:
        machines = client_router_server(net)
        client, router, server = machines
        ready(machines)
        router.run("nft", "-f", "-", input=RULES)
        ctweb = Tracked(router, directory, "--hook", "xdp", config=CONFIG + FASTTRACK)
        yield Lab(client, router, server, ctweb)
        if ctweb.process.poll() is None:
            assert ctweb.end() == 0, ctweb.log.read_text()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with fasttracking(tmp_path_factory.mktemp("fasttrack")) as made:
        yield made


@pytest.fixture(params=[IPV4, IPV6], ids=["ipv4", "ipv6"])
def ends(request: pytest.FixtureRequest) -> Ends:
    return request.param
