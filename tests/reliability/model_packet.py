"""What a frame says, read again in Python: from the RFCs, not from the programs' source.

IEEE 802.1Q and 802.1ad (tags), RFC 2516 (PPPoE), 791 and 8200 (IP), 9293 (TCP), 768 and 3828 (UDP), 792 and 4443
(ICMP), 2784, 2890 and 2637 (GRE), 9260 (SCTP), 4340 (DCCP). What is promised beyond them stands in docs/differences.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

ICMP, TCP, UDP, DCCP, GRE, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 47, 58, 132, 136
HOPOPTS, ROUTING, FRAGMENT, AH, DSTOPTS = 0, 43, 44, 51, 60
EXTENSIONS = (HOPOPTS, ROUTING, DSTOPTS, AH, FRAGMENT)
FIN, SYN, RST, ACK, URG = 0x01, 0x02, 0x04, 0x10, 0x20
TAGS_MAX, EXTENSIONS_MAX, HEADERS_MAX = 3, 8, 1024
VALID_FLAGS = {  # PSH, ECE and CWR aside
    SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG,
}  # fmt: skip
QUESTION_OF = {  # ICMP answers, by family
    4: {0: 8, 14: 13, 16: 15, 18: 17},
    6: {129: 128, 140: 139},
}
QUESTIONS = {4: (8, 13, 15, 17), 6: (128, 139)}
ERRORS = {4: (3, 4, 5, 11, 12), 6: range(128)}
NEIGHBOUR = (130, 131, 132, 133, 134, 135, 136, 137, 143)

Key = tuple[object, ...]


class Untracked(Exception):
    """The packet belongs to no connection, for this reason (enum counter, without COUNT_)."""


class NotIP(Exception):
    """Not counted at all."""


@dataclass
class Packet:
    """What tracking needs to know of one packet."""

    size: int = 0  # layer-3 bytes, as far as the header could be read
    family: int = 4
    source: bytes = b""
    destination: bytes = b""
    protocol: int = 0
    key: Key = ()
    from_hi: bool = False  # sent by the larger end
    starts: bool = True
    datagram: Key | None = None  # a fragment of this one
    headers: int = 0  # bytes of IP and transport headers
    flags: int = 0
    seq: int = 0
    ack: int = 0
    end: int = 0
    window: int = 0
    options: bytes = b""
    error: int = 0  # ICMP error: where what it quotes begins,
    quoted: int = 0  # and how much of it there is


def read(frame: bytes, packet: Packet) -> None:
    """Fill `packet` from an Ethernet frame. Raises Untracked or NotIP; the packet's size is right even then."""
    if len(frame) < 14:
        raise NotIP
    kind, at = frame[12] << 8 | frame[13], 14
    for _ in range(TAGS_MAX):
        if kind not in (0x8100, 0x88A8):
            break
        if len(frame) < at + 4:
            raise Untracked("CUT_LINK")
        kind, at = frame[at + 2] << 8 | frame[at + 3], at + 4
    if kind == 0x8864:
        if len(frame) < at + 8:
            raise Untracked("CUT_LINK")
        if frame[at] != 0x11 or frame[at + 1]:
            raise NotIP
        kind = {0x0021: 0x0800, 0x0057: 0x86DD}.get(frame[at + 6] << 8 | frame[at + 7], 0)
        at += 8
    if kind == 0x0800:
        at, payload = _ipv4(frame, at, len(frame) - at, packet)
    elif kind == 0x86DD:
        at, payload = _ipv6(frame, at, len(frame) - at, packet)
    else:
        raise NotIP
    _transport(frame, at, payload, packet)


def read_quoted(frame: bytes, error: Packet, packet: Packet) -> None:
    """What an ICMP error quotes: an IP header and the first 8 bytes behind it. Raises Untracked."""
    start = error.error
    if start > HEADERS_MAX:
        raise Untracked("INVALID_ICMP")
    read_ip = _ipv4 if error.family == 4 else _ipv6
    at, payload = read_ip(frame, start, 65535, packet)
    if at > HEADERS_MAX:
        raise Untracked("INVALID_ICMP")
    protocol = packet.protocol
    if protocol in (TCP, UDP, UDPLITE, SCTP, DCCP):
        if payload < 8 or len(frame) < at + 8:
            raise Untracked("CUT_TRANSPORT")
        _ports(frame, at, packet)
        at += 8
    elif protocol in (ICMP, ICMPV6):
        at = _icmp(frame, at, payload, packet)
        if packet.error:
            raise Untracked("INVALID_ICMP")
    elif protocol == GRE:
        at = _gre(frame, at, payload, packet)
    else:
        _name(packet, 0, 0)
    if at - start > error.quoted:
        raise Untracked("INVALID_ICMP")


