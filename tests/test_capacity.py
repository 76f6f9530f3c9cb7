"""max-entries from RAM."""

from __future__ import annotations

import pytest

from ctweb.capacity import BYTES_PER_CONNECTION, default_max_entries, machine_memory, preallocates

GIB = 1 << 30


@pytest.mark.parametrize(
    ("memory", "entries"),
    [(GIB // 16, 16_384), (GIB, 131_072), (4 * GIB, 524_288), (8 * GIB, 1_048_576), (512 * GIB, 1_048_576)],
)
def test_the_limit_follows_the_memory_between_its_bounds(memory, entries):
    assert default_max_entries(memory) == entries


def test_a_full_table_leaves_this_machine_most_of_its_memory():
    memory = machine_memory()
    assert default_max_entries(memory) * BYTES_PER_CONNECTION <= memory / 8


@pytest.mark.parametrize(
    ("wanted", "entries", "memory", "whole"),
    [
        ("auto", 1_048_576, 16 * GIB, True),
        ("auto", 1_048_576, 8 * GIB, False),
        ("auto", 65_536, GIB, True),
        ("auto", 131_072, GIB, False),
        ("yes", 1_048_576, GIB, True),
        ("no", 1, 512 * GIB, False),
    ],
)
def test_a_table_that_is_small_beside_the_memory_is_made_whole_unless_the_config_says_otherwise(
    wanted, entries, memory, whole
):
    assert preallocates(wanted, entries, memory) is whole
