"""The tracker: one thread sweeps the kernel's table, and everybody else reads what it publishes."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ctweb import state
from ctweb.datapath import conntrack_removal
from ctweb.datapath.maps import Reader, keys
from ctweb.datapath.translations import Standing, Translations
from ctweb.enabled import Enabled, Verdict
from ctweb.history import History
from ctweb.settings import Tracking, as_text, parse_changes
from ctweb.table import accounts, expiry
from ctweb.table.columns import BLOCK, Columns
from ctweb.table.fast_path import FastPath
from ctweb.table.marks import MarkNames
from ctweb.table.snapshot import NOTHING_TRANSLATED, Snapshot, advance

if TYPE_CHECKING:  # who only reads the table needs no BPF
    from ctweb.datapath.build import Datapath
    from ctweb.datapath.conntrack import Conntrack
    from ctweb.datapath.fasttrack import FastTrack

log = logging.getLogger(__name__)

LATE_TICKS = 3  # after a sweep's clock, which is one behind: whose connection is younger began while the table was read
SAME_ERROR_EVERY = 60  # sweeps between log lines while sweeps keep failing for the same reason


class TableSource(Protocol):
    """The running table as its readers see it. Every method may be called from any thread."""

    @property
    def snapshot(self) -> Snapshot:
        """The newest published snapshot."""

    def wait(self, seq: int, timeout: float) -> Snapshot:
        """Block until a snapshot newer than `seq` is published or `timeout` seconds have passed; the newest."""

    @property
    def tracking(self) -> Tracking:
        """The tracking settings in force."""

    def set_tracking(self, changes: Mapping[str, str]) -> Tracking:
        """Change settings by RouterOS name, at once and for good.

        Changes nothing and raises SettingError for a bad name or value, StateError if they cannot be kept,
        OSError if the kernel does not take them.
        """

    @property
    def verdict(self) -> Verdict:
        """Whether connections are tracked at the moment, and why."""

    @property
    def max_entries(self) -> int: ...

    @property
    def history(self) -> History:
        """The last hour in figures."""

    @property
    def fast_path(self) -> FastPath | None:
        """What FastTrack does; None without a rule that asks for it."""

    def remove(self, ids: Iterable[int]) -> int:
        """Forget these connections, in nf_conntrack too; how many were there. The next packet of one starts a new one.

        The newest snapshot is without them from here on. Raises OSError.
        """


class Tracker(TableSource):
    """The connections of `datapath`, swept every `interval` seconds by the thread `sweep`.

    The settings are those of `base` (the configuration) with what was saved in `state_dir` above them, and
    are in force in the kernel once the tracker is made. Raises StateError, OSError.
    """

    def __init__(self, datapath: Datapath, base: Tracking, state_dir: Path, *, interval: float = 1.0) -> None:
        self._datapath = datapath
        self._reader = Reader(datapath.connections)
        self._state_dir = state_dir
        self._interval = interval
        self._translations = Translations(datapath)
        self._learned = 0  # translations learned by the sweep that found none left; -1: some are
        self._conntrack: Conntrack | None = None
        # Whoever writes marks into the kernel's table takes their numbers from here.
        self.marks = MarkNames(datapath.marks, grown=datapath.remember_marks)
        self.fasttrack: FastTrack | None = None  # decides about the newly read table
        self._snapshot = Snapshot.empty()
        self._history = History()
        self._published = threading.Condition()
        self._removed: list[NDArray[np.uint64]] = []  # ids that a sweep at work may have read before they were removed
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)
        self._failed_sweeps = 0
        self._gaps = dict.fromkeys(accounts.UNITS, 0)  # in the accounts of the sweep before
        self._unaccounted = self._gaps  # what of them lasted
        self._refusing = False  # the last sweep found that connections were refused
        self._last_error = ""
        self._reaping = threading.Lock()  # one run of the reaper at a time: it keeps its buffers
        self._changing = threading.Lock()  # one change of settings at a time: file, kernel and _tracking agree
        self.enabled: Enabled | None = None  # reviewed after each change of settings
        self._tracking, self._saved = state.load(state_dir, base)
        datapath.apply(self._tracking)

    def follow(self, conntrack: Conntrack) -> None:
        """Show what nf_conntrack knows: from the next sweep on, its counters too. Started and stopped by the caller."""
        self._conntrack = conntrack

    def start(self) -> None:
        """Sweep once here, so that readers have a table and errors a caller, then go on in the thread."""
        self.sweep()
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the sweep it may be in. May be called more than once."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot

    def wait(self, seq: int, timeout: float) -> Snapshot:
        with self._published:
            self._published.wait_for(lambda: self._snapshot.seq > seq, timeout)
            return self._snapshot

    @property
    def tracking(self) -> Tracking:
        return self._tracking

    @property
    def verdict(self) -> Verdict:
        return self.enabled.verdict if self.enabled else Verdict(True, "nobody decides")

    @property
    def max_entries(self) -> int:
        return self._datapath.options.max_entries

    @property
    def history(self) -> History:
        return self._history

    @property
    def fast_path(self) -> FastPath | None:
        if self.fasttrack is None or not (self.fasttrack.active or self.fasttrack.refusals):
            return None
        counters = self._snapshot.counters
        return FastPath(
            tuple((port.name, port.reason) for port in self.fasttrack.ports),
            self.fasttrack.refusals,
            counters["fasttrack-packets"],
            counters["offered-packets"],
        )

    def set_tracking(self, changes: Mapping[str, str]) -> Tracking:
        with self._changing:
            tracking = parse_changes(self._tracking, changes)
            text = as_text(tracking)
            saved = self._saved | {name: text[name] for name in changes}
            state.save(self._state_dir, saved)
            try:
                self._datapath.apply(tracking)
            except Exception:
                state.save(self._state_dir, self._saved)
                raise
            self._tracking, self._saved = tracking, saved
        self.review()
        return tracking

    def review(self) -> None:
        """Decide afresh whether to track; what follows from it is done when this returns."""
        if self.enabled:
            self.enabled.review()

    def rebase(self, base: Tracking) -> tuple[str, ...]:
        """Put other settings into force, under those that were set while it ran; the names of these.

        Raises OSError, and changes nothing.
        """
        with self._changing:
            tracking = parse_changes(base, self._saved)
            self._datapath.apply(tracking)
            self._tracking = tracking
            saved = tuple(self._saved)
        self.review()
        return saved

    def remove(self, ids: Iterable[int]) -> int:
        columns = self._snapshot.columns
        rows = np.flatnonzero(np.isin(columns.id, np.fromiter(ids, np.uint64)))
        gone = columns.id[rows]
        conntrack_removal.delete(columns.take(rows))
        with self._reaping:
            count = self._datapath.remove(keys(columns, rows, self._datapath.key_dtype), gone)
        if len(gone):
            # All of them are over, for an id that the kernel no longer has does not come back. A sweep that is reading
            # may have met them alive; it leaves out what is in `_removed`.
            with self._published:
                self._removed.append(gone)
                self._publish(self._snapshot.without(gone))
        return count

    def _publish(self, snapshot: Snapshot) -> None:
        """Make it the newest; for who holds `_published`."""
        self._snapshot = replace(snapshot, seq=self._snapshot.seq + 1)
        self._published.notify_all()

    def sweep(self) -> Snapshot:
        """Read the table, reap, publish: what the thread does each time. Not while the thread runs.

        Raises OSError, and publishes nothing.
        """
        began = time.perf_counter()
        with self._published:
            before = self._snapshot
            self._removed.clear()  # the kernel has ended these already
        first = self._read_counters()
        now, unix = self._now(), time.time()
        columns = self._reader.read()
        until = self._now()
        read = kept = accounts.live(columns)
        due = expiry.due(columns, before.now)
        # Who began while the table was read is of the next sweep: the one that gave way to it may have been read.
        late = columns.created > np.uint64(now + LATE_TICKS * self._datapath.clock.tick)
        if due.any():
            self._reap(columns, np.flatnonzero(due), before.now)
        if due.any() or late.any():
            columns = columns.compact(~(due | late))
            kept = accounts.live(columns)
        counters = self._read_counters()
        counters |= self._account(first, read, kept, counters)
        counters["failed-sweeps"] = self._failed_sweeps
        refused = counters["refused"]
        self._tell_refused(refused - before.counters.get("refused", refused), len(columns))
        if self._conntrack is not None:
            counters |= self._conntrack.counters
        translations = self._read_translations(counters["nat-learned"])
        if self.fasttrack is not None:
            self.fasttrack.sweep(columns, translations)
        translated = NOTHING_TRANSLATED if translations is None else translations.translated()
        made = advance(
            before, columns, time=unix, now=now, until=until, counters=counters, mark_names=self.marks.names,
            translated=translated,
        )  # fmt: skip
        if translations is not None and made.translation is not None:
            self._translations.tidy(translations.unused(made.translation, made.seq))
        self._history.add(made)
        snapshot = replace(made, sweep_seconds=time.perf_counter() - began)
        with self._published:
            self._publish(snapshot.without(np.concatenate(self._removed)) if self._removed else snapshot)
            return self._snapshot

    def _read_counters(self) -> dict[str, int]:
        return {_shown(name): count for name, count in self._datapath.read_counters().items()}

    def _account(
        self, before: Mapping[str, int], read: Mapping[str, int], kept: Mapping[str, int], after: Mapping[str, int]
    ) -> dict[str, int]:
        """The other side of what was offered (table/accounts.py), as more counters."""
        gaps = {unit: accounts.gap(unit, before, read, kept, after) for unit in accounts.UNITS}
        found = {unit: accounts.lasting(self._gaps[unit], gaps[unit]) for unit in accounts.UNITS}
        self._gaps = gaps
        if any(found.values()) and found != self._unaccounted:
            log.error(
                "the accounts do not add up: %d packets and %d bytes were offered and are on no connection, ended or "
                "live, nor untracked (negative: counted twice); please report it with the output of ctweb doctor",
                found["packets"], found["bytes"],
            )  # fmt: skip
        self._unaccounted = found
        return {f"live-{unit}": kept[unit] for unit in accounts.UNITS} | {
            f"unaccounted-{unit}": found[unit] for unit in accounts.UNITS
        }

    def _tell_refused(self, packets: int, connections: int) -> None:
        """Once, until a sweep finds that none were: so many packets of new connections found no place."""
        if packets and not self._refusing:
            at_most, memory = self.max_entries, self._datapath.memory
            log.warning(
                "%d packets of new connections were refused and are not tracked, with %d connections of %d at most: %s",
                packets, connections, at_most,
                f"there is no memory for more ({memory.no_memory}); look at the limits of the service (MemoryMax)"
                if memory.no_memory else
                "the table is full of connections that do not give way; a larger max-entries helps"
                if connections > at_most // 2 or memory.growth is None else
                "they came faster than memory for them was made, which is there by now; preallocate = \"yes\" helps",
            )  # fmt: skip
        self._refusing = packets > 0

    def _read_translations(self, learned: int) -> Standing | None:
        """NAT as it stands; None: there is none. `learned`: how many translations were, ever."""
        if learned == self._learned:
            return None  # it was empty when it was read last
        there = self._translations.read()
        self._learned = -1 if len(there) else learned
        return there

    def _run(self) -> None:
        due = time.monotonic() + self._interval
        while not self._stopping.wait(due - time.monotonic()):
            started = time.monotonic()
            try:
                self.sweep()
            except Exception as error:  # whatever it was, the next sweep may succeed
                self._complain(error)
            else:
                self._last_error = ""
            due = next_start(due, started, time.monotonic(), self._interval)

    def _complain(self, error: Exception) -> None:
        self._failed_sweeps += 1
        text = f"{type(error).__name__}: {error}"
        if text != self._last_error or self._failed_sweeps % SAME_ERROR_EVERY == 0:
            log.error(
                "sweep failed (%d so far): %s; the table shown is that of the sweep before, the next one runs in %g s",
                self._failed_sweeps, text, self._interval, exc_info=log.isEnabledFor(logging.DEBUG),
            )  # fmt: skip
        self._last_error = text

    def _reap(self, columns: Columns, rows: NDArray[np.intp], when: int) -> None:
        """Hand the rows to the kernel, which deletes those that had still expired by `when`."""
        for start in range(0, len(rows), BLOCK):
            due = keys(columns, rows[start : start + BLOCK], self._datapath.key_dtype)
            with self._reaping:
                self._datapath.reap(due, when)

    def _now(self) -> int:
        """Datapath time that the kernel's clock, which moves by ticks, has surely reached.

        So what is expired by it is expired in the kernel's eyes too, and no packet revives it.
        """
        return self._datapath.clock.now() - self._datapath.clock.tick


def next_start(due: float, started: float, ended: float, interval: float) -> float:
    """When the next sweep is due, after one that was `due`, `started` and `ended` at these times (seconds).

    On the grid of `interval` on which `due` lies; a sweep that took too long skips turns, and after one that
    started late the next is at least half an interval away: rates are not measured over a sliver of time.
    """
    earliest = max(ended, started + interval / 2)
    return due + interval * max(1, math.ceil((earliest - due) / interval))


def _shown(counter: str) -> str:
    """The name of a kernel counter as people see it: COUNT_EARLY_DROP is early-drop."""
    return counter.removeprefix("COUNT_").lower().replace("_", "-")
