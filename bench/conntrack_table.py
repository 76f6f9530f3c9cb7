"""What `conntrack -L` costs that has as many connections to list."""

from __future__ import annotations

import os
import resource
import subprocess
import time

from bench.figure import Samples
from bench.rest import tracked_by_the_kernel


def listed(entries: int, rounds: int) -> tuple[Samples, Samples, float]:
    """Seconds of CPU and of time that one takes, and megabytes that it prints. Raises OSError, RuntimeError."""
    cpu, wall, size = [], [], 0.0
    with tracked_by_the_kernel(entries) as namespace:
        for _ in range(rounds):
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            command = ["ip", "netns", "exec", namespace, "conntrack", "-L"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as listing:
                assert listing.stdout is not None
                lines = length = 0
                while data := os.read(listing.stdout.fileno(), 1 << 20):
                    lines += data.count(b"\n")
                    length += len(data)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if lines != entries:
                raise RuntimeError(f"{entries} entries, but conntrack lists {lines}")
            wall.append(time.monotonic() - began)
            cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            size = length / 1e6
    return Samples.of(cpu), Samples.of(wall), size
