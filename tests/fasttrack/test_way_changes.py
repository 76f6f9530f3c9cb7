"""What makes kept next hops invalid: each change that the kernel tells of, and all that they are not found by."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from lab.network import Namespace, address, network, wait_for

from ctweb.datapath.image import MapShape
from ctweb.datapath.map import Map
from ctweb.datapath.way_changes import WayChanges, drain

ARRAY = 2  # BPF_MAP_TYPE_ARRAY
SHAPE = MapShape("way_changes", ARRAY, 4, 8, 1, 0, '"unsigned int"', '"unsigned long long"')
FLOOD = [f"route {verb} 10.77.{n // 250}.{n % 250}/32 dev wan" for verb in ("add", "del") for n in range(1000)]
CHANGES = {
    "route": "route add 10.77.0.0/16 dev wan",
    "route (IPv6)": "route add fd77::/64 dev wan",
    "next hop": "nexthop add id 7 via 10.9.2.2 dev wan",
    "neighbour": "neigh add 10.9.2.9 lladdr 02:00:00:00:00:09 dev wan",
    "neighbour (IPv6)": "neigh add fd09:2::9 lladdr 02:00:00:00:00:09 dev wan",
    "address": "addr add 10.9.2.7/24 dev wan",
    "interface": "link set wan down",
    "MTU": "link set wan mtu 1400",
    "rule": "rule add from 10.9.1.0/24 table 100",
    "rule (IPv6)": "-6 rule add from fd09:1::/64 table 100",
}


@pytest.fixture
def router() -> Iterator[Namespace]:
    with network() as net:
        router, server = net.namespace("router"), net.namespace("server")
        net.join(server, "eth0", router, "wan")
        address(router, "wan", 2, 1)
        yield router


@pytest.fixture
def changes(router: Namespace) -> Iterator[Map]:
    """The kernel's number, followed in the router."""
    there = Map.create(SHAPE)
    ways = WayChanges(there)
    with router.entered():
        ways.start()
    try:
        wait_for("next hops may be kept", lambda: there[0].value)
        yield there
    finally:
        ways.stop()
        assert there[0].value == 0
        there.close()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_counts(router: Namespace, changes: Map, change: str):
    before = changes[0].value
    router.run("ip", *CHANGES[change].split())
    wait_for("another number", lambda: changes[0].value not in (0, before))


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("rule add ipproto udp table 100", "rule del ipproto udp table 100"),
        ("rule add sport 5000 table 100", "rule del sport 5000 table 100"),
        ("-6 rule add ipproto tcp dport 80-90 table 100", "-6 rule del ipproto tcp dport 80-90 table 100"),
    ],
)
def test_nothing_is_kept_while_a_rule_asks_for_ports(router: Namespace, changes: Map, begin: str, end: str):
    before = changes[0].value
    router.run("ip", *begin.split())
    wait_for("nothing may be kept", lambda: changes[0].value == 0)
    router.run("ip", "route", "add", "10.77.0.0/16", "dev", "wan")
    router.run("ip", *end.split())
    wait_for("another number", lambda: changes[0].value not in (0, before))


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_nothing_is_kept_while_ports_choose_among_several_ways(router: Namespace, changes: Map, family: str):
    before = changes[0].value
    router.sysctl(**{f"{family}_fib_multipath_hash_policy": 1})
    wait_for("nothing may be kept", lambda: changes[0].value == 0)
    router.sysctl(**{f"{family}_fib_multipath_hash_policy": 0})
    wait_for("another number", lambda: changes[0].value not in (0, before))


def test_more_changes_than_can_be_read_count_too(router: Namespace, changes: Map):
    router.ip(*FLOOD)
    before = changes[0].value
    router.ip("route add 10.77.0.0/16 dev wan")
    wait_for("another number", lambda: changes[0].value not in (0, before))


def test_lost_messages_are_known(router: Namespace):
    """They may have been of anything."""
    with router.entered():
        bell = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    with bell:
        bell.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        bell.bind((os.getpid() << 8, 1 << 6))
        router.ip("route add 10.77.0.0/16 dev wan")
        assert drain(bell) == {24}  # RTM_NEWROUTE
        router.ip(*FLOOD)
        assert drain(bell) is None
        assert drain(bell) == frozenset()


def test_it_may_be_started_and_stopped_again(router: Namespace):
    there = Map.create(SHAPE)
    ways = WayChanges(there)
    for _ in range(3):
        with router.entered():
            ways.start()
            ways.start()
        wait_for("next hops may be kept", lambda: there[0].value)
        ways.stop()
        ways.stop()
        assert there[0].value == 0
    there.close()
