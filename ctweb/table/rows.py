"""Rows as JSON: RouterOS's REST form and the page's, written for many rows at once.

A block of rows is one matrix of bytes: a template row copied down, each property's values laid into it, and the
properties that a row does not have blanked with NULs, which are then deleted. No object is made for a row, so a
million rows cost what their bytes cost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec
import numpy as np

from ctweb.table import byte_text
from ctweb.table.byte_text import Bytes
from ctweb.table.facts import End, Facts, Index, Mask
from ctweb.table.names import FLAG_BIT, FLAGS
from ctweb.table.properties import PROPERTIES, Kind, Property

BLOCK = 2048  # rows; their matrix stays in the processor's cache

_FALSE_TRUE = byte_text.constants(["false", "true"])
_CHOICES = {p.name: byte_text.constants(p.names) for p in PROPERTIES.values() if p.kind is Kind.CHOICE}
_LETTERS = byte_text.constants(
    ["".join(f.letter for i, f in enumerate(FLAGS) if bits >> i & 1) for bits in range(1 << len(FLAGS))]
)

REST_PROPERTIES = tuple(sorted(PROPERTIES))
"""What a REST row may have, in its order: `.id`, then by name."""

PAGE_PROPERTIES = tuple(name for name in REST_PROPERTIES if PROPERTIES[name].kind is not Kind.FLAG)
"""What a row of the page may have, besides `flags`."""


@dataclass(frozen=True)
class _Field:
    """One property in a block of rows: `values` as text, `shown`: which rows have it (None: all)."""

    name: str
    values: Bytes
    quoted: bool = True
    shown: Mask | None = None


class _Block:
    """The rows of `facts` as fields."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._addresses: list[tuple[End, Bytes]] = []

    def _address(self, end: End) -> Bytes:
        """Without NAT each end is asked for twice: once as what replies carry."""
        for made, text in self._addresses:
            if made is end:
                return text
        self._addresses.append((end, _address(self.facts, end)))
        return self._addresses[-1][1]

    def rest(self, name: str) -> _Field:
        """Every value is a string."""
        prop = PROPERTIES[name]
        return _Field(name, self._text(prop), shown=self._shown(prop))

    def page(self, name: str) -> _Field:
        """Numbers are numbers, times are seconds, yes/no are letters in `flags`."""
        if name == "flags":
            return self.letters()
        prop = PROPERTIES[name]
        if prop.kind in (Kind.PORT, Kind.NUMBER, Kind.RATE, Kind.TIME):
            return _Field(name, byte_text.decimal(prop.column(self.facts)), False, self._shown(prop))
        return self.rest(name)

    def csv(self, name: str) -> Bytes:
        """As in `page`, but empty where a row does not have it, and marks safe in a spreadsheet."""
        if name == "connection-mark":
            return byte_text.rows_of(_csv_marks(self.facts.mark_names), self.facts.columns.mark)
        field = self.page(name)
        return field.values if field.shown is None else byte_text.hidden(field.values, field.shown)

    def letters(self) -> _Field:
        return _Field("flags", byte_text.rows_of(_LETTERS, self.facts.flags))

    def _shown(self, prop: Property) -> Mask | None:
        return None if prop.present is None else prop.present(self.facts)

    def _text(self, prop: Property) -> Bytes:
        column = prop.column(self.facts)
        match prop.kind:
            case Kind.ADDRESS:
                return self._address(column)
            case Kind.FLAG:
                return byte_text.rows_of(_FALSE_TRUE, (column & FLAG_BIT[prop.name]).astype(np.bool_))
            case Kind.CHOICE:
                return byte_text.rows_of(_CHOICES[prop.name], column)
            case Kind.MARK:
                return byte_text.rows_of(_marks(self.facts.mark_names), column)
            case Kind.TIME:
                return byte_text.time(column)
            case Kind.ID:
                star = np.full((len(column), 1), ord("*"), np.uint8)
                return np.concatenate((star, byte_text.hexadecimal(column)), axis=1)
            case _:
                return byte_text.decimal(column)


@lru_cache(maxsize=4)
def _marks(names: tuple[str, ...]) -> Bytes:
    """The names as they stand in JSON strings."""
    return byte_text.constants([msgspec.json.encode(name).decode()[1:-1] for name in names])


@lru_cache(maxsize=4)
def _csv_marks(names: tuple[str, ...]) -> Bytes:
    """The names as CSV fields. An apostrophe before what a spreadsheet would calculate: it shows the text then."""
    written = []
    for name in names:
        text = "'" + name if name.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else name
        quoted = any(mark in text for mark in ',"\r\n')
        written.append('"' + text.replace('"', '""') + '"' if quoted else text)
    return byte_text.constants(written)


