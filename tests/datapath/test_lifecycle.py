"""A connection's life beside its protocol: timeouts, flags, what ends it, what deletes its entry."""

from __future__ import annotations

import numpy as np
import pytest
from crafted import (
    ACK,
    CLIENT,
    ICMP,
    RST,
    SERVER,
    SYN,
    ethernet,
    icmp,
    ip,
    ipv4,
    tcp_frame,
    udp_frame,
)  # fmt: skip

from ctweb.settings import Tracking

ASK = udp_frame(CLIENT, 5000, SERVER, 53)
ANSWER = udp_frame(SERVER, 53, CLIENT, 5000)
PING = ethernet(ipv4(CLIENT, SERVER, ICMP, icmp(8, ident=1)))
OTHER = ethernet(ip(CLIENT, SERVER, 99, b"x"))


def keys_of(table):
    return np.array([key for key, _ in table.entries()], table.datapath.key_dtype)


class TestTimeouts:
    def test_udp_is_short_until_answered(self, table):
        table.see(ASK)
        assert table.timeout() == 10
        table.sleep(4)
        table.see(ASK)
        assert table.timeout() == 10
        table.see(ANSWER)
        assert table.timeout() == 180
        table.sleep(100)
        table.see(ASK)
        assert table.timeout() == 180

    @pytest.mark.parametrize(("frame", "seconds"), [(PING, 10), (OTHER, 600)], ids=["ICMP", "generic"])
    def test_the_others_have_one(self, table, frame, seconds):
        table.see(frame)
        assert table.timeout() == seconds
        table.sleep(seconds - 1)
        table.see(frame)
        assert (table.timeout(), list(table.only()["packets"])) == (seconds, [2, 0])

    def test_settings_take_effect_with_the_next_packet(self, table):
        table.see(ASK)
        table.datapath.apply(Tracking(udp_timeout=77_000))
        assert table.timeout() == 10
        table.see(ASK)
        assert table.timeout() == 77

    def test_the_last_nanosecond_counts(self, table):
        table.see(ASK)
        first = int(table.only()["id"])
        table.sleep(10)
        table.now -= 1
        table.see(ASK)
        assert int(table.only()["id"]) == first
        table.sleep(10)
        table.see(ASK)
        assert int(table.only()["id"]) != first


class TestAssured:
    def test_udp_answered_and_two_seconds_old(self, table):
        table.see(ASK)
        table.see(ANSWER)
        table.see(ASK)
        assert table.flags() == {"SEEN_REPLY"}
        table.sleep(2)
        table.see(ASK)
        assert table.flags() == {"SEEN_REPLY"}
        table.sleep(0.001)
        table.see(ASK)
        assert table.flags() == {"SEEN_REPLY", "ASSURED"}

    def test_udp_unanswered_never(self, table):
        for _ in range(5):
            table.see(ASK)
            table.sleep(3)
        assert table.flags() == set()

    def test_icmp_and_the_rest_never(self, table):
        back = ethernet(ipv4(SERVER, CLIENT, ICMP, icmp(0, ident=1)))
        for _ in range(5):
            table.see(PING)
            table.see(back)
            table.sleep(3)
        assert table.flags() == {"SEEN_REPLY"}


class TestConfirmed:
    def test_only_what_left_the_machine_is(self, table):
        table.see(ASK)
        assert "CONFIRMED" not in table.flags()
        table.see(ASK, "tc_egress")
        assert "CONFIRMED" in table.flags()

    def test_a_packet_that_came_in_through_a_tracked_interface_counts_once(self, table):
        interfaces = table.datapath.interfaces
        interfaces[interfaces.Key(77)] = interfaces.Leaf(1)
        try:
            table.see(ASK, ingress_ifindex=77)
            table.see(ASK, "tc_egress", ingress_ifindex=77)
            assert (list(table.only()["packets"]), table.flags()) == ([1, 0], {"CONFIRMED"})
            table.see(ASK, "tc_egress", ingress_ifindex=78)
            assert list(table.only()["packets"]) == [2, 0]
            table.see(ASK, "tc_egress")
            assert list(table.only()["packets"]) == [3, 0]
            assert table.counted()["OFFERED_PACKETS"] == 3
        finally:
            del interfaces[interfaces.Key(77)]

    def test_what_egress_does_not_count_starts_nothing(self, table):
        interfaces = table.datapath.interfaces
        interfaces[interfaces.Key(77)] = interfaces.Leaf(1)
        try:
            table.see(ASK, "tc_egress", ingress_ifindex=77)
            assert not table.counted()
        finally:
            del interfaces[interfaces.Key(77)]


