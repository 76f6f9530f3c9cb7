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
    """k groups in their natural order. `of`: the group of each row, (n,); `naming` is asked by a group's number."""

    of: NDArray[np.intp]
    count: int
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
    chosen = facts if rows is None else facts.take(rows)
    groups = GROUPINGS[view.group](chosen)
    sums = _sums(chosen, groups)
    position = np.arange(groups.count, dtype=np.uint64)
    key = position if name in ("", "group") else sums[name]
    first = min(view.offset, groups.count)
    last = min(first + view.limit, groups.count)
    shown = part_of([~key if view.sort.startswith("-") else key, position], None, first, last)
    return GroupWindow(len(facts), len(chosen), groups.count, [_row(groups, sums, n) for n in shown.tolist()])


def _row(groups: Groups, sums: dict[str, U64], number: int) -> dict[str, str | int]:
    label, term = groups.naming(number)
    named: dict[str, str | int] = {".id": term, "group": label, "flags": ""}
    return named | {name: int(values[number]) for name, values in sums.items()}


_PAIRS: dict[str, Callable[[Facts], NDArray[Any]]] = {
    "rate": lambda facts: facts.whole_rates,
    "bytes": lambda facts: facts.columns.bytes,
    "packets": lambda facts: facts.columns.packets,
}
SORTS = ("group", "connections", *(name for pair in _PAIRS for name in (pair, f"orig-{pair}", f"repl-{pair}")))
"""What a group has; both directions together have no prefix."""


def _sums(facts: Facts, groups: Groups) -> dict[str, U64]:
    """By name, (k,) each."""
    sums = {"connections": np.bincount(groups.of, minlength=groups.count).astype(np.uint64)}
    for name, pair in _PAIRS.items():
        values = pair(facts)
        there, back = (_added(values[:, way], groups) for way in (0, 1))
        sums |= {name: there + back, f"orig-{name}": there, f"repl-{name}": back}
    return sums


def _added(values: NDArray[Any], groups: Groups) -> U64:
    """Exactly: the weights of bincount are floats."""
    total = np.zeros(groups.count, np.uint64)
    np.add.at(total, groups.of, values)
    return total


def _by_address(end: Callable[[Facts], End], field: str) -> Callable[[Facts], Groups]:
    def grouped(facts: Facts) -> Groups:
        """IPv4 first, each family by number."""
        high, low = end(facts).high, end(facts).low
        if not facts.has_ipv6:
            addresses, of = _distinct(high >> np.uint64(32))
            return Groups(of, len(addresses), lambda n: _term(field, str(IPv4Address(int(addresses[n])))))
        four, six = np.flatnonzero(~facts.is_ipv6), np.flatnonzero(facts.is_ipv6)
        addresses, of_four = _distinct(high[four] >> np.uint64(32))
        highs, of_high = _distinct(high[six])
        lows, of_low = _distinct(low[six])
        pairs, of_six = _distinct(of_high * len(lows) + of_low)
        of = np.empty(len(facts), np.intp)
        of[four], of[six] = of_four, of_six + len(addresses)

        def naming(n: int) -> tuple[str, str]:
            if n < len(addresses):
                return _term(field, str(IPv4Address(int(addresses[n]))))
            at_high, at_low = divmod(int(pairs[n - len(addresses)]), len(lows))
            return _term(field, str(IPv6Address(int(highs[at_high]) << 64 | int(lows[at_low]))))

        return Groups(of, len(addresses) + len(pairs), naming)

    return grouped


def _by_service(facts: Facts) -> Groups:
    """By port, then by protocol; what has no ports comes last, by protocol."""
    without = np.where(facts.has_ports, facts.destination.port, np.uint32(1 << 16)).astype(np.uint32)
    keys, of = _distinct(without << np.uint32(8) | facts.columns.protocol)

    def naming(n: int) -> tuple[str, str]:
        port, protocol = divmod(int(keys[n]), 256)
        name = PROTOCOLS[protocol]
        if port >> 16:
            return name, f"proto:{name}"
        return f"{name}/{port}", f"proto:{name} dport:{port}"

    return Groups(of, len(keys), naming)


def _by_protocol(facts: Facts) -> Groups:
    keys, of = _distinct(facts.columns.protocol)
    return Groups(of, len(keys), lambda n: _term("proto", PROTOCOLS[keys[n]]))


def _by_state(facts: Facts) -> Groups:
    """In the order of a connection's life; what is not TCP comes last."""
    keys, of = _distinct(np.where(facts.is_tcp, facts.columns.tcp_state, np.uint8(255)))
    return Groups(
        of, len(keys), lambda n: ("not TCP", "!proto:tcp") if keys[n] == 255 else _term("state", TCP_STATES[keys[n]])
    )


def _by_mark(facts: Facts) -> Groups:
    """By name; what has no mark comes first."""
    names = facts.mark_names
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), np.uint32)
    rank[order] = np.arange(len(names), dtype=np.uint32)
    keys, of = _distinct(rank.take(facts.columns.mark))

    def naming(n: int) -> tuple[str, str]:
        name = names[order[keys[n]]]
        return _term("mark", name) if name else ("no mark", 'mark:""')

    return Groups(of, len(keys), naming)


def _distinct(values: NDArray[Any]) -> tuple[NDArray[Any], Index]:
    """The values that occur, in order, and which of them stands in each row."""
    found, of = np.unique(values, return_inverse=True)
    return found, of


def _term(field: str, value: str) -> tuple[str, str]:
    """A value and the filter that asks for it."""
    if value and not set(value) & set(' \t\r\n(),"\\'):
        return value, f"{field}:{value}"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return value, f'{field}:"{escaped}"'


GROUPINGS: dict[str, Callable[[Facts], Groups]] = {
    "src-address": _by_address(lambda facts: facts.source, "src"),
    "dst-address": _by_address(lambda facts: facts.destination, "dst"),
    "service": _by_service,
    "protocol": _by_protocol,
    "tcp-state": _by_state,
    "connection-mark": _by_mark,
}
"""What the table can be grouped by. `service`: protocol and destination port."""
