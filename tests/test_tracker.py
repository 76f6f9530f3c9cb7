"""From the kernel's table to published snapshots, on the real programs."""

from __future__ import annotations

import logging
import resource
import threading
import time

import numpy as np
import pytest
from entries import FIRST_ID, SECOND, loaded, packet, put, reset, wait_until

from ctweb.settings import SettingError, Tracking
from ctweb.state import StateError
from ctweb.tracker import Tracker, next_start


@pytest.fixture(scope="module")
def compiled():
    with loaded() as made:
        yield made


@pytest.fixture
def datapath(compiled):
    reset(compiled)
    return compiled


@pytest.fixture
def tracker(datapath, tmp_path):
    made = Tracker(datapath, Tracking(), tmp_path / "state")
    yield made
    made.stop()


def pass_time(datapath, ticks=3):
    """Let the kernel's clock, which moves by ticks, go on."""
    time.sleep(ticks * datapath.clock.tick / 1e9)


class TestRates:
    def test_a_flow_has_its_rate_and_silence_has_none(self, datapath, tracker):
        packet(datapath, 1)
        tracker.sweep()
        time.sleep(0.2)
        packet(datapath, 1, payload=972, repeat=1000)  # 1000 packets of 1000 bytes
        flowing = tracker.sweep()
        assert flowing.columns.bytes.tolist() == [[1_000_028, 0]]
        assert flowing.rates[0, 0] == pytest.approx(8_000_000 / flowing.interval, rel=0.05)
        assert flowing.rates[0, 1] == 0
        pass_time(datapath)
        assert tracker.sweep().rates.tolist() == [[0, 0]]

    def test_who_takes_a_table_over_shows_no_rate_that_was_not(self, datapath, tracker, tmp_path):
        """What was counted before it came is no rate; what is counted after its first sweep is, with the same ids."""
        packet(datapath, 1, payload=972, repeat=1000)
        before = tracker.sweep()
        tracker.stop()
        packet(datapath, 1, payload=972, repeat=1000)
        later = Tracker(datapath, Tracking(), tmp_path / "state")
        try:
            first = later.sweep()
            assert first.columns.id.tolist() == before.columns.id.tolist()
            assert first.columns.bytes.tolist() == [[2_000_000, 0]]
            assert first.rates.tolist() == [[0, 0]]
            time.sleep(0.2)
            packet(datapath, 1, payload=972, repeat=1000)
            second = later.sweep()
            assert second.rates[0, 0] == pytest.approx(8_000_000 / second.interval, rel=0.05)
        finally:
            later.stop()

    def test_each_of_a_hundred_thousand_flows_is_compared_with_itself(self, datapath, tracker):
        n = 100_000
        counted = np.random.default_rng(1).integers(0, 2**40, (n, 2), dtype=np.uint64)
        put(datapath, n, bytes=counted)
        before = tracker.sweep()
        pass_time(datapath)
        put(datapath, n, bytes=counted + np.uint64(5000))
        put(datapath, 1000, first=n)
        after = tracker.sweep()
        stretch = ((after.until - after.now) - (before.until - before.now)) / 1e9
        longest, shortest = after.interval + max(stretch, 0), after.interval + min(stretch, 0)
        old = after.columns.id < FIRST_ID + n
        assert old.sum() == n
        assert (after.rates[old] >= 40_000 / longest * 0.999).all()
        assert (after.rates[old] <= 40_000 / max(shortest, after.interval / 2) * 1.001).all()
        assert not after.rates[~old].any()


