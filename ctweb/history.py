"""The last hour in figures, for the page's charts: kept in memory of a fixed size by the sweep, its only writer.

Samples of a second for the last ten minutes, and their averages over ten seconds for the whole hour.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctweb.table.facts import facts_of
from ctweb.table.names import TCP_STATES
from ctweb.table.snapshot import Snapshot

PER_SECOND = {
    "packets": "offered-packets", "fasttrack": "fasttrack-packets", "created": "created", "early-drop": "early-drop",
    "refused": "refused",
}  # fmt: skip
"""Series that are the growth of a counter (by its name) in a second."""

SERIES = ("orig-rate", "repl-rate", *PER_SECOND, "connections", *TCP_STATES, "not-tcp")
"""Rates in bits/s of all connections, of those too that ended meanwhile; then PER_SECOND; then connections by state."""

FINE, COARSE = 600, 360  # samples
STEP = 10  # fine samples to a coarse one

Samples = NDArray[np.float32]  # (n, len(SERIES))


class History:
    """One thread adds; any thread may read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fine = _Ring(FINE)
        self._coarse = _Ring(COARSE)
        self._pending: list[tuple[float, Samples]] = []
        self._before: Snapshot | None = None

    def add(self, snapshot: Snapshot) -> None:
        """The sample of a sweep; the first one only begins the counting."""
        before, self._before = self._before, snapshot
        if before is None or snapshot.interval <= 0:
            return
        values = sample(before, snapshot)
        self._pending.append((snapshot.time, values))
        with self._lock:
            self._fine.add(snapshot.time, values)
            if len(self._pending) == STEP:
                self._coarse.add(self._pending[-1][0], np.mean([values for _, values in self._pending], axis=0))
                self._pending.clear()

    def since(self, time: float) -> tuple[NDArray[np.float64], Samples]:
        """Samples after Unix `time`, oldest first: (n,) times, and (n, len(SERIES)); coarse ones, then fine ones."""
        with self._lock:
            fine_times, fine = self._fine.read()
            coarse_times, coarse = self._coarse.read()
        if len(fine_times):
            older = coarse_times < fine_times[0]
            coarse_times, coarse = coarse_times[older], coarse[older]
        times, values = np.concatenate((coarse_times, fine_times)), np.concatenate((coarse, fine))
        newer = times > time
        return times[newer], values[newer]


class _Ring:
    """The newest `size` samples."""

    def __init__(self, size: int) -> None:
        self._times = np.zeros(size, np.float64)
        self._values: Samples = np.zeros((size, len(SERIES)), np.float32)
        self._count = 0

    def add(self, time: float, values: Samples) -> None:
        at = self._count % len(self._times)
        self._times[at], self._values[at] = time, values
        self._count += 1

    def read(self) -> tuple[NDArray[np.float64], Samples]:
        """Copies, oldest first."""
        if self._count <= len(self._times):
            return self._times[: self._count].copy(), self._values[: self._count].copy()
        first = self._count % len(self._times)
        return np.roll(self._times, -first), np.roll(self._values, -first, axis=0)


def sample(before: Snapshot, snapshot: Snapshot) -> Samples:
    """The values of SERIES at `snapshot`, the growth of counters since `before`."""
    seconds = snapshot.interval
    grown = {name: count - before.counters.get(name, count) for name, count in snapshot.counters.items()}
    tcp = facts_of(snapshot).is_tcp
    states = np.bincount(snapshot.columns.tcp_state[tcp], minlength=len(TCP_STATES))[: len(TCP_STATES)]
    made: list[Any] = [
        *(bytes * 8 / seconds for bytes in traffic(snapshot, grown)),
        *(max(0, grown.get(name, 0)) / seconds for name in PER_SECOND.values()),
        len(snapshot),
        *states,
        len(snapshot) - np.count_nonzero(tcp),
    ]
    return np.array(made, np.float32)


def traffic(snapshot: Snapshot, grown: Mapping[str, int]) -> tuple[float, float]:
    """Bytes that connections had since the sweep before, there and back; `grown`: by how much the counters have risen.

    The sum is the kernel's own, which no connection escapes. How it divides is known of those that are still there; the
    rest belongs to those that have ended, and divides as theirs does.
    """
    counted = max(0, grown.get("offered-bytes", 0) - grown.get("untracked-bytes", 0))
    there, back = snapshot.grown
    rest = max(0, counted - there - back)
    ended = grown.get("ended-bytes", 0)
    returned = grown.get("ended-reply-bytes", 0) / ended if ended else back / (there + back) if there + back else 0.0
    back_share = (back + rest * returned) / (there + back + rest) if there + back + rest else 0.0
    return counted * (1 - back_share), counted * back_share