def _ipv4(frame: bytes, at: int, room: int, packet: Packet) -> tuple[int, int]:
    """Where the transport header begins, and how many bytes there are from there on by the IP header."""
    if len(frame) < at + 20:
        raise Untracked("CUT_IP")
    first, _, length, ident, fragment, _, protocol = struct.unpack_from("!BBHHHBB", frame, at)
    header = (first & 15) * 4
    if first >> 4 != 4 or header < 20:
        raise Untracked("MALFORMED_IP")
    packet.size = length
    if length < header:
        raise Untracked("MALFORMED_IP")
    if length > room or len(frame) < at + header:
        raise Untracked("CUT_IP")
    packet.family, packet.protocol, packet.headers = 4, protocol, header
    packet.source, packet.destination = frame[at + 12 : at + 16], frame[at + 16 : at + 20]
    if fragment & 0x3FFF:
        packet.datagram = (packet.source, packet.destination, ident, protocol)
        if fragment & 0x1FFF:
            raise Untracked("FRAGMENT")
    return at + header, length - header


def _ipv6(frame: bytes, at: int, room: int, packet: Packet) -> tuple[int, int]:
    if len(frame) < at + 40:
        raise Untracked("CUT_IP")
    if frame[at] >> 4 != 6:
        raise Untracked("MALFORMED_IP")
    payload = frame[at + 4] << 8 | frame[at + 5]
    packet.size = 40 + payload
    if 40 + payload > room:
        raise Untracked("CUT_IP")
    packet.family = 6
    packet.source, packet.destination = frame[at + 8 : at + 24], frame[at + 24 : at + 40]
    following, place = frame[at + 6], at + 40
    for number in range(EXTENSIONS_MAX + 1):
        if following in (TCP, UDP) and not number:
            break
        if place > HEADERS_MAX:
            raise Untracked("MALFORMED_EXTENSION")
        if following not in EXTENSIONS:
            if place - at - 40 > payload:
                raise Untracked("MALFORMED_EXTENSION")
            break
        if len(frame) < place + 8:
            raise Untracked("MALFORMED_EXTENSION")
        length = 8
        if following == FRAGMENT:
            offset, ident = struct.unpack_from("!HI", frame, place + 2)
            if offset & 0xFFF9:
                packet.datagram = (packet.source, packet.destination, ident, "IPv6")
            if offset & 0xFFF8:
                raise Untracked("FRAGMENT")
        else:
            length += frame[place + 1] * (4 if following == AH else 8)
            if len(frame) < place + length:
                raise Untracked("MALFORMED_EXTENSION")
        following, place = frame[place], place + length
    else:
        raise Untracked("MALFORMED_EXTENSION")
    packet.protocol, packet.headers = following, place - at
    return place, 40 + payload - packet.headers


def _transport(frame: bytes, at: int, payload: int, packet: Packet) -> None:
    if at > HEADERS_MAX:
        raise Untracked("CUT_TRANSPORT")
    protocol = packet.protocol
    if protocol == TCP:
        _tcp(frame, at, payload, packet)
    elif protocol in (UDP, UDPLITE):
        if payload < 8 or len(frame) < at + 8:
            raise Untracked("CUT_TRANSPORT")
        length = frame[at + 4] << 8 | frame[at + 5]
        if packet.datagram is None and (length > payload or (length < 8 and (protocol == UDP or length))):
            raise Untracked("MALFORMED_TRANSPORT")
        packet.headers += 8
        _ports(frame, at, packet)
    elif protocol in (SCTP, DCCP):
        if payload < 12 or len(frame) < at + 12:
            raise Untracked("CUT_TRANSPORT")
        packet.headers += 12
        _ports(frame, at, packet)
    elif protocol in (ICMP, ICMPV6):
        _icmp(frame, at, payload, packet)
    elif protocol == GRE:
        _gre(frame, at, payload, packet)
    else:
        _name(packet, 0, 0)