class TestExpiry:
    def test_an_expired_connection_is_shown_dying_once_and_then_gone_from_the_kernel_too(self, datapath, tracker):
        put(datapath, 1)
        put(datapath, 1, first=1, expires=datapath.clock.now() - SECOND)
        assert tracker.sweep().dying.tolist().count(True) == 1
        pass_time(datapath)
        after = tracker.sweep()
        assert after.columns.id.tolist() == [FIRST_ID]
        assert not after.dying.any()
        assert len(datapath.connections) == 1
        assert after.counters["expired"] == 1

    def test_a_hundred_and_fifty_thousand_expire_together(self, datapath, tracker):
        put(datapath, 1000)
        put(datapath, 150_000, first=1000, expires=datapath.clock.now() - SECOND, packets=[2, 1], bytes=[200, 50])
        first = tracker.sweep()
        assert (len(first), int(first.dying.sum())) == (151_000, 150_000)
        pass_time(datapath)
        second = tracker.sweep()
        assert np.array_equal(np.sort(second.columns.id), FIRST_ID + np.arange(1000))
        assert second.counters["expired"] == 150_000
        assert second.counters["ended-packets"] == 450_000
        assert second.counters["ended-bytes"] == 37_500_000
        pass_time(datapath)
        assert tracker.sweep().counters["expired"] == 150_000

    def test_a_packet_before_the_reaping_sweep_makes_a_new_connection_that_stays(self, datapath, tracker):
        put(datapath, 1, expires=datapath.clock.now() - SECOND)
        old = tracker.sweep()
        assert old.dying.tolist() == [True]
        packet(datapath, 0)
        pass_time(datapath)
        for _ in range(2):
            new = tracker.sweep()
            assert new.dying.tolist() == [False]
            assert new.columns.packets.tolist() == [[1, 0]]
            assert new.columns.id[0] != old.columns.id[0]
            pass_time(datapath)

    def test_a_packet_between_reading_and_reaping_saves_its_connection_and_no_other(
        self, datapath, tracker, monkeypatch
    ):
        """The kernel decides last: what user space read as long expired may be in use by the time it reaps."""
        put(datapath, 2000, expires=datapath.clock.now() - SECOND)
        assert tracker.sweep().dying.all()
        pass_time(datapath)
        reap = datapath.reap

        def reap_late(*arguments):
            for host in range(0, 2000, 2):
                packet(datapath, host)
            agreed = reap(*arguments)
            assert agreed == 1000
            return agreed

        monkeypatch.setattr(datapath, "reap", reap_late)
        tracker.sweep()
        monkeypatch.undo()
        pass_time(datapath)
        alive = tracker.sweep()
        assert len(alive) == 1000
        assert not alive.dying.any()
        assert sorted(alive.columns.lo_addr[:, 3].tolist()) == sorted(host & 255 for host in range(0, 2000, 2))
        assert alive.counters["expired"] == 2000

    def test_every_packet_is_on_a_connection_or_in_the_totals(self, datapath, tracker):
        for host in range(300):
            packet(datapath, host, payload=host)
        tracker.sweep()
        tracker.remove(tracker.snapshot.columns.id[:100].tolist())
        for host in range(50):
            packet(datapath, host)
        for _ in range(2):
            pass_time(datapath)
            snapshot = tracker.sweep()
            live = snapshot.columns.packets.sum(), snapshot.columns.bytes.sum()
            counters = snapshot.counters
            assert live[0] + counters["ended-packets"] == counters["offered-packets"] == 350
            assert live[1] + counters["ended-bytes"] == counters["offered-bytes"]


class TestRefused:
    """Why packets of new connections are not tracked, in a table that grows and has not grown in time."""

    @pytest.fixture
    def datapath(self):
        with loaded() as made:
            yield made

    def test_they_came_too_fast(self, datapath, tracker, caplog):
        tracker.sweep()
        refused = self.fill(datapath)
        assert refused >= 2
        tracker.sweep()
        assert f"{refused} packets of new connections were refused" in caplog.text
        assert "they came faster than memory for them was made" in caplog.text

    def test_the_kernel_gave_nothing(self, datapath, tracker, caplog):
        packet(datapath, 0)  # the programs are loaded
        tracker.sweep()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        try:
            refused = self.fill(datapath)
            with pytest.raises(OSError, match="Too many open files"):
                datapath.memory.grow()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        tracker.sweep()
        assert "there is no memory for more (Too many open files)" in caplog.text
        datapath.memory.grow()
        packet(datapath, 999_999)
        assert tracker.sweep().counters["refused"] == refused

    def fill(self, datapath) -> int:
        """Two more connections than there is memory for; how many packets were refused."""
        for host in range(datapath.connections.room + 2):
            packet(datapath, host)
        return datapath.read_counters()["COUNT_REFUSED"]


