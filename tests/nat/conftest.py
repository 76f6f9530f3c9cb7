"""A router that translates, one for each hook: client - router - server, and nf_conntrack as the judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from lab.network import IPV4, IPV6, Ends, Namespace, client_router_server, network, wait_for
from lab.tracked import CONFIG, Row, Tracked

from nat.oracle import disagreement, entries

NOWHERE = {4: "10.9.9.9", 6: "fd09:9::9"}  # an address that stands for the server
RULES = """
table inet nat {
    chain post {
        type nat hook postrouting priority srcnat
        oifname "wan" masquerade
        iifname "lan" oifname "lan" masquerade comment "hairpin"
    }
    chain pre {
        type nat hook prerouting priority dstnat
        iifname "lan" tcp dport 7000 redirect to :7001
        iifname "lan" meta nfproto ipv4 udp dport 7100 dnat ip to 10.9.2.2:7101
        iifname "lan" meta nfproto ipv6 udp dport 7100 dnat ip6 to [fd09:2::2]:7101
        iifname "lan" meta nfproto ipv4 udp dport 7200 dnat ip to 10.9.1.2:7201
        iifname "lan" meta nfproto ipv6 udp dport 7200 dnat ip6 to [fd09:1::2]:7201
    }
    chain out {
        type nat hook output priority -100
        ip daddr 10.9.9.9 dnat ip to 10.9.2.2
        ip6 daddr fd09:9::9 dnat ip6 to fd09:2::2
    }
    chain marking {
        type filter hook prerouting priority mangle
        udp dport 6001 ct mark set 0x10
        udp dport 6002 ct mark set 4711
        udp dport 6003 ip dscp ef ct mark set 0
        udp dport 6003 ip dscp cs0 ct mark set 0x10
    }
    ct helper ftp-control {
        type "ftp" protocol tcp;
    }
    ct helper sip-control {
        type "sip" protocol udp;
    }
    ct helper ras-control {
        type "RAS" protocol udp;
    }
    chain helpers {
        type filter hook prerouting priority filter
        tcp dport { 21, 2121 } ct helper set "ftp-control"
        udp dport 5070 ct helper set "sip-control"
        udp dport 5071 ct helper set "ras-control"
    }
}
"""
RULE = """
[[rule]]
protocol = "udp"
dst-port = 6005
action = "mark-connection"
new-connection-mark = "by a rule"
"""
MARKS = '[marks]\nvoip = 0x10\n"bulk data" = 32\n'


@dataclass(frozen=True)
class Lab:
    client: Namespace
    router: Namespace
    server: Namespace
    ctweb: Tracked

    def agrees(self, **properties: str) -> Row:
        """Wait until the table agrees with nf_conntrack on its one entry that has these properties (`_` for `-`)."""
        wanted = {name.replace("_", "-"): value for name, value in properties.items()}

        def differs() -> str:
            found = [e for e in entries(self.router) if wanted.items() <= e.items()]
            return disagreement(self.ctweb, found[0]) if len(found) == 1 else f"nf_conntrack has {found}"

        wait_for("the table agrees with nf_conntrack", lambda: not differs(), differs)
        return next(e for e in entries(self.router) if wanted.items() <= e.items())


@pytest.fixture(scope="package", params=["tc", "xdp"])
def hook(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="package")
def lab(hook: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with network() as net:
        client, router, server = client_router_server(net)
        for machine in (client, router, server):
            machine.offloads("off")
        router.sysctl(netfilter_nf_conntrack_acct=1)
        router.run("nft", "-f", "-", input=RULES)
        router.ip(f"route add {NOWHERE[4]} via 10.9.2.2", f"route add {NOWHERE[6]} via fd09:2::2")
        ctweb = Tracked(router, tmp_path_factory.mktemp(hook), "--hook", hook, config=MARKS + CONFIG + RULE)
        yield Lab(client, router, server, ctweb)
        ctweb.check_conservation()
        assert ctweb.end() == 0, ctweb.log.read_text()


@pytest.fixture(params=[IPV4, IPV6], ids=["ipv4", "ipv6"])
def ends(request: pytest.FixtureRequest) -> Ends:
    return request.param


@pytest.fixture(autouse=True)
def accounted(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a packet that is counted nowhere or twice; at the end of the lab the accounts are even."""
    yield
    if "lab" in request.fixturenames:
        assert request.getfixturevalue("lab").ctweb.unaccounted() == {}
