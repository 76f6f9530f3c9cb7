"""A full table: the oldest connection that is not assured gives way, at once; an assured one never does."""

from __future__ import annotations

import threading

import pytest
from crafted import ACK, CLIENT, CLIENT6, SERVER, SERVER6, SYN, tcp_frame, udp_frame
from table import Table
from test_concurrency import sender, together

from ctweb.datapath import build
from ctweb.datapath.build import RESTING, BuildOptions, compile_datapath
from ctweb.settings import Tracking

SIZE = 100


@pytest.fixture(scope="module", params=[True, False], ids=["whole", "growing"])
def small(request):
    made = compile_datapath(BuildOptions(max_entries=SIZE, replay=True, preallocate=request.param))
    yield made
    made.close()


@pytest.fixture
def table(small) -> Table:
    """An empty table for SIZE connections."""
    small.apply(Tracking())
    made = Table(small)
    made.clear()
    return made


def ask(table, port, source=CLIENT, destination=SERVER):
    table.see(udp_frame(source, port, destination, 53))


def assure(table, port, source=CLIENT, destination=SERVER):
    """Answered, and goes on for more than two seconds."""
    ask(table, port, source, destination)
    table.see(udp_frame(destination, 53, source, port))
    table.sleep(2.1)
    ask(table, port, source, destination)


def ports(table) -> set[int]:
    """The clients' ports of the live connections."""
    return {
        max(int.from_bytes(key[name].tobytes(), "big") for name in ("lo_port", "hi_port")) for key, _ in table.live()
    }


@pytest.mark.parametrize(("source", "destination"), [(CLIENT, SERVER), (CLIENT6, SERVER6)], ids=["IPv4", "IPv6"])
def test_the_oldest_gives_way_one_for_one(table, source, destination):
    for n in range(3 * SIZE):
        ask(table, 1000 + n, source, destination)
        assert len(table.live()) == min(n + 1, SIZE)
    assert ports(table) == set(range(1000 + 2 * SIZE, 1000 + 3 * SIZE))
    assert table.counted()["EARLY_DROP"] == 2 * SIZE
    assert not table.untracked()
    table.check_conservation()


@pytest.mark.parametrize("ends", [(CLIENT, SERVER), (CLIENT6, SERVER6)], ids=["ipv4", "ipv6"])
def test_a_large_table_finds_its_oldest_with_a_cell_of_the_ring_for_each_connection(monkeypatch, ends):
    monkeypatch.setattr(build, "SMALL_TABLE", 0)
    large = compile_datapath(BuildOptions(max_entries=SIZE, replay=True))
    try:
        large.apply(Tracking())
        table = Table(large)
        table.clear()
        for n in range(5 * SIZE):
            ask(table, 1000 + n, *ends)
            assert len(table.live()) == min(n + 1, SIZE)
        assert ports(table) == set(range(1000 + 4 * SIZE, 1000 + 5 * SIZE))
        assert table.counted()["EARLY_DROP"] == 4 * SIZE
        table.check_conservation()
    finally:
        large.close()


def test_both_families_in_the_order_they_came(table):
    for n in range(2 * SIZE):
        ask(table, 1000 + n, *((CLIENT, SERVER) if n % 3 else (CLIENT6, SERVER6)))
    assert ports(table) == set(range(1000 + SIZE, 1000 + 2 * SIZE))


