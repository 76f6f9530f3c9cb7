"""How many connections a second a CPU can begin, in a table with room and in a full one, beside nf_conntrack."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.figure import Figure, Samples
from bench.forward import LONG
from bench.router import SYN, TCP, UDP, Packets, Router, check_arrivals, nf_conntrack_max, router
from ctweb.datapath.build import BuildOptions, Datapath, compile_datapath
from ctweb.datapath.growth import growing

LEAST_TIMES = 2.0
FULL = 65_536  # connections that a full table holds
KINDS = {
    "UDP": Packets(UDP, fresh=True),
    "TCP SYN": Packets(TCP, flags=SYN, fresh=True),
}


def empty(datapath: Datapath) -> None:
    """End and delete all connections."""
    batches = datapath.connections.read()
    for keys, ids in [(keys.copy(), leaves["id"].copy()) for keys, leaves in batches]:
        datapath.remove(keys, np.ascontiguousarray(ids))


def measure(
    way: Router, datapath: Datapath, packets: Packets, number: int, rounds: int, *, full: bool
) -> dict[str, Samples]:
    """ns of CPU for each connection made, by what tracks them; "plain": for a packet that nobody tracks.

    Raises RuntimeError if ctweb did not make one of each packet.
    """
    plain, ours, theirs = [], [], []
    for turn in range(rounds + 1):
        alone = way.cost(packets, number)
        with way.ctweb(datapath):
            made = datapath.read_counters()["COUNT_CREATED"]
            own, came = way.cost_and_arrivals(packets, number)
            made = datapath.read_counters()["COUNT_CREATED"] - made
        check_arrivals(number, came)
        # One that is lost on its way to the router begins none. The first time a table that grows may be too slow.
        if turn and not came <= made <= number:
            raise RuntimeError(f"{made} connections were made of {came} packets that came and begin one")
        with way.nf_conntrack():
            other, through = way.cost_and_arrivals(packets, number)
        if not full:
            empty(datapath)
            way.forget()
        if turn:  # the first is for nothing: memory that was never used is faster, and a full table is to be full
            plain.append(alone)
            ours.append(own)
            # What finds no room is dropped, and no connection: their number is what came through.
            theirs.append(other * number / through)
    return {"plain": Samples.of(plain), "ctweb": Samples.of(ours), "nf_conntrack": Samples.of(theirs)}


def _rate(costs: Samples) -> Samples:
    return Samples.of([1e9 / ns for ns in costs.values])


def _net(costs: dict[str, Samples], name: str) -> Samples:
    return Samples.of([a - b for a, b in zip(costs[name].values, costs["plain"].values, strict=True)])


def _of_one_table(way: Router, connections: int, rounds: int, *, full: bool, whole: bool) -> Iterator[Figure]:
    size = FULL if full else 4 * connections
    where = f"a full table of {FULL:,}" if full else "a table with room"
    how = f"{where}, {'made whole' if whole else 'which grows'}"
    datapath = compile_datapath(BuildOptions(max_entries=size, preallocate=whole))
    try:
        datapath.apply(LONG)
        with growing(datapath.memory), nf_conntrack_max(size):
            for name, packets in KINDS.items():
                number = max(connections, 2 * FULL) if full else connections
                costs = measure(way, datapath, packets, number, rounds, full=full)
                what = f"new connections a second of one CPU, {name}, {how}"
                yield Figure.compare(
                    f"{what}, the tracking alone", "a second", _rate(_net(costs, "ctweb")),
                    "nf_conntrack", _rate(_net(costs, "nf_conntrack")), least_ratio=LEAST_TIMES,
                )  # fmt: skip
                yield Figure.compare(
                    f"{what}, forwarding and the packet's making included", "a second", _rate(costs["ctweb"]),
                    "nf_conntrack", _rate(costs["nf_conntrack"]),
                )  # fmt: skip
                empty(datapath)
                way.forget()
    finally:
        datapath.close()


def figures(connections: int, rounds: int) -> Iterator[Figure]:
    """Both ways to make a table (`preallocate`); without the setting, machines with memory enough make it whole."""
    with router() as way, way.ends():
        for full in (False, True):
            for whole in (True, False):
                yield from _of_one_table(way, connections, rounds, full=full, whole=whole)