def _tcp(frame: bytes, at: int, payload: int, packet: Packet) -> None:
    if payload < 20 or len(frame) < at + 20:
        raise Untracked("CUT_TRANSPORT")
    packet.seq, packet.ack, words, flags, packet.window = struct.unpack_from("!IIBBH", frame, at + 4)
    header = (words >> 4) * 4
    if header < 20:
        raise Untracked("MALFORMED_TRANSPORT")
    if header > payload:
        raise Untracked("CUT_TRANSPORT")
    if flags & (FIN | SYN | RST | ACK | URG) not in VALID_FLAGS:
        raise Untracked("MALFORMED_TRANSPORT")
    if len(frame) < at + header:
        raise Untracked("CUT_TRANSPORT")
    packet.flags, packet.options = flags, frame[at + 20 : at + header]
    packet.end = (packet.seq + payload - header + bool(flags & SYN) + bool(flags & FIN)) & 0xFFFFFFFF
    packet.headers += header
    _ports(frame, at, packet)


def _ports(frame: bytes, at: int, packet: Packet) -> None:
    _name(packet, frame[at] << 8 | frame[at + 1], frame[at + 2] << 8 | frame[at + 3])


def _name(packet: Packet, sport: int, dport: int) -> None:
    """Both directions have one key: its smaller end comes first."""
    source, destination = (packet.source, sport), (packet.destination, dport)
    packet.from_hi = source > destination
    ends = (*destination, *source) if packet.from_hi else (*source, *destination)
    packet.key = (packet.protocol, *ends)


def _icmp(frame: bytes, at: int, payload: int, packet: Packet) -> int:
    family = packet.family
    if packet.protocol != (ICMP if family == 4 else ICMPV6):
        raise Untracked("INVALID_ICMP")
    if payload < 8 or len(frame) < at + 8:
        raise Untracked("CUT_TRANSPORT")
    kind, code, _, ident = struct.unpack_from("!BBHH", frame, at)
    asked = QUESTION_OF[family].get(kind)
    if asked is not None:
        packet.key = (packet.protocol, packet.destination, ident, packet.source, asked << 8 | code)
        packet.from_hi, packet.starts = True, False
    elif kind in QUESTIONS[family]:
        packet.key = (packet.protocol, packet.source, ident, packet.destination, kind << 8 | code)
        packet.from_hi = False
    elif kind in ERRORS[family]:
        packet.error, packet.quoted = at + 8, payload - 8
    elif family == 6 and kind in NEIGHBOUR:
        raise Untracked("NEIGHBOUR")
    else:
        raise Untracked("INVALID_ICMP")
    return at + 8


def _gre(frame: bytes, at: int, payload: int, packet: Packet) -> int:
    if payload < 4:
        _name(packet, 0, 0)
        return at
    if len(frame) < at + 4:
        raise Untracked("CUT_TRANSPORT")
    flags, protocol = struct.unpack_from("!HH", frame, at)
    version, at = flags & 7, at + 4
    if version > 1 or (version == 0 and not flags & 0x2000):
        _name(packet, 0, 0)
        return at
    length = 8
    if version == 0 and flags & 0xC000:
        if len(frame) < at + 4:
            raise Untracked("CUT_TRANSPORT")
        length, at = 12, at + 4
    if len(frame) < at + 4 or payload < length:
        raise Untracked("CUT_TRANSPORT")
    upper, lower = struct.unpack_from("!HH", frame, at)
    if version == 0:
        # The key is no end's: it stands in the same order in both directions.
        packet.from_hi = (packet.source, upper) > (packet.destination, lower)
        first, second = sorted((packet.source, packet.destination))
        packet.key = (packet.protocol, first, upper, second, lower, "key")
        return at + 4
    if protocol != 0x880B:
        raise Untracked("MALFORMED_TRANSPORT")
    _name(packet, 0, lower)
    packet.key += ("call",)
    return at + 4
