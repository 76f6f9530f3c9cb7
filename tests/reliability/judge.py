"""The kernel's nf_conntrack as the judge of the reference model: both see the same frames, and say what they know.

What is compared is what docs/differences.md promises: that there is a connection with these ends, what was counted on
it each way, whether it was answered and is assured, its state and timeout.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from datapath.crafted import checksum, udp_frame
from datapath.oracle import TIMEOUTS, Oracle, oracle
from lab.network import wait_for
from parity.machines import TIMEOUTS as OTHER_TIMEOUTS
from parity.tables import of_the_kernel

from ctweb.settings import Tracking
from reliability.frames import HOSTS
from reliability.model import ASSURED_AFTER, SECOND, Connection, Model
from reliability.model_packet import (
    AH,
    DCCP,
    EXTENSIONS,
    FRAGMENT,
    GRE,
    HOPOPTS,
    ICMP,
    ICMPV6,
    SCTP,
    TCP,
    UDP,
    UDPLITE,
    Packet,
    Untracked,
    read,
    read_quoted,
)

START = 10**6 * SECOND
SETTINGS = {
    f"tcp_{ours}_timeout": TIMEOUTS[f"tcp_timeout_{kernels}"] * 1000
    for ours, kernels in {
        "syn_sent": "syn_sent", "syn_received": "syn_recv", "established": "established", "fin_wait": "fin_wait",
        "close_wait": "close_wait", "last_ack": "last_ack", "time_wait": "time_wait", "close": "close",
        "max_retrans": "max_retrans", "unacked": "unacknowledged",
    }.items()
} | {
    f"{ours}_timeout": TIMEOUTS[kernels] * 1000
    for ours, kernels in {
        "udp": "udp_timeout", "udp_stream": "udp_timeout_stream", "icmp": "icmp_timeout", "generic": "generic_timeout",
    }.items()
}  # fmt: skip
STATES = ("none", "syn-sent", "syn-received", "established", "fin-wait", "close-wait", "last-ack", "time-wait", "close",
          "listen")  # fmt: skip
NOTHING = 59  # IPv6's "no next header"
OWN_TIMEOUT = (GRE, SCTP)  # in nf_conntrack; RouterOS has no settings for them
LAST = ("10.0.0.5", 999, "10.0.0.133", 80)  # a frame that says that all before it are through
VERDICTS = """
table inet verdicts {
    counter related { }
    counter alone { }
    chain seen {
        type filter hook prerouting priority 10
        ip saddr != 10.0.0.0/24 accept
        ip6 saddr != 2001:db8::/32 accept
        ct state related counter name related
        ct state { invalid, untracked } counter name alone
    }
}
"""

Name = tuple[object, ...]  # protocol, and source and destination of who began; ports, ICMP's question or PPTP's call


@dataclass(frozen=True)
class Known:
    """What is known of one connection. Pairs are of the original and the reply direction; timeouts in seconds."""

    packets: tuple[int, int]
    bytes: tuple[int, int]
    seen_reply: bool
    assured: bool | None  # None: not promised, of several connections that nf_conntrack takes for one
    state: str = ""  # of TCP
    timeout: int = 0


def is_lan(address: bytes) -> bool:
    """Whether the host is on the client's side of the judge's router."""
    return address in (*HOSTS[4][:2], *HOSTS[6][:2])


def through(source: bytes, destination: bytes) -> bool:
    """Whether a packet between these goes through the judge's router."""
    hosts = HOSTS[4 if len(source) == 4 else 6]
    return source in hosts and destination in hosts and is_lan(source) != is_lan(destination)


def on_the_wire(frame: bytes) -> bytes | None:
    """The frame as a host would send it through the judge's router, if it goes from one side to the other.

    What keeps a packet from nf_conntrack, or it from looking at one, is made right: lengths and checksum of the IP
    header, hop-by-hop options that a router takes, a checksum of UDP-Lite that is not 0.
    """
    size, v4 = len(frame) - 14, frame[12:14] == b"\x08\x00"
    if not (20 if v4 else 40) <= size <= 1500 or frame[14] >> 4 != (4 if v4 else 6):
        return None
    if not (through(frame[26:30], frame[30:34]) if v4 else through(frame[22:38], frame[38:54])):
        return None
    if v4:
        at, protocol = 14 + (frame[14] & 15) * 4, frame[23]
        if not 34 <= at <= len(frame):
            return None
        head = frame[14:16] + struct.pack("!H", size) + frame[18:22] + b"\x40" + frame[23:24] + bytes(2) + frame[26:at]
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    else:
        _, protocol, at = extensions_of(frame)
        head = frame[14:18] + struct.pack("!HBB", size - 40, frame[20], 64) + frame[22:54]
        options = frame[54:at]
        if frame[20] == HOPOPTS and len(options) >= 8:
            end = min(8 + options[1] * 8, len(options))
            options = options[:2] + unknown_options(end - 2) + options[end:]
        head += options
    body = frame[at:]
    if protocol == UDPLITE and len(body) >= 8:
        body = body[:6] + b"\1\1" + body[8:]
    return frame[:14] + head + body


