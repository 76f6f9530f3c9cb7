"""iperf3 through the router, with ctweb's hooks and without any tracking."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

from bench.figure import Figure, Samples
from bench.forward import LONG
from bench.machine import as_run
from bench.router import CLIENT, SERVER, SERVER_ADDRESS, Router, router, run
from ctweb.datapath.build import compile_datapath

LEAST_OF_PLAIN = 0.97


def first(cpu: int, *command: str) -> list[str]:
    """The command before all others on a CPU: client and server have one each, and nobody else takes from them."""
    return ["chrt", "--fifo", "10", "taskset", "-c", str(cpu % (os.cpu_count() or 1)), *command]


def gigabits(way: Router, gigabytes: float) -> float:
    """Gb/s at which one TCP connection brings so much."""
    with way.inside(CLIENT):
        said = run(*first(0, "iperf3", "-c", SERVER_ADDRESS, "-n", str(int(gigabytes * 1e9)), "--json"))
    return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 1e9


def wait_until_listening(way: Router) -> None:
    with way.inside(SERVER):
        while ":5201" not in run("ss", "-Hltn"):
            time.sleep(0.1)


def figures(gigabytes: float, rounds: int) -> Iterator[Figure]:
    """gigabytes: of each run."""
    datapath = compile_datapath(as_run(65_536))
    try:
        datapath.apply(LONG)
        with router() as way:
            with way.inside(SERVER):
                command = first(1, "iperf3", "-s")
                server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                wait_until_listening(way)
                gigabits(way, gigabytes)
                ways: dict[str, Callable[[], AbstractContextManager[None]]] = {
                    "plain": nullcontext,
                    "nothing": lambda: way.hooked(way.nothing, way.nothing),
                    "ctweb": lambda: way.ctweb(datapath),
                }
                got: dict[str, list[float]] = {name: [] for name in ways}
                for turn in range(rounds):
                    # Now this one first, now that: what changes with time changes all.
                    for name in [*ways][:: 1 if turn % 2 else -1]:
                        with ways[name]():
                            got[name].append(gigabits(way, gigabytes))
            finally:
                server.kill()
                server.wait()
    finally:
        datapath.close()
    what, plain = "iperf3, one TCP connection through the router with tc hooks", Samples.of(got["plain"])
    yield Figure.compare(what, "Gb/s", Samples.of(got["ctweb"]), "no tracking", plain, least_ratio=LEAST_OF_PLAIN)
    yield Figure.compare(
        "the same with programs that do nothing, which is the kernel's own part of two hooks", "Gb/s",
        Samples.of(got["nothing"]), "no tracking", plain,
    )  # fmt: skip
