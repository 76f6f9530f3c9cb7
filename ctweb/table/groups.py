"""The table by groups: how many connections each source, service or state has, and what goes through them.

Pure functions over columns; words are made for the groups of a window only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctweb.table.columns import U64
from ctweb.table.facts import End, Facts, Index
from ctweb.table.names import PROTOCOLS, TCP_STATES
from ctweb.table.order import part_of
from ctweb.table.query import View, select
from ctweb.table.query_error import QueryError, quoted

Naming = Callable[[int], tuple[str, str]]
"""A group's label and the filter that means its rows."""


@dataclass(frozen=True, eq=False)
class Groups:
    """k groups in their natural order. `naming` is asked by a group's number."""

    rows: Index  # (n,) rows of the table, those of a group beside each other
    starts: Index  # (k,) where each group begins in `rows`
    naming: Naming


@dataclass(frozen=True, eq=False)
class GroupWindow:
    """The answer: rows in the table, rows that match, their groups, and those of the view in its order."""

    total: int
    connections: int
    matched: int
    rows: list[dict[str, str | int]]


def group_window(facts: Facts, view: View) -> GroupWindow:
    """The groups that `view` shows. Raises QueryError, about "group", "sort" or "filter"."""
    if view.group not in GROUPINGS:
        known = ", ".join(GROUPINGS)
        raise QueryError("group", f"cannot group by {quoted(view.group)}: expected one of {known}")
    name = view.sort.removeprefix("-")
    if name and name not in SORTS:
        raise QueryError("sort", f"cannot sort groups by {quoted(name)}: expected one of {', '.join(SORTS)}")
    rows = select(facts, where=view.filter)
    groups = GROUPINGS[view.group](facts, np.arange(len(facts)) if rows is None else rows)
    count = len(groups.starts)
    sums = _sums(facts, groups)
    position = np.arange(count, dtype=np.uint64)
    key = position if name in ("", "group") else sums[name]
    first = min(view.offset, count)
    last = min(first + view.limit, count)
    shown = part_of([~key if view.sort.startswith("-") else key, position], None, first, last)
    return GroupWindow(len(facts), len(groups.rows), count, [_row(groups, sums, n) for n in shown.tolist()])


def _row(groups: Groups, sums: dict[str, U64], number: int) -> dict[str, str | int]:
    label, term = groups.naming(number)
    named: dict[str, str | int] = {".id": term, "group": label, "flags": ""}
    return named | {name: int(values[number]) for name, values in sums.items()}


_PAIRS: dict[str, Callable[[Facts, Index], U64]] = {
    "rate": lambda facts, rows: np.rint(_pairs(facts.rates, rows)).astype(np.uint64),
    "bytes": lambda facts, rows: _pairs(facts.columns.bytes, rows),
    "packets": lambda facts, rows: _pairs(facts.columns.packets, rows),
}
SORTS = ("group", "connections", *(name for pair in _PAIRS for name in (pair, f"orig-{pair}", f"repl-{pair}")))
"""What a group has; both directions together have no prefix."""


def _sums(facts: Facts, groups: Groups) -> dict[str, U64]:
    """By name, (k,) each. Exact: no floats in between."""
    sums = {"connections": np.diff(groups.starts, append=len(groups.rows)).astype(np.uint64)}
    for name, pair in _PAIRS.items():
        values: NDArray[Any] = np.zeros((0, 2), np.uint64)
        if len(groups.starts):
            values = np.add.reduceat(pair(facts, groups.rows), groups.starts, axis=0)
        there, back = values[:, 0], values[:, 1]
        sums |= {name: there + back, f"orig-{name}": there, f"repl-{name}": back}
    return sums


def _pairs(column: NDArray[Any], rows: Index) -> NDArray[Any]:
    """The rows of an (n, 2) column, each gathered as one element: several times faster than as two."""
    whole = np.dtype((np.void, 2 * column.itemsize))
    return np.ascontiguousarray(column).view(whole)[:, 0][rows].view(column.dtype).reshape(-1, 2)


Grouping = Callable[[Facts, Index], Groups]
"""The groups of some rows of the table."""