def extensions_of(frame: bytes) -> tuple[list[int], int, int]:
    """Of a frame with IPv6: the kinds of its extension headers, what follows them, and where."""
    kinds, following, at = [], frame[20], 54
    while following in EXTENSIONS and at + 8 <= len(frame):
        kinds.append(following)
        unit = {FRAGMENT: 0, AH: 4}.get(following, 8)
        following, at = frame[at], at + 8 + frame[at + 1] * unit
    return kinds, following, min(at, len(frame))


def unknown_options(size: int) -> bytes:
    """Options of an extension header that a router skips, for it knows none of them."""
    first = size if size < 258 else 128
    return bytes((0x1E, first - 2)) + bytes(first - 2) + (unknown_options(size - first) if size > first else b"")


def same_is_promised(frame: bytes) -> bool:
    """Whether nf_conntrack decides the same of this packet, by docs/differences.md.

    SCTP, IPv6 without a next header, fragments, and headers that end too early are other tests' matter.
    """
    packet, quoted = Packet(), Packet()
    v4 = frame[14] >> 4 == 4
    if (frame[20] & 0x3F or frame[21]) if v4 else FRAGMENT in extensions_of(frame)[0]:
        return False
    try:
        read(frame, packet)
        if packet.error:
            read_quoted(frame, packet, quoted)
    except Untracked as why:
        if str(why) in ("MALFORMED_EXTENSION", "MALFORMED_IP"):
            return False
        if str(why) == "CUT_TRANSPORT":
            return not packet.error and packet.protocol not in (GRE, DCCP, SCTP)
    if packet.error:
        return quoted.protocol not in (GRE, DCCP, SCTP, NOTHING)
    return packet.protocol not in (SCTP, NOTHING)


