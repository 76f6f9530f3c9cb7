"""Frames in more than an Ethernet header, and packets in pieces. nf_conntrack sees what the IP stack is handed."""

from __future__ import annotations

import itertools

import pytest
from datapath.crafted import UDP, ethernet, fragment6, ipv4, ipv6, pppoe, udp
from lab.network import IPV4, Ends

from parity.by_hand import ends_of, send_udp
from parity.conftest import Paths
from parity.machines import Parity

VLAN, QINQ, PPPOE = 0x8100, 0x88A8, 0x8864
MORE = 0x2000


def datagram(path: Ends, port: int, size: int) -> bytes:
    """An IP packet with UDP in it."""
    ends = ends_of(path, from_server=False)
    return (ipv4 if path.family is IPV4.family else ipv6)(*ends, UDP, udp(*ends, port, 2000, bytes(size)))


def four(path: Ends, payload: bytes, fragment: int, ident: int) -> bytes:
    return ethernet(ipv4(*ends_of(path, from_server=False), UDP, payload, fragment=fragment, ident=ident))


def six(path: Ends, payload: bytes, offset: int, more: bool, ident: int) -> bytes:
    return ethernet(
        ipv6(*ends_of(path, from_server=False), 44, fragment6(UDP, offset, more=more, ident=ident) + payload)
    )


def in_pieces(path: Ends, ident: int, payload: bytes, pieces: int = 3) -> list[bytes]:
    """The frames of one datagram in fragments of equal size, the last one smaller."""
    size = (len(payload) // pieces + 7) // 8 * 8
    frames = []
    for start in range(0, len(payload), size):
        more = start + size < len(payload)
        part = payload[start : start + size]
        if path.family is IPV4.family:
            frames.append(four(path, part, start // 8 | (MORE if more else 0), ident))
        else:
            frames.append(six(path, part, start, more, ident))
    return frames


def test_a_fragment_whose_first_never_came(lab: Parity, ghosts: Paths):
    before = lab.counters()["fragment"]
    for path in ghosts:
        for frame in in_pieces(path, 8, udp(*ends_of(path, from_server=False), 1000, 2000, bytes(2000)))[1:]:
            lab.see(frame)
    assert lab.agree(*ghosts) == []
    assert lab.counters()["fragment"] == before + 4


@pytest.mark.parametrize("in_order", [True, False], ids=["in order", "reversed"])
def test_a_datagram_in_fragments(lab: Parity, ghosts: Paths, in_order: bool):
    """nf_conntrack counts it when it is whole again, once; the table counts what is on the wire."""
    for path in ghosts:
        frames = in_pieces(path, 7, udp(*ends_of(path, from_server=False), 1000, 2000, bytes(2000)))
        for frame in frames if in_order else frames[::-1]:
            lab.see(frame)
    agreed = lab.agree(*ghosts, but=("packets", "bytes"))
    assert [c.packets for c in agreed] == [(1, 0)] * 2 + [(3, 0)] * 2
    assert {c.bytes for c in agreed} == {(2028, 0), (2048, 0), (2008 + 3 * 20, 0), (2008 + 3 * 48, 0)}


def test_a_datagram_that_is_all_of_one_fragment(lab: Parity, ghosts: Paths):
    """IPv6 has fragments that are no part of anything larger; they count as they are."""
    lab.see(six(ghosts[1], udp(*ends_of(ghosts[1], from_server=False), 1000, 2000, b"abc"), 0, False, 9))
    kernel, ours = lab.tables(ghosts[1])
    assert [c.original for c in kernel] == [c.original for c in ours]
    assert [(c.packets, c.bytes) for c in ours] == [((1, 0), (40 + 8 + 11, 0))]


def test_tagged(lab: Parity, ghosts: Paths):
    """VLAN, QinQ, and a VLAN in a VLAN. Without a device for the tag they go no further than the router's door:
    nf_conntrack never meets them, the table sees what is on the wire."""
    stacks = ((VLAN,), (QINQ, VLAN), (VLAN, VLAN))
    for path, (port, tags) in itertools.product(ghosts, enumerate(stacks)):
        lab.see(ethernet(datagram(path, 1000 + port, 40), tags=tags))
    kernel, ours = lab.tables(*ghosts)
    assert kernel == []
    assert [c.packets for c in ours] == [(1, 0)] * 2 * len(stacks)


def test_tagged_and_not(lab: Parity, ghosts: Paths):
    """The same ends in a VLAN and outside of it are one connection; nf_conntrack knows the half that it was given."""
    for path in ghosts:
        lab.see(ethernet(datagram(path, 1000, 40), tags=(VLAN,)))
        send_udp(lab, path, 1000, 2000, bytes(40))
    kernel, ours = (sorted(table) for table in lab.tables(*ghosts))
    assert [c.original for c in kernel] == [c.original for c in ours]
    assert ([c.packets for c in kernel], [c.packets for c in ours]) == ([(1, 0)] * 2, [(2, 0)] * 2)


def test_pppoe(lab: Parity, ghosts: Paths):
    """A session that is none of the router's: seen on the wire, and by nf_conntrack not."""
    for path in ghosts:
        lab.see(ethernet(pppoe(datagram(path, 1000, 40)), PPPOE))
    kernel, ours = lab.tables(*ghosts)
    assert kernel == []
    assert [c.bytes for c in sorted(ours)] == [(68, 0), (88, 0)]


def test_a_packet_that_the_router_does_not_pass_on(lab: Parity, ghosts: Paths):
    """With its last hop behind it: nf_conntrack forgets what does not leave; the table shows it, not confirmed."""
    lab.see(ethernet(with_ttl_1(datagram(ghosts[0], 1000, 10))))
    kernel, ours = lab.tables(ghosts[0])
    assert kernel == []
    assert [c.packets for c in ours] == [(1, 0)]
    (row,) = lab.ctweb.rows(src_address=f"{ghosts[0].client}:1000")
    assert row["confirmed"] == "false"


def with_ttl_1(packet: bytes) -> bytes:
    """An IPv4 packet at its last hop; the checksum grows by what the sum loses."""
    ttl, total = packet[8], int.from_bytes(packet[10:12], "big") + ((packet[8] - 1) << 8)
    assert ttl > 1
    total = (total & 0xFFFF) + (total >> 16)
    return packet[:8] + b"\1" + packet[9:10] + total.to_bytes(2, "big") + packet[12:]
