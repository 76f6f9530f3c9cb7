"""What a filter may ask for: RouterOS's property names and their short names, and how their values are read.

A value is read into a test, which `match.py` runs on columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_network

from ctweb.settings import parse_time
from ctweb.table.names import FLAGS
from ctweb.table.properties import PROPERTIES, Kind

EQUALITY = ("=", "!=")
COMPARISON = ("=", "!=", "<", ">", "<=", ">=")
LARGEST = 2**63 - 1

_NUMBER = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)([kKMGT]i?)?")
_UNITS = {"": 1} | {letter + i: (1024 if i else 1000) ** power
                    for power, letter in enumerate("kMGT", 1) for i in ("", "i")}  # fmt: skip
_ID = re.compile(r"\*?([0-9A-Fa-f]{1,16})")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})")


@dataclass(frozen=True)
class AddressTest:
    """Inside `network`, and with `port` if there is one."""

    network: IPv4Network | IPv6Network
    port: int | None = None


@dataclass(frozen=True)
class RangeTest:
    """From `first` to `last`. A single number if they are equal."""

    first: int
    last: int


@dataclass(frozen=True)
class FlagsTest:
    """All of these bits are set (`wanted`), or none of them is."""

    bits: int
    wanted: bool = True


@dataclass(frozen=True)
class MarkTest:
    """This connection mark, as it is written; empty: none."""

    name: str


Test = AddressTest | RangeTest | FlagsTest | MarkTest


class Several(Enum):
    """How a field of several properties is meant."""

    ANY = "any of them"
    TOTAL = "their sum"


@dataclass(frozen=True)
class Field:
    """A name in a filter. `properties`: what it stands for; `takes`: its values, for error messages."""

    name: str
    properties: tuple[str, ...]
    operators: tuple[str, ...]
    takes: str
    read: Callable[[str], Test]
    several: Several = Several.ANY


def _address(text: str) -> Test:
    port = None
    if found := _ADDRESS.fullmatch(text):
        text, port = found[1] or found[2], _in_range(found[3], 65535)
    # strict=False: 10.0.0.1/8 is the network that 10.0.0.1 is in.
    return AddressTest(ip_network(text, strict=False), port)


def _in_range(text: str, largest: int) -> int:
    number = int(text)
    if number > largest:
        raise ValueError(text)
    return number


def _ports(text: str) -> Test:
    found = _match(_PORTS, text)
    first = _in_range(found[1], 65535)
    last = first if found[2] is None else _in_range(found[2], 65535)
    if last < first:
        raise ValueError(text)
    return RangeTest(first, last)


def _match(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    found = pattern.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return found


def _number(text: str) -> Test:
    found = _match(_NUMBER, text)
    number = Decimal(found[1]) * _UNITS[(found[2] or "").replace("K", "k")]
    if number != int(number) or number > LARGEST:
        raise ValueError(text)
    return RangeTest(int(number), int(number))


def _rate(text: str) -> Test:
    return _number(text.removesuffix("bps"))


def _time(text: str) -> Test:
    """In milliseconds: a time value can lie between two seconds."""
    ms = parse_time(text)
    return RangeTest(ms, ms)


def _id(text: str) -> Test:
    number = int(_match(_ID, text)[1], 16)
    return RangeTest(number, number)


def _flag(bits: int) -> Callable[[str], Test]:
    def read(text: str) -> Test:
        if text not in ("yes", "true", "no", "false"):
            raise ValueError(text)
        return FlagsTest(bits, text in ("yes", "true"))

    return read


_LETTER_BITS = {flag.letter: 1 << i for i, flag in enumerate(FLAGS)}


def _letters(text: str) -> Test:
    if not text or not set(text) <= _LETTER_BITS.keys():
        raise ValueError(text)
    return FlagsTest(sum(_LETTER_BITS[letter] for letter in set(text)))


def _choice(numbers: Callable[[str], int | None]) -> Callable[[str], Test]:
    def read(text: str) -> Test:
        number = numbers(text.lower())
        if number is None:
            raise ValueError(text)
        return RangeTest(number, number)

    return read


_TAKES_ADDRESS = "an address such as 10.0.0.1, 10.0.0.0/8, 10.0.0.1:443 or [2001:db8::1]:443"
_TAKES_NUMBER = "a number such as 1500, 10k, 1.5M or 2Gi"
_BY_KIND: dict[Kind, tuple[tuple[str, ...], str, Callable[[str], Test]]] = {
    Kind.ID: (EQUALITY, "an id such as *1F", _id),
    Kind.ADDRESS: (EQUALITY, _TAKES_ADDRESS, _address),
    Kind.PORT: (COMPARISON, "a port such as 443, or a range such as 1000-2000", _ports),
    Kind.NUMBER: (COMPARISON, _TAKES_NUMBER, _number),
    Kind.RATE: (COMPARISON, "bits per second such as 1M, 6.4kbps or 1500", _rate),
    Kind.MARK: (EQUALITY, "the name of a mark", MarkTest),
    Kind.TIME: (COMPARISON, "a time such as 10s, 5m, 1d or 00:00:10", _time),
}


def _field(name: str, property_name: str) -> Field:
    prop = PROPERTIES[property_name]
    if prop.kind is Kind.FLAG:
        bit = next(1 << i for i, flag in enumerate(FLAGS) if flag.name == prop.name)
        return Field(name, (property_name,), EQUALITY, "yes or no", _flag(bit))
    if prop.kind is Kind.CHOICE:
        assert prop.numbers is not None
        named = [n for n in prop.names if n and not n.isdecimal()]
        takes = ", ".join(named) if len(named) <= 10 else "a name such as tcp, udp, icmp or gre, or its number"
        return Field(name, (property_name,), EQUALITY, takes, _choice(prop.numbers))
    return Field(name, (property_name,), *_BY_KIND[prop.kind])


def _both(name: str, first: str, second: str, several: Several) -> Field:
    return Field(name, (first, second), *_BY_KIND[PROPERTIES[first].kind], several)


_SHORT = {
    "id": ".id",
    "proto": "protocol",
    "src": "src-address",
    "dst": "dst-address",
    "sport": "src-port",
    "dport": "dst-port",
    "state": "tcp-state",
    "mark": "connection-mark",
    "type": "connection-type",
}

FIELDS = {
    field.name: field
    for field in (
        *(_field(short, name) for short, name in _SHORT.items()),
        _both("addr", "src-address", "dst-address", Several.ANY),
        _both("port", "src-port", "dst-port", Several.ANY),
        _both("bytes", "orig-bytes", "repl-bytes", Several.TOTAL),
        _both("packets", "orig-packets", "repl-packets", Several.TOTAL),
        _both("rate", "orig-rate", "repl-rate", Several.TOTAL),
        Field("flag", (), EQUALITY, f"letters of {''.join(_LETTER_BITS)}, all of which are set", _letters),
        *(_field(name, name) for name in sorted(PROPERTIES)),
    )
}
"""Every name a filter may ask for; the short ones first."""
