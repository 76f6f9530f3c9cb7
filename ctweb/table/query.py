"""Questions about the table: which rows, in which order, which part of them. Pure functions over columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ctweb.table.facts import Facts, Index
from ctweb.table.filter_language import all_of, parse, term
from ctweb.table.match import mask
from ctweb.table.order import Order, part_of
from ctweb.table.properties import PROPERTIES
from ctweb.table.query_error import QueryError, UnknownField, quoted
from ctweb.table.query_words import Words

__all__ = ["QueryError", "UnknownField", "View", "Window", "select", "window"]


@dataclass(frozen=True)
class View:
    """What a reader looks at: `filter` in the filter language, `sort` a property, `-` before it for descending.

    `group`: not rows but their groups by this (groups.py), sorted by what groups have.
    """

    filter: str = ""
    sort: str = ""
    offset: int = 0
    limit: int = 60
    group: str = ""


@dataclass(frozen=True, eq=False)
class Window:
    """The answer: rows in the table, rows that match, and the rows of the view in its order. (at most `limit`,)"""

    total: int
    matched: int
    indexes: Index


def window(facts: Facts, view: View) -> Window:
    """The rows that `view` shows. Without `sort`: oldest first. Raises QueryError."""
    order = Order.parse(view.sort)
    if view.offset < 0 or view.limit < 0:
        name = "offset" if view.offset < 0 else "limit"
        raise QueryError(name, f"{name} takes a whole number from 0")
    rows = select(facts, where=view.filter)
    matched = len(facts) if rows is None else len(rows)
    first = min(view.offset, matched)
    indexes = part_of(order.keys(facts), rows, first, min(first + view.limit, matched))
    return Window(len(facts), matched, indexes)


def select(
    facts: Facts,
    *,
    family: int | None = None,
    where: str = "",
    equal: Mapping[str, str] | None = None,
    words: Words | None = None,
) -> Index | None:
    """The rows, in the table's own order, that are of `family` (4 or 6), that the filter `where` means, whose
    properties (full names) have the values of `equal`, and for which the query `words` hold; None: all rows. Raises
    QueryError, about "filter" or the property.
    """
    node = parse(where)
    nodes = [] if node is None else [node]
    for name, value in (equal or {}).items():
        if name not in PROPERTIES:
            raise UnknownField(name, f"there is no property {quoted(name)}")
        nodes.append(term(name, "=", [value], about=name))
    found = None if not nodes else mask(facts, all_of(nodes))
    if words is not None:
        holding = words.mask(facts)
        found = holding if found is None else found & holding
    if family == 6 or (family == 4 and facts.has_ipv6):
        of_family = facts.is_ipv6 if family == 6 else ~facts.is_ipv6
        found = of_family if found is None else found & of_family
    return None if found is None else np.flatnonzero(found)
