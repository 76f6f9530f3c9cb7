"""Protocols without states of their own in the table, and those with some in nf_conntrack."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import pytest
from datapath.crafted import ACK, DCCP, GRE, SCTP, SYN, TCP, UDP, UDPLITE, ethernet, ip, ipv4, ipv6, tcp, udp

from parity.by_hand import ends_of, send
from parity.conftest import Paths
from parity.machines import Parity


def test_protocols_without_ports(lab: Parity, ghosts: Paths):
    """IGMP, ESP, OSPF, VRRP, and two that nobody knows."""
    protocols = (2, 50, 89, 112, 253, 255)
    for path, protocol in itertools.product(ghosts, protocols):
        for size in (0, 1, 100):
            send(lab, path, protocol, bytes(size))
        send(lab, path, protocol, bytes(50), from_server=True)
    assert [(c.protocol, c.original, c.packets, c.assured) for c in lab.agree(*ghosts)] == [
        (protocol, (path.client, path.server), (3, 1), False) for protocol in protocols for path in ghosts
    ]


def test_gre(lab: Parity, ghosts: Paths):
    for path in ghosts:
        send(lab, path, GRE, struct.pack("!HH", 0, 0x0800) + bytes(60))
        send(lab, path, GRE, struct.pack("!HH", 0, 0x0800) + bytes(80), from_server=True)
    assert [(c.packets, c.seen_reply, c.assured) for c in lab.agree(*ghosts)] == [((1, 1), True, False)] * 2


def test_gre_that_goes_on(lab: Parity, ghosts: Paths):
    """Assured with the first packet after the reply."""
    for path in ghosts:
        for from_server in (False, True, False):
            send(lab, path, GRE, struct.pack("!HH", 0, 0x0800) + bytes(60), from_server)
    assert [(c.packets, c.seen_reply, c.assured) for c in lab.agree(*ghosts)] == [((2, 1), True, True)] * 2


def sctp(sport: int, dport: int, tag: int, *chunks: bytes) -> bytes:
    return struct.pack("!HHII", sport, dport, tag, 0) + b"".join(chunks)


def chunk(kind: int, rest: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack("!BBH", kind, flags, 4 + len(rest)) + rest + bytes(-len(rest) % 4)


INIT, INIT_ACK, ABORT, SHUTDOWN, COOKIE_ECHO, COOKIE_ACK, DATA = 1, 2, 6, 7, 10, 11, 0


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def summed(packet: bytes) -> bytes:
    """With SCTP's checksum."""
    return packet[:8] + struct.pack("<I", crc32c(packet)) + packet[12:]


def associate(lab: Parity, path) -> None:
    """An association's first four packets."""
    offer = struct.pack("!IIHHI", 111, 65_535, 1, 1, 1)
    accept = struct.pack("!IIHHI", 222, 65_535, 1, 1, 1)
    for from_server, tag, one in (
        (False, 0, chunk(INIT, offer)),
        (True, 111, chunk(INIT_ACK, accept)),
        (False, 222, chunk(COOKIE_ECHO, b"cook")),
        (True, 111, chunk(COOKIE_ACK)),
    ):
        ports = (4000, 5000) if not from_server else (5000, 4000)
        send(lab, path, SCTP, summed(sctp(*ports, tag, one)), from_server)


def test_sctp_half_open(lab: Parity, ghosts: Paths):
    for path in ghosts:
        send(lab, path, SCTP, summed(sctp(4000, 5000, 0, chunk(INIT, struct.pack("!IIHHI", 111, 65_535, 1, 1, 1)))))
    assert [(c.original[2:], c.packets) for c in lab.agree(*ghosts)] == [(("4000", "5000"), (1, 0))] * 2


def test_sctp_association(lab: Parity, ghosts: Paths):
    for path in ghosts:
        associate(lab, path)
    agreed = lab.agree(*ghosts, but=("assured",))
    assert [(c.packets, c.seen_reply) for c in agreed] == [((2, 2), True)] * 4
    assert [c.assured for c in agreed] == [True, True, False, False]


def test_sctp_out_of_nothing(lab: Parity, ghosts: Paths):
    """Data without an association: nf_conntrack wants an INIT, the table does not look."""
    data = chunk(DATA, struct.pack("!IHHI", 1, 0, 0, 0) + b"data")
    send(lab, ghosts[0], SCTP, summed(sctp(4000, 5000, 5, data)))
    kernel, ours = lab.tables(ghosts[0])
    assert kernel == []
    assert [c.packets for c in ours] == [(1, 0)]


def dccp(sport: int, dport: int, kind: int) -> bytes:
    """A packet with a 48-bit sequence number."""
    head = struct.pack("!HHBBHBBHI", sport, dport, 4, 0, 0, kind << 1 | 1, 0, 0, 7)
    return head + bytes(8)


