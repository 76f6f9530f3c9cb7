"""The table that a capture leaves behind: rows, counters, timeouts on the capture's clock, ended connections."""

from __future__ import annotations

import pytest
from captures import (
    ACK,
    ARP,
    RST,
    SYN,
    Tcp,
    at,
    enhanced,
    ethernet,
    in_order,
    interface,
    obsolete,
    office,
    on_link,
    pcap,
    pcapng,
    ping,
    section,
    simple,
    udp,
    vlan,
)

COUNTS = ("orig-packets", "orig-bytes", "repl-packets", "repl-bytes")


def counts(row: dict[str, str]) -> tuple[int, ...]:
    return tuple(int(row[name]) for name in COUNTS)


def without_ids(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows in an order of their own: the table's is that of a hash with a random seed."""
    stripped = [{name: value for name, value in row.items() if name != ".id"} for row in rows]
    return sorted(stripped, key=lambda row: sorted(row.items()))


class TestRows:
    def test_a_conversation_counts_to_the_byte(self, replayed):
        rows = replayed(pcap(office()))
        assert len(rows.rows) == 6
        assert not rows.remarks

        web = rows.row(protocol="tcp", dst_address="10.0.0.2:80")
        assert counts(web) == (6, 6 * 40 + 300, 3, 3 * 40 + 1003)
        assert web["src-address"] == "10.0.0.1:40000"
        assert (web["tcp-state"], web["assured"], web["seen-reply"]) == ("established", "true", "true")

        web6 = rows.row(protocol="tcp", dst_address="[2001:db8::2]:443")
        assert counts(web6) == (6, 6 * 60 + 10, 3, 3 * 60 + 1400)
        assert web6["tcp-state"] == "time-wait"

        assert counts(rows.row(protocol="udp", dst_port="53")) == (1, 58, 1, 118)
        assert counts(rows.row(protocol="icmp", icmp_id="7")) == (1, 84, 1, 84)
        assert counts(rows.row(protocol="udp", dst_port="2000")) == (1, 49, 0, 0)
        assert counts(rows.row(protocol="ospf")) == (1, 64, 0, 0)

    def test_the_first_packet_makes_the_source_whichever_end_is_smaller(self, replayed):
        outcome = replayed(pcap([at(0, udp("10.0.0.9", 53, "10.0.0.1", 9)), at(0, udp("10.0.0.1", 9, "10.0.0.9", 53))]))
        (row,) = outcome.rows
        assert (row["src-address"], row["dst-address"]) == ("10.0.0.9:53", "10.0.0.1:9")
        assert counts(row) == (1, 28, 1, 28)

    def test_the_filter_chooses(self, replayed):
        rows = replayed(pcap(office()), where="proto:udp sport>1000").rows
        assert [row["src-address"] for row in rows] == ["10.0.0.1:5353"]

    def test_rates_are_those_of_the_last_second(self, replayed):
        old = [at(0, udp("10.0.0.1", 1, "10.0.0.2", 2, 9000))]
        steady = [at(n / 10, udp("10.0.0.3", 1, "10.0.0.4", 2, 97)) for n in range(51)]  # 125 bytes, 10 a second
        outcome = replayed(pcap(in_order(old, steady)))
        assert outcome.row(src_address="10.0.0.3:1")["orig-rate"] == "10000"
        assert outcome.row(src_address="10.0.0.1:1")["orig-rate"] == "0"

    def test_no_packets_no_rows(self, replayed):
        assert replayed(pcap([])).rows == []
        assert replayed(section()).rows == []


class TestFormats:
    """The same traffic, however it was written down, gives the same rows."""

    @pytest.fixture
    def expected(self, replayed):
        return without_ids(replayed(pcap(office())).rows)

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("nano", [False, True])
    def test_pcap(self, replayed, expected, order, nano):
        assert without_ids(replayed(pcap(office(), order, nano)).rows) == expected

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_pcapng(self, replayed, expected, order):
        assert without_ids(replayed(pcapng(office(), order)).rows) == expected

    @pytest.mark.parametrize("link", [0, 12, 14, 101, 108, 113, 276])
    @pytest.mark.parametrize("make", [pcap, pcapng])
    def test_link_types(self, replayed, expected, link, make):
        assert without_ids(replayed(make([on_link(p, link) for p in office()], link=link)).rows) == expected

    def test_raw_link_types_of_one_family(self, replayed, expected):
        v4 = [on_link(p, 228) for p in office() if p.data[12] == 0x08]
        v6 = [on_link(p, 229) for p in office() if p.data[12] == 0x86]
        blocks = [enhanced(p, number=0) for p in v4] + [enhanced(p, number=1) for p in v6]
        both = section() + interface(link=228) + interface(link=229) + b"".join(blocks)
        outcome = replayed(both)
        assert [counts(row) for row in without_ids(outcome.rows)] == [counts(row) for row in expected]

    @pytest.mark.parametrize("link", [1, 113, 276])
    def test_vlan_tags_are_seen_through(self, replayed, expected, link):
        tagged = [on_link(at((p.time - office()[0].time) / 1e9, vlan(p.data)), link) for p in office()]
        assert without_ids(replayed(pcap(tagged, link=link)).rows) == expected

    @pytest.mark.parametrize("snap", [64 + 14, 96])
    def test_a_snap_length_changes_nothing(self, replayed, expected, snap):
        assert without_ids(replayed(pcap([p.cut(snap) for p in office()])).rows) == expected
        assert without_ids(replayed(pcapng([p.cut(snap) for p in office()])).rows) == expected

    def test_obsolete_packet_blocks(self, replayed, expected):
        written = section() + interface() + b"".join(obsolete(p) for p in office())
        assert without_ids(replayed(written).rows) == expected

    def test_simple_packet_blocks_have_no_time(self, replayed):
        written = section(">") + interface(">", snap=60) + b"".join(simple(p.cut(60), ">") for p in office()[:9])
        (row,) = replayed(written).rows
        assert counts(row) == (6, 6 * 40 + 300, 3, 3 * 40 + 1003)

    def test_a_frame_larger_than_a_test_run(self, replayed):
        """A segment that the network card cuts later: it is captured as one packet of up to 64 KB."""
        tcp = Tcp()
        largest = 65_535 - 40
        packets = [*tcp.open(0), at(1, tcp.frame(1, ACK, largest)), at(2, tcp.frame(0, ACK))]
        (row,) = replayed(pcap(packets)).rows
        assert counts(row) == (3, 120, 2, 80 + largest)

    @pytest.mark.parametrize("frame_check", [b"\0\0\0\0"])
    def test_what_follows_the_ip_packet_is_no_part_of_it(self, replayed, frame_check):
        padded = at(0, udp("10.0.0.1", 1, "10.0.0.2", 2) + bytes(4) + frame_check)
        (row,) = replayed(pcap([padded], link=0x44000001)).rows  # the upper bits: 4 bytes of frame check sequence
        assert counts(row) == (1, 28, 0, 0)


class TestClock:
    """Timeouts run on the capture's clock."""

    def test_a_udp_entry_is_gone_after_ten_seconds_of_silence(self, replayed):
        first = at(0, udp("10.0.0.1", 1, "10.0.0.2", 2))
        other = udp("10.0.0.3", 3, "10.0.0.4", 4)
        assert replayed(pcap([first, at(9.999999, other)])).row(src_port="1")["timeout"] == "0s"
        assert replayed(pcap([first, at(4, other)])).row(src_port="1")["timeout"] == "6s"
        (row,) = replayed(pcap([first, at(10, other)])).rows
        assert row["src-port"] == "3"

    def test_settings_apply(self, replayed):
        packets = [at(0, udp("10.0.0.1", 1, "10.0.0.2", 2)), at(15, udp("10.0.0.3", 3, "10.0.0.4", 4))]
        assert replayed(pcap(packets), udp_timeout="1m").row(src_port="1")["timeout"] == "45s"
        assert len(replayed(pcap(packets), udp_timeout="15s").rows) == 1

    def test_a_packet_after_the_timeout_starts_a_new_connection(self, replayed):
        frame = udp("10.0.0.1", 1, "10.0.0.2", 2)
        (row,) = replayed(pcap([at(0, frame), at(1, frame), at(12, frame)])).rows
        assert counts(row) == (1, 28, 0, 0)

    def test_an_established_connection_outlives_hours(self, replayed):
        packets = [*Tcp().open(0), at(3600, udp("10.0.0.3", 3, "10.0.0.4", 4))]
        assert replayed(pcap(packets)).row(protocol="tcp")["timeout"] == "23h"

    def test_udp_becomes_a_stream(self, replayed):
        there, back = udp("10.0.0.1", 1, "10.0.0.2", 2), udp("10.0.0.2", 2, "10.0.0.1", 1)
        packets = [at(0, there), at(1, back), at(3, there), at(3.5, back)]
        (row,) = replayed(pcap(packets)).rows
        assert (row["assured"], row["timeout"]) == ("true", "3m")

    def test_time_does_not_run_backwards(self, replayed):
        frame, other = udp("10.0.0.1", 1, "10.0.0.2", 2), udp("10.0.0.3", 3, "10.0.0.4", 4)
        outcome = replayed(pcap([at(100, frame), at(105, other), at(50, other), at(40, frame)]))
        assert outcome.row(src_port="1")["orig-packets"] == "2"
        assert outcome.row(src_port="1")["timeout"] == "10s"
        assert outcome.remarks == ["2 packets are older than one before them and were taken at its time"]

    def test_one_is_told_of_as_one(self, replayed):
        frame = udp("10.0.0.1", 1, "10.0.0.2", 2)
        outcome = replayed(pcap([at(100, frame), at(50, frame)]))
        assert outcome.remarks == ["1 packet is older than one before it and was taken at that one's time"]
        (remark,) = replayed(pcap([at(0, frame[:30])])).remarks
        assert remark.startswith("1 of 1 packet belongs to no connection: ")

    def test_stamps_from_another_age(self, replayed):
        frame = udp("10.0.0.1", 1, "10.0.0.2", 2)
        ages = section() + interface(given={9: b"\x00"})  # whole seconds
        for seconds in (2**63, 0, 2**64 - 1, 1):
            ages += enhanced(at(0, frame), ticks=seconds)
        (row,) = replayed(ages).rows
        assert row["timeout"] == "10s"

    @pytest.mark.parametrize(
        ("unit", "per_second"), [(3, 10**3), (6, 10**6), (9, 10**9), (12, 10**12), (0x80 | 20, 2**20), (0, 1)]
    )
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_time_units(self, replayed, unit, per_second, order):
        written = section(order) + interface(order, given={2: b"eth0", 9: bytes([unit])})
        for seconds, port in ((10**6, 1), (10**6 + 7, 2)):
            written += enhanced(at(0, udp("10.0.0.1", port, "10.0.0.2", 9)), order, ticks=seconds * per_second)
        assert replayed(written).row(src_port="1")["timeout"] == "3s"

    def test_time_offset_and_several_interfaces_and_sections(self, replayed):
        """Second 1000 of one interface, 800 + 203 of another, 1004 of another section in another byte order."""
        offset = (800).to_bytes(8, "little")
        written = (
            section() + interface() + interface(given={9: b"\x03", 14: offset})
            + enhanced(at(0, udp("10.0.0.1", 1, "10.0.0.2", 9)), ticks=1000 * 10**6)
            + enhanced(at(0, udp("10.0.0.1", 2, "10.0.0.2", 9)), number=1, ticks=203 * 10**3)
            + section(">") + interface(">", link=101)
            + enhanced(on_link(at(0, udp("10.0.0.1", 3, "10.0.0.2", 9)), 101), ">", ticks=1004 * 10**6)
        )  # fmt: skip
        outcome = replayed(written)
        assert [outcome.row(src_port=port)["timeout"] for port in "123"] == ["6s", "9s", "10s"]
        assert not outcome.remarks


class TestEnded:
    def test_what_ended_is_shown_with_its_final_counters(self, replayed):
        expired, later = udp("10.0.0.1", 1, "10.0.0.2", 2), udp("10.0.0.3", 3, "10.0.0.4", 4)
        outcome = replayed(pcap([at(0, expired), at(3, expired), at(30, later)]), ended=True)
        row = outcome.row(src_port="1")
        assert counts(row) == (2, 56, 0, 0)
        assert (row["dying"], row["timeout"], row["orig-rate"]) == ("true", "0s", "0")
        assert outcome.row(src_port="3")["dying"] == "false"
        assert len({row[".id"] for row in outcome.rows}) == 2

    def test_one_that_expired_and_came_again_is_there_twice(self, replayed):
        frame = udp("10.0.0.1", 1, "10.0.0.2", 2)
        outcome = replayed(pcap([at(0, frame), at(1, frame), at(12, frame)]), ended=True)
        assert [counts(row)[0] for row in outcome.rows] == [1, 2]
        assert [row["dying"] for row in outcome.rows] == ["false", "true"]

    def test_refused(self, replayed):
        """A reset before any other reply."""
        tcp = Tcp()
        outcome = replayed(pcap([at(0, tcp.frame(0, SYN)), at(0.1, tcp.frame(1, RST | ACK))]), ended=True)
        (row,) = outcome.rows
        assert counts(row) == (1, 40, 1, 40)
        assert (row["dying"], row["protocol"]) == ("true", "tcp")
        assert replayed(pcap([at(0, Tcp().frame(0, SYN))])).row(tcp_state="syn-sent")

    def test_reopened(self, replayed):
        """The same ports again while the old connection is in time-wait."""
        first, second = Tcp(), Tcp()
        second.next = [9_000_000, 8_000_000]
        packets = first.open(0) + first.ask(0.1, 5, 6) + first.close(1) + second.open(2)
        outcome = replayed(pcap(packets), ended=True)
        old, new = outcome.row(dying="true"), outcome.row(dying="false")
        assert counts(old) == (6, 245, 3, 126)
        assert old["tcp-state"] == "time-wait"
        assert counts(new) == (2, 80, 1, 40)

    def test_the_filter_chooses_among_them_too(self, replayed):
        packets = [at(n, udp("10.0.0.1", n + 1, "10.0.0.2", 9)) for n in range(40)]
        rows = replayed(pcap(packets), ended=True, where="sport:5,38").rows
        assert [(row["src-port"], row["dying"]) for row in rows] == [("38", "false"), ("5", "true")]

    def test_every_packet_is_somewhere(self, replayed):
        """More connections than the queue and a block of the log hold, some coming again: nothing is lost."""
        hosts = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(1, 50_001)]
        packets = [at(n / 100, udp(host, 1, "11.0.0.1", 2, n % 50)) for n, host in enumerate(hosts)]
        again = [p.at(n / 100 + 500) for n, p in enumerate(packets[:1000])]
        traffic = packets + again
        outcome = replayed(pcap(traffic), ended=True)
        assert not outcome.remarks
        assert len(outcome.rows) == len(traffic)
        assert sum(int(row["orig-packets"]) for row in outcome.rows) == len(traffic)
        assert sum(int(row["orig-bytes"]) for row in outcome.rows) == sum(len(p.data) - 14 for p in traffic)
        assert sum(row["dying"] == "false" for row in outcome.rows) == 1000

    def test_the_kernels_books_balance(self, replayed):
        odd = [at(20, Tcp(sport=9).frame(1, SYN | ACK)), at(21, ping("10.0.0.1", "10.0.0.2", 5, 0))]
        outcome = replayed(pcap(office() + odd), ended=True)
        shown = sum(sum(counts(row)[::2]) for row in outcome.rows)
        assert shown == len(office())
        assert outcome.played.untracked == {"invalid-tcp": 1, "invalid-icmp": 1}
        assert outcome.remarks == ["2 of 26 packets belong to no connection: 1 invalid-tcp, 1 invalid-icmp"]


