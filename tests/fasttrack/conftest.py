"""A router that fasttracks: client - router - server, plain and translated, by port; nf_conntrack drops what it calls invalid."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from lab.network import IPV4, IPV6, Ends, Namespace, client_router_server, network, wait_for
from lab.tracked import CONFIG, Row, Tracked

PLAIN, MASQUERADED, FORWARDED = 5000, 6000, 7000  # ports at the server, as the client asks for them
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
    chain through {
        type filter hook forward priority filter
        ct state invalid counter drop
        ct state established,related counter accept
    }
}
"""
FASTTRACK = '[[rule]]\naction = "fasttrack-connection"\nconnection-state = "established,related"\n'


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

    def row(self, protocol: str, sport: int) -> Row:
        """Of the connection from this port of the client."""
        return self.ctweb.row(protocol=protocol, src_port=str(sport))

    def fast(self, row: Row) -> int:
        """Packets of the connection that went fast, both ways."""
        return int(row["orig-fasttrack-packets"]) + int(row["repl-fasttrack-packets"])

    def wait_until_fast(self, protocol: str, sport: int) -> Row:
        """Wait until packets go fast in the original direction, which something else sends."""
        found: list[Row] = []

        def is_fast() -> bool:
            found[:] = self.ctweb.rows(protocol=protocol, src_port=str(sport))
            return bool(found) and found[0]["fasttrack"] == "true" and int(found[0]["orig-fasttrack-packets"]) > 0

        wait_for("packets go fast", is_fast, lambda: (found, self.ctweb.log.read_text()))
        return found[0]

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


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with network() as net:
        machines = client_router_server(net)
        client, router, server = machines
        ready(machines)
        router.run("nft", "-f", "-", input=RULES)
        ctweb = Tracked(router, tmp_path_factory.mktemp("fasttrack"), "--hook", "xdp", config=CONFIG + FASTTRACK)
        yield Lab(client, router, server, ctweb)
        if ctweb.process.poll() is None:
            assert ctweb.end() == 0, ctweb.log.read_text()


@pytest.fixture(params=[IPV4, IPV6], ids=["ipv4", "ipv6"])
def ends(request: pytest.FixtureRequest) -> Ends:
    return request.param


@pytest.fixture(params=[PLAIN, MASQUERADED, FORWARDED], ids=["plain", "masqueraded", "forwarded"])
def port(request: pytest.FixtureRequest) -> int:
    return request.param
