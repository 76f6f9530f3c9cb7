"""What a second CPU brings, on the same connection and on others, beside what it brings to nf_conntrack."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench.figure import Figure, Samples
from bench.forward import LONG, tracked_ways
from bench.machine import as_run
from bench.router import Packets, Router, check_arrivals, router
from ctweb.datapath.build import compile_datapath

NO_WORSE = 0.97  # the rest is noise: both sides' own runs differ by more
# On each CPU: one connection that is the other's too, or connections of its own.
CASES = {
    "the same connection": (Packets(), Packets()),
    "different connections": (Packets(connections=500), Packets(connections=500, first=1000)),
}


def together(way: Router, packets: tuple[Packets, Packets], number: int) -> list[float]:
    """ns of CPU a packet on each of two CPUs that send at the same time. Raises RuntimeError."""
    barrier = threading.Barrier(2)
    before = way.arrived()

    def one(cpu: int) -> float:
        try:
            return way.send(packets[cpu], number, cpu=cpu, together=barrier) * 1e9 / number
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(2) as threads:
        spent = list(threads.map(one, (0, 1)))
    check_arrivals(2 * number, way.arrived() - before)
    return spent


def scaling(way: Router, packets: tuple[Packets, Packets], number: int) -> float:
    """Packets a second of two CPUs, as times those of one."""
    alone = (way.send(packets[0], number, cpu=0) + way.send(packets[0], number, cpu=1)) * 1e9 / number / 2
    return sum(alone / each for each in together(way, packets, number))


def figures(packets: int, rounds: int) -> Iterator[Figure]:
    """packets: of one sample on one CPU. Raises RuntimeError if the machine has one CPU only."""
    if (os.cpu_count() or 1) < 2:
        return
    datapath = compile_datapath(as_run(65_536))
    try:
        datapath.apply(LONG)
        with router() as way, way.ends():
            ways = tracked_ways(way, datapath)
            for case, kinds in CASES.items():
                found: dict[str, list[float]] = {name: [] for name in ways}
                for _ in range(rounds):
                    for name, enter in ways.items():
                        with enter():
                            found[name].append(scaling(way, kinds, packets))
                samples = {name: Samples.of(values) for name, values in found.items()}
                what = f"two CPUs on {case}: packets a second, beside one CPU"
                yield Figure.compare(
                    what, "times", samples["ctweb"], "nf_conntrack", samples["nf_conntrack"], least_ratio=NO_WORSE
                )
                yield Figure.compare(
                    f"{what}, no tracking", "times", samples["plain"], "nf_conntrack", samples["nf_conntrack"]
                )
    finally:
        datapath.close()
