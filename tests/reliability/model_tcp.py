"""nf_conntrack's TCP in Python (reference: netfilter.md; RFC 9293, 7323, 2018; van Rooij's "Real stateful TCP packet
filtering"), from the kernel's words and not from the programs' source."""

from __future__ import annotations

from dataclasses import dataclass, field

from reliability.model_packet import ACK, FIN, RST, SYN, Packet

NONE, SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK, TIME_WAIT, CLOSE, LISTEN = range(10)
IGNORE, INVALID = 10, 11
ORIGINAL, REPLY = 0, 1
ACK_WINDOW = 66000
MAX_RETRANS = 3
LONG = 120 * 10**9

_SHORT = {
    "NO": NONE, "SS": SYN_SENT, "SR": SYN_RECV, "ES": ESTABLISHED, "FW": FIN_WAIT, "CW": CLOSE_WAIT, "LA": LAST_ACK,
    "TW": TIME_WAIT, "CL": CLOSE, "S2": LISTEN, "IG": IGNORE, "IV": INVALID,
}  # fmt: skip
TABLE = {
    key: [_SHORT[word] for word in row.split()]
    for key, row in {
        ("syn", 0): "SS SS IG IG IG IG IG SS SS S2",
        ("synack", 0): "IV IV SR IV IV IV IV IV IV SR",
        ("fin", 0): "IV IV FW FW LA LA LA TW CL IV",
        ("ack", 0): "ES IV ES ES CW CW TW TW CL IV",
        ("rst", 0): "IV CL CL CL CL CL CL CL CL CL",
        ("syn", 1): "IV S2 IV IV IV IV IV SS IV S2",
        ("synack", 1): "IV SR IG IG IG IG IG IG IG SR",
        ("fin", 1): "IV IV FW FW LA LA LA TW CL IV",
        ("ack", 1): "IV IG SR ES CW CW TW TW CL IG",
        ("rst", 1): "IV CL CL CL CL CL CL CL CL CL",
    }.items()
}


def before(a: int, b: int) -> bool:
    """Sequence number a lies before b."""
    return (a - b) & 0x80000000 != 0


def kind_of(flags: int) -> str:
    if flags & RST:
        return "rst"
    if flags & SYN:
        return "synack" if flags & ACK else "syn"
    return "fin" if flags & FIN else "ack"


@dataclass
class Side:
    """What one end has sent."""

    end: int = 0
    max_end: int = 0
    max_win: int = 0
    max_ack: int | None = None
    scale: int = 0
    scaling: bool = False
    sack: bool = False
    closed: bool = False
    liberal: bool = False
    unacked: bool = False

    def take_options(self, options: bytes) -> None:
        """Of a SYN. Without any, what was known stays."""
        if not options:
            return
        self.scale, self.scaling, self.sack = 0, False, False
        self.closed = self.unacked = False
        self.max_ack = None
        for kind, value in each(options):
            if kind == 4 and not value:
                self.sack = True
            elif kind == 3 and len(value) == 1:
                self.scaling, self.scale = True, min(value[0], 14)


def each(options: bytes) -> list[tuple[int, bytes]]:
    """The options up to the first one that is malformed."""
    found, at = [], 0
    while at < len(options) and options[at]:
        if options[at] == 1:
            at += 1
            continue
        if at + 2 > len(options):
            break
        size = options[at + 1]
        if size < 2 or at + size > len(options):
            break
        found.append((options[at], options[at + 2 : at + size]))
        at += size
    return found


def highest_sack(options: bytes, ack: int) -> int:
    """The highest end of a SACK block, or `ack`."""
    for kind, value in each(options):
        if kind == 5 and len(value) >= 8 and len(value) % 8 == 0:
            for block in range(4, len(value), 8):
                right = int.from_bytes(value[block : block + 4], "big")
                if before(ack, right):
                    ack = right
            break
    return ack


