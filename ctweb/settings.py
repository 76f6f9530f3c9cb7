"""The tracking settings (`/ip/firewall/connection/tracking` of RouterOS) and RouterOS's time values.

`Tracking` is the one table of them: its fields carry name, kind, default and meaning; the rest follows.
Times are integer milliseconds. Every value crosses the borders (file, command line, REST) as a string.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY

# The longest timeout whose milliseconds fit in 32 bits, in whole weeks.
LONGEST = 7 * WEEK

_UNITS = {"w": WEEK, "d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND, "ms": 1}
_NUMBER = r"([0-9]{1,12})"
_BY_UNITS = re.compile("".join(f"(?:{_NUMBER}{unit})?" for unit in _UNITS))
_BY_CLOCK = re.compile(rf"(?:{_NUMBER}w)?(?:{_NUMBER}d)?([0-9]{{1,2}}):([0-5][0-9]):([0-5][0-9])")
_SECONDS = re.compile(_NUMBER)

_TRUE = ("yes", "true")
_FALSE = ("no", "false")


def parse_time(text: str) -> int:
    """Milliseconds of a RouterOS time value: `1w2d`, `23h59m56s`, `200ms`, `00:00:10`, `1w2d03:04:05`, `10`.

    A bare number is seconds. Units stand largest first, each at most once. Raises ValueError for all else.
    """
    if found := _SECONDS.fullmatch(text):
        return int(found[1]) * SECOND
    if text and (found := _BY_UNITS.fullmatch(text) or _BY_CLOCK.fullmatch(text)):
        return sum(int(n or 0) * unit for n, unit in zip(found.groups(), _UNITS.values(), strict=False))
    raise ValueError(f"{text!r} is no time value such as 10s, 1d, 23h59m56s, 200ms, 00:00:10 or 1d00:00:00")


def format_time(ms: int) -> str:
    """A RouterOS time value: largest unit first, units that are zero left out, `0s` for nothing."""
    parts = []
    for name, unit in _UNITS.items():
        count, ms = divmod(ms, unit)
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts) or "0s"


class Tracking(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The settings in force. Times in milliseconds, from 1 ms to LONGEST."""

    enabled: Annotated[Literal["auto", "yes", "no"], Meta(description=
        "whether to track; auto: once something needs it, such as a firewall rule")] = "auto"
    loose_tcp_tracking: Annotated[bool, Meta(description=
        "pick up TCP connections that were already established")] = True
    liberal_tcp_tracking: Annotated[bool, Meta(description=
        "accept TCP packets outside the window")] = False
    tcp_syn_sent_timeout: Annotated[int, Meta(description=
        "after a SYN, until the answer")] = 5 * SECOND
    tcp_syn_received_timeout: Annotated[int, Meta(description=
        "after a SYN and its answer, until the handshake is complete")] = 5 * SECOND
    tcp_established_timeout: Annotated[int, Meta(description=
        "of an established TCP connection without packets")] = DAY
    tcp_fin_wait_timeout: Annotated[int, Meta(description=
        "after the first FIN")] = 10 * SECOND
    tcp_close_wait_timeout: Annotated[int, Meta(description=
        "after the first FIN was acknowledged")] = 10 * SECOND
    tcp_last_ack_timeout: Annotated[int, Meta(description=
        "after both FINs, until the last acknowledgement")] = 10 * SECOND
    tcp_time_wait_timeout: Annotated[int, Meta(description=
        "after the last acknowledgement")] = 10 * SECOND
    tcp_close_timeout: Annotated[int, Meta(description=
        "after a reset")] = 10 * SECOND
    tcp_max_retrans_timeout: Annotated[int, Meta(description=
        "at most this after repeated retransmissions or a window of zero")] = 5 * MINUTE
    tcp_unacked_timeout: Annotated[int, Meta(description=
        "at most this while data is unacknowledged")] = 5 * MINUTE
    udp_timeout: Annotated[int, Meta(description=
        "of UDP with packets seen one way")] = 10 * SECOND
    udp_stream_timeout: Annotated[int, Meta(description=
        "of UDP with packets seen both ways")] = 3 * MINUTE
    icmp_timeout: Annotated[int, Meta(description=
        "of ICMP and ICMPv6")] = 10 * SECOND
    generic_timeout: Annotated[int, Meta(description=
        "of everything else")] = 10 * MINUTE


