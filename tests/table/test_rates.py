"""Joining two sweeps by connection id, and the rates that follow."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import SECOND, make_columns
from hypothesis import given
from hypothesis import strategies as st

from ctweb.table.rates import Rows, rates


@given(
    st.lists(st.integers(1, 2**64 - 1), unique=True, max_size=200),
    st.lists(st.integers(1, 2**64 - 1), unique=True, max_size=200),
    st.randoms(use_true_random=False),
)
def test_every_id_finds_its_own_row_and_no_other(stayed_or_left, came, random):
    stayed = [i for i in stayed_or_left if random.random() < 0.7]
    now = list(dict.fromkeys(stayed + came))
    random.shuffle(now)
    found = Rows(np.array(stayed_or_left, np.uint64)).find(np.array(now, np.uint64))
    where = {i: row for row, i in enumerate(stayed_or_left)}
    assert found.tolist() == [where.get(i, -1) for i in now]


def test_ids_that_meet_in_one_slot_are_told_apart():
    """Ids counted per CPU differ in their high bits only; a hundred thousand of them meet in many slots."""
    low = np.arange(1, 50_001, dtype=np.uint64)
    before = np.concatenate([low, low | np.uint64(1 << 56)])
    order = np.random.default_rng(7).permutation(len(before))
    assert (Rows(before).find(before[order]) == order).all()


def sweep(ids, at, took=0, **given):
    return make_columns(ids, **given), (at * SECOND, at * SECOND + took)


def bits(*readings):
    return rates(*readings)[0]


def test_a_steady_flow_has_its_rate_and_a_silent_one_has_none():
    before, then = sweep([7, 8], 10, bytes=[[1000, 500], [70, 70]])
    after, now = sweep([8, 7], 12, bytes=[[70, 70], [251_000, 500]])
    np.testing.assert_allclose(bits(after, now, before, then), [[0, 0], [1_000_000, 0]], rtol=1e-5)


def test_a_rate_is_right_at_both_ends_of_a_reading_that_took_longer_than_the_one_before():
    """A flow of 1000 bytes a second in each row; the second reading took 0.4 s, the first 0.1 s."""
    ids = np.arange(1, 1001)
    place = np.arange(1000) / 1000
    read_before, read_after = 10 + 0.1 * place, 11 + 0.4 * place
    before, then = sweep(ids, 10, took=SECOND // 10, bytes=(1000 * read_before)[:, np.newaxis])
    after, now = sweep(ids, 11, took=4 * SECOND // 10, bytes=(1000 * read_after)[:, np.newaxis])
    np.testing.assert_allclose(bits(after, now, before, then), 8000, rtol=0.01)


def test_a_new_connection_is_measured_from_its_creation():
    before, then = sweep([1], 10)
    after, now = sweep([1, 2], 11, created=[SECOND, int(10.2 * SECOND)], bytes=[[0, 0], [8000, 4000]])
    np.testing.assert_allclose(bits(after, now, before, then)[1], [80_000, 40_000], rtol=1e-3)


def test_a_single_packet_just_before_the_sweep_is_no_burst():
    before, then = sweep([1], 10)
    after, now = sweep([1, 2], 11, created=[SECOND, 11 * SECOND - 1], bytes=[[0, 0], [100, 0]])
    assert bits(after, now, before, then)[1, 0] == pytest.approx(1600)


def test_a_connection_created_while_the_table_was_read_has_a_sensible_rate():
    before, then = sweep([1], 10)
    after, now = sweep([1, 2], 11, created=[SECOND, 11 * SECOND + 5], bytes=[[0, 0], [100, 0]])
    assert bits(after, now, before, then)[1, 0] == pytest.approx(1600)


def test_the_first_sweep_knows_no_rates():
    before, _ = sweep([], 0)
    after, now = sweep([1, 2], 100, bytes=10**12)
    assert not bits(after, now, before, (0, 0)).any()


def test_counters_that_fell_give_no_negative_rate():
    before, then = sweep([1], 10, bytes=[[5000, 5000]])
    after, now = sweep([1], 11, bytes=[[0, 6000]])
    assert bits(after, now, before, then).tolist() == [[0, 8000]]


def test_a_table_that_emptied_and_one_that_filled():
    none, then = sweep([], 10)
    full, now = sweep([1, 2], 11, created=10 * SECOND, bytes=[[125, 0], [0, 250]])
    np.testing.assert_allclose(bits(full, now, none, then), [[1000, 0], [0, 2000]], rtol=1e-5)
    assert bits(none, now, full, then).shape == (0, 2)


def test_two_sweeps_on_one_tick_give_no_rates():
    before, then = sweep([1], 10)
    after, now = sweep([1], 10, bytes=10**9)
    assert not bits(after, now, before, then).any()


def test_what_has_come_altogether_is_counted_without_its_time():
    before, then = sweep([1, 2, 3], 10, bytes=[[1000, 50], [70, 70], [9, 9]])
    after, now = sweep([2, 1, 4], 11, created=[10**9, 10**9, 11 * SECOND - 1], bytes=[[70, 71], [5000, 60], [600, 0]])
    assert rates(after, now, before, then)[1].tolist() == [4000 + 600, 1 + 10]
    assert rates(after, now, before, (0, 0))[1].tolist() == [0, 0]
