"""UDP and UDP-Lite by hand."""

from __future__ import annotations

import itertools
import time

from datapath.crafted import UDP, UDPLITE, ethernet, ipv4, udp
from lab.network import wait_for

from parity.by_hand import ends_of, send_udp
from parity.conftest import Paths
from parity.machines import Parity

PROTOCOLS = (UDP, UDPLITE)


def test_one_way(lab: Parity, ghosts: Paths):
    for path, protocol in itertools.product(ghosts, PROTOCOLS):
        for size in (0, 1, 17, 1000):
            send_udp(lab, path, 1000, 2000, bytes(size), protocol=protocol)
    assert [(c.protocol, c.packets, c.seen_reply, c.assured) for c in lab.agree(*ghosts)] == [
        (protocol, (4, 0), False, False) for protocol in PROTOCOLS for _ in ghosts
    ]


def test_answered_at_once(lab: Parity, ghosts: Paths):
    """Like a question to the DNS: not assured."""
    for path, protocol in itertools.product(ghosts, PROTOCOLS):
        send_udp(lab, path, 1000, 53, bytes(40), protocol=protocol)
        send_udp(lab, path, 53, 1000, bytes(300), from_server=True, protocol=protocol)
    assert [(c.packets, c.seen_reply, c.assured) for c in lab.agree(*ghosts)] == [((1, 1), True, False)] * 4


def test_a_stream(lab: Parity, ghosts: Paths):
    """Once it has gone on for more than two seconds it is assured."""
    began = time.monotonic()
    for path, protocol in itertools.product(ghosts, PROTOCOLS):
        send_udp(lab, path, 1000, 2000, bytes(10), protocol=protocol)
        send_udp(lab, path, 2000, 1000, bytes(20), from_server=True, protocol=protocol)
    assert [c.assured for c in lab.agree(*ghosts)] == [False] * 4
    wait_for("two seconds have passed", lambda: time.monotonic() - began > 2.1)
    for path, protocol in itertools.product(ghosts, PROTOCOLS):
        send_udp(lab, path, 1000, 2000, bytes(10), protocol=protocol)
    assert [(c.packets, c.assured) for c in lab.agree(*ghosts)] == [((2, 1), True)] * 4


def test_many_ports(lab: Parity, ghosts: Paths):
    for path in ghosts:
        for port in range(3000, 3200):
            send_udp(lab, path, port, 2000, bytes(port % 7))
            if port % 3:
                send_udp(lab, path, 2000, port, bytes(port % 5), from_server=True)
    assert len(lab.agree(*ghosts)) == 400


def test_both_ports_the_same(lab: Parity, ghosts: Paths):
    for path in ghosts:
        send_udp(lab, path, 500, 500, bytes(100))
        send_udp(lab, path, 500, 500, bytes(200), from_server=True)
    assert [c.packets for c in lab.agree(*ghosts)] == [(1, 1)] * 2


def test_the_larger_end_asks(lab: Parity, ghosts: Paths):
    """Who sends first is the original side, whichever address is smaller."""
    for path in ghosts:
        send_udp(lab, path, 1000, 2000, bytes(1), from_server=True)
        send_udp(lab, path, 2000, 1000, bytes(2))
    assert [c.original[:2] for c in lab.agree(*ghosts)] == [(p.server, p.client) for p in ghosts]


def test_without_a_checksum(lab: Parity, ghosts: Paths):
    ends = ends_of(ghosts[0], from_server=False)
    datagram = udp(*ends, 1000, 2000, b"abc")
    lab.see(ethernet(ipv4(*ends, UDP, datagram[:6] + bytes(2) + datagram[8:])))
    assert [c.packets for c in lab.agree(ghosts[0])] == [(1, 0)]


def test_lengths_that_lie(lab: Parity, ghosts: Paths):
    """Shorter than its header or longer than its packet: no connection."""
    ends = ends_of(ghosts[0], from_server=False)
    for length in (0, 7, 13, 65_535):
        lab.see(ethernet(ipv4(*ends, UDP, udp(*ends, 1000, 2000, b"abcd", length=length))))
    assert lab.agree(ghosts[0]) == []


def test_a_datagram_with_padding(lab: Parity, ghosts: Paths):
    """A frame is longer than its packet, and the packet longer than its datagram."""
    ends = ends_of(ghosts[0], from_server=False)
    lab.see(ethernet(ipv4(*ends, UDP, udp(*ends, 1000, 2000, b"abcd"))) + bytes(30))
    lab.see(ethernet(ipv4(*ends, UDP, udp(*ends, 1000, 2000, b"abcd") + bytes(8))))
    assert [(c.packets, c.bytes) for c in lab.agree(ghosts[0])] == [((2, 0), (32 + 40, 0))]
