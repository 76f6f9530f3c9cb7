"""The reference model: the table that a sequence of frames should leave, decided from the same bytes in Python."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ctweb.settings import Tracking
from reliability.model_packet import (
    GRE,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    UDPLITE,
    Key,
    NotIP,
    Packet,
    Untracked,
    read,
    read_quoted,
)
from reliability.model_tcp import ORIGINAL, REPLY, Tcp

SECOND = 10**9
ASSURED_AFTER = 2 * SECOND  # UDP
REASSEMBLY = {4: 30 * SECOND, 6: 60 * SECOND}


@dataclass
class Connection:
    """One entry. Pairs are of the original and the reply direction."""

    swapped: bool  # the one who began is the larger end
    created: int
    expires: int = 0
    packets: list[int] = field(default_factory=lambda: [0, 0])
    sizes: list[int] = field(default_factory=lambda: [0, 0])
    seen_reply: bool = False
    assured: bool = False
    over: bool = False  # by a reset
    tcp: Tcp | None = None

    @property
    def facts(self) -> tuple[object, ...]:
        """What an entry of the kernel must say too; the last one is when it expires."""
        state = self.tcp.state if self.tcp else 0
        return (
            self.swapped, tuple(self.packets), tuple(self.sizes), self.seen_reply, self.assured, state, self.expires
        )  # fmt: skip


@dataclass
class Datagram:
    """A packet that comes in fragments."""

    since: int
    connection: Connection | None = None  # of its first fragment
    key: Key = ()
    from_hi: bool = False
    packets: int = 0  # held: they came before it
    sizes: int = 0


class Model:
    """`see()` frames one after another, then compare `connections` and `counters` (names of enum counter)."""

    def __init__(self, tracking: Tracking) -> None:
        self.tracking = tracking
        self.connections: dict[Key, Connection] = {}
        self.datagrams: dict[Key, Datagram] = {}
        self.counters: Counter[str] = Counter()
        self.path: tuple[object, ...] = ()  # how the last packet was decided
        self.timeouts: dict[object, int] = {
            index: timeout * 1_000_000
            for index, timeout in {
                1: tracking.tcp_syn_sent_timeout,
                2: tracking.tcp_syn_received_timeout,
                3: tracking.tcp_established_timeout,
                4: tracking.tcp_fin_wait_timeout,
                5: tracking.tcp_close_wait_timeout,
                6: tracking.tcp_last_ack_timeout,
                7: tracking.tcp_time_wait_timeout,
                8: tracking.tcp_close_timeout,
                9: tracking.tcp_syn_sent_timeout,
                "retrans": tracking.tcp_max_retrans_timeout,
                "unacked": tracking.tcp_unacked_timeout,
                "udp": tracking.udp_timeout,
                "stream": tracking.udp_stream_timeout,
                "icmp": tracking.icmp_timeout,
                "generic": tracking.generic_timeout,
            }.items()
        }

    def see(self, frame: bytes, now: int, segments: int = 0) -> None:
        """One frame at datapath time `now`. `segments`: how many packets it becomes on the wire; 0: one."""
        packet = Packet()
        counters = self.counters
        try:
            read(frame, packet)
        except NotIP:
            self.path = ("not IP",)
            return
        except Untracked as why:
            counters["OFFERED_PACKETS"] += 1
            counters["OFFERED_BYTES"] += packet.size
            if str(why) == "FRAGMENT":
                self._fragment(packet, now)
            else:
                self._untracked(str(why), 1, packet.size)
            return
        number, size = 1, packet.size
        if segments > 1:
            number, size = segments, size + (segments - 1) * packet.headers
        counters["OFFERED_PACKETS"] += number
        counters["OFFERED_BYTES"] += size
        if packet.error:
            self._untracked(self._about(frame, packet, now), number, size)
        elif self._track(packet, number, size, now) and packet.datagram is not None:
            self._first_fragment(packet, now)

    def _untracked(self, reason: str, number: int, size: int) -> None:
        self.path = (reason,)
        self.counters[reason] += number
        self.counters["UNTRACKED_BYTES"] += size

    def _track(self, packet: Packet, number: int, size: int, now: int) -> bool:
        """Whether the packet counts on a connection."""
        there = self.connections.get(packet.key)
        cause = "EXPIRED"
        if there and not there.over and there.expires > now:
            direction = ORIGINAL if packet.from_hi == there.swapped else REPLY
            old = there.tcp.state if there.tcp else 0
            verdict = self._go_on(there, packet, direction, now)
            self.path = (
                packet.protocol, direction, packet.flags & 0x37, old, verdict, there.tcp.state if there.tcp else 0
            )  # fmt: skip
            if verdict == "invalid":
                if there.tcp and there.tcp.timeout:
                    there.expires = now + there.tcp.timeout
                self._count("INVALID_TCP", number, size)
                return False
            if verdict != "reopen":
                if direction == REPLY:
                    there.seen_reply = True
                if verdict == "ignore":
                    self._count("IGNORED_TCP", number, size)
                    return False
                there.packets[direction] += number
                there.sizes[direction] += size
                if verdict == "reset":
                    self._end(there, "RESET")
                return True
            cause = "REOPENED"
        made = Connection(packet.from_hi, now)
        refused = self._start(made, packet, now)
        if refused:
            self._untracked(refused, number, size)
            return False
        if there and not there.over:
            self._end(there, cause)
        made.packets[0], made.sizes[0] = number, size
        self.connections[packet.key] = made
        self.counters["CREATED"] += 1
        self.path = (packet.protocol, "new", packet.flags & 0x37, cause if there else "")
        return True

    def _count(self, reason: str, number: int, size: int) -> None:
        self.counters[reason] += number
        self.counters["UNTRACKED_BYTES"] += size

    def _end(self, connection: Connection, cause: str) -> None:
        self.counters["ENDED_PACKETS"] += sum(connection.packets)
        self.counters["ENDED_BYTES"] += sum(connection.sizes)
        self.counters["ENDED_REPLY_BYTES"] += connection.sizes[REPLY]
        self.counters[cause] += 1
        connection.over = True

    def _start(self, made: Connection, packet: Packet, now: int) -> str:
        """ "" or why the packet starts no connection."""
        if not packet.starts:
            return "INVALID_ICMP"
        if packet.protocol == TCP:
            made.tcp = Tcp.start(packet, self.tracking.loose_tcp_tracking)
            if made.tcp is None:
                return "INVALID_TCP"
            # It must be in a window that it has itself opened; one picked up in the middle is let through in any case.
            made.tcp.packet(packet, ORIGINAL, 0, self.timeouts, self.tracking.liberal_tcp_tracking)
            made.expires = now + made.tcp.timeout
        else:
            made.expires = now + self.timeouts[
                "udp" if packet.protocol in (UDP, UDPLITE)
                else "icmp" if packet.protocol in (ICMP, ICMPV6) else "generic"
            ]  # fmt: skip
        return ""

    def _go_on(self, there: Connection, packet: Packet, direction: int, now: int) -> str:
        protocol = packet.protocol
        if there.tcp is not None:
            tcp = there.tcp
            tcp.seen_reply = there.seen_reply
            verdict = tcp.packet(
                packet, direction, there.expires - now, self.timeouts, self.tracking.liberal_tcp_tracking
            )
            there.assured = tcp.assured
            if verdict == "count":
                there.expires = now + tcp.timeout
            return verdict
        replied = there.seen_reply
        if protocol in (UDP, UDPLITE):
            there.expires = now + self.timeouts["stream" if replied or direction == REPLY else "udp"]
            there.assured |= replied and (protocol == UDPLITE or now > there.created + ASSURED_AFTER)
        elif protocol in (ICMP, ICMPV6):
            there.expires = now + self.timeouts["icmp"]
        else:
            there.expires = now + self.timeouts["generic"]
            there.assured |= protocol == GRE and replied
        return "count"

    def _about(self, frame: bytes, error: Packet, now: int) -> str:
        """An ICMP error: about a live connection, and sent to the one whose packet it quotes?"""
        quoted = Packet()
        try:
            read_quoted(frame, error, quoted)
        except Untracked:
            return "INVALID_ICMP"
        there = self.connections.get(quoted.key)
        known = there is not None and not there.over and there.expires > now
        return "ICMP_ERROR" if known and quoted.source == error.destination else "INVALID_ICMP"

    def _is_over(self, datagram: Datagram, packet: Packet, now: int) -> bool:
        return datagram.since + REASSEMBLY[packet.family] <= now

    def _live(self, datagram: Datagram, now: int) -> Connection | None:
        """The connection of a datagram's first fragment, if it is still there."""
        there = self.connections.get(datagram.key)
        return there if there is datagram.connection and there and not there.over and there.expires > now else None

    def _add(self, connection: Connection, from_hi: bool, number: int, size: int) -> None:
        direction = ORIGINAL if from_hi == connection.swapped else REPLY
        connection.packets[direction] += number
        connection.sizes[direction] += size

    def _fragment(self, packet: Packet, now: int) -> None:
        """Not the first one."""
        name = packet.datagram or ()
        datagram = self.datagrams.get(name)
        if datagram and not self._is_over(datagram, packet, now) and datagram.connection:
            there = self._live(datagram, now)
            if there:
                self._add(there, datagram.from_hi, 1, packet.size)
                self.path = ("fragment",)
            else:
                self._untracked("FRAGMENT", 1, packet.size)
            return
        self._untracked("FRAGMENT", 1, packet.size)
        if datagram is None or self._is_over(datagram, packet, now):
            datagram = self.datagrams[name] = Datagram(now)
        datagram.packets += 1
        datagram.sizes += packet.size

    def _first_fragment(self, packet: Packet, now: int) -> None:
        name = packet.datagram or ()
        datagram = self.datagrams.get(name)
        if datagram is None or self._is_over(datagram, packet, now):
            datagram = Datagram(now)
        datagram.since, datagram.key, datagram.from_hi = now, packet.key, packet.from_hi
        datagram.connection = self.connections[packet.key]
        self.datagrams[name] = datagram
        there = self._live(datagram, now)
        if there and datagram.packets:
            self._add(there, datagram.from_hi, datagram.packets, datagram.sizes)
            self.counters["FRAGMENT"] -= datagram.packets
            self.counters["UNTRACKED_BYTES"] -= datagram.sizes
            datagram.packets = datagram.sizes = 0
            self.path = ("held fragments",)
