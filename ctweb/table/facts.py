"""What follows from a snapshot's columns: worked out for all rows at once, when first asked for, and kept.

The kernel's tuples are normalised; `Facts` turns them into source and destination. Arrays are parallel to the
snapshot's columns and never written to. Two threads may work out the same fact at once: both get the same.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctweb.table.columns import U16, U32, U64, Columns
from ctweb.table.names import (
    FLAG_BIT,
    FLAGS,
    GRE,
    GRE_CALL,
    GRE_ETHERTYPES,
    TCP,
    WITH_ICMP_TYPE,
    WITH_PORTS,
    Status,
)
from ctweb.table.snapshot import NOTHING_TRANSLATED, Snapshot
from ctweb.table.translated import Translated

Mask = NDArray[np.bool_]
Index = NDArray[np.intp]

SECOND = 1_000_000_000  # datapath time is in ns


@dataclass(frozen=True, eq=False)
class End:
    """One end of every connection. An IPv4 address is the upper half of `high`; `low` is then zero."""

    high: U64  # (n,) address as a number, upper 64 bits
    low: U64  # (n,)
    port: U16  # (n,) host order; meaningless without Facts.has_ports


def _lookup(numbers: tuple[int, ...]) -> NDArray[np.bool_]:
    table = np.zeros(256, np.bool_)
    table[list(numbers)] = True
    return table


_PORTS = _lookup(WITH_PORTS)
_ICMP = _lookup(WITH_ICMP_TYPE)


@dataclass(frozen=True, eq=False)
class Facts:
    """Columns and what follows from them."""

    columns: Columns
    rates: NDArray[np.float32]  # (n, 2) bits/s
    dying: Mask
    now: int  # datapath ns
    mark_names: tuple[str, ...] = ("",)  # of columns.mark, by number
    translated: Translated = NOTHING_TRANSLATED
    translation: NDArray[np.int32] | None = None  # (n,) row in `translated`, -1: not translated; None: nothing is

    def __len__(self) -> int:
        return len(self.columns)

    def take(self, index: Index | slice) -> Facts:
        """The facts of the rows at `index`."""
        return Facts(
            self.columns.take(index),
            self.rates[index],
            self.dying[index],
            self.now,
            self.mark_names,
            self.translated,
            None if self.translation is None else self.translation[index],
        )

    @cached_property
    def swapped(self) -> Mask:
        """The original direction goes from `hi` to `lo`."""
        return self._has(Status.SWAPPED)

    def _has(self, status: Status) -> Mask:
        bits: U32 = self.columns.status & np.uint32(status)
        return bits.astype(np.bool_)

    @cached_property
    def is_ipv6(self) -> Mask:
        return np.equal(self.columns.family, 6)

    @cached_property
    def has_ports(self) -> Mask:
        return _PORTS.take(self.columns.protocol)

    @cached_property
    def is_icmp(self) -> Mask:
        """ICMP or ICMPv6."""
        return _ICMP.take(self.columns.protocol)

    @cached_property
    def has_mark(self) -> Mask:
        return np.greater(self.columns.mark, 0)

    @cached_property
    def is_tcp(self) -> Mask:
        return np.equal(self.columns.protocol, TCP)

    @cached_property
    def has_type(self) -> Mask:
        """A predefined service was recognised."""
        return np.greater(self.columns.type, 0)

    @cached_property
    def is_gre(self) -> Mask:
        return np.equal(self.columns.protocol, GRE)

    @cached_property
    def has_gre_key(self) -> Mask:
        return np.greater(self.columns.variant, 0)

    @cached_property
    def gre_version(self) -> U32:
        return np.equal(self.columns.variant, GRE_CALL).astype(np.uint32)

    @cached_property
    def gre_key(self) -> U32:
        """The key; of PPTP the call id of the destination. (n,)"""
        key = self.columns.lo_port.astype(np.uint32) << np.uint32(16) | self.columns.hi_port
        return np.where(self.columns.variant == GRE_CALL, self.destination.port, key).astype(np.uint32)

    @cached_property
    def gre_protocol(self) -> NDArray[np.uint8]:
        """Number in GRE_PROTOCOLS. (n,)"""
        found = np.zeros(len(self), np.uint8)
        for number, ethertype in enumerate(GRE_ETHERTYPES, 1):
            found[self.columns.gre_protocol == ethertype] = number
        return found

    @cached_property
    def source(self) -> End:
        """Who sent the first packet."""
        return self._end(self.swapped)

    @cached_property
    def destination(self) -> End:
        """Whom the first packet was for."""
        return self._end(~self.swapped)

    def _end(self, high_end: Mask) -> End:
        c = self.columns
        high, low = (
            np.where(high_end, _words(c.hi_addr)[:, i], _words(c.lo_addr)[:, i]).astype(np.uint64) for i in (0, 1)
        )
        return End(high, low, np.where(high_end, c.hi_port, c.lo_port))

    @cached_property
    def reply_source(self) -> End:
        """Whom replies come from: the destination, unless it is translated."""
        return self._behind_nat(self.destination, source=True)

    @cached_property
    def reply_destination(self) -> End:
        """Whom replies go to: the source, unless it is translated."""
        return self._behind_nat(self.source, source=False)

    @cached_property
    def translated_rows(self) -> Index:
        """The rows that have a translation."""
        return np.empty(0, np.intp) if self.translation is None else np.flatnonzero(self.translation >= 0)

    def _behind_nat(self, end: End, *, source: bool) -> End:
        """`end` as it is on the other side, of the rows that have a translation."""
        rows = self.translated_rows
        if self.translation is None or not len(rows):
            return end
        t, at = self.translated, self.translation[rows]
        from_high = self.swapped[rows] ^ t.flip[at]  # the original direction
        at_high = ~from_high if source else from_high
        high, low, port = end.high.copy(), end.low.copy(), end.port.copy()
        lo_words, hi_words = _words(t.lo_addr[at]), _words(t.hi_addr[at])
        high[rows] = np.where(at_high, hi_words[:, 0], lo_words[:, 0])
        low[rows] = np.where(at_high, hi_words[:, 1], lo_words[:, 1])
        port[rows] = np.where(at_high, t.hi_port[at], t.lo_port[at])
        return End(high, low, port)

    @cached_property
    def timeout(self) -> U32:
        """Whole seconds until removal, rounded down as nf_conntrack does; 0 once dying. (n,)"""
        expires = np.maximum(self.columns.expires, np.uint64(self.now))
        return ((expires - np.uint64(self.now)) // np.uint64(SECOND)).astype(np.uint32)

    @cached_property
    def flags(self) -> U16:
        """The yes/no properties that hold, as bits of FLAG_BIT. (n,)"""
        flags = np.where(self.dying, np.uint16(FLAG_BIT["dying"]), np.uint16(0))
        for flag in FLAGS:
            if flag.status:
                seen = self._has(flag.status)
                flags |= seen * np.uint16(FLAG_BIT[flag.name])
        return flags

    @cached_property
    def whole_rates(self) -> U64:
        """Bits per second as whole numbers. (n, 2)"""
        return np.rint(self.rates).astype(np.uint64)

    @cached_property
    def has_ipv6(self) -> bool:
        """Whether any row is IPv6."""
        return bool(self.is_ipv6.any())


def _words(addresses: NDArray[np.uint8]) -> NDArray[Any]:
    """(n, 16) bytes in network order as (n, 2) big-endian numbers."""
    return np.ascontiguousarray(addresses).view(">u8")


_facts: weakref.WeakKeyDictionary[Snapshot, Facts] = weakref.WeakKeyDictionary()


def facts_of(snapshot: Snapshot) -> Facts:
    """The facts of a snapshot, the same object for all its readers for as long as it lives."""
    made = Facts(
        snapshot.columns,
        snapshot.rates,
        snapshot.dying,
        snapshot.now,
        snapshot.mark_names,
        snapshot.translated,
        snapshot.translation,
    )
    return _facts.setdefault(snapshot, made)
