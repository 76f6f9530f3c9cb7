"""The properties of a connection as RouterOS names them: the one list that rows, filters and sorting go by.

Each says what kind of value it is, which column of `Facts` holds it and which rows have it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ctweb.table.facts import Facts, Mask
from ctweb.table.names import (
    CONNECTION_TYPE_NUMBERS,
    CONNECTION_TYPES,
    FLAGS,
    GRE_PROTOCOL_NUMBERS,
    GRE_PROTOCOLS,
    PROTOCOL_NUMBERS,
    PROTOCOLS,
    TCP_STATE_NUMBERS,
    TCP_STATES,
)


class Kind(Enum):
    """What a property's column holds, and so how it is read, compared and written."""

    ID = "id"  # number, written *HEX
    ADDRESS = "address"  # End
    PORT = "port"
    NUMBER = "number"
    RATE = "rate"  # bits/s
    TIME = "time"  # whole seconds
    CHOICE = "choice"  # number of a name
    MARK = "mark"  # number of a name in Facts.mark_names
    FLAG = "yes/no"  # bit of Facts.flags


@dataclass(frozen=True)
class Property:
    """`column` gives (n,) numbers, for ADDRESS an End, for FLAG the whole flags. `present` None: all rows have it."""

    name: str
    kind: Kind
    column: Callable[[Facts], Any]
    present: Callable[[Facts], Mask] | None = None
    names: Sequence[str] = ()  # CHOICE: by number
    numbers: Callable[[str], int | None] | None = None  # CHOICE: by name, other spellings too


def _ports(facts: Facts) -> Mask:
    return facts.has_ports


def _icmp(facts: Facts) -> Mask:
    return facts.is_icmp


def _counters() -> list[Property]:
    """The counters of each direction, in all and by the fast path."""
    return [
        Property("orig-packets", Kind.NUMBER, lambda f: f.columns.packets[:, 0]),
        Property("repl-packets", Kind.NUMBER, lambda f: f.columns.packets[:, 1]),
        Property("orig-bytes", Kind.NUMBER, lambda f: f.columns.bytes[:, 0]),
        Property("repl-bytes", Kind.NUMBER, lambda f: f.columns.bytes[:, 1]),
        Property("orig-fasttrack-packets", Kind.NUMBER, lambda f: f.columns.fasttrack_packets[:, 0]),
        Property("repl-fasttrack-packets", Kind.NUMBER, lambda f: f.columns.fasttrack_packets[:, 1]),
        Property("orig-fasttrack-bytes", Kind.NUMBER, lambda f: f.columns.fasttrack_bytes[:, 0]),
        Property("repl-fasttrack-bytes", Kind.NUMBER, lambda f: f.columns.fasttrack_bytes[:, 1]),
        Property("orig-rate", Kind.RATE, lambda f: f.whole_rates[:, 0]),
        Property("repl-rate", Kind.RATE, lambda f: f.whole_rates[:, 1]),
    ]


PROPERTIES = {
    prop.name: prop
    for prop in (
        Property(".id", Kind.ID, lambda f: f.columns.id),
        Property(
            "protocol",
            Kind.CHOICE,
            lambda f: f.columns.protocol,
            names=PROTOCOLS,
            numbers=PROTOCOL_NUMBERS.get,
        ),
        Property("src-address", Kind.ADDRESS, lambda f: f.source),
        Property("dst-address", Kind.ADDRESS, lambda f: f.destination),
        Property("src-port", Kind.PORT, lambda f: f.source.port, _ports),
        Property("dst-port", Kind.PORT, lambda f: f.destination.port, _ports),
        Property("reply-src-address", Kind.ADDRESS, lambda f: f.reply_source),
        Property("reply-dst-address", Kind.ADDRESS, lambda f: f.reply_destination),
        Property("reply-src-port", Kind.PORT, lambda f: f.reply_source.port, _ports),
        Property("reply-dst-port", Kind.PORT, lambda f: f.reply_destination.port, _ports),
        Property("icmp-type", Kind.NUMBER, lambda f: f.columns.hi_port >> 8, _icmp),
        Property("icmp-code", Kind.NUMBER, lambda f: f.columns.hi_port & 0xFF, _icmp),
        Property("icmp-id", Kind.NUMBER, lambda f: f.columns.lo_port, _icmp),
        Property(
            "tcp-state",
            Kind.CHOICE,
            lambda f: f.columns.tcp_state,
            lambda f: f.is_tcp,
            names=TCP_STATES,
            numbers=TCP_STATE_NUMBERS.get,
        ),
        Property(
            "connection-type",
            Kind.CHOICE,
            lambda f: f.columns.type,
            lambda f: f.has_type,
            names=CONNECTION_TYPES,
            numbers=CONNECTION_TYPE_NUMBERS.get,
        ),
        Property("gre-version", Kind.NUMBER, lambda f: f.gre_version, lambda f: f.is_gre),
        Property("gre-key", Kind.NUMBER, lambda f: f.gre_key, lambda f: f.has_gre_key),
        Property(
            "gre-protocol",
            Kind.CHOICE,
            lambda f: f.gre_protocol,
            lambda f: f.is_gre,
            names=GRE_PROTOCOLS,
            numbers=GRE_PROTOCOL_NUMBERS.get,
        ),
        Property("connection-mark", Kind.MARK, lambda f: f.columns.mark, lambda f: f.has_mark),
        Property("timeout", Kind.TIME, lambda f: f.timeout),
        *_counters(),
        *(Property(flag.name, Kind.FLAG, lambda f: f.flags) for flag in FLAGS),
    )
}
