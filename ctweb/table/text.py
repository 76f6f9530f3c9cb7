"""What `ctweb print` shows: rows in the column form of RouterOS's terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ctweb.table.names import FLAGS

Row = Mapping[str, str]  # a row in REST form

_PREFIXES = ("", "k", "M", "G", "T")
_GAP = "  "
NARROWEST = 20


def grouped(number: str) -> str:
    """`47603` as `47 603`."""
    return f"{int(number):,}".replace(",", " ")


def rate(bits: str) -> str:
    """Bits per second with a unit: `1760bps`, `6.4kbps`. A unit begins at twice its size, as in RouterOS."""
    scaled = float(bits)
    for prefix in _PREFIXES:
        if scaled < 2000 or prefix == _PREFIXES[-1]:
            break
        scaled /= 1000
    return f"{scaled:.0f}bps" if not prefix else f"{scaled:.1f}{prefix}bps"


def _plain(text: str) -> str:
    """`text` without what could move a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)


@dataclass(frozen=True)
class _Column:
    """`rank`: the columns of the highest rank are the first to go where the terminal is narrow."""

    name: str
    rank: int
    write: Callable[[str], str] = _plain
    right: bool = True


# In RouterOS's order.
_COLUMNS = (
    _Column("protocol", 0, right=False),
    _Column("src-address", 0, right=False),
    _Column("dst-address", 0, right=False),
    _Column("tcp-state", 1, right=False),
    _Column("timeout", 2),
    _Column("orig-rate", 4, rate),
    _Column("repl-rate", 4, rate),
    _Column("orig-packets", 5, grouped),
    _Column("repl-packets", 5, grouped),
    _Column("orig-bytes", 3, grouped),
    _Column("repl-bytes", 3, grouped),
    _Column("connection-mark", 6, right=False),
    _Column("connection-type", 6, right=False),
)


def _letters(row: Row) -> str:
    return "".join(flag.letter for flag in FLAGS if row.get(flag.name) == "true")


def table_text(rows: Sequence[Row], width: int | None = None) -> str:
    """The rows (REST form) under a legend of their flags and a line naming the columns; nothing for no rows.

    `width`: characters in a line, at least NARROWEST; None: any number. Columns that do not fit are left out of
    the table and of the line that names them.
    """
    if not rows:
        return ""
    width = None if width is None else max(width, NARROWEST)
    letters = [_letters(row) for row in rows]
    number = _cells("#", [str(i) for i in range(len(rows))], right=True)
    flags = _cells("", letters, right=False)
    columns = [
        (c, _cells(c.name.upper(), [c.write(row[c.name]) if c.name in row else "" for row in rows], c.right))
        for c in _COLUMNS
        if any(c.name in row for row in rows)
    ]
    columns = _fitting(columns, width, len(number[0]) + len(_GAP) + len(flags[0]))
    head = []
    if any(letters):
        used = [flag for flag in FLAGS if any(flag.letter in text for text in letters)]
        head.append("Flags: " + "; ".join(f"{flag.letter} - {flag.name.upper()}" for flag in used))
    head.append("Columns: " + ", ".join(c.name.upper() for c, _ in columns))
    lines = [line for text in head for line in (textwrap.wrap(text, width) if width else [text])]
    for parts in zip(number, flags, *(cells for _, cells in columns), strict=True):
        lines.append(_GAP.join(parts).rstrip()[:width])
    return "\n".join(lines)


def _cells(title: str, values: list[str], right: bool) -> list[str]:
    """A column with its title, padded to one width."""
    texts = [title, *values]
    width = max(map(len, texts))
    return [text.rjust(width) if right else text.ljust(width) for text in texts]


def _fitting(
    columns: list[tuple[_Column, list[str]]], width: int | None, taken: int
) -> list[tuple[_Column, list[str]]]:
    """The columns that fit beside the `taken` characters; those of rank 0 stay in any case."""
    for rank in sorted({c.rank for c, _ in columns}, reverse=True):
        needed = taken + sum(len(_GAP) + len(cells[0]) for _, cells in columns)
        if width is None or needed <= width or rank == 0:
            break
        columns = [(c, cells) for c, cells in columns if c.rank < rank]
    return columns
