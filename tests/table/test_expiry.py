"""Who has run out of time, decided on columns made by hand."""

from __future__ import annotations

import itertools

from by_hand import SECOND, make_columns

from ctweb.table import expiry


def test_an_entry_dies_at_the_very_tick_its_timeout_names():
    columns = make_columns([1, 2, 3], expires=[10 * SECOND - 1, 10 * SECOND, 10 * SECOND + 1])
    assert expiry.dying(columns, 10 * SECOND).tolist() == [True, True, False]


def test_an_entry_is_shown_as_dying_for_one_sweep_before_it_is_reaped():
    columns = make_columns([1], expires=[int(10.5 * SECOND)])
    sweeps = [9 * SECOND, 10 * SECOND, 11 * SECOND, 12 * SECOND]
    story = [
        (bool(expiry.dying(columns, now)[0]), bool(expiry.due(columns, before)[0]))
        for before, now in itertools.pairwise(sweeps)
    ]
    assert story == [(False, False), (True, False), (True, True)]


def test_no_connection_is_reaped_by_the_first_sweep():
    columns = make_columns([1, 2], expires=[2, 5 * SECOND])
    assert not expiry.due(columns, 0).any()


def test_times_beyond_signed_64_bits_do_not_wrap():
    columns = make_columns([1], expires=[2**64 - 1])
    assert not expiry.dying(columns, 2**63).any()
