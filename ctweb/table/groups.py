"""The table by groups: how many connections each source, service or state has, and what goes through them.

Pure functions over columns; words are made for the groups of a window only.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctweb.table.columns import U64
from ctweb.table.facts import End, Facts, Index
from ctweb.table.names import PROTOCOLS, TCP_STATES
from ctweb.table.order import Key, part_of
from ctweb.table.query import View, select
from ctweb.table.query_error import QueryError, quoted

Naming = Callable[[int], tuple[str, str]]
"""A group's label and the filter that means its rows."""


@dataclass(frozen=True, eq=False)
class Groups:
    """k groups. `naming` is asked by a group's number."""

    rows: Index  # (n,) rows of the table, those of a group beside each other
    starts: Index  # (k,) where each group begins in `rows`
    naming: Naming
    order: list[Key] | None = None  # (k,) each: the keys of their natural order; None: they stand in it


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
    natural = groups.order or [np.arange(count, dtype=np.uint64)]
    keys = natural if name in ("", "group") else [_sums(facts, groups, [name])[name]]
    if view.sort.startswith("-"):
        keys = [~key for key in keys]
    first = min(view.offset, count)
    last = min(first + view.limit, count)
    shown = part_of([*keys, *natural], None, first, last)
    return GroupWindow(len(facts), len(groups.rows), count, _rows(facts, groups, shown))


def _rows(facts: Facts, groups: Groups, shown: Index) -> list[dict[str, str | int]]:
    """What is told of the groups with these numbers."""
    ends = np.append(groups.starts, len(groups.rows))
    members = [groups.rows[ends[n] : ends[n + 1]] for n in shown.tolist()]
    starts = np.cumsum([0, *(len(rows) for rows in members)])[:-1]
    sums = _sums(facts, Groups(np.concatenate([*members, groups.rows[:0]]), starts, groups.naming), SORTS[1:])
    made: list[dict[str, str | int]] = []
    for at, n in enumerate(shown.tolist()):
        label, term = groups.naming(n)
        made.append({".id": term, "group": label, "flags": ""} | {name: int(sums[name][at]) for name in sums})
    return made


_PAIRS: dict[str, Callable[[Facts, Index], U64]] = {
    "rate": lambda facts, rows: np.rint(_pairs(facts.rates, rows)).astype(np.uint64),
    "bytes": lambda facts, rows: _pairs(facts.columns.bytes, rows),
    "packets": lambda facts, rows: _pairs(facts.columns.packets, rows),
}
SORTS = ("group", "connections", *(name for pair in _PAIRS for name in (pair, f"orig-{pair}", f"repl-{pair}")))
"""What a group has; both directions together have no prefix."""


def _sums(facts: Facts, groups: Groups, names: Sequence[str]) -> dict[str, U64]:
    """Those of SORTS by name, (k,) each. Exact: no floats in between."""
    sums = {"connections": np.diff(groups.starts, append=len(groups.rows)).astype(np.uint64)}
    for name, pair in _PAIRS.items():
        if not any(wanted.endswith(name) for wanted in names):
            continue
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
        addresses = end(facts)
        is_ipv6 = facts.is_ipv6[rows] if facts.has_ipv6 else np.zeros(len(rows), np.bool_)
        four, six = rows[np.flatnonzero(~is_ipv6)], rows[np.flatnonzero(is_ipv6)]
        known, four_at, four_starts = _distinct((addresses.high[four] >> np.uint64(32)).astype(np.uint32))
        six_rows, six_starts = _together(addresses, six)
        first = six_rows[six_starts]
        high, low = addresses.high[first], addresses.low[first]

        def naming(n: int) -> tuple[str, str]:
            if n < len(known):
                return _term(field, str(IPv4Address(int(known[n]))))
            n -= len(known)
            return _term(field, str(IPv6Address(int(high[n]) << 64 | int(low[n]))))

        family = np.repeat(np.array([4, 6], np.uint8), (len(known), len(high)))
        order = [family, np.append(known, high), np.append(np.zeros(len(known), np.uint64), low)]
        starts = np.append(four_starts, six_starts + len(four))
        return Groups(np.append(four[four_at], six_rows), starts, naming, order if len(six) else None)

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


_FACTORS = np.array([secrets.randbits(64) | 1 for _ in range(3)], np.uint64)
"""What addresses are hashed with: nobody can send some that are slow to group."""


def _together(addresses: End, rows: Index) -> tuple[Index, Index]:
    """The rows of the table, those of an address beside each other, addresses in no order in particular; where each
    address begins there.

    Two words are many times slower to sort than one, so it is a hash of them that is sorted, and its place in the low
    bits with it. The addresses are compared afterwards.
    """
    high, low = addresses.high[rows], addresses.low[rows]
    half = np.uint64(32)
    hashed = high * _FACTORS[0]
    hashed ^= hashed >> half
    hashed += low
    hashed *= _FACTORS[1]
    hashed ^= hashed >> half
    hashed *= _FACTORS[2]
    places = np.uint64((1 << len(rows).bit_length()) - 1)
    hashed &= ~places
    hashed |= np.arange(len(rows), dtype=np.uint64)
    hashed.sort()
    at = (hashed & places).astype(np.intp)
    hashed &= ~places
    starts = _beginnings(high[at], low[at])
    if len(starts) > len(_beginnings(hashed)):  # two addresses with one hash may stand among each other
        at = np.lexsort((low, high))
        starts = _beginnings(high[at], low[at])
    return rows[at], starts


def _beginnings(*ordered: NDArray[Any]) -> Index:
    """Where another value begins, of one column or of several. (k,)"""
    begins = np.zeros(len(ordered[0]), np.bool_)
    begins[:1] = True
    for column in ordered:
        begins[1:] |= column[1:] != column[:-1]
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
