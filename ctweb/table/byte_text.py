"""Columns of numbers and addresses as text, without a Python object a row.

Every function answers a matrix of bytes, one row a value, in which NUL bytes are padding that may stand anywhere:
side by side and with the NULs deleted (`joined`), matrices are the text. All rows of a matrix are equally wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctweb.table.columns import U8, U16, U64

Bytes = NDArray[np.uint8]  # (n, width)
Mask = NDArray[np.bool_]


def constants(texts: Sequence[str]) -> Bytes:
    """One row a text, for `rows_of` to choose from."""
    encoded = [text.encode() for text in texts]
    width = max(1, max((len(text) for text in encoded), default=0))
    return np.array(encoded, dtype=f"S{width}").view(np.uint8).reshape(len(encoded), width)


def rows_of(table: Bytes, numbers: NDArray[Any]) -> Bytes:
    """The rows of `table` at `numbers`."""
    return table.take(numbers, axis=0)


def joined(matrix: Bytes) -> bytes:
    """The text of a matrix, row after row."""
    return matrix.tobytes().translate(None, b"\0")


def hidden(matrix: Bytes, shown: Mask) -> Bytes:
    """`matrix` with the rows that are not `shown` empty."""
    return matrix * shown[:, None]


def _as_bytes(cells: NDArray[Any]) -> Bytes:
    """(n, k) cells of several bytes as the matrix of those bytes."""
    return np.ascontiguousarray(cells).view(np.uint8).reshape(len(cells), cells.shape[1] * cells.itemsize)


class _Digits:
    """Numbers to text, several digits at a time: a table holds what each group of digits looks like."""

    def __init__(self, base: int, digits: int, form: str) -> None:
        """`base`: what a group counts to; `digits`: its width in characters, 2 or 4; `form`: X or d."""
        padded = [f"{number:0{digits}{form}}" for number in range(base)]
        stripped = ["" if number == 0 else f"{number:{form}}" for number in range(base)]
        cell = np.dtype(f"u{digits}")
        self.base = base
        self.inner = np.array([text.encode() for text in padded + stripped], f"S{digits}").view(cell)
        self.last = self.inner.copy()
        self.last[base] = np.frombuffer(b"0".ljust(digits, b"\0"), cell)[0]

    def text(self, values: NDArray[Any]) -> Bytes:
        """(n, groups * digits)"""
        top = int(values.max(initial=0))
        rest: NDArray[Any] = values.astype(np.uint32 if top < 2**32 else np.uint64)
        base = rest.dtype.type(self.base)
        groups = 1
        while self.base**groups <= top:
            groups += 1
        cells = np.empty((len(values), groups), self.inner.dtype)
        table = self.last
        for group in reversed(range(groups)):
            above = rest // base
            digit = rest - above * base
            digit += (above == 0) * base  # a leading group: the half of the table without leading zeros
            cells[:, group] = table.take(digit)
            table = self.inner
            rest = above
        return _as_bytes(cells)


_DECIMAL = _Digits(10_000, 4, "d")
_HEX = _Digits(256, 2, "X")


def decimal(values: NDArray[Any]) -> Bytes:
    """Unsigned whole numbers."""
    return _DECIMAL.text(values)


def hexadecimal(values: NDArray[Any]) -> Bytes:
    """Unsigned whole numbers, in upper case."""
    return _HEX.text(values)


def _unit(count: int, unit: str) -> NDArray[np.uint64]:
    """What 0 to `count` - 1 of a unit look like: nothing for zero. As eight bytes each."""
    return np.array([f"{i}{unit}".encode() if i else b"" for i in range(count)], "S8").view(np.uint64)


_WEEKS = _unit(2**32 // 604_800 + 1, "w")
_DAYS = _unit(7, "d")
_HOURS = _unit(24, "h")
_MINUTES = _unit(60, "m")
_SECONDS = _unit(60, "s")
_ZERO = np.frombuffer(b"0s".ljust(8, b"\0"), np.uint64)[0]


def time(seconds: NDArray[np.uint32]) -> Bytes:
    """RouterOS time values: `23h59m56s`, `0s`."""
    cells = []
    rest = seconds
    for table, size in ((_SECONDS, 60), (_MINUTES, 60), (_HOURS, 24), (_DAYS, 7)):
        above = rest // np.uint32(size)
        cells.append(table.take(rest - above * np.uint32(size)))
        rest = above
        if not rest.any():
            break
    else:
        cells.append(_WEEKS.take(rest))
    cells[0] = np.where(seconds == 0, _ZERO, cells[0])
    return _as_bytes(np.stack(cells[::-1], axis=1))


_OCTETS = np.array([f"{i}.".encode() for i in range(256)], "S4").view(np.uint32)
_LAST_OCTETS = np.array([f"{i}".encode() for i in range(256)], "S4").view(np.uint32)


def ipv4(high: U64) -> Bytes:
    """Addresses whose 32 bits are the upper half of `high`. (n, 16)"""
    octets = high.astype(">u8").view(np.uint8).reshape(-1, 8)[:, :4]
    cells = _OCTETS.take(octets)
    cells[:, 3] = _LAST_OCTETS.take(octets[:, 3])
    return _as_bytes(cells)


_GROUPS = np.array([f"{i:x}".encode() for i in range(65536)], "S4").view(np.uint32)


def zero_run(groups: int) -> tuple[int, int]:
    """Which groups `::` stands for (RFC 5952): the longest run of at least two zeros, the first of equals.

    `groups`: which of the eight are zero, the first as the highest bit. Start and end; (8, 8): none.
    """
    zeros = f"{groups:08b}"
    for length in range(8, 1, -1):
        start = zeros.find("1" * length)
        if start >= 0:
            return start, start + length
    return 8, 8


def _ipv6_layouts() -> tuple[NDArray[np.uint32], NDArray[np.uint32], U8]:
    """For each pattern of zero groups: which groups stay, where `::` stands, which groups a colon follows."""
    keep = np.zeros((256, 8), np.uint32)
    gap = np.zeros((256, 8), np.uint32)
    colon = np.zeros((256, 8), np.uint8)
    for pattern in range(256):
        start, end = zero_run(pattern)
        visible = [i for i in range(8) if not start <= i < end]
        keep[pattern, visible] = 0xFFFFFFFF
        if start < 8:
            gap[pattern, start] = np.frombuffer(b"::\0\0", np.uint32)[0]
        colon[pattern, [i for i in visible if i + 1 in visible]] = ord(":")
    return keep, gap, colon


_KEEP, _GAP, _COLON = _ipv6_layouts()


def groups_of(high: U64, low: U64) -> U16:
    """The eight groups of IPv6 addresses. (n, 8)"""
    words = np.stack((high, low), axis=1).astype(">u8").view(">u2")
    return words.astype(np.uint16)


def zero_patterns(groups: U16) -> U8:
    """Which of the eight groups are zero, as `zero_run` wants it. (n,)"""
    return np.packbits(groups == 0, axis=1)[:, 0]


def ipv6(high: U64, low: U64) -> Bytes:
    """Addresses in the form of RFC 5952, without an IPv4 part. (n, 40)"""
    groups = groups_of(high, low)
    patterns = zero_patterns(groups)
    text = _GROUPS.take(groups) & _KEEP.take(patterns, axis=0) | _GAP.take(patterns, axis=0)
    cells = np.empty((len(groups), 8, 5), np.uint8)
    cells[:, :, :4] = text.view(np.uint8).reshape(-1, 8, 4)
    cells[:, :, 4] = _COLON.take(patterns, axis=0)
    return cells.reshape(-1, 40)
