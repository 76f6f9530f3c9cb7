"""Packets larger than the wire takes: every fragment is on the row of its connection."""

from __future__ import annotations

from lab.conftest import Lab
from lab.network import IPV4, Ends
from lab.tracked import Count
from lab.traffic import ICMP_HEADER, UDP_HEADER, ping, udp

MTU = 1500


def on_the_wire(ends: Ends, size: int) -> tuple[int, int]:
    """Packets and bytes of a packet with `size` bytes behind its IP header."""
    header = 20 if ends is IPV4 else 40 + 8
    each = (MTU - header) // 8 * 8
    packets = -(-size // each)
    return packets, size + packets * header


def test_large_pings(lab: Lab, ends: Ends):
    ping(lab.client, ends.server, 3, 4000)
    packets, size = on_the_wire(ends, ICMP_HEADER + 4000)
    assert packets == 3
    lab.ctweb.counts(
        Count(3 * packets, 3 * size, 3 * packets, 3 * size),
        protocol="icmp" if ends is IPV4 else "icmpv6",
        src_address=ends.client,
        dst_address=ends.server,
        orig_packets=str(3 * packets),
    )


def test_large_datagrams(lab: Lab, ends: Ends):
    before = lab.ctweb.get("/healthz")["counters"]["fragment"]
    sport, _ = udp(ends, lab.client, lab.server, [8000] * 5, [8000] * 4)
    packets, size = on_the_wire(ends, UDP_HEADER + 8000)
    assert packets == 6
    lab.ctweb.counts(
        Count(5 * packets, 5 * size, 4 * packets, 4 * size),
        protocol="udp",
        src_address=ends.shown(ends.client, sport),
    )
    assert lab.ctweb.get("/healthz")["counters"]["fragment"] == before
