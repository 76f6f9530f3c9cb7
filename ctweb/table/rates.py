"""Bits per second of each connection and direction, from two sweeps joined by connection id."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ctweb.table.columns import BLOCK, U64, Columns

# 2**64 / golden ratio: multiplied by it, neighbouring ids differ in the high bits (Fibonacci hashing).
SPREAD = np.uint64(0x9E3779B97F4A7C15)
# A row of (n, 2) u64 as one element: gathered several times faster than as two.
PAIR = np.dtype("V16")


class Rows:
    """Finds the row of an id. Ids are unique; made and asked in linear time, block by block to spare memory.

    A table with at least two slots an id is written with every row, and each answer is verified by the id
    found there. Where several ids meet in a slot the last one stands; the others are found by bisection.
    """

    def __init__(self, ids: U64) -> None:
        self._ids = ids
        bits = max(1, (2 * len(ids)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, np.int32)
        for start in range(0, len(ids), BLOCK):
            block = ids[start : start + BLOCK]
            self._table[self._slots(block)] = np.arange(start, start + len(block), dtype=np.int32)
        displaced = [
            start + np.flatnonzero(ids[self._table[self._slots(block)]] != block)
            for start, block in ((start, ids[start : start + BLOCK]) for start in range(0, len(ids), BLOCK))
        ]
        self._displaced = np.concatenate(displaced) if displaced else np.empty(0, np.intp)
        self._displaced = self._displaced[np.argsort(ids[self._displaced])]
        self._displaced_ids = ids[self._displaced]

    def _slots(self, ids: U64) -> U64:
        slots: U64 = (ids * SPREAD) >> self._shift
        return slots

    def find(self, ids: U64) -> NDArray[np.int32]:
        """The row of each id, or -1. (n,)"""
        if len(self._ids) == 0:
            return np.full(len(ids), -1, np.int32)
        found: NDArray[np.int32] = self._table[self._slots(ids)]
        missed = np.flatnonzero(self._ids[found] != ids)
        found[missed] = -1
        if len(self._displaced) and len(missed):
            wanted = ids[missed]
            at = np.minimum(np.searchsorted(self._displaced_ids, wanted), len(self._displaced) - 1)
            hit = self._displaced_ids[at] == wanted
            found[missed[hit]] = self._displaced[at[hit]]
        return found


def rates(
    columns: Columns, span: tuple[int, int], before: Columns, span_before: tuple[int, int]
) -> tuple[NDArray[np.float32], U64]:
    """Bits per second (n, 2) since the sweep before, and bytes (2,) that have come since then on all of them together.

    A span is a reading's begin and end (datapath ns).

    Each row is measured over its own time between the two readings: the kernel hands the table over in the
    same order each time, so a row's place in it tells when it was read, also when one reading took longer
    than the other. A connection that is new since the sweep before is measured from its creation, but over
    at least half of the interval, so that a single packet just before the sweep is no burst. With no sweep
    before (`span_before` of (0, 0)) nothing is known yet: 0. Counters that fell (a claimed entry's are
    moved to the totals) give 0.
    """
    n = len(columns)
    bits = np.zeros((n, 2), np.float32)
    grown = np.zeros(2, np.uint64)
    start, end = span
    interval = start - span_before[0]
    if span_before == (0, 0) or interval <= 0:
        return bits, grown
    stretch = (end - start) - (span_before[1] - span_before[0])
    rows_before = Rows(before.id)
    for first in range(0, n, BLOCK):
        block = slice(first, min(first + BLOCK, n))
        place = np.arange(block.start, block.stop) / n
        found = rows_before.find(columns.id[block])
        new = np.flatnonzero(found < 0)

        elapsed = interval + place * stretch
        elapsed[new] = start + place[new] * (end - start) - columns.created[block][new]
        np.maximum(elapsed, interval / 2, out=elapsed)

        counted = np.zeros((len(found), 2), np.uint64)
        if len(before):
            np.take(before.bytes.view(PAIR)[:, 0], found, out=counted.view(PAIR)[:, 0], mode="clip")
        counted[new] = 0
        now = columns.bytes[block]
        came = now - np.minimum(counted, now)
        grown += came.sum(axis=0)
        bits[block] = came * (8e9 / elapsed)[:, np.newaxis]
    return bits, grown