def test_assured_ones_stay_with_their_counters(table):
    for n in range(SIZE // 2):
        assure(table, 2000 + n)
    table.datapath.apply(Tracking(udp_timeout=3_600_000))
    for n in range(5 * SIZE):
        ask(table, 10_000 + n)
    assert set(range(2000, 2000 + SIZE // 2)) <= ports(table)
    assert len(table.live()) == SIZE
    kept = [conn for _, conn in table.live() if int(conn["packets"][1])]
    assert [list(conn["packets"]) for conn in kept] == [[2, 1]] * (SIZE // 2)
    table.check_conservation()


def test_when_all_are_assured_the_new_one_is_refused_and_counted(table):
    for n in range(SIZE):
        assure(table, 2000 + n)
    table.sleep(-2 * SIZE)
    for n in range(50):
        ask(table, 10_000 + n)
    assert ports(table) == set(range(2000, 2000 + SIZE))
    assert table.untracked() == {"REFUSED": 50}
    table.check_conservation()


def test_who_becomes_assured_later_is_passed_over(table):
    table.datapath.apply(Tracking(udp_timeout=3_600_000))
    for n in range(SIZE):
        ask(table, 1000 + n)
    assure(table, 1000)
    ask(table, 5000)
    assert 1000 in ports(table)
    assert 1001 not in ports(table)


def test_one_started_anew_under_its_old_tuple_is_young(table):
    table.datapath.apply(Tracking(udp_timeout=100_000))
    ask(table, 1000)
    table.sleep(101)
    ask(table, 1000)
    for n in range(1, SIZE):
        ask(table, 1000 + n)
    ask(table, 1000 + SIZE)
    assert 1000 not in ports(table), "by now it is the oldest"
    assert table.counted()["EARLY_DROP"] == 1


def test_established_tcp_survives_a_flood_of_syns(table):
    def client(flags, **given):
        table.see(tcp_frame(CLIENT, 999, SERVER, 80, flags, **given))

    client(SYN, seq=1)
    table.see(tcp_frame(SERVER, 80, CLIENT, 999, SYN | ACK, seq=10, ack=2))
    client(ACK, seq=2, ack=11)
    for n in range(1000):
        table.see(tcp_frame(f"10.1.{n // 250}.{n % 250}", 1000 + n, SERVER, 80, SYN))
        if n % 10 == 0:
            client(ACK, seq=2, ack=11)
    assert [list(conn["packets"]) for _, conn in table.live() if conn["packets"][1]] == [[102, 1]]
    table.check_conservation()


def test_places_of_those_that_gave_way_are_used_again(small, table):
    """Not at once, but they do not pile up: however many came, they had little more places than the table holds."""
    for n in range(2 * RESTING):
        ask(table, 1000 + n % 50_000, f"10.2.{n >> 8 & 255}.{n & 255}")
        if n % 100 == 0:
            table.sleep(0.05)
    assert len(table.entries()) == SIZE
    assert small.shared[0].places_used <= SIZE + 300
    assert "REFUSED" not in table.counted()
    table.check_conservation()


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "growing"])
def test_a_flood_on_both_cpus_while_one_of_the_victims_is_in_use(whole):
    """Nothing is lost of a connection that gives way again and again under its own traffic."""
    live = compile_datapath(BuildOptions(max_entries=200, preallocate=whole))
    try:
        live.apply(Tracking())
        table = Table(live)
        table.clear()
        table.now = 0
        flood = [udp_frame(f"10.3.{n >> 8}.{n & 255}", 7000, SERVER, 53) for n in range(20_000)]
        hot = udp_frame(CLIENT, 5000, SERVER, 53, b"hot")
        done = threading.Event()

        def heat() -> None:
            run = sender(table, "tc_ingress", [hot], 1, 2000)
            while not done.is_set():
                run()

        def pour() -> None:
            sender(table, "tc_ingress", flood, 2, 1)()
            done.set()

        together(pour, heat)
        counted = table.counted()
        assert counted["EARLY_DROP"] > 30_000
        table.check_conservation()
    finally:
        live.close()


def test_a_million_new_connections_a_second_find_room(small, table):
    """As many as come within the grace of those that gave way, three ticks of 4 ms: none of these is deleted yet."""
    for n in range(SIZE + 12_000):
        ask(table, 1000 + n % 50_000, f"10.2.{n >> 8 & 255}.{n & 255}")
    assert "REFUSED" not in table.counted()
    table.check_conservation()
