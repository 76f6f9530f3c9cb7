"""Less than a minute of what `make soak` does for an hour."""

from __future__ import annotations

from reliability.soak import CROWD, check, soak

SECONDS, ROUND = 40, 8
WARMING_UP = 100  # MiB: in the first minute the table itself grows to tens of thousands of connections
LEAVING = 20  # of the clients, some may not have been let go when the last sample was taken


def test_mixed_traffic_and_clients_that_come_and_go(tmp_path):
    """That the accounts are even at the end is checked on the way."""
    story = soak(SECONDS, tmp_path, ROUND)
    assert check(story, memory=WARMING_UP, others=LEAVING) == []
    assert story.real > 20
    assert story.entered > CROWD
    assert story.samples[-1].created > 10_000