def test_dccp(lab: Parity, ghosts: Paths):
    """From Linux 6.17 on nf_conntrack knows its addresses alone. The table has the ports, on every kernel."""
    for path in ghosts:
        send(lab, path, DCCP, dccp(4000, 5000, 0))
        send(lab, path, DCCP, dccp(5000, 4000, 1), from_server=True)
    kernel, ours = (sorted(table) for table in lab.tables(*ghosts))
    assert [(c.original[:2], c.packets) for c in kernel] == [((p.client, p.server), (1, 1)) for p in ghosts]
    assert [(c.original, c.packets) for c in ours] == [((p.client, p.server, "4000", "5000"), (1, 1)) for p in ghosts]


def test_ip_options(lab: Parity, ghosts: Paths):
    """Router alert, and as many as there can be."""
    ends = ends_of(ghosts[0], from_server=False)
    for options in (bytes((148, 4, 0, 0)), bytes((1,) * 40)):
        lab.see(ethernet(ipv4(*ends, UDP, udp(*ends, 1000, 2000, b"abc"), options=options)))
        lab.see(ethernet(ipv4(*ends, TCP, tcp(*ends, len(options), 2000, SYN), options=options)))
    assert {c.bytes for c in lab.agree(ghosts[0])} == {(20 + 4 + 11 + 20 + 40 + 11, 0), (44, 0), (80, 0)}


def test_ipv6_extension_headers(lab: Parity, ghosts: Paths):
    """Hop-by-hop and destination options, several of them, long ones."""
    ends = ends_of(ghosts[1], from_server=False)
    for number, chain in enumerate(([60], [0], [0, 60], [60, 60, 60])):
        inner = udp(*ends, 1000 + number, 2000, b"abc")
        following = UDP
        for kind in reversed(chain):
            inner = options(following, words=number if kind else 0) + inner
            following = kind
        lab.see(ethernet(ipv6(*ends, following, inner)))
    assert len(lab.agree(ghosts[1])) == 4


def options(following: int, words: int) -> bytes:
    """An extension header with padding that a router does not take offence at."""
    pad = bytes((1, 4)) + bytes(4) + (bytes((1, 6)) + bytes(6)) * words
    return bytes((following, words)) + pad


@pytest.fixture
def checksums(lab: Parity) -> Iterator[None]:
    """The kernel's default: nf_conntrack verifies them."""
    lab.router.sysctl(netfilter_nf_conntrack_checksum=1)
    yield
    lab.router.sysctl(netfilter_nf_conntrack_checksum=0)


@pytest.mark.usefixtures("checksums")
def test_bad_checksums(lab: Parity, ghosts: Paths):
    """Where told to, nf_conntrack looks at the checksums of TCP and UDP; the table does not."""
    ends = ends_of(ghosts[0], from_server=False)
    for protocol, payload in ((TCP, tcp(*ends, 1000, 2000, SYN)), (UDP, udp(*ends, 1000, 2000, b"abc"))):
        at = 16 if protocol == TCP else 6
        wrong = payload[:at] + struct.pack("!H", struct.unpack_from("!H", payload, at)[0] ^ 0x5555) + payload[at + 2 :]
        lab.see(ethernet(ip(*ends, protocol, wrong)))
    kernel, ours = lab.tables(ghosts[0])
    assert kernel == []
    assert sorted(c.protocol for c in ours) == [TCP, UDP]


@pytest.mark.usefixtures("checksums")
def test_the_checksum_of_udp_lite(lab: Parity, ghosts: Paths):
    """nf_conntrack takes it for one of UDP, and so finds every one wrong; the table does not look."""
    ends = ends_of(ghosts[0], from_server=False)
    send(lab, ghosts[0], UDPLITE, udp(*ends, 1000, 2000, b"abc", protocol=UDPLITE))
    send(lab, ghosts[0], UDPLITE, udp(*ends, 1001, 2000, b"abc", protocol=UDP))
    kernel, ours = lab.tables(ghosts[0])
    assert [c.original[2] for c in kernel] == ["1001"]
    assert sorted(c.original[2] for c in ours) == ["1000", "1001"]


def test_a_living_connection_between_the_same_hosts(lab: Parity, ghosts: Paths):
    """The same two addresses and ports in every protocol with ports: as many connections."""
    for path in ghosts:
        ends = ends_of(path, from_server=False)
        send(lab, path, TCP, tcp(*ends, 1000, 2000, ACK))
        send(lab, path, UDP, udp(*ends, 1000, 2000))
        send(lab, path, UDPLITE, udp(*ends, 1000, 2000, protocol=UDPLITE))
        send(lab, path, 253, udp(*ends, 1000, 2000))
    assert len(lab.agree(*ghosts)) == 8
