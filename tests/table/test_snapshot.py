"""What a snapshot promises its readers."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from by_hand import SECOND, make_columns

from ctweb.table.columns import BLOCK, Columns
from ctweb.table.snapshot import Snapshot, advance


def read(before, columns, at):
    now = at * SECOND
    return advance(before, columns, time=1e9 + at, now=now, until=now, counters={"created": at})


def test_an_empty_snapshot_has_every_column_with_its_type():
    empty, full = Snapshot.empty().columns, make_columns([1, 2, 3])
    for f in fields(Columns):
        none, some = getattr(empty, f.name), getattr(full, f.name)
        assert (len(none), none.dtype, none.shape[1:]) == (0, some.dtype, some.shape[1:]), f.name


def test_snapshots_are_numbered_and_know_the_interval_between_them():
    first = read(Snapshot.empty(), make_columns([1]), 100)
    second = read(first, make_columns([1], bytes=[[1250, 0]]), 102)
    assert (first.seq, first.interval, first.rates.tolist()) == (1, 0, [[0, 0]])
    assert (second.seq, second.interval, second.rates.tolist()) == (2, 2, [[5000, 0]])
    assert second.counters == {"created": 102}


def test_nobody_can_write_to_a_published_snapshot():
    snapshot = read(Snapshot.empty(), make_columns([1]), 100)
    with pytest.raises(ValueError, match="read-only"):
        snapshot.columns.bytes[0, 0] = 1


def test_what_expired_is_marked_as_dying():
    snapshot = read(Snapshot.empty(), make_columns([1, 2], expires=[5 * SECOND, 500 * SECOND]), 100)
    assert snapshot.dying.tolist() == [True, False]


def test_compacting_goes_on_beyond_one_block():
    ids = np.arange(1, 3 * BLOCK)
    kept = make_columns(ids, created=ids).compact(ids % 3 == 0)
    assert (kept.id == ids[ids % 3 == 0]).all()
    assert (kept.created == kept.id).all()


@pytest.mark.parametrize(
    "keep", [[True] * 4, [False] * 4, [True, False, False, True], [False, True, True, True]]
)
def test_compacted_columns_are_the_rows_kept_in_their_order(keep):
    ids = np.array([11, 12, 13, 14])
    columns = make_columns(ids, bytes=[[i, 2 * i] for i in ids], lo_port=ids + 1000)
    repeated = np.broadcast_to(np.zeros((1, 2), np.uint64), (4, 2))
    columns = replace(columns, fasttrack_bytes=repeated)
    expected = columns.take(np.array(keep))
    kept = columns.compact(np.array(keep))
    for f in fields(Columns):
        assert getattr(kept, f.name).tolist() == getattr(expected, f.name).tolist(), f.name
    assert kept.id.tolist() == ids[keep].tolist()


@pytest.mark.parametrize("gone", [[], [99_999], [3], [1, 77, 200], list(range(1, 201)), list(range(2, 180))])
def test_a_snapshot_without_some_connections_is_the_same_for_all_others(gone):
    n = 200
    made = make_columns(range(1, n + 1), lo_port=np.arange(n), bytes=np.arange(2 * n).reshape(n, 2))
    nothing = np.broadcast_to(np.zeros((1, 2), np.uint64), (n, 2))  # as it is read while nothing is FastTracked
    columns = replace(made, fasttrack_bytes=nothing, fasttrack_packets=nothing)
    whole = replace(
        read(Snapshot.empty(), columns, 100),
        rates=np.arange(2 * n, dtype=np.float32).reshape(n, 2),
        translation=np.arange(n, dtype=np.int32),
    )
    some = whole.without(np.array(gone, np.uint64))
    kept = np.flatnonzero(~np.isin(whole.columns.id, gone))
    assert len(some) == len(kept)
    for f in fields(Columns):
        assert np.array_equal(getattr(some.columns, f.name), getattr(whole.columns, f.name)[kept]), f.name
        assert not getattr(some.columns, f.name).flags.writeable
    assert some.columns.fasttrack_bytes.strides[0] == 0
    for name in ("rates", "dying", "translation"):
        assert np.array_equal(getattr(some, name), getattr(whole, name)[kept]), name
    assert (some.seq, some.now) == (whole.seq, whole.now)
