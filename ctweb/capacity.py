"""How many connections the table may hold, and when it takes their memory."""

from __future__ import annotations

import os
from typing import Literal

# What a connection takes when the table is full, in bytes: 256 or a little more of the kernel's (PLACE),
# and in user space about 120 in each of the two snapshots that live at once.
BYTES_PER_CONNECTION = 512

SHARE = 16  # a full table takes at most this part of the memory
FEWEST, MOST = 16_384, 1_048_576

# Bytes of the kernel's for each connection that a table made whole has room for: 192 for its entry, 32 for addresses of
# IPv6, 8 in the ring of spare places and in that of new ones, 8 to 16 in the index (its size is a power of two).
PLACE = 256
WHOLE_SHARE = 50  # `auto`: a table that takes at most this part of the memory is made whole

Preallocate = Literal["auto", "yes", "no"]


def machine_memory() -> int:
    """Bytes of RAM this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def default_max_entries(memory: int) -> int:
    """The default of max-entries on a machine with `memory` bytes of RAM: RAM / 16 / 512, within
    16,384 .. 1,048,576.

    131,072 for each GiB, so the most is reached at 8 GiB. When the memory is taken, preallocates() says.
    """
    return min(max(memory // SHARE // BYTES_PER_CONNECTION, FEWEST), MOST)


def preallocates(wanted: Preallocate, max_entries: int, memory: int) -> bool:
    """Whether the table is made whole at the start, on a machine with `memory` bytes of RAM.

    None is ever refused for want of memory then. Otherwise it is taken as connections come, somewhat ahead of them.
    """
    if wanted == "auto":
        return max_entries * PLACE <= memory // WHOLE_SHARE
    return wanted == "yes"
