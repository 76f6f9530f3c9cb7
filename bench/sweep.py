"""What one sweep of the table costs: read to columns, rates worked out, expiry decided."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.figure import Figure, Samples
from bench.machine import as_run
from ctweb.datapath.build import Datapath, compile_datapath
from ctweb.datapath.maps import Reader, write
from ctweb.table import expiry
from ctweb.table.snapshot import Snapshot, advance

ENTRIES = 1_000_000
FEW = 10_000
MOST_SECONDS, MOST_SECONDS_OF_FEW = 0.7, 0.015
MOST_OF_CONNTRACK = 0.2
BATCH = 65_536


def fill(datapath: Datapath, entries: int) -> None:
    """Put that many live TCP connections into the map, each with counters of its own. Raises OSError."""
    put(datapath, *connections(datapath, np.arange(entries, dtype=np.uint32)))


def connections(datapath: Datapath, number: NDArray[np.uint32]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Keys and leaves of the connections with these numbers."""
    entries = len(number)
    keys = np.zeros(entries, datapath.key_dtype)
    keys["lo_addr"][:, 0] = (0x0A000000 + (number >> 4)).astype(">u4").view(np.uint32)
    keys["hi_addr"][:, 0] = np.uint32(0xC0A80001)
    keys["lo_port"] = (1024 + (number & 15)).astype(">u2").view(np.uint16)
    keys["hi_port"] = np.array(443, ">u2").view(np.uint16)
    keys["protocol"], keys["family"] = 6, 4
    leaves = np.zeros(entries, datapath.leaf_dtype)
    now = datapath.clock.now()
    leaves["id"] = number + 1
    leaves["created"] = now
    leaves["expires"] = now + 86_400 * 10**9
    leaves["tcp_state"] = datapath.enums["tcp_state"]["TCP_ESTABLISHED"]
    leaves["packets"] = (number[:, np.newaxis] & 0xFFF) + 1
    leaves["bytes"] = leaves["packets"] * 1000
    return keys, leaves


def put(datapath: Datapath, keys: NDArray[Any], leaves: NDArray[Any]) -> None:
    """Write entries into the table, over those that are there. Raises OSError."""
    for start in range(0, len(keys), BATCH):
        part = slice(start, start + BATCH)
        write(datapath.connections, keys[part], leaves[part])


class BareReader:
    """The kernel's batch reads into the same buffers again and again, and nothing else: what any reader must pay."""

    def __init__(self, datapath: Datapath) -> None:
        self._blocks = datapath.connections.blocks

    def read(self) -> int:
        """How many entries there were."""
        return sum(len(block) for _, block in self._blocks())


@contextmanager
def filled(entries: int) -> Iterator[Datapath]:
    """A datapath of the largest size with that many connections."""
    datapath = compile_datapath(as_run(ENTRIES))
    try:
        fill(datapath, entries)
        yield datapath
    finally:
        datapath.close()


def sweep(datapath: Datapath, reader: Reader, before: Snapshot) -> Snapshot:
    """What the tracker does each second, but for the reaping, of which there is none here."""
    now = datapath.clock.now()
    columns = reader.read()
    until = datapath.clock.now()
    if expiry.due(columns, before.now).any():
        raise RuntimeError("a connection of the benchmark expired while it ran")
    return advance(before, columns, time=time.time(), now=now, until=until, counters={})


def measure(entries: int, rounds: int) -> tuple[Samples, Samples]:
    """CPU seconds of a sweep, and of the kernel's part of it alone, interleaved."""
    with filled(entries) as datapath:
        reader, bare = Reader(datapath.connections), BareReader(datapath)
        snapshot = sweep(datapath, reader, Snapshot.empty())
        whole, kernel = [], []
        for _ in range(rounds):
            start = time.process_time()
            read = bare.read()
            middle = time.process_time()
            snapshot = sweep(datapath, reader, snapshot)
            whole.append(time.process_time() - middle)
            kernel.append(middle - start)
            if not read == len(snapshot) == entries:
                raise RuntimeError(f"{entries} connections, but {read} and {len(snapshot)} were read")
    return Samples.of(whole), Samples.of(kernel)


def figures(rounds: int, listing: Samples) -> Iterator[Figure]:
    """A sweep of a full table, and of a large one that is nearly empty.

    listing: seconds of CPU of `conntrack -L` of a full one.
    """
    for entries, most in ((ENTRIES, MOST_SECONDS), (FEW, MOST_SECONDS_OF_FEW)):
        whole, kernel = measure(entries, rounds)
        what = f"one sweep of {entries:,} connections (max-entries {ENTRIES:,}): columns, rates, expiry"
        if entries == ENTRIES:
            yield Figure.compare(
                what,
                "s of CPU",
                whole,
                "`conntrack -L` of as many",
                listing,
                most_ratio=MOST_OF_CONNTRACK,
                most_value=most,
            )
            yield Figure.compare(f"{what}, again", "s of CPU", whole, "the kernel's batch reads alone", kernel)
        else:
            yield Figure.compare(what, "s of CPU", whole, "the kernel's batch reads alone", kernel, most_value=most)
