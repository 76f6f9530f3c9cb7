"""Bits per second of each connection and direction, from two sweeps joined by connection id."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ctweb.table.columns import U64, Columns

# 2**64 / golden ratio: multiplied by it, neighbouring ids differ in the high bits (Fibonacci hashing).
SPREAD = np.uint64(0x9E3779B97F4A7C15)
# A row of (n, 2) u64 as one element: gathered several times faster than as two.
PAIR = np.dtype("V16")


def match(ids: U64, before: U64) -> NDArray[np.int32]:
    """For each id its row in `before`, or -1. (n,) Ids are unique in either; O(n + m).

    A table of at least two slots an id is written with all rows of `before`, and each answer is verified by
    the id found there. Where two ids met in a slot the later one stands; the earlier ones are searched by
    bisection.
    """
    rows = np.arange(len(before), dtype=np.int32)
    bits = max(1, (2 * len(before)).bit_length())
    shift = np.uint64(64 - bits)
    slots = (before * SPREAD) >> shift
    table = np.zeros(1 << bits, np.int32)
    table[slots] = rows
    displaced = np.flatnonzero(table[slots] != rows)
    if len(before) == 0:
        return np.full(len(ids), -1, np.int32)
    found: NDArray[np.int32] = table[(ids * SPREAD) >> shift]
    missed = np.flatnonzero(before[found] != ids)
    found[missed] = -1
    if len(displaced) and len(missed):
        displaced = displaced[np.argsort(before[displaced])]
        sorted_ids = before[displaced]
        wanted = ids[missed]
        at = np.minimum(np.searchsorted(sorted_ids, wanted), len(sorted_ids) - 1)
        hit = sorted_ids[at] == wanted
        found[missed[hit]] = displaced[at[hit]]
    return found


def rates(
    columns: Columns, span: tuple[int, int], before: Columns, span_before: tuple[int, int]
) -> NDArray[np.float32]:
    """Bits per second (n, 2) since the sweep before. A span is a reading's begin and end (datapath ns).

    Each row is measured over its own time between the two readings: the kernel hands the table over in the
    same order each time, so a row's place in it tells when it was read, also when one reading took longer
    than the other. A connection that is new since the sweep before is measured from its creation, but over
    at least half of the interval, so that a single packet just before the sweep is no burst. With no sweep
    before (`span_before` of (0, 0)) nothing is known yet: 0. Counters that fell (a claimed entry's are
    moved to the totals) give 0.
    """
    n = len(columns)
    if n == 0 or span_before == (0, 0) or span[0] <= span_before[0]:
        return np.zeros((n, 2), np.float32)
    start, end = span
    interval = start - span_before[0]
    stretch = (end - start) - (span_before[1] - span_before[0])
    place = np.arange(n, dtype=np.float32) / np.float32(n)
    elapsed = np.float32(interval) + place * np.float32(stretch)

    found = match(columns.id, before.id)
    new = np.flatnonzero(found < 0)
    counted = np.zeros((n, 2), np.uint64)
    if len(before):
        np.take(before.bytes.view(PAIR)[:, 0], found, out=counted.view(PAIR)[:, 0], mode="clip")
    counted[new] = 0
    read_at = np.float64(start) + place[new] * (end - start)
    elapsed[new] = read_at - columns.created[new]

    # In place: a million rows are 16 MB for each array less.
    grown = np.minimum(counted, columns.bytes, out=counted)
    np.subtract(columns.bytes, grown, out=grown)
    bits = grown.astype(np.float32)
    bits *= (np.float32(8e9) / np.maximum(elapsed, np.float32(interval / 2)))[:, np.newaxis]
    return bits
