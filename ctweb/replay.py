"""A capture through the datapath's program, on the capture's own clock: the table as it stood at the last packet."""

from __future__ import annotations

import os
import shutil
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TextIO

import numpy as np

from ctweb.capture import Capture, CaptureError, Frame, open_source
from ctweb.datapath.build import BuildError, BuildOptions, Datapath, compile_datapath
from ctweb.datapath.ended import EndedLog
from ctweb.datapath.playback import Playback
from ctweb.rules import Rule, RuleError, pack
from ctweb.settings import Tracking
from ctweb.table import filter_language
from ctweb.table.facts import Facts, Index, facts_of
from ctweb.table.filter_language import Node
from ctweb.table.marks import MarkNames
from ctweb.table.match import mask
from ctweb.table.query_error import QueryError
from ctweb.table.rows import rest_chunks, rest_rows
from ctweb.table.snapshot import Snapshot, advance
from ctweb.table.text import table_text

SECOND = 1_000_000_000

# Datapath time of the first packet. Not 0, for the rates look a second back, and the smallest values are no times.
START = 10 * SECOND
LATEST = 1 << 62  # a stamp further in the future is taken for this: 146 years after the first packet

# Frames held back for the rates, at most. With more in the capture's last second, the rates are of a shorter time.
HELD_BACK = 16_384

# Counters of connections that are over, by cause.
ENDS = ("COUNT_EXPIRED", "COUNT_EARLY_DROP", "COUNT_RESET", "COUNT_REOPENED", "COUNT_REMOVED")


class ReplayError(Exception):
    """Nothing was replayed. The text is one line for the user."""


@dataclass(frozen=True)
class Replayed:
    """What came out of a capture."""

    snapshot: Snapshot  # at the last packet; its counters are those of enum counter, by name
    frames: int
    backwards: int  # frames older than one before them
    cut: int  # frames that break off within their IP header
    damage: str  # why the capture could not be read to its end, and where; empty: it was
    untracked: Mapping[str, int]  # packets that belong to no connection, by reason


def replay(
    path: str | os.PathLike[str],
    *,
    filter_text: str = "",
    as_json: bool = False,
    ended: bool = False,
    tracking: Tracking,
    rules: Sequence[Rule],
    max_entries: int,
    out: TextIO,
    err: TextIO | None = None,
) -> None:
    """Write the table that the capture at `path` (`-`: standard input) leaves behind to `out`.

    ended: also the connections that ended on the way. rules: give connections their marks. What was not tracked, and
    what is wrong with the capture, is said on `err` (standard error). Raises ReplayError.
    """
    err = err or sys.stderr
    with ExitStack() as stack:
        try:
            node = filter_language.parse(filter_text)
            source = stack.enter_context(open_source(os.fspath(path)))
            capture = Capture(source)
            datapath = compile_datapath(BuildOptions(max_entries=max_entries, replay=True))
            stack.callback(datapath.close)
            datapath.apply(tracking)
            marks = MarkNames()
            put_rules(rules, datapath, marks)
            log = EndedLog() if ended else None
            if log is not None:
                stack.callback(log.close)
            played = play(capture, datapath, log, marks)
        except CaptureError as error:
            raise ReplayError(f"cannot replay {_name(path)}: {error}") from error
        except (BuildError, QueryError, RuleError) as error:
            raise ReplayError(str(error)) from error
        except OSError as error:
            raise ReplayError(f"replay of {_name(path)} failed: {error}") from error
        tables = selected(played, log, node)
        if as_json:
            write_json(tables, out)
        else:
            write_text(tables, out)
        for line in (*remarks(played, log), *left_out(rules)):
            print(f"ctweb: {_name(path)}: {line}", file=err)


def put_rules(rules: Sequence[Rule], datapath: Datapath, marks: MarkNames) -> None:
    """Put `rules` into force; a capture has no interfaces. Raises RuleError, BuildError, OSError."""
    datapath.set_rules(pack(rules, datapath.rule_dtype, number=marks.number, indexes=lambda _: ()))


def left_out(rules: Sequence[Rule]) -> Iterator[str]:
    """What the user should know of the rules, a line each."""
    numbers = [str(number) for number, rule in enumerate(rules, 1) if rule.in_interface is not None]
    if numbers:
        which = f"rule {numbers[0]} matches" if len(numbers) == 1 else f"rules {', '.join(numbers)} match"
        yield f"{which} no packet: a capture does not tell through which interface a packet came in"


