"""`/system/resource` and `/system/identity`: what RouterOS's clients ask for first, of this machine."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from ctweb.settings import format_time
from ctweb.table import accounts
from ctweb.table.names import UNTRACKED_REASONS
from ctweb.version import VERSION

LOAD_SECONDS = 1.0  # over which the load is measured at least

RESOURCE_NAMES = {
    "architecture-name": "the processor's architecture",
    "board-name": "the machine's model",
    "cpu": "the processor's model",
    "cpu-count": "how many processors",
    "cpu-frequency": "MHz",
    "cpu-load": "per cent, since it was asked before",
    "free-hdd-space": "bytes free on the root file system",
    "free-memory": "bytes of memory that can be had",
    "platform": "the operating system",
    "total-hdd-space": "bytes of the root file system",
    "total-memory": "bytes of memory",
    "uptime": "since the machine started",
    "version": "of ctweb",
} | {
    f"{side}-{unit}": f"{unit} {about}"
    for unit in accounts.UNITS
    for side, about in (
        ("offered", "met, since the start: live + ended + untracked"),
        ("live", "of the connections in the table"),
        ("ended", "of connections that are over"),
        ("untracked", "that belong to no connection"),
        ("unaccounted", "that were met and are counted nowhere, or twice (negative): always 0"),
    )
} | {f"untracked-{reason}": f"packets that belong to no connection: {reason}" for reason in UNTRACKED_REASONS}
"""What `/system/resource` tells, and what each means; what the machine does not tell is left out."""

IDENTITY_NAMES = {"name": "the host name"}

_COUNTED = ("offered", "live", "ended", "unaccounted")
_MODELS = ("/sys/class/dmi/id/product_name", "/proc/device-tree/model")


class Resource:
    """The machine's figures. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._measured = -LOAD_SECONDS
        self._times = (0, 0)
        self._load = 0

    def values(self) -> dict[str, str]:
        """By RouterOS's names, as strings."""
        memory = _colon_lines("/proc/meminfo")
        processor = _colon_lines("/proc/cpuinfo")
        disk = shutil.disk_usage("/")
        found = {
            "architecture-name": platform.machine(),
            "board-name": _model(),
            "cpu": processor.get("model name", ""),
            "cpu-count": str(os.cpu_count() or 1),
            "cpu-frequency": processor.get("cpu MHz", "").split(".")[0],
            "cpu-load": str(self._cpu_load()),
            "free-hdd-space": str(disk.free),
            "free-memory": _bytes(memory.get("MemAvailable", "")),
            "platform": platform.system(),
            "total-hdd-space": str(disk.total),
            "total-memory": _bytes(memory.get("MemTotal", "")),
            "uptime": format_time(int(float(_text("/proc/uptime").split()[0])) * 1000),
            "version": VERSION,
        }
        return {name: value for name, value in found.items() if value}

    def _cpu_load(self) -> int:
        """Per cent of all processors' time that was used since the measurement before; the first one: since boot."""
        with self._lock:
            now = time.monotonic()
            if now - self._measured >= LOAD_SECONDS:
                ticks = [int(word) for word in _text("/proc/stat").split("\n")[0].split()[1:9]]
                idle, total = ticks[3] + ticks[4], sum(ticks)
                passed = total - self._times[1]
                if passed > 0:
                    self._load = min(100, max(0, round(100 * (1 - (idle - self._times[0]) / passed))))
                self._measured, self._times = now, (idle, total)
            return self._load


def accounted(counters: Mapping[str, int]) -> dict[str, str]:
    """Both sides of the accounts as of the newest sweep, of Snapshot.counters: empty before the first one."""
    if not counters:
        return {}
    untracked = accounts.untracked(counters)
    found = {f"untracked-{unit}": untracked[unit] for unit in accounts.UNITS}
    found |= {f"untracked-{reason}": counters[reason] for reason in UNTRACKED_REASONS}
    found |= {f"{side}-{unit}": counters[f"{side}-{unit}"] for side in _COUNTED for unit in accounts.UNITS}
    return {name: str(count) for name, count in found.items()}


def identity() -> dict[str, str]:
    """The machine's name."""
    return {"name": socket.gethostname()}


def _text(path: str) -> str:
    return Path(path).read_text(errors="replace")


def _colon_lines(path: str) -> dict[str, str]:
    """`name: value` lines; the first one of each name."""
    lines: dict[str, str] = {}
    for line in _text(path).splitlines():
        name, colon, value = line.partition(":")
        if colon:
            lines.setdefault(name.strip(), value.strip())
    return lines


def _bytes(kib: str) -> str:
    """`123 kB` in bytes."""
    number = kib.removesuffix("kB").strip()
    return str(int(number) * 1024) if number.isdecimal() else ""


def _model() -> str:
    for path in _MODELS:
        try:
            name = _text(path).strip("\0\n ")
        except OSError:
            continue
        if name:
            return name
    return platform.node()
