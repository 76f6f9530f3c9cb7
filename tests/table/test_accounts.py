"""The accounts are right whatever happens while a sweep reads, and wrong once a packet is lost or counted twice."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from ctweb.table import accounts

BYTES = 100  # of each packet


@dataclass
class Kernel:
    """Packets by place: connections by number, and the counters."""

    live: dict[int, int] = field(default_factory=lambda: {0: 3, 1: 0, 2: 7})
    ended: int = 5
    untracked: int = 2
    offered: int = 17
    lost: int = 0

    def happen(self, what: str, where: int) -> None:
        if what == "count":
            self.offered += 1
            self.live[where] += 1
        elif what == "end":
            self.ended += self.live[where]
            self.live[where] = 0
        elif what == "untracked":
            self.offered += 1
            self.untracked += 1
        elif what == "lose":
            self.offered += 1
        elif what == "twice":
            self.live[where] += 1

    def counters(self) -> dict[str, int]:
        packets = {"offered-packets": self.offered, "ended-packets": self.ended, "invalid-tcp": self.untracked}
        sizes = {"offered-bytes": self.offered, "ended-bytes": self.ended, "untracked-bytes": self.untracked}
        return packets | {name: BYTES * count for name, count in sizes.items()}


def sweep(kernel: Kernel, meanwhile: list[list[tuple[str, int]]]) -> dict[str, int]:
    """The gaps that a sweep finds, with these events before it reads each connection and before it reads counters."""
    before = kernel.counters()
    read = 0
    for number, events in enumerate(meanwhile):
        for event in events:
            kernel.happen(*event)
        if number < len(kernel.live):
            read += kernel.live[number]
    found = {"packets": read, "bytes": BYTES * read}
    return {unit: accounts.gap(unit, before, found, found, kernel.counters()) for unit in accounts.UNITS}


event = st.tuples(st.sampled_from(["count", "end", "untracked"]), st.integers(0, 2))
sweeps = st.lists(st.lists(event, max_size=4), min_size=4, max_size=4)


@given(sweeps)
def test_nothing_that_happens_meanwhile_is_a_gap(meanwhile):
    assert sweep(Kernel(), meanwhile) == {"packets": 0, "bytes": 0}


@given(sweeps, st.integers(1, 5), st.sampled_from(["lose", "twice"]))
def test_each_lost_or_doubled_packet_is_found_once_it_is_quiet(meanwhile, n, what):
    kernel = Kernel()
    before = sweep(kernel, meanwhile)
    for _ in range(n):
        kernel.happen(what, 1)
    gaps = [sweep(kernel, [[], [], [], []]) for _ in range(2)]
    sign = 1 if what == "lose" else -1
    for unit, size in (("packets", 1), ("bytes", BYTES)):
        assert accounts.lasting(before[unit], gaps[0][unit]) == 0
        assert accounts.lasting(gaps[0][unit], gaps[1][unit]) == sign * n * size
