"""Frames of every shape: valid ones in plausible order, and the same mutated. Checksums stay 0: nobody reads them."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SECOND = 10**9
# Two on either side of the router that judges the model (judge.py).
HOSTS = {4: [bytes((10, 0, 0, n)) for n in (2, 3, 130, 131)],
         6: [struct.pack("!IH9xB", 0x20010DB8, side, n) for side in (1, 2) for n in (2, 3)]}  # fmt: skip
PORTS = (1, 21, 53, 69, 80, 1000, 1001, 5060, 0x00FF, 0xFF00, 65535)
EDGES = (0, 1, 2, 0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, 0x80000000)
WAITS = (0,) * 40 + (1_000_000, 4_000_000, 500_000_000, SECOND, 3 * SECOND, 11 * SECOND, 40 * SECOND, 70 * SECOND)
WAITS += (200 * SECOND, 400 * SECOND, 2 * 86_400 * SECOND)
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32

Dice = random.Random


@dataclass(frozen=True)
class Step:
    """A frame, what time passed before it (ns), and into how many packets of what payload it is cut on the wire."""

    frame: bytes
    wait: int = 0
    gso_size: int = 0
    segments: int = 0


def ipv4(source: bytes, destination: bytes, protocol: int, payload: bytes, *, fragment: int = 0, ident: int = 0,
         options: bytes = b"") -> bytes:  # fmt: skip
    header = 20 + len(options)
    return struct.pack(
        "!BBHHHBBH4s4s", 0x40 | header // 4, 0, header + len(payload), ident, fragment, 64, protocol, 0, source,
        destination,
    ) + options + payload  # fmt: skip


def ipv6(source: bytes, destination: bytes, following: int, payload: bytes) -> bytes:
    return struct.pack("!IHBB16s16s", 6 << 28, len(payload), following, 64, source, destination) + payload


def ethernet(payload: bytes) -> bytes:
    return bytes(12) + (b"\x08\x00" if payload[0] >> 4 == 4 else b"\x86\xdd") + payload


def ip(source: bytes, destination: bytes, protocol: int, payload: bytes) -> bytes:
    return (ipv4 if len(source) == 4 else ipv6)(source, destination, protocol, payload)


def ends(dice: Dice, family: int) -> tuple[bytes, bytes]:
    source, destination = dice.choice(HOSTS[family]), dice.choice(HOSTS[family])
    if dice.random() < 0.05:
        source = dice.randbytes(len(source))
    return source, destination


def a_family(dice: Dice) -> int:
    return 6 if dice.random() < 0.4 else 4


class Talk:
    """Two ends of TCP that mostly keep to the protocol; numbers near the edges of windows are common."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.hosts = ends(dice, a_family(dice))
        self.ports = (dice.choice(PORTS), dice.choice(PORTS))
        self.next = [dice.choice((*EDGES, dice.getrandbits(32))) for _ in range(2)]
        self.sack = dice.random() < 0.5
        self.script = dice.choice((
            "", "s", "sS", "sSa", "sSa", "sSa", "sSaDd", "sSaDdfF", "sSaf", "sSaDdfFa", "sSafAFa", "y", "sSadDfAFas",
            "sSarsS", "sSRs", "ssSSa", "sAr", "sys",
        ))  # fmt: skip
        self.told = 0

    def step(self) -> Step:
        dice = self.dice
        if self.told < len(self.script):
            kind = self.script[self.told]
            self.told += 1
        else:
            kind = dice.choice("aAaADdDdfFrRsSkKxXtToOcC")
        me = int(kind.isupper())
        if kind == "y":
            me = dice.randrange(2)
        seq, ack, flags, payload, options = self.next[me], self.next[1 - me], ACK, b"", b""
        window = dice.choice((0, 1, 100, 1000, 65_535, 65_535))
        match kind.lower():
            case "s" | "y":
                flags = SYN | ACK if kind == "S" else SYN
                if dice.random() < 0.7:
                    options += bytes((1, 3, 3, dice.choice((0, 3, 14, 200))))
                if self.sack:
                    options += bytes((4, 2, 1, 1))
                self.next[me] = seq + 1 & 0xFFFFFFFF
                if dice.random() < 0.2:
                    self.next[me] = dice.choice((seq, dice.getrandbits(32)))
            case "d":
                flags |= PSH
                payload = bytes(dice.choice((1, 10, 100, 700)))
                self.next[me] = seq + len(payload) & 0xFFFFFFFF
            case "f":
                flags |= FIN
                self.next[me] = seq + 1 & 0xFFFFFFFF
            case "r":
                flags = RST | dice.choice((0, ACK))
                seq = dice.choice((seq, seq, 0, seq + 1 & 0xFFFFFFFF, seq - 1 & 0xFFFFFFFF))
                ack = dice.choice((ack, ack, 0))
            case "k":
                left = ack + dice.choice((1, 1000)) & 0xFFFFFFFF
                right = left + dice.choice((0, 1, 1000)) & 0xFFFFFFFF
                options = bytes((1, 1, 5, 10)) + struct.pack("!II", left, right)
            case "x":
                flags = dice.randrange(256)
            case "t":
                seq = seq - dice.choice((0, 1, 10, 1000, 70_000)) & 0xFFFFFFFF
                payload = bytes(dice.choice((0, 1, 10)))
            case "o":
                seq = seq + dice.choice((-70_000, -66_000, -1, 1, 99, 1000, 65_535, 65_536, 2**31)) & 0xFFFFFFFF
                ack = ack + dice.choice((-70_000, -66_001, -66_000, -65_999, -1, 0, 0, 1, 2**31)) & 0xFFFFFFFF
            case "c":  # a challenge: an ACK of something else
                ack = dice.choice((ack, dice.getrandbits(32)))
        roll = dice.random()
        if roll < 0.05:
            options = bytes(dice.choices((0, 1, 2, 3, 4, 5, 10, 255), k=dice.choice((4, 12, 40))))
        elif roll < 0.3:
            options = b"\x01\x01\x08\x0a" + bytes(8) + options
        options = options[:40] + bytes(-len(options[:40]) % 4)
        segment = struct.pack(
            "!HHIIBBHHH",
            self.ports[me],
            self.ports[1 - me],
            seq,
            ack,
            (5 + len(options) // 4) << 4,
            flags,
            window,
            0,
            0,
        )
        packet = ip(self.hosts[me], self.hosts[1 - me], 6, segment + options + payload)
        frame = ethernet(packet)
        if len(payload) > 100 and dice.random() < 0.3:
            return Step(frame, 0, 100, dice.choice((0, 7)))
        return Step(frame)


def tcp(dice: Dice) -> Iterator[Step]:
    talks = [Talk(dice) for _ in range(12)]
    while True:
        place = dice.randrange(len(talks))
        if dice.random() < 0.06:
            talks[place] = Talk(dice)
        yield talks[place].step()


def udp(dice: Dice) -> Iterator[Step]:
    while True:
        source, destination = ends(dice, a_family(dice))
        size = dice.choice((0, 1, 10, 500))
        datagram = struct.pack("!HHHH", dice.choice(PORTS), dice.choice(PORTS), 8 + size, 0) + bytes(size)
        if size == 500 and dice.random() < 0.3:
            yield Step(ethernet(ip(source, destination, 17, datagram)), 0, 100, dice.choice((0, 5)))
        yield Step(ethernet(ip(source, destination, 17, datagram)))


def icmp(dice: Dice) -> Iterator[Step]:
    while True:
        source, destination = ends(dice, 4)
        kind = dice.choice((8, 8, 0, 0, 13, 14, 15, 16, 17, 18, 9, 10, dice.randrange(256)))
        message = struct.pack("!BBHHH", kind, dice.choice((0, 0, 0, 1)), 0, dice.choice((1, 2)), 0)
        yield Step(ethernet(ipv4(source, destination, 1, message + bytes(dice.choice((0, 8, 56))))))


def icmpv6(dice: Dice) -> Iterator[Step]:
    while True:
        source, destination = ends(dice, 6)
        kind = dice.choice((128, 128, 129, 129, 139, 140, 133, 135, 136, 143, 130, dice.randrange(256)))
        message = struct.pack("!BBHHH", kind, dice.choice((0, 0, 0, 1)), 0, dice.choice((1, 2)), 0)
        yield Step(ethernet(ipv6(source, destination, 58, message + bytes(dice.choice((0, 8, 56))))))


def gre(dice: Dice) -> Iterator[Step]:
    while True:
        source, destination = ends(dice, a_family(dice))
        flags = dice.choice(
            (0, 0x2000, 0x2000, 0xA000, 0x6000, 0xB000, 0x3001, 0x3081, 0x3001, 2, dice.getrandbits(16))
        )
        protocol = 0x880B if flags & 7 == 1 and dice.random() < 0.9 else dice.choice((0x0800, 0x6558))
        rest = struct.pack("!HHHH", dice.choice((1, 2)), dice.choice((1, 2)), dice.choice((1, 2)), dice.choice((1, 2)))
        yield Step(
            ethernet(
                ip(source, destination, 47, struct.pack("!HH", flags, protocol) + rest[: dice.choice((0, 4, 8, 8))])
            )
        )


def others(dice: Dice) -> Iterator[Step]:
    """SCTP, DCCP, UDP-Lite, and protocols without ports."""
    while True:
        source, destination = ends(dice, a_family(dice))
        protocol = dice.choice((132, 132, 33, 33, 136, 136, 136, 50, 59, 99, 4, 41, 89, 255, dice.randrange(256)))
        size = dice.choice((0, 4, 8, 12, 20))
        ports = (dice.choice(PORTS), dice.choice(PORTS))
        body = struct.pack("!HHHH", *ports, dice.choice((0, 8, 8 + size, 7, 100)), 0) + bytes(size)
        yield Step(ethernet(ip(source, destination, protocol, body)))


def plain(dice: Dice) -> bytes:
    """An IP packet of any protocol."""
    return next(dice.choice((tcp, udp, icmp, icmpv6, gre, others))(dice)).frame[14:]


def errors(dice: Dice) -> Iterator[Step]:
    """ICMP errors about packets that were just seen, or were not."""
    seen = [plain(dice) for _ in range(30)]
    while True:
        packet = dice.choice(seen)
        if dice.random() < 0.3:
            yield Step(ethernet(packet))
            continue
        if dice.random() < 0.1:
            seen[dice.randrange(len(seen))] = plain(dice)
        v4 = packet[0] >> 4 == 4
        back = packet[12:16] if v4 else packet[8:24]
        if dice.random() < 0.1:
            back = dice.choice(HOSTS[4 if v4 else 6])
        kind = dice.choice((3, 4, 5, 11, 12) if v4 else (1, 2, 3, 4, 100, 127))
        quoted = packet[: dice.choice((None, None, 28, 48, 27, 20, 40, dice.randrange(100)))]
        if dice.random() < 0.1 and quoted:
            quoted = mutated(dice, quoted)
        message = struct.pack("!BBHI", kind, 0, 0, 0) + quoted
        yield Step(ethernet(ip(dice.choice(HOSTS[4 if v4 else 6]), back, 1 if v4 else 58, message)))


def fragments(dice: Dice) -> Iterator[Step]:
    """Packets in pieces, in any order, some of them missing or twice."""
    while True:
        pieces = []
        for _ in range(dice.choice((1, 2, 4))):
            packet = plain(dice)
            v4 = packet[0] >> 4 == 4
            header = 20 if v4 else 40
            protocol, body = packet[9] if v4 else packet[6], packet[header:] + bytes(dice.choice((16, 64)))
            source, destination = (packet[12:16], packet[16:20]) if v4 else (packet[8:24], packet[24:40])
            size = dice.choice((8, 16, 24, 64))
            ident = dice.randrange(8)
            for at in range(0, len(body), size):
                part, more = body[at : at + size], at + size < len(body)
                if v4:
                    offset = at // 8 | (0x2000 if more else 0)
                    whole = ipv4(source, destination, protocol, part, fragment=offset, ident=ident)
                else:
                    whole = ipv6(source, destination, 44, struct.pack("!BBHI", protocol, 0, at | more, ident) + part)
                pieces += [ethernet(whole)] * dice.choice((0, 1, 1, 1, 1, 1, 1, 2))
        if dice.random() < 0.5:
            dice.shuffle(pieces)
        yield from map(Step, pieces)


def tagged(dice: Dice) -> Iterator[Step]:
    """Behind VLAN tags and in PPPoE sessions."""
    while True:
        packet = plain(dice)
        kind = packet_type = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
        if dice.random() < 0.4:
            ppp = b"\x00\x21" if packet_type == b"\x08\x00" else b"\x00\x57"
            packet = struct.pack("!BBHH", 0x11, dice.choice((0,) * 9 + (9,)), 7, len(packet) + 2) + ppp + packet
            kind = b"\x88\x64"
        head = bytes(12)
        for _ in range(dice.choice((0, 1, 1, 2, 3, 4))):
            head += dice.choice((b"\x81\x00", b"\x88\xa8")) + struct.pack("!H", dice.randrange(4096))
        yield Step(head + kind + packet)


def extensions(dice: Dice) -> Iterator[Step]:
    """IPv6 extension headers, and IPv4 options."""
    while True:
        packet = plain(dice)
        if packet[0] >> 4 == 4:
            options = bytes(dice.choice((4, 8, 40)))
            yield Step(ethernet(ipv4(packet[12:16], packet[16:20], packet[9], packet[20:], options=options)))
            continue
        following, body = packet[6], packet[40:]
        for _ in range(dice.choice((0, 1, 1, 2, 3, 7, 8, 9))):
            kind = dice.choice((0, 43, 60, 51, 60, 44))
            if kind == 44:
                body = struct.pack("!BBHI", following, 0, dice.choice((0, 0, 0, 1, 8)), 7) + body
            else:
                words = dice.choice((0, 0, 1, 4, 30))
                body = struct.pack("!BB", following, words) + bytes(6 + words * (4 if kind == 51 else 8)) + body
            following = kind
        yield Step(ethernet(ipv6(packet[8:24], packet[24:40], following, body)))


SHAPES: dict[str, Callable[[Dice], Iterator[Step]]] = {
    "tcp": tcp, "udp": udp, "icmp": icmp, "icmpv6": icmpv6, "gre": gre, "others": others, "errors": errors,
    "fragments": fragments, "tagged": tagged, "extensions": extensions,
}  # fmt: skip


def mutated(dice: Dice, frame: bytes) -> bytes:
    """A few bytes changed, or cut, or lengthened. Headers more often than what follows them."""
    kind = dice.random()
    if kind < 0.15:
        return frame[: max(15, dice.randrange(len(frame) + 1))]
    if kind < 0.2:
        return frame + bytes(dice.randrange(1, 40))
    text = bytearray(frame)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        place = dice.randrange(min(len(text), dice.choice((20, 60, 60, 100, 2000))))
        text[place] = dice.choice((0, 1, 255, text[place] ^ 1 << dice.randrange(8), dice.randrange(256)))
    return bytes(text)


def steps(dice: Dice, shape: str, number: int, *, clock: bool, share: float = 0.25) -> list[Step]:
    """So many frames of a shape, a `share` of them mutated. `clock`: time passes between them."""
    made = []
    source = SHAPES[shape](dice)
    for step in source:
        frame, gso_size, segments = step.frame, step.gso_size, step.segments
        if dice.random() < share:
            frame, gso_size, segments = mutated(dice, frame), 0, 0
        made.append(Step(frame[:2800], dice.choice(WAITS) if clock else 0, gso_size, segments))
        if len(made) == number:
            return made
    raise AssertionError("a shape's frames do not end")
