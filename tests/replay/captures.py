"""Captures made byte by byte: frames, link headers, pcap and pcapng in every byte order."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, replace
from itertools import pairwise

SECOND = 1_000_000_000
NOON = 1_700_000_000 * SECOND

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10

IPV4, IPV6, VLAN, ARP = 0x0800, 0x86DD, 0x8100, 0x0806


@dataclass(frozen=True)
class Packet:
    """`data` is what was captured, `wire` the length on the wire (None: the same)."""

    time: int
    data: bytes
    wire: int | None = None

    @property
    def length(self) -> int:
        return len(self.data) if self.wire is None else self.wire

    def cut(self, length: int) -> Packet:
        """As with a snap length."""
        return replace(self, data=self.data[:length], wire=self.length)

    def at(self, seconds: float) -> Packet:
        return replace(self, time=NOON + round(seconds * SECOND))


def at(seconds: float, frame: bytes) -> Packet:
    return Packet(NOON + round(seconds * SECOND), frame)


def ethernet(packet: bytes, ethertype: int | None = None) -> bytes:
    ethertype = ethertype or (IPV4 if packet[0] >> 4 == 4 else IPV6)
    return b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02" + struct.pack("!H", ethertype) + packet


def vlan(frame: bytes, tag: int = 5) -> bytes:
    return frame[:12] + struct.pack("!HH", VLAN, tag) + frame[12:]


def ip(protocol: int, source: str, destination: str, payload: bytes) -> bytes:
    if ":" in source:
        addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + addresses + payload
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + addresses + payload


def udp(source: str, sport: int, destination: str, dport: int, size: int = 0) -> bytes:
    """A frame with `size` bytes of UDP payload: 28 more in layer 3 with IPv4, 48 with IPv6."""
    return ethernet(ip(17, source, destination, struct.pack("!HHHH", sport, dport, 8 + size, 0) + bytes(size)))


def ping(source: str, destination: str, number: int, kind: int = 8) -> bytes:
    """84 bytes in layer 3."""
    return ethernet(ip(1, source, destination, struct.pack("!BBHHH", kind, 0, 0, number, 1) + bytes(56)))


class Tcp:
    """Both ends of a TCP connection, as frames. Headers are 40 bytes with IPv4, 60 with IPv6."""

    def __init__(self, client: str = "10.0.0.1", sport: int = 40000, server: str = "10.0.0.2", dport: int = 80):
        self.ends = ((client, sport), (server, dport))
        self.next = [1000, 5000]

    def frame(self, side: int, flags: int, size: int = 0) -> bytes:
        """From `side`: 0 the client, 1 the server."""
        (source, sport), (destination, dport) = self.ends[side], self.ends[1 - side]
        ack = self.next[1 - side] if flags & ACK else 0
        header = struct.pack("!HHIIBBHHH", sport, dport, self.next[side], ack, 5 << 4, flags, 65535, 0, 0)
        self.next[side] += size + bool(flags & (SYN | FIN))
        return ethernet(ip(6, source, destination, header + bytes(size)))

    def open(self, time: float) -> list[Packet]:
        """Client: 2 packets, server: 1."""
        return [
            at(time, self.frame(0, SYN)),
            at(time + 0.001, self.frame(1, SYN | ACK)),
            at(time + 0.002, self.frame(0, ACK)),
        ]

    def ask(self, time: float, question: int, answer: int) -> list[Packet]:
        """Client: 2 packets, server: 1."""
        return [
            at(time, self.frame(0, PSH | ACK, question)),
            at(time + 0.001, self.frame(1, PSH | ACK, answer)),
            at(time + 0.002, self.frame(0, ACK)),
        ]

    def close(self, time: float) -> list[Packet]:
        """Client: 2 packets, server: 1. Leaves it in time-wait."""
        return [
            at(time, self.frame(0, FIN | ACK)),
            at(time + 0.001, self.frame(1, FIN | ACK)),
            at(time + 0.002, self.frame(0, ACK)),
        ]


def pcap(packets: list[Packet], order: str = "<", nano: bool = False, link: int = 1, version: int = 4) -> bytes:
    unit = 1 if nano else 1000
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    parts = [struct.pack(order + "IHHiIII", magic, 2, version, 0, 0, 262144, link)]
    for p in packets:
        seconds, rest = divmod(p.time, SECOND)
        parts += [struct.pack(order + "IIII", seconds, rest // unit, len(p.data), p.length), p.data]
    return b"".join(parts)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length


def options(given: dict[int, bytes], order: str = "<") -> bytes:
    parts = [
        struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4) for code, value in given.items()
    ]
    return b"".join(parts) + (bytes(4) if given else b"")


def section(order: str = "<", length: int = -1) -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, length), order)


def interface(order: str = "<", link: int = 1, snap: int = 0, given: dict[int, bytes] | None = None) -> bytes:
    return block(1, struct.pack(order + "HHI", link, 0, snap) + options(given or {}, order), order)


def enhanced(p: Packet, order: str = "<", number: int = 0, ticks: int | None = None) -> bytes:
    """`ticks`: the time stamp in the interface's unit (None: microseconds)."""
    ticks = p.time // 1000 if ticks is None else ticks
    fixed = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(p.data), p.length)
    comment = options({1: b"a comment"}, order)
    return block(6, fixed + p.data + bytes(-len(p.data) % 4) + comment, order)


