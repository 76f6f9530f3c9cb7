"""Frames cut short or wrong: no entry beyond what valid headers say, counted by reason, passed on untouched."""

from __future__ import annotations

import struct

import pytest
from crafted import (
    ACK,
    CLIENT,
    CLIENT6,
    DCCP,
    DSTOPTS,
    FIN,
    HOPOPTS,
    ICMP,
    ICMPV6,
    PSH,
    ROUTING,
    RST,
    SCTP,
    SERVER,
    SERVER6,
    SYN,
    TCP,
    UDP,
    UDPLITE,
    URG,
    ethernet,
    extension,
    icmp,
    ip,
    ipv4,
    ipv6,
    pppoe,
    tcp,
    udp,
)  # fmt: skip
from table import Table

from ctweb.datapath.build import BuildOptions, compile_datapath
from ctweb.settings import Tracking

FRAMES = {
    "TCP": ethernet(ipv4(CLIENT, SERVER, TCP, tcp(CLIENT, SERVER, 1, 2, SYN, options=bytes((2, 4, 5, 180))))),
    "TCP over IPv6": ethernet(ipv6(CLIENT6, SERVER6, TCP, tcp(CLIENT6, SERVER6, 1, 2, SYN))),
    "UDP": ethernet(ipv4(CLIENT, SERVER, UDP, udp(CLIENT, SERVER, 1, 2, b"payload"))),
    "UDP-Lite over IPv6": ethernet(ipv6(CLIENT6, SERVER6, UDPLITE, udp(CLIENT6, SERVER6, 1, 2, b"payload", length=8))),
    "ICMP": ethernet(ipv4(CLIENT, SERVER, ICMP, icmp(8, ident=1, rest=b"payload"))),
    "ICMPv6": ethernet(ipv6(CLIENT6, SERVER6, ICMPV6, icmp(128, ident=1, rest=b"payload"))),
    "SCTP": ethernet(ipv4(CLIENT, SERVER, SCTP, struct.pack("!HHII", 1, 2, 3, 4) + bytes(16))),
    "DCCP": ethernet(ipv4(CLIENT, SERVER, DCCP, struct.pack("!HHBBHI", 1, 2, 4, 0, 0, 1) + bytes(8))),
    "IPv4 options": ethernet(ipv4(CLIENT, SERVER, UDP, udp(CLIENT, SERVER, 1, 2), options=bytes(12))),
    "QinQ and PPPoE": ethernet(
        pppoe(ipv4(CLIENT, SERVER, UDP, udp(CLIENT, SERVER, 1, 2))), 0x8864, tags=(0x88A8, 0x8100)
    ),
    "extension headers": ethernet(
        ipv6(CLIENT6, SERVER6, HOPOPTS, extension(ROUTING) + extension(DSTOPTS, 2) + extension(UDP)
             + udp(CLIENT6, SERVER6, 1, 2))
    ),
    "another protocol": ethernet(ipv4(CLIENT, SERVER, 99, b"payload")),
}  # fmt: skip


@pytest.fixture(scope="module")
def on_a_wire():
    """The programs as they run on interfaces, where what is announced must be there."""
    made = compile_datapath(BuildOptions(max_entries=1000))
    made.apply(Tracking())
    yield made
    made.close()


@pytest.fixture
def wire(on_a_wire) -> Table:
    made = Table(on_a_wire)
    made.clear()
    made.now = on_a_wire.clock.now() - on_a_wire.clock.tick
    return made


@pytest.mark.parametrize("program", ["tc_ingress", "tc_egress", "xdp_ingress"])
@pytest.mark.parametrize("name", FRAMES)
def test_cut_at_every_length(wire, name, program):
    """Only the whole frame makes an entry. A test run of tc takes none whose IP header is cut."""
    frame = FRAMES[name]
    shortest = 14 if program == "xdp_ingress" else {b"\x08\x00": 34, b"\x86\xdd": 54}.get(frame[12:14], 15)
    for size in range(shortest, len(frame)):
        before = wire.counted()
        wire.see(frame[:size], program)
        grown = {k: v - before.get(k, 0) for k, v in wire.counted().items() if v != before.get(k, 0)}
        grown.pop("OFFERED_BYTES", None)
        grown.pop("UNTRACKED_BYTES", None)
        assert not wire.live(), f"{size} of {len(frame)} bytes made an entry"
        assert grown.pop("OFFERED_PACKETS") == 1
        assert list(grown.values()) == [1]
        assert set(grown) <= {"CUT_LINK", "CUT_IP", "MALFORMED_EXTENSION"}, f"{size} bytes"
    wire.see(frame, program)
    assert len(wire.live()) == 1
    wire.check_conservation()


def ip_only(packet: bytes) -> bytes:
    """The packet in a frame, padded so that only its own lengths are wrong."""
    return ethernet(packet) + bytes(100)