class TestRemove:
    def test_removed_connections_are_gone_and_the_next_packet_starts_anew(self, datapath, tracker):
        for host in range(3):
            packet(datapath, host)
        before = tracker.sweep().columns
        gone = before.id[before.lo_addr[:, 3] == 1].tolist()
        assert tracker.remove([*gone, 12345]) == 1
        assert sorted(tracker.sweep().columns.lo_addr[:, 3].tolist()) == [0, 2]
        packet(datapath, 1)
        after = tracker.sweep().columns
        assert sorted(after.lo_addr[:, 3].tolist()) == [0, 1, 2]
        assert not np.isin(after.id, gone).any()

    def test_readers_see_it_at_once_and_are_woken(self, datapath, tracker):
        for host in range(3):
            packet(datapath, host)
        before = tracker.sweep()
        gone = before.columns.id[before.columns.lo_addr[:, 3] == 1]
        tracker.remove(gone.tolist())
        after = tracker.wait(before.seq, timeout=60)
        assert after is tracker.snapshot
        assert after.seq > before.seq
        assert sorted(after.columns.lo_addr[:, 3].tolist()) == [0, 2]
        assert len(after.rates) == len(after.dying) == 2
        assert not after.columns.id.flags.writeable
        assert len(before) == 3

    def test_a_sweep_that_has_already_read_it_does_not_bring_it_back(self, datapath, tracker, monkeypatch):
        for host in range(3):
            packet(datapath, host)
        gone = [tracker.sweep().columns.id[0], tracker.snapshot.columns.id[2]]
        read = tracker._reader.read

        def read_then_remove():
            columns = read()
            assert set(gone) <= set(columns.id)
            for one in gone:
                assert tracker.remove([one]) == 1
            return columns

        monkeypatch.setattr(tracker._reader, "read", read_then_remove)
        seq = tracker.snapshot.seq
        assert not np.isin(tracker.sweep().columns.id, gone).any()
        monkeypatch.undo()
        assert tracker.snapshot.seq == seq + 3
        assert len(tracker.sweep()) == 1

    def test_removing_what_is_not_there_publishes_nothing(self, tracker):
        before = tracker.sweep()
        assert tracker.remove([12345]) == 0
        assert tracker.snapshot is before

    def test_an_id_that_has_gone_meanwhile_takes_nobody_with_it(self, datapath, tracker):
        put(datapath, 1, expires=datapath.clock.now() - SECOND)
        old = tracker.sweep().columns.id.tolist()
        packet(datapath, 0)
        assert tracker.remove(old) == 0
        assert len(tracker.sweep()) == 1


class TestPublishing:
    def test_threads_that_wait_get_every_snapshot_in_its_turn(self, datapath, tracker):
        turns, readers = 20, 8
        seen = [[] for _ in range(readers)]

        def read(mine):
            seq = 0
            while seq < turns:
                snapshot = tracker.wait(seq, timeout=30)
                mine.append((snapshot.seq, len(snapshot)))
                seq = snapshot.seq

        threads = [threading.Thread(target=read, args=(mine,)) for mine in seen]
        for thread in threads:
            thread.start()
        for turn in range(turns):
            assert wait_until(lambda turn=turn: all(len(mine) == turn for mine in seen))
            put(datapath, turn + 1)
            tracker.sweep()
        for thread in threads:
            thread.join()
        assert seen == [[(turn, turn) for turn in range(1, turns + 1)]] * readers

    def test_waiting_ends_at_once_when_there_is_something_newer_and_else_with_the_newest(self, tracker):
        assert tracker.wait(-1, timeout=60).seq == 0
        assert tracker.wait(0, timeout=0.01).seq == 0
        tracker.sweep()
        assert tracker.wait(0, timeout=60).seq == 1

    def test_the_thread_sweeps_on_its_own_and_ends_when_told(self, datapath, tmp_path):
        tracker = Tracker(datapath, Tracking(), tmp_path, interval=0.05)
        tracker.start()
        assert "sweep" in [thread.name for thread in threading.enumerate()]
        assert tracker.wait(3, timeout=30).seq >= 4
        tracker.stop()
        tracker.stop()
        assert "sweep" not in [thread.name for thread in threading.enumerate()]
        last = tracker.snapshot.seq
        assert tracker.wait(last, timeout=0.2).seq == last

    def test_the_thread_ends_promptly_between_two_sweeps_far_apart(self, datapath, tmp_path):
        tracker = Tracker(datapath, Tracking(), tmp_path, interval=3600)
        tracker.start()
        assert tracker.snapshot.seq == 1
        stopper = threading.Thread(target=tracker.stop)
        stopper.start()
        stopper.join(timeout=30)
        assert not stopper.is_alive()

    def test_a_sweep_that_fails_is_told_and_counted_and_the_next_one_runs(
        self, datapath, tmp_path, monkeypatch, caplog
    ):
        tracker = Tracker(datapath, Tracking(), tmp_path, interval=0.05)
        read_counters, failures = datapath.read_counters, [OSError(12, "no memory for it")] * 2

        def failing():
            if tracker.snapshot.seq and failures:
                raise failures.pop()
            return read_counters()

        monkeypatch.setattr(datapath, "read_counters", failing)
        with caplog.at_level(logging.ERROR):
            tracker.start()
            snapshot = tracker.wait(1, timeout=30)
        tracker.stop()
        assert (snapshot.seq, snapshot.counters["failed-sweeps"]) == (2, 2)
        assert [record.getMessage().count("no memory for it") for record in caplog.records] == [1]


    @pytest.mark.parametrize(
        ("started", "ended", "following"),
        [
            (10.0, 10.1, 11),  # as it should be
            (10.3, 10.4, 11),  # started late: the grid stays
            (10.7, 10.8, 12),  # so late that the next turn is too near
            (10.0, 12.5, 13),  # took longer than its turn
            (10.0, 11.0, 11),  # took exactly its turn
            (75.2, 75.3, 76),  # the machine slept
        ],
    )
    def test_sweeps_keep_to_the_grid(self, started, ended, following):
        assert next_start(10, started, ended, 1) == following


