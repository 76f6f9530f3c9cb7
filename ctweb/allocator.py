"""What the C library's allocator does: it gives large blocks back, and keeps few heaps."""

from __future__ import annotations

import ctypes

# malloc.h of glibc
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

LARGE = 1 << 20  # bytes: a column of a large table has more, what a block of its rows takes (columns.BLOCK) has less
KEPT = 8 << 20  # bytes free at an arena's end that are kept for the next ones
ARENAS = 2  # heaps


def keep_little() -> None:
    """From here on each large block is a mapping of its own, gone when it is freed, and threads share few heaps.

    glibc would raise that limit to 32 MB by itself, and keep 40 MB of what views and sweeps of a million rows leave.
    It would also make eight heaps for each CPU, each of which grows to what its heaviest request takes.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc's
        libc.mallopt(_M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(_M_TRIM_THRESHOLD, KEPT)
        libc.mallopt(_M_ARENA_MAX, ARENAS)
