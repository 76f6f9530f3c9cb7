"""Going on with the maps of an earlier run: only when they mean the same, otherwise as much as can be carried over."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest
from entries import FIRST_ID, packet, put

from ctweb.datapath.build import BuildOptions, Datapath, compile_datapath
from ctweb.datapath.pins import Kept, Pins
from ctweb.settings import Tracking

BPFFS = Path("/sys/fs/bpf")


@pytest.fixture
def pins(bpffs):
    made = Pins(BPFFS / "ctweb" / f"test-{os.getpid()}")
    yield made
    made.remove()


def start(pins: Pins, max_entries: int = 1000, *, whole: bool = False) -> Datapath:
    datapath = compile_datapath(BuildOptions(max_entries, preallocate=whole), pins)
    datapath.apply(Tracking())
    datapath.keep()
    return datapath


def rename(pins: Pins, **changes) -> None:
    """As if an earlier version had written the layout so."""
    kept = pins.open()
    assert kept is not None
    pins.adopt(msgspec.structs.replace(kept.layout, **changes))
    kept.close()


def ids(datapath: Datapath) -> list[int]:
    return sorted(leaf.id for leaf in datapath.connections.values())


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "growing"])
def test_the_next_one_goes_on_with_all_of_it(pins, whole):
    first = start(pins, whole=whole)
    put(first, 10, packets=(3, 2), bytes=(300, 200))
    packet(first, host=99)
    before, counters = ids(first), first.read_counters()
    first.close()
    second = start(pins, whole=whole)
    assert second.taken_over
    assert ids(second) == before
    assert second.read_counters() == counters
    packet(second, host=99)  # is found again
    assert ids(second) == before
    packet(second, host=100)
    assert len(set(ids(second)) - set(before)) == 1
    second.close()


@pytest.mark.parametrize("whole", [True, False], ids=["whole-then-growing", "growing-then-whole"])
def test_the_other_kind_of_table_gets_all_connections(pins, whole):
    first = start(pins, whole=whole)
    put(first, 100, packets=(3, 2), bytes=(300, 200))
    packet(first, host=99_999)
    before = {leaf.id: bytes(leaf) for leaf in first.connections.values()}
    first.close()
    second = start(pins, whole=not whole)
    assert not second.taken_over
    fresh = second.leaf_dtype.fields["fresh"][1]  # its place in the ring of new ones is another
    after = {leaf.id: bytes(leaf) for leaf in second.connections.values()}
    assert {id_: each[:fresh] for id_, each in after.items()} == {id_: each[:fresh] for id_, each in before.items()}
    packet(second, host=42)
    assert set(ids(second)) == set(before)
    assert second.read_counters()["COUNT_CREATED"] == 1
    second.close()


def test_the_names_of_marks_come_along(pins):
    first = start(pins)
    first.remember_marks(("", "voip", "backup"))
    first.close()
    second = start(pins)
    assert second.marks == ("", "voip", "backup")
    second.close()


def test_counters_are_carried_over_by_name_when_their_numbers_differ(pins, caplog):
    first = start(pins)
    put(first, 5)
    packet(first, host=99)
    counter, told = first.enums["counter"], first.read_counters()
    swapped = counter | {
        "COUNT_CREATED": counter["COUNT_OFFERED_PACKETS"],
        "COUNT_OFFERED_PACKETS": counter["COUNT_CREATED"],
    }
    enums = first.enums | {"counter": swapped}
    first.close()
    rename(pins, enums=enums)
    second = start(pins)
    assert not second.taken_over
    assert second.read_counters() == told | {
        "COUNT_CREATED": told["COUNT_OFFERED_PACKETS"], "COUNT_OFFERED_PACKETS": told["COUNT_CREATED"],
    }  # fmt: skip
    assert len(ids(second)) == 6
    assert "carried over, but not" in caplog.text
    second.close()


def test_a_counter_that_the_earlier_version_did_not_have_begins_at_zero(pins):
    first = start(pins)
    put(first, 5, packets=(3, 2), bytes=(300, 200))
    packet(first, host=99)
    told = first.read_counters()
    fewer = {name: number for name, number in first.enums["counter"].items() if name != "COUNT_ENDED_REPLY_BYTES"}
    enums = first.enums | {"counter": fewer}
    first.close()
    rename(pins, enums=enums)
    second = start(pins)
    assert second.read_counters() == told | {"COUNT_ENDED_REPLY_BYTES": 0}
    assert len(ids(second)) == 6
    second.close()


def test_where_a_constant_means_something_else_the_connections_count_as_ended(pins, caplog):
    first = start(pins)
    put(first, 5, packets=(3, 2), bytes=(300, 200))
    enums = first.enums | {"status": first.enums["status"] | {"STATUS_ASSURED": 1 << 9}}
    first.close()
    rename(pins, enums=enums)
    second = start(pins)
    assert ids(second) == []
    counters = second.read_counters()
    assert (counters["COUNT_ENDED_PACKETS"], counters["COUNT_ENDED_BYTES"]) == (25, 2500)
    assert "all connections: STATUS_ASSURED means something else now" in caplog.text
    second.close()


def test_the_oldest_gives_way_first_in_a_table_that_was_carried_over(pins):
    first = start(pins)
    now = first.clock.now()
    put(first, 100, created=[now - 1000 * host for host in range(100)])
    first.close()
    second = start(pins, max_entries=100)
    for host in range(1000, 1010):
        packet(second, host=host)
    assert second.read_counters()["COUNT_EARLY_DROP"] == 10
    left = {number - FIRST_ID for number in ids(second) if number >= FIRST_ID}
    assert left >= set(range(90))
    second.close()


def translation(first: Datapath) -> bytes:
    """One in the map of translations, its key."""
    table = first.translations
    key = table.Key(protocol=17, family=4)
    table[key] = table.Leaf(id=7, standing=1)
    return bytes(key)


@pytest.mark.parametrize("made_by", [1, 2], ids=["the first run", "the second one"])
def test_translations_come_along_though_their_map_is_made_late(pins, made_by):
    """As nf_conntrack comes, when nobody may write to the directory of pins any more but its owner."""
    number = 0
    for number in (1, 2, 3):
        datapath = start(pins)
        assert datapath.taken_over == (number > 1)
        assert datapath.has_translations == (number > made_by)
        if number == made_by:
            datapath.expect_nat(True)
            key = translation(datapath)
        if number > made_by:
            assert [(bytes(key), leaf.id) for key, leaf in datapath.translations.items()] == [(key, 7)]
            assert datapath.table("translations_in_use")[0]
        datapath.close()


def test_a_map_of_translations_that_cannot_be_kept_is_made_when_it_is_asked_for_again(pins):
    datapath = start(pins)
    pins.remove()
    with pytest.raises(OSError, match="No such file"):
        datapath.expect_nat(True)
    datapath.keep()
    datapath.expect_nat(True)
    assert datapath.table("translations_in_use")[0]
    datapath.close()


def test_the_directory_of_pins_is_its_owners(pins):
    datapath = compile_datapath(BuildOptions(1000), pins)
    datapath.keep((65534, 65533))
    found = (BPFFS / "ctweb" / f"test-{os.getpid()}" / "maps").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 65533, 0o700)
    datapath.close()


@pytest.mark.parametrize("missing", ["place_chunks", "places-0", "addresses-1", "per_cpu", "fresh"])
def test_a_pin_that_is_missing_is_said(pins, missing, caplog):
    first = start(pins)
    put(first, 5)
    first.close()
    (BPFFS / "ctweb" / f"test-{os.getpid()}" / "maps" / missing).unlink()
    second = start(pins)
    assert not second.taken_over
    assert "carried over, but not" in caplog.text
    packet(second, host=99)
    second.close()


@pytest.mark.parametrize("spoil", [{"namespace": 1}])
def test_what_belongs_to_another_namespace_is_left_alone(pins, spoil):
    first = start(pins)
    put(first, 5)
    first.close()
    rename(pins, **spoil)
    second = start(pins)
    assert (second.taken_over, ids(second)) == (False, [])
    second.close()


def test_a_layout_that_cannot_be_read_is_nothing(pins):
    first = start(pins)
    assert first.pins is not None
    layout = pins._layout
    assert layout is not None
    layout[0] = layout.Leaf.from_buffer_copy(b"\xff" * layout.shape.leaf_size)
    first.close()
    assert pins.open() is None
    start(pins).close()


def test_no_descriptor_is_lost(pins):
    start(pins).close()
    before = len(os.listdir("/proc/self/fd"))
    for size in (1000, 1000, 2000, 1000):
        start(pins, size).close()
    pins.remove()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_removing_leaves_no_file(pins):
    start(pins).close()
    kept = pins.open()
    assert isinstance(kept, Kept)
    kept.close()
    assert pins.remove()
    assert not (BPFFS / "ctweb" / f"test-{os.getpid()}").exists()
    assert not pins.remove()