class TestSettings:
    def expiry_of_next_packet(self, datapath, tracker, host):
        packet(datapath, host)
        columns = tracker.sweep().columns
        row = int(np.flatnonzero(columns.lo_addr[:, 3] == host)[0])
        return int(columns.expires[row] - columns.created[row])

    def test_a_change_is_in_force_with_the_next_packet(self, datapath, tracker):
        assert self.expiry_of_next_packet(datapath, tracker, 1) == 10 * SECOND
        changed = tracker.set_tracking({"udp-timeout": "42s"})
        assert changed == tracker.tracking == Tracking(udp_timeout=42_000)
        assert self.expiry_of_next_packet(datapath, tracker, 2) == 42 * SECOND

    def test_changes_survive_a_restart_above_what_the_configuration_says(self, datapath, tracker, tmp_path):
        tracker.set_tracking({"udp-timeout": "42s"})
        tracker.set_tracking({"icmp-timeout": "00:00:07", "loose-tcp-tracking": "false"})
        tracker.stop()
        base = Tracking(udp_timeout=1000, generic_timeout=2000)
        again = Tracker(datapath, base, tmp_path / "state")
        assert again.tracking == Tracking(
            udp_timeout=42_000, icmp_timeout=7_000, loose_tcp_tracking=False, generic_timeout=2000
        )
        assert self.expiry_of_next_packet(datapath, again, 3) == 42 * SECOND

    def test_a_bad_value_among_good_ones_changes_nothing(self, datapath, tracker, tmp_path):
        with pytest.raises(SettingError, match="icmp-timeout"):
            tracker.set_tracking({"udp-timeout": "42s", "icmp-timeout": "soon"})
        assert tracker.tracking == Tracking()
        assert not (tmp_path / "state").exists()
        assert self.expiry_of_next_packet(datapath, tracker, 4) == 10 * SECOND

    def test_a_change_that_cannot_be_kept_is_not_made(self, datapath, tracker, tmp_path):
        (tmp_path / "state").write_text("a file where the directory should be")
        with pytest.raises(StateError, match="nothing was changed"):
            tracker.set_tracking({"udp-timeout": "42s"})
        assert tracker.tracking == Tracking()
        assert self.expiry_of_next_packet(datapath, tracker, 5) == 10 * SECOND

    def test_changes_from_many_threads_are_all_kept(self, tracker, tmp_path):
        names = [f"tcp-{state}-timeout" for state in ("close", "last-ack", "time-wait", "fin-wait", "close-wait")]
        threads = [
            threading.Thread(target=tracker.set_tracking, args=({name: f"{100 + i}s"},))
            for i, name in enumerate(names)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        kept = Tracker(tracker._datapath, Tracking(), tmp_path / "state").tracking
        assert kept == tracker.tracking
        assert (kept.tcp_close_timeout, kept.tcp_close_wait_timeout) == (100_000, 104_000)


class TestReload:
    def test_what_was_set_while_it_ran_stands_above_another_configuration(self, datapath, tracker):
        tracker.set_tracking({"udp-timeout": "20s"})
        kept = tracker.rebase(Tracking(udp_timeout=30_000, icmp_timeout=40_000))
        assert kept == ("udp-timeout",)
        assert (tracker.tracking.udp_timeout, tracker.tracking.icmp_timeout) == (20_000, 40_000)
        packet(datapath, 1)
        (expires,) = tracker.sweep().columns.expires.tolist()
        assert (expires - datapath.clock.now()) / SECOND == pytest.approx(20, abs=5)

    def test_settings_that_the_kernel_does_not_take_change_nothing(self, datapath, tracker, monkeypatch):
        def refuse(tracking):
            raise OSError("no")

        monkeypatch.setattr(datapath, "apply", refuse)
        with pytest.raises(OSError, match="no"):
            tracker.rebase(Tracking(udp_timeout=30_000))
        assert tracker.tracking == Tracking()


def test_who_began_while_the_table_was_read_is_of_the_next_sweep(datapath, tracker):
    """The one that gave way to it may have been read before: both together would be more than the table holds."""
    put(datapath, 1, first=1)
    put(datapath, 1, first=2, created=datapath.clock.now() + SECOND)  # as if it had begun after this sweep did
    assert tracker.sweep().columns.id.tolist() == [FIRST_ID + 1]
    time.sleep(1.1)
    assert sorted(tracker.sweep().columns.id.tolist()) == [FIRST_ID + 1, FIRST_ID + 2]