def obsolete(p: Packet, order: str = "<") -> bytes:
    ticks = p.time // 1000
    fixed = struct.pack(order + "HHIIII", 0, 7, ticks >> 32, ticks & 0xFFFFFFFF, len(p.data), p.length)
    return block(2, fixed + p.data, order)


def simple(p: Packet, order: str = "<") -> bytes:
    return block(3, struct.pack(order + "I", p.length) + p.data, order)


def pcapng(packets: list[Packet], order: str = "<", link: int = 1) -> bytes:
    return section(order) + interface(order, link) + b"".join(enhanced(p, order) for p in packets)


def on_link(p: Packet, link: int) -> Packet:
    """An Ethernet frame as it looks in a capture of another link type."""
    ethertype, rest = p.data[12:14], p.data[14:]
    version6 = ethertype == b"\x86\xdd"
    match link:
        case 1:
            data = p.data
        case 12 | 14 | 101 | 228 | 229:
            data = rest
        case 113:
            data = struct.pack("!HHH8s", 4, 1, 6, b"\x02\0\0\0\0\x01") + ethertype + rest
        case 276:
            data = ethertype + struct.pack("!HIHBB8s", 0, 2, 1, 4, 6, b"\x02\0\0\0\0\x01") + rest
        case 0:
            data = struct.pack("<I", 30 if version6 else 2) + rest
        case 108:
            data = struct.pack("!I", 24 if version6 else 2) + rest
    return replace(p, data=data, wire=p.length - len(p.data) + len(data))


def in_order(*parts: list[Packet]) -> list[Packet]:
    packets = sorted((p for part in parts for p in part), key=lambda p: p.time)
    assert all(a.time <= b.time for a, b in pairwise(packets))
    return packets


def office() -> list[Packet]:
    """Some traffic of every kind within a second and a half; all of it is alive at the end."""
    web, web6 = Tcp(), Tcp("2001:db8::1", 50000, "2001:db8::2", 443)
    return in_order(
        web.open(0) + web.ask(0.1, 100, 1000) + web.ask(0.2, 200, 3),
        web6.open(0.3) + web6.ask(0.4, 10, 1400) + web6.close(1.2),
        [at(0.5, udp("10.0.0.1", 5353, "10.0.0.9", 53, 30)), at(0.51, udp("10.0.0.9", 53, "10.0.0.1", 5353, 90))],
        [at(0.6, ping("10.0.0.9", "10.0.0.1", 7)), at(0.61, ping("10.0.0.1", "10.0.0.9", 7, 0))],
        [at(0.7, udp("2001:db8::5", 1000, "2001:db8::6", 2000, 1))],
        [at(1.5, ethernet(ip(89, "10.0.0.1", "224.0.0.5", bytes(44))))],
    )
