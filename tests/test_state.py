"""Settings that outlive the program."""

from __future__ import annotations

import logging

import pytest

from ctweb import state
from ctweb.settings import Tracking
from ctweb.state import StateError


def test_with_nothing_saved_the_configuration_stands(tmp_path):
    base = Tracking(udp_timeout=1234)
    assert state.load(tmp_path, base) == (base, {})


def test_what_was_saved_stands_above_the_configuration(tmp_path):
    state.save(tmp_path, {"udp-timeout": "20s", "loose-tcp-tracking": "no"})
    tracking, saved = state.load(tmp_path, Tracking(icmp_timeout=5000, udp_timeout=7))
    assert tracking == Tracking(icmp_timeout=5000, udp_timeout=20_000, loose_tcp_tracking=False)
    assert saved == {"udp-timeout": "20s", "loose-tcp-tracking": "no"}


def test_nobody_else_reads_the_file_and_nothing_else_is_left(tmp_path):
    directory = tmp_path / "made"
    state.save(directory, {"udp-timeout": "20s"})
    state.save(directory, {"udp-timeout": "30s"})
    assert [path.name for path in directory.iterdir()] == ["tracking.json"]
    assert (directory / "tracking.json").stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700


def test_a_saved_value_that_is_no_longer_valid_is_named_and_left_out(tmp_path, caplog):
    (tmp_path / "tracking.json").write_text('{"udp-timeout": "never", "icmp-timeout": "3s", "gone": "1"}')
    with caplog.at_level(logging.WARNING):
        tracking, saved = state.load(tmp_path, Tracking())
    assert tracking == Tracking(icmp_timeout=3000)
    assert saved == {"icmp-timeout": "3s"}
    assert "udp-timeout" in caplog.text
    assert "gone" in caplog.text


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"udp-timeout": 5}', b"\xff\xfe"])
def test_a_broken_file_is_one_clear_message(tmp_path, content):
    (tmp_path / "tracking.json").write_bytes(content)
    with pytest.raises(state.StateError, match=r"tracking\.json.*mend or remove"):
        state.load(tmp_path, Tracking())


def test_a_save_that_fails_leaves_the_old_file(tmp_path):
    state.save(tmp_path, {"udp-timeout": "20s"})
    (tmp_path / "blocked").write_text("a file where a directory should be")
    with pytest.raises(state.StateError, match="cannot save the settings"):
        state.save(tmp_path / "blocked" / "below", {"udp-timeout": "30s"})
    assert state.load(tmp_path, Tracking())[1] == {"udp-timeout": "20s"}


@pytest.mark.parametrize("text", [b'{"udp-timeout": "\xf4"}', b"\xff", b"[" * 100_000, b"{", b"[]"])
def test_a_damaged_file_is_named_and_not_passed_over(tmp_path, text):
    (tmp_path / "tracking.json").write_bytes(text)
    with pytest.raises(StateError, match=r"tracking\.json.*mend or remove the file"):
        state.load(tmp_path, Tracking())