def play(capture: Capture, datapath: Datapath, log: EndedLog | None, marks: MarkNames) -> Replayed:
    """Run `capture` through `datapath`, which is fresh and built for replay. Raises CaptureError, OSError.

    marks: names of the marks that its rules give.
    """
    playback = Playback(datapath, log)
    clock = _Clock()
    frames = 0
    fed = 0  # datapath time of the last frame that was fed
    held: deque[Frame] = deque()
    for time, wire, frame in capture:
        now = clock.at(time)
        frames += 1
        held.append((now, wire, frame))
        while now - held[0][0] >= SECOND or len(held) > HELD_BACK:
            fed = held[0][0]
            playback.feed(*held.popleft())

    # The rates are those between two sweeps: a second before the last packet, and now.
    before = max(fed, clock.now - SECOND)
    earlier = _snapshot(Snapshot.empty(), playback, clock, before, marks)
    for time, wire, frame in held:
        playback.feed(time, wire, frame)
    snapshot = _snapshot(earlier, playback, clock, clock.now, marks, datapath)
    return Replayed(
        snapshot=snapshot,
        frames=frames,
        backwards=clock.backwards,
        cut=playback.cut,
        damage=capture.damage,
        untracked=_untracked(datapath, snapshot.counters, playback.cut),
    )


class _Clock:
    """The capture's clock in datapath time. It never runs backwards, whatever the stamps say.

    now: of the last frame. backwards: frames that were older than one before them; they are taken at that one's time.
    """

    def __init__(self) -> None:
        self.now = START
        self.backwards = 0
        self._offset: int | None = None

    def at(self, time: int) -> int:
        """Datapath time of a frame that was captured at `time`, ns since 1970."""
        if self._offset is None:
            self._offset = START - time
        now = min(time + self._offset, LATEST)
        if now < self.now:
            self.backwards += 1
        else:
            self.now = now
        return self.now

    def unix(self, now: int) -> float:
        """Seconds since 1970 of a datapath time."""
        return (now - (self._offset or 0)) / SECOND


def _snapshot(
    before: Snapshot, playback: Playback, clock: _Clock, now: int, marks: MarkNames, datapath: Datapath | None = None
) -> Snapshot:
    columns = playback.sweep(now)
    counters = datapath.read_counters() if datapath else {}
    time = clock.unix(now)
    return advance(before, columns, time=time, now=now, until=now, counters=counters, mark_names=marks.names)


def _untracked(datapath: Datapath, counters: Mapping[str, int], cut: int) -> dict[str, int]:
    """Packets by the reason why they belong to no connection, without those reasons that there were none for."""
    numbers = datapath.enums["counter"]
    counts = {name: n for name, n in counters.items() if numbers[name] >= numbers["COUNT_UNTRACKED"]}
    counts["COUNT_CUT_IP"] += cut
    return {name.removeprefix("COUNT_").lower().replace("_", "-"): n for name, n in counts.items() if n}


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def remarks(played: Replayed, log: EndedLog | None) -> Iterator[str]:
    """What the user should know besides the table, a line each."""
    counters = played.snapshot.counters
    if played.damage:
        yield f"{played.damage}; the table is as it stood there, after {_counted(played.frames, 'packet')}"
    if played.untracked:
        reasons = ", ".join(f"{n} {reason}" for reason, n in played.untracked.items())
        untracked, all_ = sum(played.untracked.values()), _counted(played.frames, "packet")
        yield f"{untracked} of {all_} {'belongs' if untracked == 1 else 'belong'} to no connection: {reasons}"
    if played.backwards == 1:
        yield "1 packet is older than one before it and was taken at that one's time"
    elif played.backwards:
        yield f"{played.backwards} packets are older than one before them and were taken at its time"
    if counters["COUNT_EARLY_DROP"]:
        yield f"{_counted(counters['COUNT_EARLY_DROP'], 'connection')} had to give way to new ones: the table was full"
    over = sum(counters[name] for name in ENDS)
    if log is not None and len(log) != over:
        yield f"{over - len(log)} of {over} ended connections are missing"


def selected(played: Replayed, log: EndedLog | None, node: Node | None) -> Iterator[tuple[Facts, Index | None]]:
    """The tables to be shown and which of their rows: the live one, then the ended connections block by block."""

    def matching(facts: Facts) -> Index | None:
        return None if node is None else np.flatnonzero(mask(facts, node))

    facts = facts_of(played.snapshot)
    yield facts, matching(facts)
    for columns in log.blocks() if log is not None else ():
        n = len(columns)
        over, still = np.ones(n, np.bool_), np.zeros((n, 2), np.float32)
        facts = Facts(columns, still, over, played.snapshot.now, played.snapshot.mark_names)
        yield facts, matching(facts)


def write_json(tables: Iterator[tuple[Facts, Index | None]], out: TextIO) -> None:
    """One array of all rows."""
    before = "["
    for facts, index in tables:
        for chunk in rest_chunks(facts, index):
            if chunk not in (b"[", b"]"):
                out.write(before + chunk.decode().removeprefix(","))
                before = ","
    out.write("[]\n" if before == "[" else "]\n")


def write_text(tables: Iterator[tuple[Facts, Index | None]], out: TextIO) -> None:
    """The columns of `ctweb print`."""
    rows = [row for facts, index in tables for row in rest_rows(facts, index)]
    if rows:
        out.write(table_text(rows, shutil.get_terminal_size().columns if out.isatty() else None) + "\n")


def _name(path: str | os.PathLike[str]) -> str:
    return "standard input" if path == "-" else os.fspath(path)
