"""Two ways lead to the server: fast packets take the one that the kernel chooses for them, also once it changes."""

from __future__ import annotations

import json
import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from lab.network import IPV4, Ends, address, client_router_server, network, wait_for
from lab.tracked import CONFIG, Tracked

from fasttrack.conftest import FASTTRACK, Flow, Lab, ready
from fasttrack.flows import Datagrams, datagrams, in_one_piece, transfer
from fasttrack.wire import Quiet, quiet

PORT = 5000
ONE, OTHER = "eth0", "eth1"  # of the server
ARRIVED = """
table inet lab {
    set arrived { type ifname . inet_service; size 1000; flags dynamic; counter; }
    chain met {
        type filter hook prerouting priority -500
        meta l4proto { tcp, udp } update @arrived { iifname . th dport }
    }
}
"""
Arrived = Counter[tuple[str, int]]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with network() as net:
        client, router, server = machines = client_router_server(net)
        net.join(server, OTHER, router, "wan2")
        address(router, "wan2", 3, 1)
        address(server, OTHER, 3, 2)
        # A host of each side's network for each way, so that both can be named by a next hop.
        server.ip("addr add 10.9.2.77/32 dev eth0", "addr add fd09:2::77/128 dev eth0 nodad")
        ready(machines)
        for machine, name in ((router, "wan2"), (server, OTHER)):
            machine.run("ethtool", "-K", name, "gro", "on")
        server.run("ethtool", "-K", OTHER, "tx", "off")
        for machine in (router, server):
            machine.sysctl(**{f"ipv4_conf__{name}__rp_filter": 0 for name in ("all", "default")})
        server.run("nft", "-f", "-", input=ARRIVED)
        router.run("nft", "-f", "-", input="table inet lab { chain met {\ntype filter hook prerouting priority -500\n"
                   'iifname "lan" meta l4proto { tcp, udp } counter\n}\n}')  # fmt: skip
        ctweb = Tracked(router, tmp_path_factory.mktemp("ways"), "--hook", "xdp", config=CONFIG + FASTTRACK)
        yield Lab(client, router, server, ctweb)
        assert ctweb.end() == 0, ctweb.log.read_text()


def arrived(lab: Lab) -> Arrived:
    """Packets at the server by interface and port."""
    said = json.loads(lab.server.run("nft", "-j", "list", "set", "inet", "lab", "arrived"))
    elements = next(each["set"] for each in said["nftables"] if "set" in each).get("elem", [])
    return Counter({tuple(each["elem"]["val"]["concat"]): each["elem"]["counter"]["packets"] for each in elements})


def goes_by(lab: Lab, port: int, interface: str) -> None:
    """Wait until packets of the flow come in there, and nowhere else."""
    looks = [arrived(lab)]

    def only_there() -> bool:
        looks.append(arrived(lab))
        new = looks[-1] - looks[-2]
        return new[interface, port] > 20 and not any(new[each, port] for each in {ONE, OTHER} - {interface})

    wait_for(f"port {port} at {interface} alone", only_there, lambda: looks[-20:])


def stays_fast(lab: Lab, *flows: Flow) -> None:
    for flow in flows:
        lab.wait_until_fast(flow, more=100)


def test_a_route_changes(lab: Lab, ends: Ends):
    host = f"{ends.server}/{128 if ':' in ends.server else 32}"
    with transfer(lab, ends, PORT) as tcp, datagrams(lab, ends, PORT + 1) as udp:
        stays_fast(lab, tcp, udp)
        for route, interface in (
            (f"route add {host} via {ends.host(3, 2)} dev wan2", OTHER),
            (f"route replace {host} via {ends.host(2, 77)} dev wan", ONE),
            (f"route replace {host} via {ends.host(3, 2)} dev wan2", OTHER),
            (f"route del {host}", ONE),
        ):
            lab.router.ip(route)
            goes_by(lab, PORT, interface)
            goes_by(lab, PORT + 1, interface)
            stays_fast(lab, tcp, udp)


def test_an_interface_goes_down_and_there_is_another_way(lab: Lab):
    """What was under way is lost, in one piece; everything else takes the other way."""
    with transfer(lab, IPV4, PORT) as tcp, ExitStack() as stack:
        udp = Datagrams(lab, IPV4, PORT + 1)
        stack.callback(udp.stop)
        lab.router.ip("route add 10.9.2.2/32 via 10.9.3.2 dev wan2")
        stays_fast(lab, tcp, udp)
        goes_by(lab, PORT + 1, OTHER)
        lab.router.ip("link set wan2 down")
        goes_by(lab, PORT, ONE)
        goes_by(lab, PORT + 1, ONE)
        stays_fast(lab, tcp, udp)
        assert in_one_piece(udp.lost())
        lab.router.ip("link set wan2 up", "addr replace fd09:3::1/64 dev wan2 nodad")


