"""The history: its memory is bounded, its samples are right, and what is old is kept coarsely."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from by_hand import make_columns

from ctweb.history import COARSE, FINE, SERIES, STEP, History
from ctweb.table.snapshot import Snapshot


def snapshot(second: float, *, interval: float = 1.0, created: int = 0) -> Snapshot:
    empty = Snapshot.empty()
    return replace(empty, seq=1, time=second, interval=interval, counters={"created": created})


def of(name: str, values: np.ndarray) -> list[float]:
    return values[:, SERIES.index(name)].tolist()


def test_a_sample_says_what_the_table_holds_and_what_came():
    columns = make_columns([1, 2, 3, 4], protocol=[6, 6, 6, 17], tcp_state=[3, 3, 1, 0])
    rates = np.array([[10, 1], [20, 2], [0, 0], [5, 0]], np.float32)
    history = History()
    history.add(snapshot(1, created=5))
    history.add(
        replace(snapshot(3, interval=2.0, created=11), columns=columns, rates=rates, dying=np.zeros(4, np.bool_))
    )
    times, values = history.since(0)
    assert times.tolist() == [3]
    found = dict(zip(SERIES, values[0].tolist(), strict=True))
    wanted = {"orig-rate": 35, "repl-rate": 3, "created": 3, "connections": 4, "established": 2, "syn-sent": 1}
    assert found == dict.fromkeys(SERIES, 0) | wanted | {"not-tcp": 1}


def test_the_last_minutes_by_the_second_and_the_hour_by_ten():
    history = History()
    seconds = 3 * 3600
    for second in range(seconds + 1):
        history.add(snapshot(second, created=second * (second + 1) // 2))  # `second` new ones in each
    times, values = history.since(0)
    assert len(times) == FINE + COARSE - FINE // STEP
    assert np.diff(times).tolist() == [STEP] * (len(times) - FINE - 1) + [1] * FINE
    assert (times[0], times[-1]) == (seconds - 3600 + STEP, seconds)
    assert of("created", values)[-1] == seconds
    assert of("created", values)[0] == pytest.approx(times[0] - (STEP - 1) / 2)
    newest, _ = history.since(seconds - 2)
    assert newest.tolist() == [seconds - 1, seconds]
