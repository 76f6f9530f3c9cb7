"""The tracking settings and RouterOS's time values."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctweb.settings import (
    LONGEST,
    READ_ONLY,
    SETTINGS,
    SettingError,
    Tracking,
    UnknownSetting,
    as_routeros,
    as_text,
    format_time,
    parse_changes,
    parse_time,
)

UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1d", 86_400_000),
        ("23h59m56s", 86_396_000),
        ("10s", 10_000),
        ("200ms", 200),
        ("0s", 0),
        ("1w2d", 777_600_000),
        ("00:00:10", 10_000),
        ("1d00:00:00", 86_400_000),
        ("1w2d03:04:05", 777_600_000 + 11_045_000),
        ("1w03:04:05", 604_800_000 + 11_045_000),
        ("10", 10_000),
        ("90s", 90_000),
    ],
)
def test_reads_every_routeros_form(text, ms):
    assert parse_time(text) == ms


@pytest.mark.parametrize(
    "text",
    ["", " ", "10 s", " 10s", "10s ", "1d\n", "10\n", "\u0661s", "9" * 13, "9" * 5000,
     "s", "-1s", "-5", "+5", "1.5s", "1e3", "0x10", "10x", "10S", "1D", "1s1m", "1s1s", "1d2w", "1ms1s",
     "00:10", "00:60:00", "00:00:60", "1:2:3", "00:00:00:10", "1h00:00:10"],
)
def test_refuses_what_is_no_time(text):
    with pytest.raises(ValueError, match="is no time value"):
        parse_time(text)


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0s"), (86_400_000, "1d"), (86_396_000, "23h59m56s"), (10_000, "10s"), (200, "200ms"),
     (1_200, "1s200ms"), (777_600_000, "1w2d"), (90_000, "1m30s"), (300_000, "5m")],
)  # fmt: skip
def test_writes_the_routeros_form(ms, text):
    assert format_time(ms) == text


@given(st.integers(0, 10**12))
def test_what_is_written_is_read_back(ms):
    text = format_time(ms)
    assert parse_time(text) == ms
    counts = re.findall(r"(\d+)([a-z]+)", text)
    assert "".join(n + u for n, u in counts) == text
    assert [u for _, u in counts] == [u for u in UNITS if u in {u for _, u in counts}], "largest unit first"
    assert text == "0s" or all(n != "0" for n, _ in counts), "zero units are left out"


@given(st.integers(0, 50), st.integers(0, 6), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_clock_and_unit_forms_agree(w, d, h, m, s):
    expected = w * UNITS["w"] + d * UNITS["d"] + h * UNITS["h"] + m * UNITS["m"] + s * 1000
    assert parse_time(f"{w}w{d}d{h:02}:{m:02}:{s:02}") == expected
    assert parse_time(f"{w}w{d}d{h}h{m}m{s}s") == expected
    assert parse_time(str(expected // 1000)) == expected


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        assert parse_time(text) >= 0
    except ValueError as error:
        assert "is no time value" in str(error)  # noqa: PT017 - the refusal must be ours, not int()'s


def test_defaults_are_those_of_routeros():
    assert as_text(Tracking()) == {
        "enabled": "auto",
        "loose-tcp-tracking": "yes",
        "liberal-tcp-tracking": "no",
        "tcp-syn-sent-timeout": "5s",
        "tcp-syn-received-timeout": "5s",
        "tcp-established-timeout": "1d",
        "tcp-fin-wait-timeout": "10s",
        "tcp-close-wait-timeout": "10s",
        "tcp-last-ack-timeout": "10s",
        "tcp-time-wait-timeout": "10s",
        "tcp-close-timeout": "10s",
        "tcp-max-retrans-timeout": "5m",
        "tcp-unacked-timeout": "5m",
        "udp-timeout": "10s",
        "udp-stream-timeout": "3m",
        "icmp-timeout": "10s",
        "generic-timeout": "10m",
    }


def test_rest_writes_booleans_as_true_and_false_and_choices_as_they_are():
    shown = as_routeros(parse_changes(Tracking(), {"enabled": "yes", "loose-tcp-tracking": "no"}))
    assert shown["enabled"] == "yes"
    assert shown["loose-tcp-tracking"] == "false"
    assert shown["liberal-tcp-tracking"] == "false"
    assert shown["tcp-established-timeout"] == "1d"


def test_every_setting_is_described():
    for name, setting in SETTINGS.items():
        assert setting.name == name
        assert setting.doc
        assert setting.takes
        assert getattr(parse_changes(Tracking(), {name: setting.default}), setting.field) == getattr(
            Tracking(), setting.field
        )


values = {"choice": st.sampled_from(["auto", "yes", "no"]), "yes-no": st.sampled_from(["yes", "no"])}
settings = st.fixed_dictionaries(
    {n: values.get(s.kind, st.integers(1, LONGEST).map(format_time)) for n, s in SETTINGS.items()}
)


@given(settings)
def test_all_settings_survive_being_written_and_read(wanted):
    tracking = parse_changes(Tracking(), wanted)
    assert as_text(tracking) == wanted
    assert parse_changes(Tracking(), as_text(tracking)) == tracking
    assert parse_changes(Tracking(), as_routeros(tracking)) == tracking


def test_a_change_leaves_the_rest_alone():
    before = parse_changes(Tracking(), {"icmp-timeout": "1m"})
    after = parse_changes(before, {"udp-timeout": "00:00:30"})
    assert as_text(after) == as_text(before) | {"udp-timeout": "30s"}


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("udp-timeout", "soon", "time"),
        ("udp-timeout", "0s", "from 1ms to 7w"),
        ("udp-timeout", "7w1ms", "from 1ms to 7w"),
        ("udp-timeout", "-1", "time"),
        ("udp-timeout", "", "time"),
        ("enabled", "maybe", "auto, yes or no"),
        ("enabled", "AUTO", "auto, yes or no"),
        ("loose-tcp-tracking", "auto", "yes or no"),
        ("loose-tcp-tracking", "1", "yes or no"),
    ],
)
def test_a_bad_value_names_the_setting_and_what_it_takes(name, value, takes):
    with pytest.raises(SettingError) as caught:
        parse_changes(Tracking(), {name: value})
    error = caught.value
    assert (error.name, error.value) == (name, value)
    assert takes in error.takes
    assert name in str(error)
    assert takes in str(error)
    assert repr(value) in str(error)


def test_one_bad_value_among_good_ones_changes_nothing():
    current = Tracking()
    with pytest.raises(SettingError):
        parse_changes(current, {"udp-timeout": "1m", "icmp-timeout": "never"})
    assert current == Tracking()


@pytest.mark.parametrize("name", ["udp_timeout", "UDP-timeout", "udp-timeouts", "", "__class__"])
def test_names_are_exactly_those_of_routeros(name):
    with pytest.raises(UnknownSetting, match="unknown setting"):
        parse_changes(Tracking(), {name: "1m"})


@pytest.mark.parametrize("name", READ_ONLY)
def test_read_only_settings_are_refused_as_such(name):
    with pytest.raises(UnknownSetting, match=f"{name} is read-only"):
        parse_changes(Tracking(), {name: "1"})


def test_a_hostile_value_is_not_repeated_at_length():
    with pytest.raises(SettingError) as caught:
        parse_changes(Tracking(), {"udp-timeout": "x\n" * 100_000})
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)