@dataclass
class Tcp:
    """A connection's TCP. `packet()` says what a packet does: count, ignore, invalid, reopen or reset."""

    state: int = NONE
    sides: tuple[Side, Side] = field(default_factory=lambda: (Side(), Side()))
    last_kind: str = "none"
    last_direction: int = ORIGINAL
    last_seq: int = 0
    last_ack: int = 0
    last_end: int = 0
    last_win: int = 0
    retrans: int = 0
    ignored_scale: int = 0  # of an ignored SYN
    ignored_scaling: bool = False
    ignored_sack: bool = False
    challenge: bool = False
    simultaneous: bool = False
    timeout: int = 0  # that the packet asks for; 0: leave it
    seen_reply: bool = False
    assured: bool = False

    @classmethod
    def start(cls, packet: Packet, loose: bool) -> Tcp | None:
        """For a connection's first packet; None: no connection starts with it."""
        kind = kind_of(packet.flags)
        made = cls()
        side = made.sides[ORIGINAL]
        side.end = side.max_end = packet.end
        side.max_win = packet.window or 1
        if kind == "syn":
            side.take_options(packet.options)
        elif kind == "ack" and loose:
            side.max_end = (side.end + side.max_win) & 0xFFFFFFFF
            for each_side in made.sides:
                each_side.sack = each_side.liberal = True
        else:
            return None
        return made

    def packet(self, packet: Packet, direction: int, left: int, timeouts: dict[object, int], liberal: bool) -> str:
        """`left`: ns until the connection expires. Changes the connection as the packet does."""
        kind, old = kind_of(packet.flags), self.state
        new = TABLE[kind, direction][old]
        self.timeout = 0
        window = True
        if new == INVALID:
            return "invalid"
        if new == SYN_SENT and old >= TIME_WAIT:
            if (
                self.sides[0].closed
                or self.sides[1].closed
                or (self.last_direction, self.last_kind) == (direction, "rst")
            ):
                return "reopen"
            new = IGNORE
        if new == IGNORE:
            if not (
                kind == "synack" and self.last_kind == "syn" and self.last_direction != direction
                and packet.ack == self.last_end
            ):  # fmt: skip
                self._ignored(packet, direction, kind, old)
                return "ignore"
            self._resync(direction)
            old, new = SYN_SENT, SYN_RECV  # as if it answered the first SYN
        elif new == TIME_WAIT and old == LAST_ACK and kind == "ack" and self.last_direction != direction:
            if self.last_kind == "syn" and self.challenge:
                self.challenge = False
                return "ignore"
        elif new == LISTEN:
            self.simultaneous = True
        elif new == SYN_RECV and direction == REPLY and kind == "ack" and self.simultaneous:
            new = ESTABLISHED
        elif new == CLOSE and kind == "rst":
            judged = self._reset(packet, direction, old)
            if judged == "invalid":
                return judged
            window = judged != "accept"
            if judged == "stays":
                new = old
        if window:
            said = self._in_window(packet, direction, kind, liberal)
            if said == "invalid":
                self._ends_out_of_window(direction, kind, left, timeouts)
            if said != "in":
                return said
        self.last_kind, self.last_direction = kind, direction
        self.state = new
        if new != old and new == FIN_WAIT:
            self.sides[direction].closed = True
        return self._accepted(kind, old, new, timeouts)

    def _accepted(self, kind: str, old: int, new: int, timeouts: dict[object, int]) -> str:
        timeout, cap, unacked = timeouts[new], timeouts["retrans"], timeouts["unacked"]
        if self.retrans >= MAX_RETRANS and timeout > cap:
            timeout = cap
        elif kind == "rst":
            timeout = timeouts[CLOSE]
        elif (self.sides[0].unacked or self.sides[1].unacked) and timeout > unacked:
            timeout = unacked
        elif not self.last_win and timeout > cap:
            timeout = cap
        if not self.seen_reply:
            if kind == "rst":
                return "reset"
            if kind == "syn" and old == SYN_SENT:
                return "ignore"
            if new == ESTABLISHED:
                timeout = min(timeout, unacked)
        elif old in (SYN_RECV, ESTABLISHED) and new == ESTABLISHED:
            self.assured = True
        self.timeout = timeout
        return "count"

    def _ignored(self, packet: Packet, direction: int, kind: str, old: int) -> None:
        self.last_kind, self.last_direction = kind, direction
        self.last_seq, self.last_end, self.last_win = packet.seq, packet.end, packet.window
        if kind == "syn" and direction == ORIGINAL:
            said = Side()
            said.take_options(packet.options)
            self.ignored_scale, self.ignored_scaling, self.ignored_sack = said.scale, said.scaling, said.sack
            self.simultaneous = False
            self.challenge = old == LAST_ACK
        if old == SYN_SENT and kind == "ack" and direction == REPLY:
            self.last_ack = packet.ack

    def _resync(self, direction: int) -> None:
        asker, answers = self.sides[1 - direction], self.sides[direction]
        self.challenge = False
        asker.__init__(  # type: ignore[misc]
            end=self.last_end, max_end=self.last_end, max_win=self.last_win or 1, scale=self.ignored_scale,
            scaling=self.ignored_scaling, sack=self.ignored_sack,
        )  # fmt: skip
        answers.__init__(liberal=answers.liberal)  # type: ignore[misc]

    def _reset(self, packet: Packet, direction: int, old: int) -> str:
        if old in (FIN_WAIT, CLOSE_WAIT, LAST_ACK, TIME_WAIT, CLOSE):
            return "accept"
        established = old == ESTABLISHED and self.assured
        expected = self.sides[1 - direction].max_ack
        stays = False
        if expected is not None and self.last_kind != "syn":
            if not packet.seq and not established:
                return "window"
            if before(packet.seq, expected):
                return "invalid"
            if not established or packet.seq == expected:
                return "window"
            if (self.last_kind, self.last_direction) == ("ack", direction) and packet.seq == self.last_end:
                return "window"
            stays = True
        answers = (self.seen_reply and self.last_kind == "syn" and self.last_direction != direction) or (
            not self.assured and self.last_kind == "ack"
        )
        if answers and packet.ack == self.last_end:
            return "accept"
        if old == SYN_SENT and (self.last_kind, self.last_direction) == ("ack", REPLY) and packet.seq == self.last_ack:
            return "accept"
        return "stays" if stays else "window"

    def _init_sender(self, packet: Packet, direction: int) -> None:
        sender, receiver = self.sides[direction], self.sides[1 - direction]
        sender.end = sender.max_end = packet.end
        sender.max_win = packet.window or 1
        sender.take_options(packet.options)
        if direction == REPLY and not (sender.scaling and receiver.scaling):
            sender.scale = receiver.scale = 0

    def _in_window(self, packet: Packet, direction: int, kind: str, liberal: bool) -> str:
        sender, receiver = self.sides[direction], self.sides[1 - direction]
        flags, seq, ack, end, window = packet.flags, packet.seq, packet.ack, packet.end, packet.window
        sack = highest_sack(packet.options, ack) if receiver.sack else ack
        if not sender.max_win:
            if flags & SYN:
                self._init_sender(packet, direction)
                if not flags & ACK:
                    return "in"
            else:
                sender.end = end
                sender.max_win = (window << sender.scale) or 1
                sender.max_end = (end + sender.max_win) & 0xFFFFFFFF
                if not receiver.max_win:
                    receiver.end = receiver.max_end = sack
                elif sack == (receiver.end + 1) & 0xFFFFFFFF:
                    receiver.end = sack
        elif flags & SYN and before(sender.end, end) and self.state in (SYN_SENT, SYN_RECV):
            self._init_sender(packet, direction)
            if direction == REPLY and not flags & ACK:
                return "in"
        if not flags & ACK or (flags & RST and not ack):
            ack = sack = receiver.end
        if flags & RST and not seq and self.state == SYN_SENT:
            seq = end = sender.end
        said = self._judge(sender, receiver, seq, end, sack)
        if said != "in":
            return "in" if liberal or sender.liberal else said
        if not flags & SYN:
            window <<= sender.scale
        sender.max_win = max(sender.max_win, (window + sack - ack) & 0xFFFFFFFF)
        if before(sender.end, end):
            sender.end, sender.unacked = end, True
        if flags & ACK and (sender.max_ack is None or before(sender.max_ack, ack)):
            sender.max_ack = ack
        if receiver.max_win and before(sender.max_end, end):
            receiver.max_win = (receiver.max_win + end - sender.max_end) & 0xFFFFFFFF
        reach = (sack + window) & 0xFFFFFFFF
        if before((receiver.max_end - 1) & 0xFFFFFFFF, reach):
            receiver.max_end = (reach + (not window)) & 0xFFFFFFFF
        if ack == receiver.end:
            receiver.unacked = False
        if kind == "ack":
            numbers = (direction, seq, ack, end, packet.window)
            if numbers == (self.last_direction, self.last_seq, self.last_ack, self.last_end, self.last_win):
                self.retrans = (self.retrans + 1) & 0xFF
            else:
                self.last_direction, self.last_seq, self.last_ack, self.last_end, self.last_win = numbers
                self.retrans = 0
        return "in"

    @staticmethod
    def _judge(sender: Side, receiver: Side, seq: int, end: int, sack: int) -> str:
        oldest_ack = receiver.end - max(sender.max_win, ACK_WINDOW) - 1
        recent = before(sender.end - receiver.max_win - 1, end)
        if not before(seq, sender.max_end + 1):
            overshot = (end - sender.max_end + 1) & 0xFFFFFFFF
            if (
                receiver.max_win and recent and before(oldest_ack, sack) and overshot <= receiver.max_win
                and before(sack, receiver.end + 1)
            ):  # fmt: skip
                sender.end, sender.unacked = end, True
                return "ignore"
            return "invalid"
        if not before(sack, receiver.end + 1):
            return "invalid"
        if (receiver.max_win and not recent) or not before(oldest_ack, sack):
            return "ignore"
        return "in"

    def _ends_out_of_window(self, direction: int, kind: str, left: int, timeouts: dict[object, int]) -> None:
        """So that a connection both sides have given up does not stay for a day."""
        if not self.assured or kind not in ("fin", "rst"):
            return
        if self.last_direction != direction and self.last_kind in ("fin", "rst"):
            if left >= LONG and left > timeouts["unacked"]:
                self.timeout = timeouts["unacked"]
        else:
            self.last_kind, self.last_direction = kind, direction
