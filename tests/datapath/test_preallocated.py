"""A table made whole takes its memory at the start, one that grows as connections come; both hold as many."""

from __future__ import annotations

from pathlib import Path

import pytest
from crafted import CLIENT, SERVER, udp_frame
from table import Table

from ctweb.capacity import PLACE
from ctweb.datapath.build import BuildOptions, Datapath, compile_datapath
from ctweb.settings import Tracking

MOST = 1_000
ENTRY = 248  # bytes of an entry of the kernel's map


def memory(datapath: Datapath) -> int:
    """Bytes of all maps, by the kernel's account."""
    told = (Path(f"/proc/self/fdinfo/{each.map_fd}").read_text() for each in datapath.maps)
    return sum(int(each.partition("memlock:")[2].split()[0]) for each in told)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "growing"])
def test_when_the_memory_is_taken_and_how_many_connections_there_is_room_for(whole):
    datapath = compile_datapath(BuildOptions(MOST, replay=True, preallocate=whole))
    try:
        datapath.apply(Tracking())
        table = Table(datapath)
        before = memory(datapath)
        for port in range(1, 2 * MOST + 1):
            table.see(udp_frame(CLIENT, port, SERVER, 53))
        taken = memory(datapath) - before
        if whole:
            assert before >= MOST * PLACE
            assert taken == 0
        else:
            assert taken >= MOST * ENTRY
        counters = datapath.read_counters()
        assert counters["COUNT_CREATED"] == 2 * MOST
        assert counters["COUNT_CREATED"] - counters["COUNT_EARLY_DROP"] == MOST
        assert counters["COUNT_REFUSED"] == 0
    finally:
        datapath.close()
