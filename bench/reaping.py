"""Half a million connections expire together: what the sweep that reaps them takes, and what packets notice of it.

A client pings the server each millisecond through the router, whose hooks are those of the table that is being reaped.
It goes before all others on its CPU, and the sweep runs on another one.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from bench.figure import Figure, Samples
from bench.machine import as_run
from bench.router import CLIENT, SERVER_ADDRESS, Packets, Router, router
from ctweb.datapath.build import Datapath, compile_datapath
from ctweb.settings import Tracking
from ctweb.tracker import Tracker

EXPIRING = 500_000
MOST_SECONDS = 2.0
UDP_TIMEOUT = 8.0  # seconds, in which all of them are made


class Pings:
    """When each was sent (Unix seconds), and microseconds until its answer was there."""

    def __init__(self, said: str) -> None:
        found = re.findall(r"^\[([\d.]+)\] .* time=([\d.]+) ms$", said, re.MULTILINE)
        self._at = np.array([float(at) for at, _ in found])
        self._took = np.array([float(took) * 1000 for _, took in found])
        self._at -= self._took / 1e6  # what is printed is when the answer came

    def between(self, start: float, end: float) -> list[float]:
        """Microseconds of those that were sent in this time."""
        return list(self._took[(self._at >= start) & (self._at <= end)])


@contextmanager
def pinging(way: Router, cpu: int, said: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """A ping each millisecond from client to server, on this CPU, before all others; what it says goes to a file."""
    command = ["chrt", "--fifo", "10", "taskset", "-c", str(cpu), "ping", "-n", "-D", "-i", "0.001", SERVER_ADDRESS]
    with way.inside(CLIENT):
        process = subprocess.Popen(command, stdout=said, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def reap(
    way: Router, datapath: Datapath, expiring: int, cpu: int, others: int
) -> tuple[float, float, list[float], list[float]]:
    """Of the sweep that reaps: seconds, seconds of CPU, latencies meanwhile; and latencies while only tables are read.

    Raises RuntimeError if it did not reap them all.
    """
    with tempfile.TemporaryDirectory() as place:
        tracker = Tracker(datapath, Tracking(udp_timeout=int(UDP_TIMEOUT * 1000)), Path(place))
        with way.ctweb(datapath):
            first = time.monotonic()
            way.cost(Packets(connections=expiring), expiring)
            last = time.monotonic()
            tracker.sweep()
            os.sched_setaffinity(0, {cpu})
            with tempfile.TemporaryFile("w+") as said, pinging(way, others, said) as ping:
                idle_from = time.time()
                while time.monotonic() < first + UDP_TIMEOUT - 1.5:
                    tracker.sweep()
                    time.sleep(0.1)
                idle_until = time.time()
                time.sleep(last + UDP_TIMEOUT + 0.1 - time.monotonic())
                tracker.sweep()  # they are seen to have expired, and are reaped by the next one
                before = datapath.read_counters()["COUNT_EXPIRED"]
                began, spent = time.time(), time.thread_time()
                tracker.sweep()
                took, spent = time.time() - began, time.thread_time() - spent
                ping.send_signal(signal.SIGINT)
                ping.wait()
                said.seek(0)
                pings = Pings(said.read())
            reaped = datapath.read_counters()["COUNT_EXPIRED"] - before
    if reaped < expiring * 0.999:
        raise RuntimeError(f"{reaped} of {expiring} connections were reaped in one sweep")
    return took, spent, pings.between(idle_from, idle_until), pings.between(began, began + took)


def figures(rounds: int, expiring: int = EXPIRING) -> Iterator[Figure]:
    datapath = compile_datapath(as_run(max(expiring, 1_000_000)))
    cpu = max(os.sched_getaffinity(0))
    others = min(range(os.cpu_count() or 1), key=lambda number: number == cpu)
    affinity = os.sched_getaffinity(0)
    try:
        datapath.memory.grow(expiring)
        with router() as way:
            whole, cpus, idle, busy = [], [], [], []
            for _ in range(rounds):
                with way.ends():
                    found = reap(way, datapath, expiring, cpu, others)
                whole.append(found[0])
                cpus.append(found[1])
                idle += found[2]
                busy += found[3]
        yield Figure.compare(
            f"a sweep that reaps {expiring:,} connections that expired together", "s of CPU", Samples.of(cpus),
            "the time it took, beside whatever else ran", Samples.of(whole), most_value=MOST_SECONDS,
        )  # fmt: skip
        for what, percent in (
            ("in the middle", 50),
            ("of a hundred the slowest", 99),
            ("of a thousand the slowest", 99.9),
        ):
            yield Figure.compare(
                f"a ping through the router while they are reaped, {what}", "µs",
                Samples((float(np.percentile(busy, percent)),)),
                "while the table is only read", Samples((float(np.percentile(idle, percent)),)),
            )  # fmt: skip
    finally:
        os.sched_setaffinity(0, affinity)
        datapath.close()
