"""How much memory this process may still take before the kernel kills somebody for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)
_INACTIVE = re.compile(r"^(?:total_)?inactive_file (\d+)$", re.MULTILINE)
# Of a control group: its limit and its usage, in version 2 and in version 1.
_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def memory_left() -> int:
    """Bytes, of the machine or of the control group that is nearest to its limit.

    What the kernel would give back by itself (files that nobody has read for a while) counts as left.
    """
    found = _AVAILABLE.search(Path("/proc/meminfo").read_text())
    machine = [int(found[1]) * 1024] if found else []
    return min([*machine, *(left for group in _groups() for left in _left(group))], default=1 << 62)


def _groups() -> Iterator[Path]:
    """The control groups that account for this process's memory, from its own upwards."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = _ROOT / controllers
            group = top / path.lstrip("/")
            yield group
            yield from (each for each in group.parents if each == top or top in each.parents)


def _left(group: Path) -> Iterator[int]:
    for limit, usage in _FILES:
        with suppress(OSError, ValueError):  # not of this version, or "max"
            most, used = int((group / limit).read_text()), int((group / usage).read_text())
            yield most - used + sum(int(each) for each in _INACTIVE.findall((group / "memory.stat").read_text())[-1:])