def fragments_of(frame: bytes, ident: int, size: int) -> list[bytes]:
    """A frame's packet in pieces of so many bytes, the last one smaller."""
    v4 = frame[14] >> 4 == 4
    at = 14 + (frame[14] & 15) * 4 if v4 else 54
    body, pieces = frame[at:], []
    for offset in range(0, len(body), size):
        part, more = body[offset : offset + size], offset + size < len(body)
        if v4:
            head = struct.pack("!HHH", len(part) + at - 14, ident, offset // 8 | more << 13)
            head = frame[14:16] + head + frame[22:24] + bytes(2) + frame[26:at]
            head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        else:
            head = frame[14:18] + struct.pack("!HBB", len(part) + 8, FRAGMENT, 64) + frame[22:54]
            head += struct.pack("!BBHI", frame[20], 0, offset | more, ident)
        pieces.append(frame[:14] + head + part)
    return pieces


@dataclass
class Court:
    """Judge and model, side by side."""

    judge: Oracle
    model: Model
    began: int
    last: int = START  # when the last frame was sent

    @property
    def is_brief(self) -> bool:
        """No UDP can have become assured yet. When it does to the millisecond the two need not agree about."""
        return self.last < START + ASSURED_AFTER - SECOND // 10

    @property
    def now(self) -> int:
        """Datapath time: what has passed for the judge has passed for the model."""
        return START + time.monotonic_ns() - self.began

    def see(self, frame: bytes, *, by_the_model: bytes = b"") -> None:
        """Send a frame from the side that its source is on, and show it, or another one, to the model."""
        self.last = self.now
        self.model.see(by_the_model or frame, self.last)
        self.judge.see(frame, not is_lan(frame[26:30] if frame[14] >> 4 == 4 else frame[22:38]))

    def verdict(self) -> dict[Name, Known]:
        """What the judge knows, after all that was sent."""
        self.judge.see(udp_frame(*LAST))

        last = (UDP, LAST[0], LAST[2], str(LAST[1]), str(LAST[3]))
        found = wait_for("the last frame", lambda: last in (now := of_the_judge(self.judge)) and now)
        del found[last]
        return found

    def alone(self) -> tuple[int, int]:
        """How many packets the judge took for errors about a connection, and how many for none's."""
        text = self.judge.router.run("nft", "list", "counters", "table", "inet", "verdicts")
        words = text.split()
        related, alone = (int(words[at + 1]) for at, word in enumerate(words) if word == "packets")
        return (related, alone) if words.index("related") < words.index("alone") else (alone, related)


@contextmanager
def court(judge: Oracle, **settings: bool) -> Iterator[Court]:
    """An empty table, a new model; frames go one after another, for all are sent by one processor."""
    judge.clear()
    judge.router.run("nft", "reset", "counters", "table", "inet", "verdicts")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield Court(judge, Model(Tracking(**SETTINGS, **settings)), time.monotonic_ns())
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def sitting() -> Iterator[Oracle]:
    """A judge that waits as long for the protocols that RouterOS has no timeouts of, and counts."""
    with oracle() as judge:
        others = [name for name in OTHER_TIMEOUTS if name.startswith(("gre", "sctp"))]
        judge.router.sysctl(**{f"netfilter_nf_conntrack_{name}": 600 for name in others})
        judge.router.sysctl(ipv4_conf__all__rp_filter=0)
        judge.router.run("nft", "-f", "-", input=VERDICTS)
        yield judge


def of_the_judge(judge: Oracle) -> dict[Name, Known]:
    """nf_conntrack's table."""
    found: dict[Name, Known] = {}
    for family in ("ipv4", "ipv6"):
        for line in judge.router.run("conntrack", "-L", "-o", "extended", "-f", family).splitlines():
            one = of_the_kernel(line)
            ends = one.original[:2] if one.protocol == DCCP else one.original  # its ports are shown as 0
            name = (one.protocol, *ends, *([one.call] if one.call else []))
            assert name not in found, line
            found[name] = Known(one.packets, one.bytes, one.seen_reply, one.assured, one.state, int(line.split()[4]))
    return found


def text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def named(key: Name, connection: Connection) -> Name:
    """A connection's name in nf_conntrack's words, which has GRE's keys and DCCP's ports left out."""
    protocol, *ends = key[:5]
    one, other = (ends[:2], ends[2:])
    if connection.swapped:
        one, other = other, one
    hosts = (text(one[0]), text(other[0]))  # type: ignore[arg-type]
    if protocol in (ICMP, ICMPV6):
        question = int(key[4])  # type: ignore[call-overload]
        return (protocol, *hosts, str(question >> 8), str(question & 255), str(key[2]))
    if protocol in (TCP, UDP, UDPLITE, SCTP):
        return (protocol, *hosts, str(one[1]), str(other[1]))
    if key[5:] == ("call",) and other[1]:
        return (protocol, *hosts, str(other[1]))
    return (protocol, *hosts)


def of_the_model(model: Model) -> dict[Name, Known]:
    """The model's table, connections that nf_conntrack does not tell apart added up."""
    found: dict[Name, Known] = {}
    for key, connection in sorted(model.connections.items(), key=lambda item: item[1].created):
        if connection.over:
            continue
        name = named(key, connection)
        known = Known(
            tuple(connection.packets), tuple(connection.sizes), connection.seen_reply, connection.assured,  # type: ignore[arg-type]
            STATES[connection.tcp.state] if connection.tcp else "", round((connection.expires - START) / SECOND),
        )  # fmt: skip
        back = (name[0], name[2], name[1])
        if len(name) == 3 and back in found:
            name, known = back, replace(known, packets=known.packets[::-1], bytes=known.bytes[::-1])
        if name in found:
            before = found[name]
            packets, sizes = (
                (a[0] + b[0], a[1] + b[1]) for a, b in ((before.packets, known.packets), (before.bytes, known.bytes))
            )
            known = Known(packets, sizes, packets[1] > 0, None, "", known.timeout)
        found[name] = known
    return found


def agree(name: Name, mine: Known | None, judged: Known | None, streams: bool) -> bool:
    """Whether the model says of a connection what the judge says, in all that is promised."""
    if mine is None or judged is None:
        return mine is judged
    protocol = name[0]
    # LISTEN's timeout cannot be set in the kernel, a stream's begins later there; some seconds pass while frames go.
    same_timeout = (
        protocol in OWN_TIMEOUT
        or mine.state == "listen"
        or (protocol in (UDP, UDPLITE) and mine.seen_reply)
        or abs(mine.timeout - judged.timeout) < 45
    )
    same_assured = protocol == SCTP or (protocol == UDP and not streams) or mine.assured in (judged.assured, None)
    return same_timeout and same_assured and (mine.packets, mine.bytes, mine.seen_reply, mine.state) == (
        judged.packets, judged.bytes, judged.seen_reply, judged.state
    )  # fmt: skip


def differences(mine: dict[Name, Known], judged: dict[Name, Known], *, streams: bool) -> str:
    """The connections of which both say different things; "" if there are none. `streams`: also of UDP's `assured`."""
    wrong = [name for name in mine.keys() | judged.keys() if not agree(name, mine.get(name), judged.get(name), streams)]
    lines = [f"{name}\n  model:  {mine.get(name)}\n  kernel: {judged.get(name)}" for name in sorted(wrong, key=str)[:6]]
    return "\n".join([f"{len(wrong)} of {len(judged)} differ", *lines]) if wrong else ""


def alone(counters: Counter[str]) -> tuple[int, int]:
    """What the model took for errors about a connection, and what for no connection's, as Court.alone."""
    no_reason = {"OFFERED_PACKETS", "OFFERED_BYTES", "UNTRACKED_BYTES", "CREATED", "IGNORED_TCP", "ICMP_ERROR"}
    ended = {"ENDED_PACKETS", "ENDED_BYTES", "ENDED_REPLY_BYTES", "RESET", "REOPENED", "EXPIRED"}
    return counters["ICMP_ERROR"], sum(n for reason, n in counters.items() if reason not in no_reason | ended)
