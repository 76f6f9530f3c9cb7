"""Frames made by hand: each layer a function of bytes to bytes, lengths and checksums right unless told otherwise."""

from __future__ import annotations

import ipaddress
import struct

FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
ICMP, TCP, UDP, DCCP, GRE, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 47, 58, 132, 136
HOPOPTS, ROUTING, FRAGMENT, AH, DSTOPTS = 0, 43, 44, 51, 60

CLIENT, SERVER = "10.0.0.2", "10.0.0.1"
CLIENT6, SERVER6 = "2001:db8::2", "2001:db8::1"


def address(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(
    payload: bytes, ethertype: int | None = None, *, tags: tuple[int, ...] = (), to: bytes = bytes(6)
) -> bytes:
    """`tags`: ethertypes of VLAN tags, outermost first. The payload's own ethertype is read from its IP version."""
    inner = ethertype if ethertype is not None else {4: 0x0800, 6: 0x86DD}[payload[0] >> 4]
    types = (*tags, inner)
    head = to + bytes(6) + struct.pack("!H", types[0])
    for number, following in enumerate(types[1:], 1):
        head += struct.pack("!HH", number, following)
    return head + payload


def pppoe(payload: bytes) -> bytes:
    """A PPPoE session packet, to stand behind ethertype 0x8864."""
    protocol = {4: 0x0021, 6: 0x0057}[payload[0] >> 4]
    return struct.pack("!BBHHH", 0x11, 0, 7, len(payload) + 2, protocol) + payload


def ipv4(
    source: str, destination: str, protocol: int, payload: bytes, *, options: bytes = b"", fragment: int = 0,
    length: int | None = None, ident: int = 1,
) -> bytes:  # fmt: skip
    """`fragment`: flags and offset as they are on the wire. `length`: a total length that may be wrong."""
    size = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x40 | size // 4, 0, size + len(payload) if length is None else length, ident, fragment, 64,
        protocol, 0, address(source), address(destination),
    )  # fmt: skip
    head += options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(source: str, destination: str, following: int, payload: bytes, *, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return struct.pack("!IHBB", 6 << 28, size, following, 64) + address(source) + address(destination) + payload


def extension(following: int, words: int = 0) -> bytes:
    """Hop-by-hop, routing or destination options of 8 + 8 * words bytes, all padding."""
    return struct.pack("!BB", following, words) + bytes(6 + 8 * words)


def authentication(following: int, words: int = 4) -> bytes:
    """An AH header of 8 + 4 * words bytes."""
    return struct.pack("!BBHII", following, words, 0, 1, 1)[:8] + bytes(4 * words)


def fragment6(following: int, offset: int = 0, more: bool = True, ident: int = 1) -> bytes:
    return struct.pack("!BBHI", following, 0, offset | more, ident)


def _sum_with(source: str, destination: str, protocol: int, segment: bytes) -> int:
    pseudo = address(source) + address(destination) + struct.pack("!IHBB", len(segment), 0, 0, protocol)
    return checksum(pseudo + segment)


def tcp(
    source: str, destination: str, sport: int, dport: int, flags: int, *, seq: int = 0, ack: int = 0,
    window: int = 65_535, options: bytes = b"", payload: bytes = b"", words: int | None = None,
) -> bytes:  # fmt: skip
    """A segment. `options` are padded to words; `words`: a header length that may be wrong."""
    options += bytes(-len(options) % 4)
    size = 5 + len(options) // 4 if words is None else words
    head = struct.pack("!HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, size << 4, flags, window, 0, 0)
    segment = head + options + payload
    return segment[:16] + struct.pack("!H", _sum_with(source, destination, TCP, segment)) + segment[18:]


def udp(
    source: str, destination: str, sport: int, dport: int, payload: bytes = b"", *, length: int | None = None,
    protocol: int = UDP,
) -> bytes:  # fmt: skip
    head = struct.pack("!HHHH", sport, dport, 8 + len(payload) if length is None else length, 0)
    datagram = head + payload
    return datagram[:6] + struct.pack("!H", _sum_with(source, destination, protocol, datagram) or 0xFFFF) + payload


def icmp(
    kind: int, code: int = 0, ident: int = 0, rest: bytes = b"", *, pseudo: tuple[str, str] | None = None
) -> bytes:
    """`pseudo`: source and destination, for an ICMPv6 checksum."""
    message = struct.pack("!BBHHH", kind, code, 0, ident, 1) + rest
    total = _sum_with(*pseudo, ICMPV6, message) if pseudo else checksum(message)
    return message[:2] + struct.pack("!H", total) + message[4:]


def ip(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """IPv4 or IPv6, by the addresses."""
    return (ipv6 if ":" in source else ipv4)(source, destination, protocol, payload)


def tcp_frame(source: str, sport: int, destination: str, dport: int, flags: int, **given) -> bytes:
    return ethernet(ip(source, destination, TCP, tcp(source, destination, sport, dport, flags, **given)))


def udp_frame(source: str, sport: int, destination: str, dport: int, payload: bytes = b"") -> bytes:
    return ethernet(ip(source, destination, UDP, udp(source, destination, sport, dport, payload)))