class TestExpiry:
    def test_a_packet_for_an_expired_one_starts_anew(self, table):
        table.see(ASK)
        table.see(ANSWER)
        old = table.only().copy()
        table.sleep(180)
        table.see(ANSWER)
        new = table.only()
        assert len(table.entries()) == 1
        assert new["id"] not in (0, old["id"])
        assert (int(new["created"]), list(new["packets"]), table.flags()) == (table.now, [1, 0], set())
        assert new["status"] & 1 != old["status"] & 1, "the one who asks now is the other end"
        counted = table.counted()
        assert (counted["EXPIRED"], counted["CREATED"], counted["ENDED_PACKETS"]) == (1, 2, 2)
        table.check_conservation()

    def test_what_starts_nothing_does_not_touch_it(self, table):
        table.see(tcp_frame(CLIENT, 1, SERVER, 2, SYN))
        table.sleep(6)
        before = [conn.tobytes() for _, conn in table.entries()]
        table.see(tcp_frame(CLIENT, 1, SERVER, 2, RST | ACK))
        assert [conn.tobytes() for _, conn in table.entries()] == before
        table.check_conservation()

    def test_nothing_of_the_old_one_is_left(self, table):
        table.see(tcp_frame(CLIENT, 1, SERVER, 2, ACK, seq=5000))
        table.see(tcp_frame(SERVER, 2, CLIENT, 1, ACK, seq=9000, ack=5000))
        table.sleep(90_000)
        table.see(tcp_frame(CLIENT, 1, SERVER, 2, SYN, seq=7))
        again = table.only().copy()
        table.clear()
        table.see(tcp_frame(CLIENT, 1, SERVER, 2, SYN, seq=7))
        fresh = table.only().copy()
        for name in ("id", "fresh"):  # its own numbers
            again[name] = fresh[name] = 0
        assert again.tobytes() == fresh.tobytes()


class TestReaper:
    def test_it_takes_only_what_has_expired_by_then(self, table):
        for port in range(200):
            table.see(udp_frame(CLIENT, 5000 + port, SERVER, 53))
        table.sleep(10)
        for port in range(50):
            table.see(udp_frame(CLIENT, 5000 + port, SERVER, 53))
        assert table.datapath.reap(keys_of(table), table.now) == 150
        assert len(table.entries()) == 50
        assert table.datapath.reap(keys_of(table), table.now) == 0
        counted = table.counted()
        assert (counted["EXPIRED"], counted["ENDED_PACKETS"]) == (200, 200)
        table.check_conservation()

    def test_a_key_that_is_not_there_harms_nothing(self, table):
        table.see(ASK)
        keys = keys_of(table)
        table.clear()
        assert table.datapath.reap(keys, table.now) == 0

    def test_removing_needs_the_right_id(self, table):
        table.see(ASK)
        keys, conn = keys_of(table), table.only()
        wrong = np.array([int(conn["id"]) + 1], np.uint64)
        assert table.datapath.remove(keys, wrong) == 0
        assert table.live()
        assert table.datapath.remove(keys, np.array([conn["id"]], np.uint64)) == 1
        assert not table.live()
        assert table.datapath.remove(keys, np.array([conn["id"]], np.uint64)) == 0
        assert table.counted()["REMOVED"] == 1
        table.check_conservation()

    def test_after_removal_the_next_packet_starts_a_new_one(self, table):
        table.see(ASK)
        old = int(table.only()["id"])
        table.datapath.remove(keys_of(table), np.array([old], np.uint64))
        table.see(ASK)
        assert (int(table.only()["id"]) != old, list(table.only()["packets"])) == (True, [1, 0])
        assert table.counted()["CREATED"] == 2
        assert "EXPIRED" not in table.counted()
        table.check_conservation()


def test_ids_are_small_and_never_come_again(table):
    seen = set()
    for _ in range(3):
        for port in range(50):
            table.see(udp_frame(CLIENT, 5000 + port, SERVER, 53))
        ids = {int(conn["id"]) for _, conn in table.live()}
        assert not ids & seen
        assert 0 not in ids
        seen |= ids
        table.sleep(60)
    assert max(seen) < 2**40


class TestSegments:
    """A GSO frame counts as the packets that it becomes on the wire, each with its own headers."""

    @pytest.mark.parametrize(("segs", "size", "packets"), [(3, 1000, 3), (0, 1000, 3), (0, 3000, 1), (0, 700, 5)])
    def test_tcp(self, table, segs, size, packets):
        frame = tcp_frame(CLIENT, 1, SERVER, 2, ACK, payload=bytes(3000))
        table.see(frame, gso_segs=segs, gso_size=size)
        assert list(table.only()["packets"]) == [packets, 0]
        assert list(table.only()["bytes"]) == [3000 + 40 * packets, 0]
        table.check_conservation()

    def test_udp(self, table):
        table.see(udp_frame(CLIENT, 1, SERVER, 2, bytes(2500)), gso_segs=3, gso_size=1000)
        assert (list(table.only()["packets"]), list(table.only()["bytes"])) == ([3, 0], [2500 + 3 * 28, 0])

    def test_ipv6_with_tcp_options(self, table):
        frame = tcp_frame("fd00::1", 1, "fd00::2", 2, ACK, payload=bytes(2000), options=bytes(12))
        table.see(frame, gso_segs=2, gso_size=1000)
        assert list(table.only()["bytes"]) == [2000 + 2 * 72, 0]

    def test_untracked_ones_count_the_same(self, table):
        table.see(tcp_frame(CLIENT, 1, SERVER, 2, RST, payload=bytes(2000)), gso_segs=2, gso_size=1000)
        assert table.untracked() == {"INVALID_TCP": 2}
        table.check_conservation()
