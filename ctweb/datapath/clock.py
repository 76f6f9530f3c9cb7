"""The datapath's clock in user space: nanoseconds in steps of one tick (docs/architecture.md, Clock)."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass

from ctweb.datapath.bpf import TestRunner

_COARSE = 6  # CLOCK_MONOTONIC_COARSE: its resolution is the tick


def tick_nanoseconds() -> int:
    """Length of the kernel's tick in ns."""
    return round(time.clock_getres(_COARSE) * 1e9)


@dataclass(frozen=True)
class Clock:
    """Datapath time is CLOCK_MONOTONIC plus a constant; both stand still while the machine sleeps.

    tick: length of a step, ns. offset: datapath time less CLOCK_MONOTONIC, ns.
    """

    tick: int
    offset: int

    @classmethod
    def measure(cls, program: int) -> Clock:
        """Ask the program `read_clock` behind descriptor `program`. Raises OSError if it cannot be run."""
        tick = tick_nanoseconds()
        runner = TestRunner(program)
        frame = bytes(64)
        # The jiffies stand for up to a tick: the largest distance seen is that of a run right after a step.
        best = None
        deadline = time.monotonic_ns() + 3 * tick
        while best is None or time.monotonic_ns() < deadline:
            seen = runner.run(frame)
            distance = struct.unpack_from("=Q", seen.data)[0] - time.monotonic_ns()
            best = distance if best is None else max(best, distance)
        return cls(tick, best)

    def now(self) -> int:
        """Datapath time, ns; finer than the kernel's steps and never behind them by more than a run's length."""
        return time.monotonic_ns() + self.offset
