"""Kernel memory for each connection, of a million that packets have made, beside nf_conntrack's.

Of ctweb it is what the kernel accounts for all of its maps together (`memlock` in their fdinfo). Of nf_conntrack it
is the objects that its slabs have grown by, each with its part of the slab's pages, and a bucket for each connection.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bench.figure import Figure, Samples
from bench.forward import LONG
from bench.router import ROUTER, Packets, Router, nf_conntrack_max, router
from ctweb.datapath.build import BuildOptions, Datapath, compile_datapath
from ctweb.datapath.growth import growing

CONNECTIONS = 1_000_000
MOST_OF_NF_CONNTRACK = 0.8
BUCKET = 8  # a struct hlist_nulls_head; nf_conntrack has one for each connection by default (nf_conntrack_buckets)
# Of its entries, and of their extensions.
SLABS = ("nf_conntrack", "kmalloc-64", "kmalloc-96", "kmalloc-128", "kmalloc-192")


def maps_memory(datapath: Datapath) -> int:
    """Bytes of all maps, by the kernel's account."""
    total = 0
    for each in datapath.maps:
        told = Path(f"/proc/self/fdinfo/{each.map_fd}").read_text()
        total += int(told.partition("memlock:")[2].split()[0])
    return total


def ours(way: Router, connections: int, *, whole: bool) -> float:
    datapath = compile_datapath(BuildOptions(max_entries=connections, preallocate=whole))
    try:
        datapath.apply(LONG)
        with growing(datapath.memory), way.ctweb(datapath):
            way.cost(Packets(connections=connections), connections)
            made = datapath.read_counters()["COUNT_CREATED"]
        if made < connections * 0.999:
            raise RuntimeError(f"{made} connections were made, not {connections}")
        return maps_memory(datapath) / made
    finally:
        datapath.close()


def slabs() -> dict[str, float]:
    """Bytes of the objects in use, by slab."""
    found = {}
    for line in Path("/proc/slabinfo").read_text().splitlines()[2:]:
        name, active, _, _, per_slab, pages = line.split()[:6]
        if name in SLABS:
            found[name] = int(active) * int(pages) * os.sysconf("SC_PAGE_SIZE") / int(per_slab)
    return found


def theirs(way: Router, connections: int, *, accounting: bool) -> float:
    with way.inside(ROUTER):
        Path("/proc/sys/net/netfilter/nf_conntrack_acct").write_text(str(int(accounting)))
    with nf_conntrack_max(2 * connections), way.nf_conntrack():
        before = slabs()
        way.cost(Packets(connections=connections), connections)
        grown = sum(after - before[name] for name, after in slabs().items())
        with way.inside(ROUTER):
            made = int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())
    way.forget()
    if made < connections * 0.999:
        raise RuntimeError(f"nf_conntrack has {made} connections, not {connections}")
    return grown / made + BUCKET


def figures(rounds: int, connections: int = CONNECTIONS) -> Iterator[Figure]:
    with router() as way, way.ends():
        own, grown, bare, counting = [], [], [], []
        for _ in range(rounds):
            own.append(ours(way, connections, whole=True))
            grown.append(ours(way, connections, whole=False))
            bare.append(theirs(way, connections, accounting=False))
            counting.append(theirs(way, connections, accounting=True))
    what = f"kernel memory per connection, {connections:,} connections, tables included"
    with_counters = "nf_conntrack with counters (nf_conntrack_acct), as ctweb has them"
    for how, samples in (("the table made whole", own), ("the table which grows", grown)):
        yield Figure.compare(
            f"{what}, {how}", "bytes", Samples.of(samples), with_counters, Samples.of(counting),
            most_ratio=MOST_OF_NF_CONNTRACK,
        )  # fmt: skip
    yield Figure.compare(
        f"{what}, the table made whole", "bytes", Samples.of(own), "nf_conntrack without counters", Samples.of(bare)
    )
