"""A connection as both tables know it: read from `conntrack -L -o extended`, and from ctweb's REST rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from lab.tracked import Row

from ctweb.table.names import ICMP, ICMPV6, PROTOCOL_NUMBERS, TCP

_STATES = {
    "NONE": "none", "SYN_SENT": "syn-sent", "SYN_RECV": "syn-received", "ESTABLISHED": "established",
    "FIN_WAIT": "fin-wait", "CLOSE_WAIT": "close-wait", "LAST_ACK": "last-ack", "TIME_WAIT": "time-wait",
    "CLOSE": "close", "SYN_SENT2": "listen",
}  # fmt: skip
_PORTS = ("sport", "dport")
_QUESTION = ("type", "code", "id")
MARKS = {"0": "", "16": "voip"}  # names of the kernel's marks, as configured


@dataclass(frozen=True, order=True)
class Connection:
    """What both tables must agree on. Pairs are of the original and the reply direction."""

    protocol: int
    original: tuple[str, ...]  # source, destination, and ports, or the type, code and id of an ICMP question
    reply: tuple[str, ...]  # source, destination and ports of what is expected in answer
    packets: tuple[int, int]
    bytes: tuple[int, int]
    state: str  # of TCP, as RouterOS calls it
    seen_reply: bool
    assured: bool
    srcnat: bool
    dstnat: bool
    mark: str
    helper: bool
    call: str  # of PPTP: the call id of the original direction's destination

    @property
    def addresses(self) -> set[str]:
        return {*self.original[:2], *self.reply[:2]}


def of_the_kernel(line: str) -> Connection:
    """One line of `conntrack -L -o extended`."""
    words = line.split()
    protocol = int(words[3])
    both: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for word in words:
        name, is_one, value = word.partition("=")
        if is_one:
            both[name in both[0]].setdefault(name, value)
    original, reply = both
    question = tuple(original[name] for name in _QUESTION) if protocol in (ICMP, ICMPV6) else ()
    there, back = (tuple(one[name] for name in ("src", "dst", *_PORTS) if name in one) for one in both)
    return Connection(
        protocol,
        there + question,
        back,
        (int(original["packets"]), int(reply["packets"])),
        (int(original["bytes"]), int(reply["bytes"])),
        _STATES[words[5]] if protocol == TCP else "",
        "[UNREPLIED]" not in words,
        "[ASSURED]" in words,
        _end(reply, "dst", "dport", "dstkey") != _end(original, "src", "sport", "srckey"),
        _end(reply, "src", "sport", "srckey") != _end(original, "dst", "dport", "dstkey"),
        MARKS.get(original["mark"], original["mark"]),
        "helper" in original,
        "" if original.get("dstkey", "0x0") == "0x0" else str(int(original["dstkey"], 16)),
    )


def _end(one: dict[str, str], host: str, port: str, call: str) -> tuple[str, str | None, str | None]:
    return one[host], one.get(port), one.get(call)


def of_ctweb(row: Row) -> Connection:
    """One REST row."""
    protocol = PROTOCOL_NUMBERS[row["protocol"]]
    question = tuple(row[f"icmp-{name}"] for name in _QUESTION) if protocol in (ICMP, ICMPV6) else ()
    return Connection(
        protocol,
        _ends(row, "") + question,
        _ends(row, "reply-"),
        (int(row["orig-packets"]), int(row["repl-packets"])),
        (int(row["orig-bytes"]), int(row["repl-bytes"])),
        row.get("tcp-state", ""),
        row["seen-reply"] == "true",
        row["assured"] == "true",
        row["srcnat"] == "true",
        row["dstnat"] == "true",
        row.get("connection-mark", ""),
        row["uses-helper"] == "true",
        row["gre-key"] if row.get("gre-version") == "1" else "",
    )


def _ends(row: Row, which: str) -> tuple[str, ...]:
    """Source, destination and their ports, if it has ports."""
    names = [f"{which}{end}-{part}" for part in ("address", "port") for end in ("src", "dst")]
    hosts, ports = names[:2], [row[name] for name in names[2:] if name in row]
    if not ports:
        return tuple(row[name] for name in hosts)
    return (*(row[name].rpartition(":")[0].strip("[]") for name in hosts), *ports)


def same(kernel: Iterable[Connection], ours: Iterable[Connection], but: Sequence[str] = ()) -> bool:
    """Do both know the same, whatever they say of the fields `but`?"""

    def told(connections: Iterable[Connection]) -> list[tuple[object, ...]]:
        return sorted(tuple(getattr(c, name) for name in _names() if name not in but) for c in connections)

    return told(kernel) == told(ours)


def _names() -> list[str]:
    return [field.name for field in fields(Connection)]


def side_by_side(kernel: Iterable[Connection], ours: Iterable[Connection]) -> str:
    """Both tables, connection by connection, what differs marked."""
    theirs, mine = ({(c.protocol, c.original): c for c in table} for table in (kernel, ours))
    lines = []
    for key in sorted(theirs.keys() | mine.keys()):
        pair = theirs.get(key), mine.get(key)
        lines.append(f"protocol {key[0]}, {' '.join(key[1])}")
        for name in _names()[2:]:
            values = [getattr(c, name) if c else "-" for c in pair]
            mark = "   " if values[0] == values[1] else "***"
            lines.append(f"  {mark} {name:10}  nf_conntrack {values[0]!s:45}  ctweb {values[1]!s}")
    return "\n".join(lines) or "neither has a connection"