WRONG = {
    "IPv4 with version 5": (ethernet(b"\x55" + ipv4(CLIENT, SERVER, UDP, bytes(8))[1:], 0x0800), "MALFORMED_IP"),
    "IPv4 header of 16 bytes": (ethernet(b"\x44" + ipv4(CLIENT, SERVER, UDP, bytes(8))[1:]), "MALFORMED_IP"),
    "IPv4 length below its header": (ip_only(ipv4(CLIENT, SERVER, UDP, bytes(8), length=19)), "MALFORMED_IP"),
    "IPv4 length zero": (ip_only(ipv4(CLIENT, SERVER, UDP, bytes(8), length=0)), "MALFORMED_IP"),
    "IPv4 length beyond the frame": (ethernet(ipv4(CLIENT, SERVER, UDP, bytes(8), length=29)), "CUT_IP"),
    "IPv6 with version 4": (ethernet(b"\x40" + ipv6(CLIENT6, SERVER6, UDP, bytes(8))[1:], 0x86DD), "MALFORMED_IP"),
    "IPv6 length beyond the frame": (ethernet(ipv6(CLIENT6, SERVER6, UDP, bytes(8), length=9)), "CUT_IP"),
    "IPv6 length zero": (ip_only(ipv6(CLIENT6, SERVER6, UDP, bytes(8), length=0)), "CUT_TRANSPORT"),
    "nine extension headers": (
        ethernet(ipv6(CLIENT6, SERVER6, DSTOPTS, extension(DSTOPTS) * 8 + extension(UDP) + bytes(8))),
        "MALFORMED_EXTENSION",
    ),
    "extension longer than the packet": (
        ip_only(ipv6(CLIENT6, SERVER6, DSTOPTS, bytes((UDP, 4)) + bytes(14))), "MALFORMED_EXTENSION"
    ),
    "extensions longer than headers go": (
        ethernet(ipv6(CLIENT6, SERVER6, DSTOPTS, extension(UDP, 130) + bytes(8))), "MALFORMED_EXTENSION"
    ),
    "TCP header cut by the IP length": (
        ip_only(ipv4(CLIENT, SERVER, TCP, tcp(CLIENT, SERVER, 1, 2, SYN), length=39)), "CUT_TRANSPORT"
    ),
    "TCP header of 16 bytes": (
        ethernet(ipv4(CLIENT, SERVER, TCP, tcp(CLIENT, SERVER, 1, 2, SYN, words=4))), "MALFORMED_TRANSPORT"
    ),
    "TCP header longer than the packet": (
        ip_only(ipv4(CLIENT, SERVER, TCP, tcp(CLIENT, SERVER, 1, 2, SYN, words=6))), "CUT_TRANSPORT"
    ),
    "UDP length below its header": (
        ethernet(ipv4(CLIENT, SERVER, UDP, udp(CLIENT, SERVER, 1, 2, b"x", length=7))), "MALFORMED_TRANSPORT"
    ),
    "UDP length beyond the packet": (
        ip_only(ipv4(CLIENT, SERVER, UDP, udp(CLIENT, SERVER, 1, 2, b"x", length=10))), "MALFORMED_TRANSPORT"
    ),
    "UDP header cut by the IP length": (
        ip_only(ipv4(CLIENT, SERVER, UDP, udp(CLIENT, SERVER, 1, 2), length=27)), "CUT_TRANSPORT"
    ),
    "UDP-Lite coverage below its header": (
        ethernet(ipv4(CLIENT, SERVER, UDPLITE, udp(CLIENT, SERVER, 1, 2, b"x", length=7))), "MALFORMED_TRANSPORT"
    ),
    "UDP-Lite coverage beyond the packet": (
        ethernet(ipv4(CLIENT, SERVER, UDPLITE, udp(CLIENT, SERVER, 1, 2, b"x", length=10))), "MALFORMED_TRANSPORT"
    ),
    "ICMP cut by the IP length": (ip_only(ipv4(CLIENT, SERVER, ICMP, icmp(8), length=27)), "CUT_TRANSPORT"),
    "a later fragment": (ethernet(ipv4(CLIENT, SERVER, UDP, bytes(64), fragment=0x2001)), "FRAGMENT"),
    "a last fragment": (ethernet(ipv4(CLIENT, SERVER, UDP, bytes(64), fragment=0x0001)), "FRAGMENT"),
}  # fmt: skip


@pytest.mark.parametrize("program", ["tc_ingress", "xdp_ingress"])
@pytest.mark.parametrize("name", WRONG)
def test_wrong_lengths_and_versions(wire, name, program):
    frame, reason = WRONG[name]
    wire.see(frame, program)
    assert not wire.live()
    assert wire.untracked() == {reason: 1}
    wire.check_conservation()


@pytest.mark.parametrize("flags", range(64))
def test_only_sensible_tcp_flags_pass(wire, flags):
    sensible = {SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG}
    wire.see(ethernet(ip(CLIENT, SERVER, TCP, tcp(CLIENT, SERVER, 1, 2, flags))))
    malformed = wire.untracked().get("MALFORMED_TRANSPORT", 0)
    assert malformed == ((flags & ~PSH) not in sensible)
    wire.check_conservation()


@pytest.mark.parametrize(
    "options",
    [bytes((3, 0)), bytes((3, 255)), bytes((5,)), bytes((5, 34)) + bytes(10), b"\xff" * 40, bytes((1,) * 39 + (3,)),
     bytes((4, 2)) * 20, bytes((5, 10)) * 20],
)  # fmt: skip
def test_silly_tcp_options_harm_nothing(wire, options):
    for flags in (SYN, ACK):
        wire.see(ethernet(ip(CLIENT, SERVER, TCP, tcp(CLIENT, SERVER, 1, 2, flags, options=options[:40]))))
    assert len(wire.live()) == 1
    wire.check_conservation()
