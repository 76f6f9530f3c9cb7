"""Threads that must be gone before the next thing is done."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable


def wait_until_gone(threads: Iterable[threading.Thread]) -> None:
    """Until they have ended, to the kernel too, which lags behind Python: the rights that they had would stay."""
    numbers = []
    for thread in threads:
        numbers.append(thread.native_id)
        thread.join()
    while any(os.path.exists(f"/proc/self/task/{number}") for number in numbers):
        time.sleep(0.0002)
