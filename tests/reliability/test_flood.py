"""A full table under a flood of new connections: who was there notices nothing, and who comes gets in."""

from __future__ import annotations

import pytest

from reliability.flooded import MAX_ENTRIES, flooded

SECONDS = 5  # `python -m reliability.flooded 60` for a minute of it
MEMORY = 400  # MiB, a hundred thousand connections and twice what it takes without any


@pytest.mark.parametrize("hook", ["tc", "xdp"])
def test_assured_connections_count_on_and_new_ones_come_up(hook, tmp_path):
    """That the counters of the assured ones are exact, and the accounts even, is checked on the way."""
    story = flooded(hook, SECONDS, tmp_path)
    assert story.sent > MAX_ENTRIES
    assert story.early_drops > 0
    assert story.came_up == story.tries >= 1
    # A sweep is no instant: of those that come while it reads, the ones of its first ticks are shown beside those that
    # gave way to them, which are thousands.
    assert max(story.live) <= MAX_ENTRIES * 1.05
    assert story.sweep_numbers[-1] > story.sweep_numbers[0]
    assert max(story.memory) < MEMORY
