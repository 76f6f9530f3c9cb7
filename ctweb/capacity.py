"""How many connections the table may hold."""

from __future__ import annotations

import os

# What a connection takes when the table is full, in bytes: 256 for its entry (kmalloc-256), up to 32 for its bucket,
# and in user space about 110 in each of the two snapshots that live at once.
BYTES_PER_CONNECTION = 512

SHARE = 16  # a full table takes at most this part of the memory
FEWEST, MOST = 16_384, 1_048_576


def machine_memory() -> int:
    """Bytes of RAM this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def default_max_entries(memory: int) -> int:
    """The default of max-entries on a machine with `memory` bytes of RAM: RAM / 16 / 512, within
    16,384 .. 1,048,576.

    131,072 for each GiB, so the most is reached at 8 GiB. The memory is taken as connections come, except for the
    buckets (16 bytes for each connection, rounded up to a power of two).
    """
    return min(max(memory // SHARE // BYTES_PER_CONNECTION, FEWEST), MOST)
