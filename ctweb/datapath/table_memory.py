"""Memory for the table's places: all of it from the start, or in chunks that are made ahead of need (ebpf/places.h)."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Mapping

from ctweb.datapath.image import MapShape
from ctweb.datapath.map import Map
from ctweb.datapath.memory_left import memory_left
from ctweb.datapath.parts import Parts
from ctweb.datapath.pins import CHUNKS, Kept, Pins, chunk_pin

log = logging.getLogger(__name__)

# The places that are ahead of the last one in use: what comes until there are more. A CPU makes 65,536 connections in
# 90 ms at best, and who is to make room may have to wait for a CPU for half of that.
SPARE_FOR_A_CPU, LEAST_SPARE, MOST_SPARE = 1 << 15, 1 << 16, 1 << 18
SPARE_PART = 8  # of those in use
# Bytes that it leaves this process, which keeps as much of each connection as the kernel does: were the table to take
# the last of a memory limit, the process would be killed for its own next page.
LEFT_FOR_PROCESS = 48 << 20


class TableMemory:
    """Places, and addresses of IPv6. It owns the maps that are chunks of them.

    parts: both by name. growth: descriptor of the ring buffer that tells when to `grow`; None: nothing grows.
    no_memory: why it could not grow when that was tried last; empty: it could.
    """

    def __init__(self, maps: Mapping[str, Map], shapes: Mapping[str, MapShape], places: int, kept: Kept | None) -> None:
        """places: how many there may be. kept: where the chunks of a table are that was taken over. Raises OSError."""
        self.no_memory = ""
        self._shared = maps["shared"]
        self._most = places
        self._lock = threading.Lock()  # one at a time makes chunks, which have numbers
        self._pins: Pins | None = None
        self._chunk = sum(shapes[name].entries * shapes[name].leaf_size for name in CHUNKS.values())
        self._pinned = dict.fromkeys(CHUNKS.values(), 0)
        self.growth = maps["growth"].map_fd if "growth" in maps else None
        if self.growth is None:
            self.parts = {name: Parts(shapes[name], [maps[name]]) for name in CHUNKS.values()}
            return
        chunks = kept.take_chunks() if kept else {}
        self._pinned |= {name: len(there) for name, there in chunks.items()}
        self.parts = {
            name: Parts(shapes[name], chunks.get(name, ()), maps[holder]) for holder, name in CHUNKS.items()
        }
        try:
            self.grow()
        except OSError:
            if self.parts["places"].room <= self._shared[0].places_used:
                raise
            log.warning("there is no memory for more connections than the earlier run had: %s", self.no_memory)
        for parts in self.parts.values():
            parts.settle()  # whoever gives up root must be alone

    def grow(self, coming: int = 0) -> None:
        """Make memory for connections to come, at least so many, if there is little left. Raises OSError."""
        if self.growth is None:
            return
        with self._lock:
            places, used = self.parts["places"], self._shared[0].places_used
            spare = max(least_spare(), used // SPARE_PART) + coming
            wanted = -(-min(used + spare, self._most) // places.entries)
            try:
                while len(places) < wanted:
                    if len(places) and memory_left() < self._chunk + LEFT_FOR_PROCESS:
                        raise OSError(errno.ENOMEM, "too little memory is left")
                    # Places come last: where they are, packets are told that all else is there as well.
                    for name, parts in self.parts.items():
                        if len(parts) <= len(places):
                            parts.add(lambda number, made, name=name: self._pin(name, number, made))  # type: ignore[misc]
            except OSError as error:
                self.no_memory = os.strerror(error.errno or 0)
                raise
            self.no_memory = ""

    def keep(self, pins: Pins) -> None:
        """Pin all chunks that are not pinned yet, and each that comes. Raises OSError."""
        with self._lock:
            self._pins = pins
            for name, parts in self.parts.items():
                if self.growth is not None:
                    for number in range(self._pinned[name], len(parts)):
                        self._pin(name, number, parts.maps[number])

    def _pin(self, name: str, number: int, made: Map) -> None:
        if self._pins is not None:
            self._pins.add(chunk_pin(name, number), made)
            self._pinned[name] = number + 1

    @property
    def chunks(self) -> tuple[Map, ...]:
        """The maps that are chunks."""
        return () if self.growth is None else tuple(each for parts in self.parts.values() for each in parts.maps)

    def close(self) -> None:
        """Let go of the chunks; those that are pinned stay."""
        if self.growth is not None:
            for parts in self.parts.values():
                parts.close()


def least_spare() -> int:
    """Places that are ahead of need at least: a machine with more CPUs takes them faster."""
    return min(max(SPARE_FOR_A_CPU * (os.cpu_count() or 1), LEAST_SPARE), MOST_SPARE)
