"""Large arrays do not stay in the process when they are gone."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A large block that is freed makes glibc take blocks of its size from the heap, where the last one holds all before it.
USED = """
import os, sys
from pathlib import Path
import numpy as np
from ctweb import allocator

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

if sys.argv[1] == "told":
    allocator.keep_little()
np.ones(20_000_000, np.uint8)
before = resident()
arrays = [np.ones(2_000_000, np.uint8) for _ in range(50)]
last = arrays[-1]
del arrays
print(resident() - before)
"""


@pytest.mark.parametrize(("told", "stays"), [("told", False), ("not told", True)])
def test_arrays_are_given_back_when_others_outlive_them(told, stays):
    done = subprocess.run([sys.executable, "-c", USED, told], capture_output=True, text=True, check=True)
    assert (int(done.stdout) > 50_000_000) == stays
