"""What the C library's allocator does with large blocks: it gives them back."""

from __future__ import annotations

import ctypes

# malloc.h of glibc
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

LARGE = 1 << 20  # bytes: a column of a large table has more, what a block of its rows takes (columns.BLOCK) has less
KEPT = 8 << 20  # bytes free at an arena's end that are kept for the next ones


def give_large_blocks_back() -> None:
    """From here on each large block is a mapping of its own, gone when it is freed.

    glibc would raise that limit to 32 MB by itself, and keep 80 MB of what views and sweeps of a million rows leave.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc's
        libc.mallopt(_M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(_M_TRIM_THRESHOLD, KEPT)