def _by_address(end: Callable[[Facts], End], field: str) -> Grouping:
    def grouped(facts: Facts, rows: Index) -> Groups:
        """IPv4 first, each family by number."""
        is_ipv6 = facts.is_ipv6[rows] if facts.has_ipv6 else np.zeros(len(rows), np.bool_)
        four, six = rows[~is_ipv6], rows[is_ipv6]
        addresses, four_at, four_starts = _distinct((end(facts).high[four] >> np.uint64(32)).astype(np.uint32))
        highs, of_high = np.unique(end(facts).high[six], return_inverse=True)
        lows, of_low = np.unique(end(facts).low[six], return_inverse=True)
        pair = of_high * max(len(lows), 1) + of_low
        six_at = np.argsort(pair)
        pair = pair[six_at]
        six_starts = _beginnings(pair)

        def naming(n: int) -> tuple[str, str]:
            if n < len(addresses):
                return _term(field, str(IPv4Address(int(addresses[n]))))
            high, low = divmod(int(pair[six_starts[n - len(addresses)]]), len(lows))
            return _term(field, str(IPv6Address(int(highs[high]) << 64 | int(lows[low]))))

        return Groups(
            np.concatenate((four[four_at], six[six_at])), np.concatenate((four_starts, six_starts + len(four))), naming
        )

    return grouped


def _by_service(facts: Facts, rows: Index) -> Groups:
    """By port, then by protocol; what has no ports comes last, by protocol."""
    without = np.where(facts.has_ports[rows], facts.destination.port[rows], np.uint32(1 << 16)).astype(np.uint32)
    keys, at, starts = _distinct(without << np.uint32(8) | facts.columns.protocol[rows])

    def naming(n: int) -> tuple[str, str]:
        port, protocol = divmod(int(keys[n]), 256)
        name = PROTOCOLS[protocol]
        if port >> 16:
            return name, f"proto:{name}"
        return f"{name}/{port}", f"proto:{name} dport:{port}"

    return Groups(rows[at], starts, naming)


def _by_protocol(facts: Facts, rows: Index) -> Groups:
    keys, at, starts = _distinct(facts.columns.protocol[rows])
    return Groups(rows[at], starts, lambda n: _term("proto", PROTOCOLS[keys[n]]))


def _by_state(facts: Facts, rows: Index) -> Groups:
    """In the order of a connection's life; what is not TCP comes last."""
    keys, at, starts = _distinct(np.where(facts.is_tcp[rows], facts.columns.tcp_state[rows], np.uint8(255)))

    def naming(n: int) -> tuple[str, str]:
        return ("not TCP", "!proto:tcp") if keys[n] == 255 else _term("state", TCP_STATES[keys[n]])

    return Groups(rows[at], starts, naming)


def _by_mark(facts: Facts, rows: Index) -> Groups:
    """By name; what has no mark comes first."""
    names = facts.mark_names
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), np.uint32)
    rank[order] = np.arange(len(names), dtype=np.uint32)
    keys, at, starts = _distinct(rank.take(facts.columns.mark[rows]))

    def naming(n: int) -> tuple[str, str]:
        name = names[order[keys[n]]]
        return _term("mark", name) if name else ("no mark", 'mark:""')

    return Groups(rows[at], starts, naming)


def _distinct(values: NDArray[Any]) -> tuple[NDArray[Any], Index, Index]:
    """Of numbers below 2**32: those that occur, in order; where they stand, in their order; where each begins there.

    Value and place are sorted as one number: sorting is many times faster than finding out an order.
    """
    both = values.astype(np.uint64) << np.uint64(32)
    both |= np.arange(len(values), dtype=np.uint64)
    both.sort()
    at = (both & np.uint64(0xFFFF_FFFF)).astype(np.intp)
    ordered = both >> np.uint64(32)
    starts = _beginnings(ordered)
    return ordered[starts], at, starts


def _beginnings(ordered: NDArray[Any]) -> Index:
    """Where another value begins. (k,)"""
    begins = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    return np.flatnonzero(begins)


def _term(field: str, value: str) -> tuple[str, str]:
    """A value and the filter that asks for it."""
    if value and not set(value) & set(' \t\r\n(),"\\'):
        return value, f"{field}:{value}"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return value, f'{field}:"{escaped}"'


GROUPINGS: dict[str, Grouping] = {
    "src-address": _by_address(lambda facts: facts.source, "src"),
    "dst-address": _by_address(lambda facts: facts.destination, "dst"),
    "service": _by_service,
    "protocol": _by_protocol,
    "tcp-state": _by_state,
    "connection-mark": _by_mark,
}
"""What the table can be grouped by. `service`: protocol and destination port."""
