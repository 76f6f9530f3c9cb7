"""A table made whole takes its memory at the start, one that grows as connections come; both hold as many."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from crafted import SERVER, udp_frame
from table import Table

from ctweb.capacity import PLACE
from ctweb.datapath.build import BuildOptions, Datapath, compile_datapath
from ctweb.datapath.growth import growing
from ctweb.settings import Tracking

MOST = 100_000
FEW = 5_000
BETWEEN = 1_000  # connections from one tick to another


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
        if port % BETWEEN == 0:
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
    with closing(compile_datapath(BuildOptions(MOST, replay=True))) as datapath, growing(datapath.memory):
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


def test_without_memory_in_time_the_oldest_give_way_and_all_come_up_later():
    """Here nobody makes room until it is asked for: meanwhile the table is as full as it is large."""
    with closing(compile_datapath(BuildOptions(MOST, replay=True))) as datapath:
        datapath.apply(Tracking(udp_timeout=3_600_000))
        table = Table(datapath)
        room = datapath.connections.room
        begin(table, MOST)
        counted = table.counted()
        assert counted["EARLY_DROP"] > (MOST - room) // 2
        refused = table.untracked()["REFUSED"]  # no more than came before the first place had rested
        assert 0 < refused <= 1000
        assert counted["CREATED"] == MOST - refused
        assert room - 2 * BETWEEN <= len(table.live()) <= room
        datapath.memory.grow()
        begin(table, MOST)
        assert len(table.live()) == MOST
        assert table.untracked() == {"REFUSED": refused}
        table.check_conservation()
