"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from ctweb.capacity import machine_memory, preallocates
from ctweb.datapath.build import BuildOptions


def machine() -> dict[str, str]:
    """Processor, CPUs, kernel, BCC and Python, each in a few words."""
    import bcc  # noqa: PLC0415

    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "processor": found[1].strip() if found else platform.machine(),
        "CPUs": str(os.cpu_count()),
        "kernel": platform.release(),
        "BCC": str(bcc.__version__),
        "Python": platform.python_version(),
    }


def as_run(max_entries: int) -> BuildOptions:
    """What `ctweb run` would build on this machine."""
    return BuildOptions(max_entries, preallocate=preallocates("auto", max_entries, machine_memory()))
