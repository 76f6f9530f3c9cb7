"""The compiler's memory is given back, and the compiler still works."""

from __future__ import annotations

import re
from pathlib import Path

from entries import loaded, packet


def resident_compiler() -> int:
    """KiB of the compiler's code that are in memory for this process."""
    mapping = r"^\S+ r-xp .*/lib(?:LLVM|clang)\S*\n(?:.*\n)*?Rss:\s+(\d+) kB"
    found = re.findall(mapping, Path("/proc/self/smaps").read_text(), re.MULTILINE)
    assert found, "no compiler is mapped: has BCC been linked in another way?"
    return sum(map(int, found))


def test_after_compiling_the_compiler_is_not_kept_in_memory_and_compiles_again(tmp_path, monkeypatch):
    for number in range(2):
        monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / str(number)))
        with loaded(max_entries=1000) as datapath:
            assert resident_compiler() < 4096
            packet(datapath, host=1)
            assert len(datapath.connections) == 1