class TestFullTable:
    def test_expired_connections_take_nobodys_place(self, replayed, compiled):
        """Three tables full, one after another, each expired before the next one comes."""
        full = compiled.options.max_entries
        count = 3 * full
        packets = [
            at(n // full * 11 + n % full / 10_000, udp(f"10.0.{n >> 8}.{n & 255}", 1, "11.0.0.1", 2))
            for n in range(count)
        ]
        outcome = replayed(pcap(packets), ended=True)
        assert not outcome.remarks
        assert len(outcome.rows) == count
        assert sum(row["dying"] == "false" for row in outcome.rows) == full

    def test_a_table_full_of_live_connections_is_said(self, replayed, compiled):
        hosts = compiled.options.max_entries + 5
        outcome = replayed(
            pcap([at(n / 10_000, udp(f"10.0.{n >> 8}.{n & 255}", 1, "11.0.0.1", 2)) for n in range(hosts)])
        )
        assert len(outcome.rows) == hosts - 5
        assert any(line.startswith("5 ") for line in outcome.remarks)


class TestLeftAlone:
    def test_frames_that_are_no_ip_packets(self, replayed):
        frames = [ethernet(bytes(28), ARP), bytes(14), b"\xff" * 60, ethernet(bytes(8), 0x8863)]
        outcome = replayed(pcap([at(0, f) for f in frames]))
        assert outcome.rows == []
        assert outcome.played.frames == 4
        assert not outcome.remarks

    def test_other_families_on_other_links(self, replayed):
        for link, data in (
            (0, b"\x07\0\0\0abcdefgh"),
            (108, b"\0\0"),
            (101, b"\x90" * 40),
            (101, b""),
            (113, b"\0" * 9),
        ):
            outcome = replayed(pcap([at(0, data)], link=link))
            assert outcome.rows == []

    @pytest.mark.parametrize("length", [0, 1, 13, 14, 20, 33, 34, 41])
    def test_a_packet_cut_within_its_headers_makes_no_entry_and_is_counted(self, replayed, length):
        outcome = replayed(pcap([at(0, udp("10.0.0.1", 1, "10.0.0.2", 2, 50)).cut(length)]))
        assert outcome.rows == []
        assert sum(outcome.played.untracked.values()) == 1