def _address(facts: Facts, end: End) -> Bytes:
    """`ip`, `ip:port` or `[ipv6]:port`."""
    colon = (facts.has_ports * np.uint8(ord(":")))[:, None]
    port = byte_text.hidden(byte_text.decimal(end.port), facts.has_ports)
    if not facts.has_ipv6:
        return np.concatenate((byte_text.ipv4(end.high), colon, port), axis=1)
    address = np.zeros((len(facts), 42), np.uint8)
    v4, v6 = np.flatnonzero(~facts.is_ipv6), np.flatnonzero(facts.is_ipv6)
    address[v4, :16] = byte_text.ipv4(end.high[v4])
    address[v6, 1:41] = byte_text.ipv6(end.high[v6], end.low[v6])
    bracketed = np.flatnonzero(facts.is_ipv6 & facts.has_ports)
    address[bracketed, 0] = ord("[")
    address[bracketed, 41] = ord("]")
    return np.concatenate((address, colon, port), axis=1)


def _objects(fields: list[_Field], rows: int) -> bytes:
    """The rows as JSON objects, a comma before each. The first field must be in every row."""
    template = bytearray()
    places = []
    opening = b",{"
    for field in fields:
        start = len(template)
        quote = b'"' if field.quoted else b""
        template += opening + b'"' + field.name.encode() + b'":' + quote
        values = len(template)
        template += bytes(field.values.shape[1]) + quote
        places.append((start, values, len(template)))
        opening = b","
    template += b"}"
    matrix = np.empty((rows, len(template)), np.uint8)
    matrix[:] = np.frombuffer(template, np.uint8)
    for field, (start, values, end) in zip(fields, places, strict=True):
        matrix[:, values : values + field.values.shape[1]] = field.values
        if field.shown is not None and not field.shown.all():
            matrix[np.flatnonzero(~field.shown), start:end] = 0
    return byte_text.joined(matrix)


def _chunks(facts: Facts, index: Index | None, fields: Callable[[_Block], list[_Field]]) -> Iterator[bytes]:
    """A JSON array of the rows at `index` (None: all), a block at a time."""
    yield b"["
    for number, block in enumerate(_blocks(facts, index)):
        text = _objects(fields(_Block(block)), len(block))
        yield text if number else text[1:]
    yield b"]"


def _blocks(facts: Facts, index: Index | None) -> Iterator[Facts]:
    rows = len(facts) if index is None else len(index)
    for start in range(0, rows, BLOCK):
        part = slice(start, min(start + BLOCK, rows))
        yield facts.take(part if index is None else index[part])


def rest_chunks(facts: Facts, index: Index | None = None, names: Collection[str] | None = None) -> Iterator[bytes]:
    """The rows at `index` (None: all) as RouterOS's REST writes them: a JSON array in pieces, to be streamed.

    `names`: only these properties and `.id`; names that no row has are ignored.
    """
    chosen = [n for n in REST_PROPERTIES if names is None or n in names or n == ".id"]
    return _chunks(facts, index, lambda block: [block.rest(name) for name in chosen])


def rest_rows(
    facts: Facts, index: Index | None = None, names: Collection[str] | None = None
) -> list[dict[str, str]]:
    """`rest_chunks` as objects, for a few rows."""
    return msgspec.json.decode(b"".join(rest_chunks(facts, index, names)), type=list[dict[str, str]])


def page_chunks(facts: Facts, index: Index | None, names: Collection[str]) -> Iterator[bytes]:
    """The rows at `index` (None: all) as the page has them, `.id` first, with only the properties `names`."""
    return _chunks(facts, index, lambda block: [block.page(n) for n in (".id", *(n for n in names if n != ".id"))])


def csv_chunks(facts: Facts, index: Index | None, names: Sequence[str]) -> Iterator[bytes]:
    """The rows at `index` (None: all) as CSV (RFC 4180), the values as the page has them; a head line first.

    What is text from outside, the marks, is quoted, and a spreadsheet does not take it for a formula.
    """
    yield ",".join(names).encode() + b"\r\n"
    for facts_block in _blocks(facts, index):
        block = _Block(facts_block)
        parts = [part for name in names for part in (block.csv(name), _byte(b",", len(facts_block)))]
        parts[-1:] = [_byte(b"\r", len(facts_block)), _byte(b"\n", len(facts_block))]
        yield byte_text.joined(np.concatenate(parts, axis=1))


def _byte(byte: bytes, rows: int) -> Bytes:
    return np.full((rows, 1), ord(byte), np.uint8)


def page_rows(facts: Facts, index: Index) -> bytes:
    """The rows at `index` as the page wants them (docs/architecture.md, /live): a JSON array."""
    return b"".join(
        _chunks(facts, index, lambda block: [block.page(name) for name in (*PAGE_PROPERTIES, "flags")])
    )