@pytest.mark.parametrize("asks", [f"ipproto udp dport {PORT + 1}", f"dport {PORT + 1}"])
def test_a_rule_asks_for_ports(lab: Lab, asks: str):
    """Between the same two hosts one connection goes by one way, and one by the other."""
    lab.router.ip("route add 10.9.2.2/32 via 10.9.3.2 dev wan2 table 100")
    with datagrams(lab, IPV4, PORT) as plain, datagrams(lab, IPV4, PORT + 1) as asked:
        stays_fast(lab, plain, asked)
        lab.router.ip(f"rule add {asks} table 100")
        goes_by(lab, PORT + 1, OTHER)
        before = arrived(lab)
        stays_fast(lab, plain, asked, plain, asked)
        new = arrived(lab) - before
        assert (new[OTHER, PORT], new[ONE, PORT + 1]) == (0, 0), new
        assert min(new[ONE, PORT], new[OTHER, PORT + 1]) > 100, new
        lab.router.ip(f"rule del {asks} table 100")
        goes_by(lab, PORT + 1, ONE)
    lab.router.ip("route flush table 100")


@pytest.mark.parametrize(("policy", "used"), [(0, 1), (1, 2)], ids=["by addresses", "by ports"])
def test_several_next_hops(lab: Lab, used: int, policy: int):
    """By addresses: each takes the one that it has without the fast path. By ports: they spread, each keeps its own.

    By ports the stack may choose another one: where a driver or socket has worked out a packet's hash, it takes that.
    """
    ports = range(PORT, PORT + 16)
    lab.router.sysctl(ipv4_fib_multipath_hash_policy=policy)
    lab.router.ip("route add 10.9.2.2/32 nexthop via 10.9.2.77 dev wan nexthop via 10.9.3.2 dev wan2")
    with ExitStack() as stack:
        flows = [stack.enter_context(quiet(lab, IPV4, port)) for port in ports]

        def taken() -> dict[int, str]:
            """By port the interface that most of its packets come to."""
            before = arrived(lab)
            assert all(flow.exchange() for flow in flows for _ in range(10))
            new = arrived(lab) - before
            return {port: max((ONE, OTHER), key=lambda each: new[each, port]) for port in ports}

        lab.reload("")
        without = taken()
        lab.reload(FASTTRACK)
        wait_for("all go fast", lambda: not slow(lab, flows))
        before = by_stack(lab)
        ways = taken()
        assert len(set(ways.values())) == used
        assert taken() == ways
        assert policy or ways == without
        assert by_stack(lab) <= before + 10 * len(flows)  # of 20 each; now and then one is for the stack
    lab.router.ip("route del 10.9.2.2/32")
    lab.router.sysctl(ipv4_fib_multipath_hash_policy=0)


def test_addresses_that_are_alike_in_both_families(lab: Lab):
    """And a type of service that is the first byte of an IPv6 header: each goes its own way."""
    lab.client.sysctl(ipv6_auto_flowlabels=0)
    lab.client.ip(
        "addr add 32.1.13.184/32 dev eth0",
        "addr add 2001:db8::/128 dev eth0 nodad",
        "route add 32.1.13.185/32 via 10.9.1.1 src 32.1.13.184",
        "route add 2001:db9::/128 via fd09:1::1 src 2001:db8::",
    )
    lab.server.ip("addr add 32.1.13.185/32 dev eth0", "addr add 2001:db9::/128 dev eth0 nodad")
    lab.router.ip(
        "route add 32.1.13.184/32 via 10.9.1.2",
        "route add 2001:db8::/128 via fd09:1::2",
        "route add 32.1.13.185/32 via 10.9.2.2",
        "route add 2001:db9::/128 via fd09:3::2 dev wan2",
    )
    four = Ends(socket.AF_INET, "32.1.13.184", "32.1.13.185", "10.9.1.1")
    six = Ends(socket.AF_INET6, "2001:db8::", "2001:db9::", "fd09:1::1")
    with quiet(lab, four, PORT) as one, quiet(lab, six, PORT + 1) as other:
        one.near.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x60)
        one.until_fast()
        other.until_fast()
        before = arrived(lab)
        assert all(flow.exchange() for _ in range(200) for flow in (one, other))
        assert arrived(lab) - before == {(ONE, PORT): 200, (OTHER, PORT + 1): 200}
        assert not slow(lab, [one, other])


def slow(lab: Lab, flows: list[Quiet]) -> list[str]:
    """Which of them have not gone fast after another exchange."""
    assert all(flow.exchange() for flow in flows)
    fast = {
        row["src-address"]
        for row in lab.ctweb.rows(protocol="udp", fasttrack="yes")
        if row["orig-fasttrack-packets"] != "0" and row["repl-fasttrack-packets"] != "0"
    }
    return [flow.source for flow in flows if flow.source not in fast]


def by_stack(lab: Lab) -> int:
    """TCP and UDP packets from the client that the router's stack has met."""
    return int(re.search(r"counter packets (\d+)", lab.router.run("nft", "list", "chain", "inet", "lab", "met"))[1])
