"""A packet that passes several tracked interfaces, or several hooks of one, is counted once."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from lab.conftest import Lab
from lab.hooks import hooks, settle
from lab.network import Ends, Namespace, address, default_route
from lab.traffic import agree, bulk, ping, ping_count, udp, udp_count

HELD = {"tc": {"tcx ingress", "tcx egress"}, "xdp": {"xdp", "tcx egress"}}


def one_ping_row(lab: Lab, ends: Ends, source: str, target: str, count: int) -> dict[str, str]:
    return lab.ctweb.counts(ping_count(ends, count), src_address=source, dst_address=target)


def test_traffic_that_is_forwarded_between_two_tracked_interfaces(lab: Lab, ends: Ends):
    found = hooks(lab.router)
    assert found["lan"] == found["wan"] == HELD[lab.hook]
    sizes = [100] * 50
    sport, _ = udp(ends, lab.client, lab.server, sizes, sizes)
    lab.ctweb.counts(udp_count(ends, sizes, sizes), protocol="udp", src_address=ends.shown(ends.client, sport))


def test_traffic_of_the_router_itself(lab: Lab, ends: Ends):
    with bulk(ends, lab.router, lab.server, 500_000) as (near, far):
        agree(lab.ctweb, ends, near, far)


def test_traffic_to_the_router_itself(lab: Lab, ends: Ends):
    ping(lab.client, ends.router, 20)
    one_ping_row(lab, ends, ends.client, ends.router, 20)


def test_loopback(lab: Lab):
    """What leaves lo comes in again at once. Large packets meet no wire there, and count as what they would become."""
    local = Ends(socket.AF_INET, "127.0.0.1", "127.0.0.1", "127.0.0.1")
    ping(lab.router, "127.0.0.1", 20)
    # One host asks itself: the answer's tuple is the question's.
    lab.ctweb.counts(ping_count(local, 20), src_address="127.0.0.1", dst_address="127.0.0.1", protocol="icmp")
    with bulk(local, lab.router, lab.router, 500_000) as (near, far):
        agree(lab.ctweb, local, near, far)


@pytest.fixture(scope="package")
def bridged(lab: Lab) -> Iterator[tuple[Namespace, Namespace]]:
    """Two hosts at a bridge in the router, which is also their way out: network 3."""
    hosts = lab.network.namespace("host2"), lab.network.namespace("host3")
    lab.router.ip("link add br0 type bridge mcast_snooping 0", "link set br0 up")
    address(lab.router, "br0", 3, 1)
    for number, host in enumerate(hosts, 2):
        lab.network.join(host, "eth0", lab.router, f"port{number}")
        lab.router.ip(f"link set port{number} master br0")
        host.offloads("off")
        address(host, "eth0", 3, number)
        default_route(host, 3)
    lab.server.ip("route add 10.9.3.0/24 via 10.9.2.1", "route add fd09:3::/64 via fd09:2::1")
    settle(lab.router)
    found = hooks(lab.router)
    assert found["port2"] == found["port3"] == HELD[lab.hook]
    assert "br0" not in found
    return hosts


def test_a_bridge_its_ports_and_the_router(lab: Lab, bridged: tuple[Namespace, Namespace], ends: Ends):
    """Between two ports; from a port to the router; and on through another interface and back, where what comes up
    through the bridge, which has no programs, has been counted at its port."""
    hosts = dict(zip((2, 3), bridged, strict=True))
    paths = ((2, ends.host(3, 3)), (3, ends.host(3, 1)), (2, ends.server))
    for number, target in paths:
        ping(hosts[number], target, 30)
    ping(lab.server, ends.host(3, 3), 30)
    for number, target in paths:
        one_ping_row(lab, ends, ends.host(3, number), target, 30)
    one_ping_row(lab, ends, ends.server, ends.host(3, 3), 30)


def test_a_pair_with_both_ends_in_the_router(lab: Lab, ends: Ends):
    """host4 - port4 - br4 - east = west - br5 - port5 - host5, all of it but the hosts in the router."""
    hosts = {n: lab.network.namespace(f"host{n}") for n in (4, 5)}
    lab.router.ip("link add east type veth peer name west", "link set east up", "link set west up")
    for (n, host), inner in zip(hosts.items(), ("east", "west"), strict=True):
        lab.router.ip(f"link add br{n} type bridge mcast_snooping 0", f"link set br{n} up")
        lab.network.join(host, "eth0", lab.router, f"port{n}")
        lab.router.ip(f"link set port{n} master br{n}", f"link set {inner} master br{n}")
        address(host, "eth0", 4, n)
    settle(lab.router)
    found = hooks(lab.router)
    assert found["east"] == found["west"] == {"tcx egress"}
    assert found["port4"] == found["port5"] == HELD[lab.hook]
    try:
        ping(hosts[4], ends.host(4, 5), 30)
        ping(hosts[5], ends.host(4, 4), 30)
        one_ping_row(lab, ends, ends.host(4, 4), ends.host(4, 5), 30)
        one_ping_row(lab, ends, ends.host(4, 5), ends.host(4, 4), 30)
    finally:
        lab.router.ip("link del east", "link del br4", "link del br5")
        for host in hosts.values():
            host.ip("link del eth0")
