"""What the readers make of captures that are no captures, cut off, damaged or hostile."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tracemalloc

import pytest
from captures import (
    at,
    block,
    enhanced,
    interface,
    obsolete,
    office,
    pcap,
    pcapng,
    section,
    simple,
    udp,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ctweb.capture import Capture, CaptureError, open_source
from ctweb.capture.source import KEEP, LONGEST_RECORD, Source

PACKET = at(0, udp("10.0.0.1", 1, "10.0.0.2", 2, 100))


def read(data: bytes) -> tuple[list[tuple[int, int, bytes]], str]:
    """The frames, and what is said of damage."""
    capture = Capture(Source(io.BufferedReader(io.BytesIO(data)), "test"))
    return list(capture), capture.damage


class TestNoCapture:
    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"", "empty"),
            (b"GIF", "neither pcap nor pcapng"),
            (b"\x7fELF" + bytes(100), "neither pcap nor pcapng"),
            (pcap([])[:23], "pcap header is cut off after 23 of 24 bytes"),
            (pcap([], version=3), "version 2.3"),
            (section()[:20], "section header is cut off"),
            (section()[:8] + bytes(20), "section header is cut off or damaged"),
        ],
    )
    def test_is_refused_in_words(self, data, words):
        with pytest.raises(CaptureError, match=words):
            read(data)

    @pytest.mark.parametrize(
        ("link", "words"), [(127, r"link type 127 \(802.11 with radiotap\)"), (147, "link type 147 is")]
    )
    def test_a_link_type_that_is_not_supported_is_named(self, link, words):
        with pytest.raises(CaptureError, match=words):
            read(pcap([], link=link))
        with pytest.raises(CaptureError, match=words):
            read(section() + interface() + enhanced(PACKET) + interface(link=link) + enhanced(PACKET, number=1))

    def test_an_interface_without_packets_may_be_of_any_link_type(self):
        frames, damage = read(section() + interface(link=220) + interface() + enhanced(PACKET, number=1))
        assert frames == [(PACKET.time, PACKET.length, PACKET.data)]
        assert not damage

    @pytest.mark.parametrize("name", ["missing", ".", "\0"])
    def test_a_file_that_cannot_be_read(self, tmp_path, name):
        with pytest.raises(CaptureError, match="cannot open"), open_source(str(tmp_path / name)):
            pass


class TestCutOff:
    @pytest.mark.parametrize("make", [pcap, pcapng])
    def test_at_every_byte_the_packets_before_it_come(self, make):
        packets = office()[:6]
        whole = make(packets)
        ends = [len(make(packets[:n])) for n in range(7)]
        for length in range(ends[0], len(whole) + 1):
            frames, damage = read(whole[:length])
            assert [f[2] for f in frames] == [p.data for p in packets[: sum(end <= length for end in ends) - 1]]
            assert bool(damage) == (length not in ends)
            if damage:
                assert damage.startswith(f"it is cut off at byte {length}, within ")

    def test_a_gzip_file_cut_off(self, tmp_path):
        path = tmp_path / "capture.gz"
        packed = gzip.compress(pcap(office() + [at(n, os.urandom(60)) for n in range(2000)]))
        path.write_bytes(packed[: len(packed) // 2])
        with open_source(str(path)) as source:
            capture = Capture(source)
            frames = list(capture)
        assert len(frames) > 500
        assert "cannot be read beyond byte" in capture.damage

    def test_a_gzip_file_damaged(self, tmp_path):
        path = tmp_path / "capture.gz"
        packed = bytearray(gzip.compress(pcap([at(n, os.urandom(60)) for n in range(2000)])))
        packed[len(packed) // 2 :] = bytes(len(packed) // 2)
        path.write_bytes(packed)
        with open_source(str(path)) as source:
            capture = Capture(source)
            assert len(list(capture)) <= 2000
        assert capture.damage


class TestDamaged:
    """Each after one good packet, which is kept, and before another, which is lost."""

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (block(6, bytes(8)), "a packet block cut short"),
            (block(2, bytes(8)), "a packet block cut short"),
            (block(3, b""), "a packet block cut short"),
            (block(1, b""), "an interface cut short"),
            (enhanced(PACKET, number=7), "a packet of interface 7"),
            (block(6, struct.pack("<5I", 0, 0, 0, 500, 500) + bytes(60)), "a packet longer than its block"),
            (block(2, struct.pack("<HHIIII", 0, 0, 0, 0, 500, 500) + bytes(60)), "a packet longer than its block"),
            (block(3, struct.pack("<I", 500) + bytes(60)), "a packet longer than its block"),
            (struct.pack("<II", 6, 30) + bytes(30), "impossible length 30"),
            (struct.pack("<II", 99, 0) + bytes(30), "impossible length 0"),
            (struct.pack("<II", 6, 0xFFFFFFFC) + bytes(30), "says it has 4294967292 bytes"),
            (block(6, bytes(32))[:-4] + bytes(4), "two different lengths"),
            (block(0x0A0D0D0A, bytes(16)), "byte-order magic"),
            (block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 2, 0, -1)), "a section of version 2"),
            (block(0x0A0D0D0A, struct.pack("<I", 0x1A2B3C4D)), "a section header cut short"),
        ],
    )
    def test_pcapng(self, damage, words):
        before = section() + interface() + enhanced(PACKET)
        frames, said = read(before + damage + enhanced(PACKET))
        assert len(frames) == 1
        assert said.startswith(f"it is damaged at byte {len(before)}: ")
        assert words in said

    def test_pcap(self):
        before = pcap([PACKET])
        frames, said = read(before + struct.pack("<IIII", 0, 0, 0xFFFFFFFF, 60) + bytes(100) + pcap([PACKET])[24:])
        assert len(frames) == 1
        assert (
            said == f"it is damaged at byte {len(before)}: a packet that says it has 4294967295 bytes, which none has"
        )

    def test_a_block_that_is_skipped_and_cut_off(self):
        frames, said = read(section() + interface() + enhanced(PACKET) + struct.pack("<II", 99, 4000) + bytes(90))
        assert len(frames) == 1
        assert "cut off" in said


class TestSkipped:
    @pytest.mark.parametrize("size", [0, 4, 60_000, 3_000_000])
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_blocks_of_other_kinds(self, order, size):
        other = [block(kind, bytes(size), order) for kind in (4, 5, 10, 0xBAD, 0x80000001)]
        frames, said = read(
            section(order) + other[0] + interface(order) + b"".join(other) + enhanced(PACKET, order) + other[4]
        )
        assert [f[2] for f in frames] == [PACKET.data]
        assert not said


class TestBounds:
    def test_a_long_packet_gives_its_beginning(self):
        packet = at(0, os.urandom(300_000))
        for make in (pcap, pcapng):
            assert read(make([packet]))[0] == [(packet.time, 300_000, packet.data[:KEEP])]
        for make in (simple, obsolete):
            ((_, wire, frame),), _ = read(section() + interface() + make(packet))
            assert (wire, frame) == (300_000, packet.data[:KEEP])

    def test_a_captured_length_beyond_the_one_on_the_wire_counts(self):
        packet = at(0, PACKET.data)
        short = pcap([packet])
        short = short[:36] + struct.pack("<I", 1) + short[40:]
        assert read(short)[0] == [(packet.time, len(packet.data), packet.data)]

    @pytest.mark.parametrize(
        ("head", "again", "megabytes"),
        [
            pytest.param(pcap([]), bytes(1 << 20), 60, id="records of nothing"),
            pytest.param(
                section() + interface() + struct.pack("<II", 77, 0xFFFFFFF0), bytes(1 << 20), 60, id="a block"
            ),
            pytest.param(pcap([]) + struct.pack("<4I", 0, 0, LONGEST_RECORD, 60), bytes(1 << 20), 60, id="a packet"),
            pytest.param(section(), interface() * 20_000, 2, id="interfaces"),
            pytest.param(section(), section() * 20_000, 2, id="sections"),
        ],
    )
    def test_a_file_without_end_takes_little_memory(self, head, again, megabytes):
        class Endless(io.RawIOBase):
            """`head`, then `again` again and again."""

            given = 0

            def read1(self, size):
                piece = again if self.given else head
                if self.given > megabytes << 20:
                    return b""
                self.given += len(piece)
                return piece

        capture = Capture(Source(Endless(), "test"))
        tracemalloc.start()
        for _, _ in zip(range(100_000), capture, strict=False):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 3 * LONGEST_RECORD


VALID = [
    pcap(office()),
    pcap(office(), ">", nano=True),
    pcapng(office()),
    pcapng(office(), ">"),
    section() + interface(given={9: b"\x83", 14: bytes(8)}) + obsolete(PACKET) + simple(PACKET) + block(4, bytes(40)),
]


@st.composite
def mutated(draw) -> bytes:
    """A valid capture with some bytes changed, taken out or put in."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "word", "cut", "insert", "end"])):
            case "change":
                data[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case "word":
                word = draw(st.sampled_from([0, 1, 12, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF]))
                data[place : place + 4] = struct.pack(draw(st.sampled_from("<>")) + "I", word)
            case "cut":
                del data[place : place + draw(st.integers(1, 64))]
            case "insert":
                data[place:place] = draw(st.binary(max_size=64))
            case "end":
                del data[place:]
    return bytes(data)


@settings(max_examples=1500, deadline=None)
@given(mutated())
def test_a_mutated_capture_gives_frames_or_words(data):
    try:
        frames, words = read(data)
    except CaptureError as error:
        frames, words = [], str(error)
    assert "\n" not in words
    assert frames or words or len(data) < len(VALID[0])
    assert len(frames) <= len(data) // 12
    for _, wire, frame in frames:
        assert len(frame) <= min(wire, KEEP + 14)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([b"", pcap([]), section(), section() + interface(), b"\x1f\x8b\x08"]))
def test_garbage_gives_frames_or_words(garbage, head):
    words = ""
    try:
        _, words = read(head + garbage)
    except CaptureError as error:
        words = str(error)
    assert "\n" not in words
