"""The order of rows by any property, and a part of it without sorting the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctweb.table.facts import End, Facts, Index
from ctweb.table.fields import FIELDS, Several
from ctweb.table.names import FLAG_BIT, FLAGS
from ctweb.table.properties import PROPERTIES, Kind, Property
from ctweb.table.query_error import QueryError, quoted

Key = NDArray[Any]  # (n,) unsigned numbers

FEW = 4096  # rows that are sooner sorted than partitioned

_ALPHABETIC = {
    "protocol": np.argsort(np.argsort(np.array(PROPERTIES["protocol"].names), kind="stable")).astype(np.uint8),
}
_LETTERS = ["".join(f.letter for i, f in enumerate(FLAGS) if bits >> i & 1) for bits in range(1 << len(FLAGS))]
_BY_LETTERS = np.argsort(np.argsort(np.array(_LETTERS), kind="stable")).astype(np.uint16)


@dataclass(frozen=True)
class Order:
    """By a property; rows without it come last either way, and what is equal stands oldest first."""

    name: str
    descending: bool = False

    @classmethod
    def parse(cls, text: str) -> Order:
        """A property or short name of one, `-` before it for descending; nothing: oldest first."""
        name = text.removeprefix("-")
        if text and name != "flags" and not (name in FIELDS and _sortable(name)):
            raise QueryError("sort", f"cannot sort by {quoted(name)}: expected a property such as orig-rate")
        return cls(name, text.startswith("-"))

    def keys(self, facts: Facts) -> list[Key]:
        """The columns to compare by, the first one first; smaller is earlier."""
        keys: list[Key] = []
        if self.name == "flags":
            keys = [_BY_LETTERS.take(facts.flags)]
        elif self.name and FIELDS[self.name].several is Several.TOTAL:
            first, second = (PROPERTIES[name].column(facts) for name in FIELDS[self.name].properties)
            keys = [first + second]
        elif self.name:
            keys = _keys(facts, PROPERTIES[FIELDS[self.name].properties[0]])
        if self.descending:
            keys = [~key for key in keys]
        if self.name in FIELDS and (present := _present(self.name)) is not None:
            shown = present(facts)
            keys = [(~shown).view(np.uint8), *(key * shown for key in keys)]
        return [*keys, facts.columns.id]


def _sortable(name: str) -> bool:
    """A field of one property, or of several that add up."""
    field = FIELDS[name]
    if field.several is Several.TOTAL:
        return True
    return len(field.properties) == 1 and field.properties[0] in PROPERTIES


def _present(name: str) -> Callable[[Facts], NDArray[np.bool_]] | None:
    return PROPERTIES[FIELDS[name].properties[0]].present


def _keys(facts: Facts, prop: Property) -> list[Key]:
    column = prop.column(facts)
    if prop.kind is Kind.ADDRESS:
        return _address_keys(facts, column)
    if prop.kind is Kind.FLAG:
        return [(column & FLAG_BIT[prop.name]).astype(np.bool_).view(np.uint8)]
    if prop.kind is Kind.MARK:
        return [np.argsort(np.argsort(np.array(facts.mark_names), kind="stable")).astype(np.uint32).take(column)]
    return [_ALPHABETIC[prop.name].take(column) if prop.name in _ALPHABETIC else column]


def _address_keys(facts: Facts, end: End) -> list[Key]:
    """IPv4 before IPv6, then the address as a number, then the port."""
    port = np.where(facts.has_ports, end.port, 0).astype(np.uint64)
    if not facts.has_ipv6:
        return [end.high >> np.uint64(16) | port]  # 32 bits of address, 16 of port
    return [facts.is_ipv6.view(np.uint8), end.high, end.low, port]


def part_of(keys: list[Key], rows: Index | None, first: int, last: int) -> Index:
    """Those of `rows` (None: all) that stand at `first` to `last` - 1 in the order of `keys`, in that order.

    The last key tells all rows apart. Rows outside are set aside by the value of the first key at either
    edge; among those equal to an edge, the next key decides.
    """
    if first >= last:
        return np.empty(0, np.intp)
    if not keys and rows is not None:
        return rows[first:last]
    n = len(keys[0]) if rows is None else len(rows)
    if n <= FEW or last - first > n // 4:
        chosen = [key if rows is None else key[rows] for key in keys]
        order: Index = np.lexsort(chosen[::-1])[first:last]
        return order if rows is None else rows[order]
    values = keys[0] if rows is None else keys[0][rows]
    edges = np.partition(values, [first, last - 1])
    low, high = edges[first], edges[last - 1]
    below = int(np.count_nonzero(values < low))

    def equal_to(edge: Any, skipped: int) -> Index:
        at = np.flatnonzero(values == edge)
        return part_of(
            keys[1:], at if rows is None else rows[at], max(first - skipped, 0), min(last - skipped, len(at))
        )

    if low == high:
        return equal_to(low, below)
    between = np.flatnonzero((values > low) & (values < high))
    if rows is not None:
        between = rows[between]
    not_above = int(np.count_nonzero(values < high))
    middle = part_of(keys, between, 0, len(between))
    return np.concatenate((equal_to(low, below), middle, equal_to(high, not_above)))
