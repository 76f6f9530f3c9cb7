"""What tracking adds to a forwarded packet: ctweb's hooks beside nf_conntrack, on the same router, turn by turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

from bench.figure import Figure, Samples
from bench.floor_table import FLOOR, floor_over
from bench.machine import as_run
from bench.random_order import check, counts, fill_floor, floor_program
from bench.router import ACK, PUSH, TCP, Packets, Router, nf_conntrack_buckets, nf_conntrack_max, router
from ctweb.datapath.build import Datapath, compile_datapath
from ctweb.settings import Tracking

FEW, MANY = 10_000, 1_000_000
MOST_OF_NF_CONNTRACK = 0.25
NF_CONNTRACK = "nf_conntrack (one `ct state` rule)"
LONG = Tracking(udp_timeout=3_600_000, udp_stream_timeout=3_600_000, tcp_syn_sent_timeout=3_600_000)

Ways = Mapping[str, Callable[[], AbstractContextManager[None]]]


def costs(way: Router, ways: Ways, packets: Packets, number: int, rounds: int) -> dict[str, Samples]:
    """ns of CPU a packet for each of the ways, turn by turn."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, enter in ways.items():
            with enter():
                found[name].append(way.cost(packets, number))
    return {name: Samples.of(values) for name, values in found.items()}


def added(costs: Mapping[str, Samples], name: str) -> Samples:
    """What one of the ways costs more than no tracking, round by round."""
    return Samples.of([a - b for a, b in zip(costs[name].values, costs["plain"].values, strict=True)])


def tracked_ways(way: Router, datapath: Datapath) -> dict[str, Callable[[], AbstractContextManager[None]]]:
    return {"plain": nullcontext, "nf_conntrack": way.nf_conntrack, "ctweb": lambda: way.ctweb(datapath)}


def _udp(way: Router, ways: Ways, connections: int, sent: int, rounds: int) -> Iterator[Figure]:
    kind = Packets(connections=connections)
    for enter in ways.values():
        with enter():
            way.cost(kind, connections)  # whoever tracks them knows them now
    costed = costs(way, ways, kind, sent, rounds)
    plain = statistics.median(costed["plain"].values)
    yield Figure.compare(
        f"added to a forwarded packet, {connections:,} UDP connections, both hooks",
        "ns", added(costed, "ctweb"), f"{NF_CONNTRACK}, to {plain:,.0f} ns without",
                added(costed, "nf_conntrack"),
        most_ratio=MOST_OF_NF_CONNTRACK,
    )  # fmt: skip
    if "empty" in costed:
        yield Figure.compare(
            "the same by programs that do nothing, which is the kernel's own part of two hooks",
            "ns", added(costed, "empty"), NF_CONNTRACK, added(costed, "nf_conntrack"),
        )  # fmt: skip


def _tcp(way: Router, ways: Ways, datapath: Datapath, sent: int, rounds: int) -> Iterator[Figure]:
    # A turn of all connections sends the next bytes of each; no turn leaves the window, which is 64 KB.
    kind = Packets(TCP, FEW, flags=ACK | PUSH, seq=2, ack=2, step=6)
    with floor_program(datapath.options.max_entries) as (floor, table), floor_over(datapath) as floors:
        own_floor = floors[FLOOR]
        fill_floor(table, datapath)
        counted = counts(table)
        with_floor: Ways = {
            **ways,
            "floor": lambda: way.hooked(floor, way.nothing),
            "own floor": lambda: way.hooked(own_floor, way.nothing),
        }
        costed = costs(way, with_floor, kind, sent, rounds)
        check(table, counted + sent * rounds)
    plain = statistics.median(costed["plain"].values)
    yield Figure.compare(
        f"added to a forwarded packet, {FEW:,} established TCP connections, both hooks",
        "ns", added(costed, "ctweb"), f"{NF_CONNTRACK}, to {plain:,.0f} ns without", added(costed, "nf_conntrack"),
        most_ratio=MOST_OF_NF_CONNTRACK,
    )  # fmt: skip
    for name, map_ in (("floor", "the kernel's hash map"), ("own floor", "ctweb's table")):
        yield Figure.compare(
            f"the same by the floor program over {map_} at ingress and one that does nothing at egress",
            "ns", added(costed, name), NF_CONNTRACK, added(costed, "nf_conntrack"),
        )  # fmt: skip


def figures(packets: int, rounds: int, many: int = MANY) -> Iterator[Figure]:
    """packets: of one sample, of few connections; of `many`, each sends one in a sample."""
    datapath = compile_datapath(as_run(many + FEW))
    try:
        datapath.apply(LONG)
        datapath.memory.grow(many + FEW)
        with nf_conntrack_buckets(many), nf_conntrack_max(2 * many), router() as way, way.ends():
            ways = tracked_ways(way, datapath)
            with_empty = ways | {"empty": lambda: way.hooked(way.nothing, way.nothing)}
            yield from _udp(way, with_empty, FEW, packets, rounds)
            for name, enter in ways.items():
                if name != "plain":
                    with enter():
                        way.establish(FEW)
            yield from _tcp(way, ways, datapath, packets, rounds)
            yield from _udp(way, ways, many, many, rounds)  # last: what is in nf_conntrack's table slows the others
    finally:
        datapath.close()
