"""The table made whole at the start and the one that grows: the same to every packet."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from crafted import ACK, CLIENT, CLIENT6, FIN, RST, SERVER, SERVER6, SYN, tcp_frame, udp_frame
from table import Table
from test_concurrency import sender, together

from ctweb.datapath import build
from ctweb.datapath.build import BuildOptions, compile_datapath
from ctweb.settings import Tracking

CELLS = 14  # of a bucket


def loaded(*, whole: bool, most: int = 500) -> Table:
    datapath = compile_datapath(BuildOptions(most, replay=True, preallocate=whole))
    datapath.apply(Tracking())
    return Table(datapath)


@pytest.fixture
def whole() -> Iterator[Table]:
    made = loaded(whole=True)
    yield made
    made.datapath.close()


@pytest.fixture
def growing() -> Iterator[Table]:
    made = loaded(whole=False)
    yield made
    made.datapath.close()


def places(table: Table) -> tuple[int, int]:
    """How many have ever been used, and how many of these have been given back."""
    shared = table.datapath.shared[0]
    return shared.places_used, shared.spare_tail - shared.spare_head


def facts(table: Table) -> list[tuple]:
    """What is to be seen of each live connection."""
    return sorted(
        (key.tobytes(), int(conn["status"]), int(conn["tcp_state"]), int(conn["expires"]), *map(int, conn["packets"]),
         *map(int, conn["bytes"]))
        for key, conn in table.live()
    )  # fmt: skip


def reap(table: Table) -> None:
    """As a sweep does."""
    over = [key for key, conn in table.entries() if conn["expires"] <= table.now]
    if over:
        table.datapath.reap(np.array(over, table.datapath.key_dtype), table.now)


def some_frame(chance: random.Random) -> bytes:
    port = chance.randrange(1000, 1400)
    ends = (CLIENT, port, SERVER, 80) if chance.random() < 0.6 else (CLIENT6, port, SERVER6, 80)
    if chance.random() < 0.5:
        ends = ends[2:] + ends[:2]
    if chance.random() < 0.5:
        return udp_frame(*ends)
    return tcp_frame(*ends, chance.choice([SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST]), seq=1, ack=1)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_packets_make_the_same_table(whole, growing, seed):
    chance = random.Random(seed)
    for step in range(6000):
        frame = some_frame(chance)
        pause = chance.choice([0, 0, 0, 0.01, 0.1])
        for table in (whole, growing):
            table.see(frame)
            table.sleep(pause)
            if step % 500 == 0:
                reap(table)
        if step % 500 == 0:
            assert facts(whole) == facts(growing)
    assert facts(whole) == facts(growing)
    assert whole.counted() == growing.counted()
    whole.check_conservation()
    assert whole.counted()["EARLY_DROP"] > 100


def test_a_place_is_used_again_but_not_while_somebody_may_be_counting_on_it(whole):
    """Two ticks are longer than any program runs."""

    def reset(port: int) -> None:
        whole.see(tcp_frame(CLIENT, port, SERVER, 2, SYN))
        whole.see(tcp_frame(SERVER, 2, CLIENT, port, RST | ACK, ack=1))

    reset(1)
    assert (places(whole), whole.entries()) == ((1, 1), [])
    reset(2)
    assert places(whole) == (2, 2)
    whole.sleep(0.1)
    for port in range(3, 5):
        whole.see(udp_frame(CLIENT, port, SERVER, 53))
    assert places(whole) == (2, 0)
    whole.see(udp_frame(CLIENT, 5, SERVER, 53))
    assert places(whole) == (3, 0)
    assert [list(conn["packets"]) for _, conn in whole.entries()] == [[1, 0]] * 3
    whole.check_conservation()


class TestCrowded:
    """An index of few buckets: tuples share them, move on to others, and some find no room."""

    @pytest.fixture(params=[(1, 1), (1, 4), (4, 1)])
    def buckets(self, request, monkeypatch) -> int:
        """How many; the parameters are those near and far."""
        options = BuildOptions(500)
        near, far = request.param
        monkeypatch.setattr(build, "NEAR_BUCKETS", near)
        monkeypatch.setattr(build, "CONNECTIONS_PER_BUCKET", options.max_entries // far)
        assert options.entries["buckets"] == near + far
        return near + far

    @pytest.fixture
    def table(self, buckets) -> Iterator[Table]:
        made = loaded(whole=True)
        yield made
        made.datapath.close()

    def frames(self, n: int) -> list[bytes]:
        return [
            udp_frame(CLIENT, 1000 + port, SERVER, 53) if port % 3 else udp_frame(CLIENT6, 1000 + port, SERVER6, 53)
            for port in range(n)
        ]

    def test_each_is_found_again_or_refused_and_counted(self, table, buckets):
        frames = self.frames(300)
        for frame in frames:
            table.see(frame)
        there = len(table.live())
        assert there <= CELLS * buckets
        assert there >= CELLS * buckets * 0.9
        assert table.untracked() == {"REFUSED": len(frames) - there}
        for frame in frames:
            table.see(frame)
        assert [list(conn["packets"]) for _, conn in table.live()] == [[2, 0]] * there
        table.check_conservation()

    def test_who_goes_leaves_room(self, table, buckets):
        """Time and again, in any order: nothing is left behind in the index."""
        chance = random.Random(buckets)
        for _ in range(20):
            frames = chance.sample(self.frames(400), 12 * buckets)
            for frame in frames:
                table.see(frame)
            assert len(table.live()) >= 11 * buckets
            while table.entries():
                keys = np.array([key for key, _ in table.entries()], table.datapath.key_dtype)
                ids = np.array([conn["id"] for _, conn in table.entries()], np.uint64)
                some = chance.sample(range(len(keys)), -(-len(keys) // 2))
                assert table.datapath.remove(keys[some], ids[some]) == len(some)
                left = set(ids.tolist()) - set(ids[some].tolist())
                assert {int(conn["id"]) for _, conn in table.live()} == left
            table.sleep(1)
        index = table.datapath.table("buckets")
        assert all(not each.passed and not any(each.pair) for each in index.values())
        table.check_conservation()


def test_of_many_connections_and_then_of_few_each_is_found():
    """Where find() looks first depends on how many there are; what it finds does not."""
    with closing(compile_datapath(BuildOptions(100_000, replay=True, preallocate=True))) as datapath:
        datapath.apply(Tracking())
        table = Table(datapath)
        few, many = (datapath.enums[""][name] for name in ("MOSTLY_NEAR", "MOSTLY_FAR"))
        table.see(udp_frame(CLIENT, 1, SERVER, 53))
        ((key, conn),) = table.entries()
        ports = np.arange(2, 60_002)
        keys = np.repeat(key, 2 * len(ports))
        keys["hi_port"] = np.tile(ports, 2).astype(">u2").view("u2")
        keys["protocol"][len(ports) :] = 136  # UDP-Lite
        keys = keys[: many + 1000]
        assert datapath.connections.write(keys, np.repeat(conn, len(keys))) == len(keys)

        def see_some(new: int) -> None:
            """Some of those that are there, after a new one."""
            table.see(udp_frame(CLIENT, new, SERVER, 54))
            chosen = range(2, few - 1000, 37)
            before = {key.tobytes(): int(conn["packets"][0]) for key, conn in table.live()}
            for port in chosen:
                table.see(udp_frame(CLIENT, port, SERVER, 53))
            after = {key.tobytes(): int(conn["packets"][0]) for key, conn in table.live()}
            assert before.keys() == after.keys()
            assert sum(after.values()) - sum(before.values()) == len(chosen)

        see_some(1)
        assert datapath.table("size")[0].mostly_far
        gone = keys[few - 1000 :]
        assert datapath.remove(gone, np.repeat(conn["id"], len(gone))) == len(gone)
        see_some(2)
        assert not datapath.table("size")[0].mostly_far


def test_two_cpus_make_and_end_the_same_connections_and_no_place_is_lost():
    """Both begin each connection at once, and one of them resets it: whose place is given up is used again."""
    with closing(compile_datapath(BuildOptions(1000, preallocate=True))) as datapath:
        datapath.apply(Tracking())
        table = Table(datapath, now=0)
        begin = [tcp_frame(CLIENT, port, SERVER, 80, SYN, seq=1) for port in range(1000, 1400)]
        end = [tcp_frame(SERVER, 80, CLIENT, port, RST | ACK, ack=2) for port in range(1000, 1400)]
        mixed = [frame for pair in zip(begin, end, strict=True) for frame in pair]
        together(sender(table, "tc_ingress", mixed, 20, 1), sender(table, "tc_ingress", mixed, 20, 1))
        used, spare = places(table)
        assert used - spare == len(table.entries())
        assert used < datapath.options.places
        tuples = [key.tobytes() for key, _ in table.entries()]
        assert len(set(tuples)) == len(tuples)
        table.check_conservation()
