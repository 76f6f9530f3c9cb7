"""The history: its memory is bounded, its samples are right, and what is old is kept coarsely."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from by_hand import make_columns

from ctweb.history import COARSE, FINE, SERIES, STEP, History, traffic
from ctweb.table.snapshot import Snapshot


def snapshot(second: float, *, interval: float = 1.0, created: int = 0) -> Snapshot:
    empty = Snapshot.empty()
    return replace(empty, seq=1, time=second, interval=interval, counters={"created": created})


def of(name: str, values: np.ndarray) -> list[float]:
    return values[:, SERIES.index(name)].tolist()


def test_a_sample_says_what_the_table_holds_and_what_came():
    columns = make_columns([1, 2, 3, 4], protocol=[6, 6, 6, 17], tcp_state=[3, 3, 1, 0])
    history = History()
    history.add(snapshot(1, created=5))
    history.add(replace(snapshot(3, interval=2.0, created=11), columns=columns, dying=np.zeros(4, np.bool_)))
    times, values = history.since(0)
    assert times.tolist() == [3]
    found = dict(zip(SERIES, values[0].tolist(), strict=True))
    wanted = {"created": 3, "connections": 4, "established": 2, "syn-sent": 1}
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


@pytest.mark.parametrize(
    ("grown", "live", "wanted"),
    [
        ({"offered-bytes": 1000}, (900, 100), (900, 100)),
        # Of no connection.
        ({"offered-bytes": 1000, "untracked-bytes": 400}, (500, 100), (500, 100)),
        # All of it on connections that began and ended between two sweeps.
        ({"offered-bytes": 1000, "ended-bytes": 1000, "ended-reply-bytes": 250}, (0, 0), (750, 250)),
        # What ended had been counted before, but for its last 100 bytes.
        ({"offered-bytes": 500, "ended-bytes": 10_000, "ended-reply-bytes": 5000}, (400, 0), (450, 50)),
        # The table was read a little later than the counters: the sum is the counters'.
        ({"offered-bytes": 500}, (900, 100), (450, 50)),
        # Nothing is known of how it divides.
        ({"offered-bytes": 500}, (0, 0), (500, 0)),
        ({}, (0, 0), (0, 0)),
    ],
)
def test_traffic_is_all_that_was_counted_divided_as_far_as_is_known(grown, live, wanted):
    assert traffic(replace(Snapshot.empty(), grown=live), grown) == pytest.approx(wanted)
