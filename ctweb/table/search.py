"""Free text: which rows show a word in an address, a port, the protocol or the TCP state.

An end of a connection is shown as `10.0.0.1:443`, `[2001:db8::1]:443` or without a port, and a word is found
anywhere in that text. No such text is made: the word is cut at its separators, laid along the parts of an address,
and each piece is looked up for all numbers a part can be. Upper and lower case are the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ctweb.table.byte_text import zero_patterns, zero_run
from ctweb.table.columns import U8, U16
from ctweb.table.facts import Facts, Index, Mask
from ctweb.table.names import PROTOCOLS, TCP_STATES

_SEPARATORS = re.compile(r"([.:\[\]])")
_SEARCHABLE = re.compile(r"[0-9a-f.:\[\]]*")

Kind = Literal["octet", "group", "port", "empty"]
How = Literal["within", "end", "whole", "start"]

_TEXTS = {
    "octet": np.array([f"{i}" for i in range(256)]),
    "group": np.array([f"{i:x}" for i in range(65536)]),
    "port": np.array([f"{i}" for i in range(65536)]),
    "empty": np.array([""]),
}


@dataclass(frozen=True)
class _Part:
    """A number in the text of an end: the octet or group at `place`, or the port."""

    kind: Kind
    place: int = 0


@dataclass(frozen=True)
class _Layout:
    """How an end is written: parts[0] separators[0] parts[1] ... `inside`: these parts are there without a port."""

    parts: tuple[_Part, ...]
    separators: str
    inside: range


_PORT = _Part("port")
_EMPTY = _Part("empty")
_IPV4 = _Layout((*(_Part("octet", i) for i in range(4)), _PORT), "...:", range(4))


def _ipv6(start: int, end: int) -> _Layout:
    """Groups `start` to `end` are written as `::`; 8: none are."""
    left = [_Part("group", i) for i in range(start)]
    right = [_Part("group", i) for i in range(end, 8)]
    groups = left if start == 8 else [*(left or [_EMPTY]), _EMPTY, *(right or [_EMPTY])]
    parts = (_EMPTY, *groups, _EMPTY, _PORT)
    return _Layout(parts, "[" + ":" * (len(groups) - 1) + "]:", range(1, 1 + len(groups)))


_RUNS = sorted({zero_run(pattern) for pattern in range(256)})
_RUN_OF = np.array([_RUNS.index(zero_run(pattern)) for pattern in range(256)], np.uint8)
_LAYOUTS = [_ipv6(*run) for run in _RUNS]


@lru_cache(maxsize=128)
def _numbers(kind: Kind, piece: str, how: How) -> Mask:
    """For every number of a part: whether its text has `piece` there."""
    texts = _TEXTS[kind]
    found: Mask
    match how:
        case "whole":
            found = texts == piece
        case "start":
            found = np.strings.startswith(texts, piece)
        case "end":
            found = np.strings.endswith(texts, piece)
        case "within":
            found = np.strings.find(texts, piece) >= 0
    return found


@dataclass(frozen=True)
class _Alignment:
    """One way a word can lie on a layout: what the numbers of these parts must be among."""

    tests: tuple[tuple[_Part, Mask], ...]
    needs_port: bool


@lru_cache(maxsize=128)
def _alignments(layout: _Layout, word: str) -> tuple[_Alignment, ...]:
    cut = _SEPARATORS.split(word)
    pieces, separators = cut[::2], "".join(cut[1::2])
    last = len(pieces) - 1
    found = []
    for first in range(len(layout.parts) - last):
        if layout.separators[first : first + last] != separators:
            continue
        tests = []
        for i, piece in enumerate(pieces):
            how: How = "within" if last == 0 else "end" if i == 0 else "start" if i == last else "whole"
            part = layout.parts[first + i]
            tests.append((part, _numbers(part.kind, piece, how)))
        if all(numbers.any() for _, numbers in tests):
            needs_port = not (first in layout.inside and first + last in layout.inside)
            found.append(_Alignment(tuple(t for t in tests if not t[1].all()), needs_port))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class _Ends:
    """One end of each connection: their addresses (n, 16) and ports (n,), and whether the ports mean anything."""

    address: U8
    port: U16
    has_port: Mask

    def numbers(self, part: _Part, rows: Index | slice) -> NDArray[Any]:
        if part.kind == "port":
            return self.port[rows]
        if part.kind == "octet":
            return self.address[rows, part.place]
        high, low = self.address[rows, 2 * part.place], self.address[rows, 2 * part.place + 1]
        return high.astype(np.uint16) << 8 | low

    def show(self, alignments: tuple[_Alignment, ...], rows: Index | slice) -> Mask:
        """Which of `rows`, all of one layout, show a word."""
        found = np.zeros(len(self.port[rows]), np.bool_)
        for alignment in alignments:
            here = self.has_port[rows] if alignment.needs_port else np.True_
            for part, numbers in alignment.tests:
                here = here & numbers.take(self.numbers(part, rows))
            found |= here
        return found


def _in_end(ends: _Ends, facts: Facts, word: str) -> Mask:
    if not facts.has_ipv6:
        return ends.show(_alignments(_IPV4, word), slice(None))
    found = np.zeros(len(facts), np.bool_)
    if alignments := _alignments(_IPV4, word):
        v4 = np.flatnonzero(~facts.is_ipv6)
        found[v4] = ends.show(alignments, v4)
    if any(_alignments(layout, word) for layout in _LAYOUTS):
        v6 = np.flatnonzero(facts.is_ipv6)
        runs = _RUN_OF.take(zero_patterns(ends.address[v6].view(np.uint16)))
        for run in np.flatnonzero(np.bincount(runs)):
            rows = v6[runs == run]
            found[rows] = ends.show(_alignments(_LAYOUTS[run], word), rows)
    return found


def contains(facts: Facts, word: str) -> Mask:
    """The rows that show `word`. (n,)"""
    word = word.lower()
    c = facts.columns
    found = np.array([word in name for name in PROTOCOLS]).take(c.protocol)
    states = np.array([word in name for name in TCP_STATES])
    if states.any():
        found |= facts.is_tcp & states.take(c.tcp_state)
    if _SEARCHABLE.fullmatch(word):
        for address, port in ((c.lo_addr, c.lo_port), (c.hi_addr, c.hi_port)):
            found |= _in_end(_Ends(address, port, facts.has_ports), facts, word)
        if facts.translation is not None and len(rows := facts.translated_rows):
            t, at, part = facts.translated, facts.translation[rows], facts.take(rows)
            for address, port in ((t.lo_addr, t.lo_port), (t.hi_addr, t.hi_port)):
                found[rows] |= _in_end(_Ends(address[at], port[at], part.has_ports), part, word)
    return found
