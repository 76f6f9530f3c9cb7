"""A table made whole takes its memory at the start, one that grows as connections come; both hold as many."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from crafted import SERVER, udp_frame
from table import Table

from ctweb.capacity import PLACE
from ctweb.datapath.build import LEAST_SPARE, BuildOptions, Datapath, compile_datapath
from ctweb.datapath.growth import growing
from ctweb.settings import Tracking

MOST = 100_000
FEW = 5_000


def memory(datapath: Datapath) -> int:
    """Bytes of all maps, by the kernel's account."""
    told = (Path(f"/proc/self/fdinfo/{each.map_fd}").read_text() for each in datapath.maps)
    return sum(int(each.partition("memlock:")[2].split()[0]) for each in told)


def test_made_whole_it_takes_nothing_when_connections_come():
    with closing(compile_datapath(BuildOptions(FEW, replay=True, preallocate=True))) as datapath:
        datapath.apply(Tracking())
        table = Table(datapath)
        before = memory(datapath)
        assert before >= FEW * PLACE
        begin(table, 2 * FEW)
        assert memory(datapath) == before
        full(table, FEW)


def begin(table: Table, n: int, known: int = 0) -> None:
    """So many connections, one after the other; without those that have begun before."""
    for port in range(known, n):
        table.see(udp_frame(f"10.0.{port >> 14}.1", 1 + port % (1 << 14), SERVER, 53))
        if port % 1000 == 0:
            table.sleep(0.05)  # so that places of those that gave way are used again


def full(table: Table, most: int) -> None:
    """Twice as many have come, and half of them gave way."""
    assert table.untracked() == {}
    counters = table.datapath.read_counters()
    assert counters["COUNT_CREATED"] == 2 * most
    assert counters["COUNT_EARLY_DROP"] == most
    assert len(table.live()) == most


def memory_of_one_made_whole() -> int:
    with closing(compile_datapath(BuildOptions(MOST, replay=True, preallocate=True))) as datapath:
        return memory(datapath)


def test_one_that_grows_takes_memory_when_connections_come_and_in_time():
    """They come as fast as they can be made here, and none is refused."""
    with closing(compile_datapath(BuildOptions(MOST, replay=True))) as datapath, growing(datapath):
        datapath.apply(Tracking())
        table = Table(datapath)
        before = memory(datapath)
        assert before < memory_of_one_made_whole() - 0.4 * MOST * PLACE
        begin(table, MOST // 2)
        half = memory(datapath)
        assert half > before
        begin(table, 2 * MOST, known=MOST // 2)
        assert memory(datapath) > half
        full(table, MOST)
        table.check_conservation()


def test_without_memory_in_time_new_ones_are_refused_and_counted_and_come_up_later():
    """Here nobody makes room until it is asked for."""
    with closing(compile_datapath(BuildOptions(MOST, replay=True))) as datapath:
        datapath.apply(Tracking())
        table = Table(datapath)
        begin(table, MOST)
        there = len(table.live())
        assert table.untracked() == {"REFUSED": MOST - there}
        assert there >= LEAST_SPARE - os.sysconf("SC_NPROCESSORS_CONF")
        datapath.grow()
        begin(table, MOST)
        assert len(table.live()) == MOST
        assert sum(int(conn["packets"][0]) for _, conn in table.live()) == MOST + there
        table.check_conservation()
