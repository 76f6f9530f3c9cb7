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