Kind = Literal["choice", "yes-no", "time"]


@dataclass(frozen=True)
class Setting:
    """One setting as people meet it. `default` is written as RouterOS's terminal writes it."""

    name: str
    field: str
    kind: Kind
    default: str
    choices: tuple[str, ...]
    takes: str
    doc: str


class SettingError(ValueError):
    """A setting that was refused: which (`name`), the `value`, and what it `takes`. Nothing was changed."""

    def __init__(self, name: str, value: str, takes: str) -> None:
        super().__init__(f"{name} takes {takes}, not {_shown(value)}")
        self.name = name
        self.value = value
        self.takes = takes


class UnknownSetting(SettingError):
    """A setting that does not exist, or can only be read."""

    def __init__(self, name: str, value: str) -> None:
        if name in READ_ONLY:
            message, takes = f"{name} is read-only", "nothing: it is read-only"
        else:
            message, takes = f"unknown setting {_shown(name)}; there are {', '.join(SETTINGS)}", "nothing"
        super().__init__(name, value, takes)
        self.args = (message,)


def _shown(value: str) -> str:
    """`value` for an error message: hostile input stays short and on one line."""
    return repr(value if len(value) <= 60 else value[:57] + "...")


def _setting(struct_field: msgspec.structs.FieldInfo, annotation: object) -> Setting:
    plain, meta = get_args(annotation)
    kind: Kind
    choices: tuple[str, ...] = ()
    if plain is bool:
        kind, takes = "yes-no", "yes or no"
    elif plain is int:
        kind, takes = "time", f"a time from 1ms to {format_time(LONGEST)} such as 10s, 5m, 1d or 00:00:10"
    else:
        choices = get_args(plain)
        kind, takes = "choice", ", ".join(choices[:-1]) + " or " + choices[-1]
    return Setting(
        name=struct_field.encode_name,
        field=struct_field.name,
        kind=kind,
        default=_written(struct_field.default, yes="yes", no="no"),
        choices=choices,
        takes=takes,
        doc=meta.description,
    )


def _written(value: bool | int | str, yes: str, no: str) -> str:
    if isinstance(value, bool):
        return yes if value else no
    return format_time(value) if isinstance(value, int) else value


_ANNOTATIONS = get_type_hints(Tracking, include_extras=True)

SETTINGS: dict[str, Setting] = {
    f.encode_name: _setting(f, _ANNOTATIONS[f.name]) for f in msgspec.structs.fields(Tracking)
}
"""Every setting by its RouterOS name, in RouterOS's order."""

READ_ONLY = (
    "active", "reason", "max-entries", "total-entries", "total-ip4-entries", "total-ip6-entries", "active-ipv4",
    "active-ipv6",
)
"""What stands beside the settings in `/ip/firewall/connection/tracking` and cannot be set there; `active` and `reason`
are ours."""


def _parse(setting: Setting, value: str) -> bool | int | str:
    if setting.kind == "time":
        try:
            ms = parse_time(value)
        except ValueError:
            raise SettingError(setting.name, value, setting.takes) from None
        if 0 < ms <= LONGEST:
            return ms
    elif value in setting.choices or (setting.kind == "yes-no" and value in _TRUE + _FALSE):
        return value if setting.choices else value in _TRUE
    elif setting.choices and value in ("true", "false"):
        return "yes" if value == "true" else "no"
    raise SettingError(setting.name, value, setting.takes)


def parse_changes(current: Tracking, changes: Mapping[str, str]) -> Tracking:
    """`current` with `changes` (RouterOS names to values) made: all of them, or (SettingError) none."""
    parsed = {}
    for name, value in changes.items():
        setting = SETTINGS.get(name)
        if setting is None:
            raise UnknownSetting(name, value)
        parsed[setting.field] = _parse(setting, value)
    return msgspec.structs.replace(current, **parsed)


def as_routeros(tracking: Tracking) -> dict[str, str]:
    """The settings as RouterOS's REST answers them, by name: `true`, `1d`, `auto`."""
    return {s.name: _written(getattr(tracking, s.field), yes="true", no="false") for s in SETTINGS.values()}


def as_text(tracking: Tracking) -> dict[str, str]:
    """The settings as RouterOS's terminal prints them and a file keeps them, by name: `yes`, `1d`, `auto`."""
    return {s.name: _written(getattr(tracking, s.field), yes="yes", no="no") for s in SETTINGS.values()}
