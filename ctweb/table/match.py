"""Which rows a filter means: the filter language's nodes as masks over columns."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctweb.table.facts import End, Facts, Mask
from ctweb.table.fields import FIELDS, AddressTest, Field, FlagsTest, MarkTest, RangeTest, Several, Test
from ctweb.table.filter_language import And, Node, Not, Or, Term, Word
from ctweb.table.properties import PROPERTIES, Kind, Property
from ctweb.table.search import contains


def mask(facts: Facts, node: Node) -> Mask:
    """The rows that `node` means. (n,) A property that a row does not have equals nothing and is above nothing."""
    match node:
        case Word(text):
            return contains(facts, text)
        case Not(inner):
            return ~mask(facts, inner)
        case And(nodes):
            found = mask(facts, nodes[0])
            for part in nodes[1:]:
                found &= mask(facts, part)
            return found
        case Or(nodes):
            found = mask(facts, nodes[0])
            for part in nodes[1:]:
                found |= mask(facts, part)
            return found
        case Term():
            return _term(facts, node)


def _term(facts: Facts, term: Term) -> Mask:
    field = FIELDS[term.name]
    found = np.zeros(len(facts), np.bool_)
    for test in term.tests:
        found |= _field(facts, field, "=" if term.operator == "!=" else term.operator, test)
    return ~found if term.operator == "!=" else found


def _field(facts: Facts, field: Field, operator: str, test: Test) -> Mask:
    if isinstance(test, FlagsTest):
        bits = np.uint16(test.bits)
        return _OPERATORS["="](facts.flags & bits, test.bits if test.wanted else 0)
    properties = [PROPERTIES[name] for name in field.properties]
    if field.several is Several.TOTAL:
        first, second = (prop.column(facts) for prop in properties)
        return _compared(first + second, operator, test)
    found = _property(facts, properties[0], operator, test)
    for prop in properties[1:]:
        found |= _property(facts, prop, operator, test)
    return found


def _property(facts: Facts, prop: Property, operator: str, test: Test) -> Mask:
    column = prop.column(facts)
    if isinstance(test, AddressTest):
        return _address(facts, column, test)
    if isinstance(test, MarkTest):
        same: Mask = np.array([name == test.name for name in facts.mark_names])
        marked: Mask = same.take(column)
        return marked
    if prop.kind is Kind.TIME:
        column = column.astype(np.uint64) * np.uint64(1000)  # tests of times are in milliseconds
    found = _compared(column, operator, test)
    return found if prop.present is None else found & prop.present(facts)


_OPERATORS: dict[str, Callable[[NDArray[Any], int], Mask]] = {
    "=": np.equal,
    "<": np.less,
    ">": np.greater,
    "<=": np.less_equal,
    ">=": np.greater_equal,
}


def _compared(column: NDArray[Any], operator: str, test: Test) -> Mask:
    assert isinstance(test, RangeTest)
    if test.first == test.last:
        return _OPERATORS[operator](column, test.first)
    return _OPERATORS[">="](column, test.first) & _OPERATORS["<="](column, test.last)


def _address(facts: Facts, end: End, test: AddressTest) -> Mask:
    network = test.network
    # An IPv4 address is the upper half of `high`.
    shift = 96 if isinstance(network, IPv4Network) else 0
    address, netmask = int(network.network_address) << shift, int(network.netmask) << shift
    high, low = netmask >> 64, netmask & (2**64 - 1)
    found: Mask = facts.is_ipv6 if network.version == 6 else ~facts.is_ipv6
    found = found & ((end.high & np.uint64(high)) == np.uint64(address >> 64))
    if low:
        found &= (end.low & np.uint64(low)) == np.uint64(address & (2**64 - 1))
    if test.port is not None:
        found &= facts.has_ports & (end.port == test.port)
    return found
