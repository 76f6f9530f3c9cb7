"""The rules of the configuration (`[[rule]]`): typed, checked, and laid out for the kernel (ebpf/rules.h).

A rule that marks is asked once in a connection's life, in the kernel, on its first packet; the first one that matches
decides. One that fasttracks is asked by the sweep, once the connection is established (ctweb/datapath/fasttrack.py).
Names and meaning of the keys are those of RouterOS's `/ip/firewall/mangle` and `/ip/firewall/filter`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ctweb.table.names import PROTOCOL_NUMBERS, PROTOCOLS, TCP, UDP, WITH_PORTS

Network = IPv4Network | IPv6Network
Ports = tuple[tuple[int, int], ...]  # ranges, both ends included

MARK, FASTTRACK = "mark-connection", "fasttrack-connection"
ESTABLISHED, RELATED = "established", "related"

NO_MARK = "no-mark"
LONGEST_MARK = 64

_INTERFACE = re.compile(r"(?!\.{1,2}\Z)[^\s/:]{1,15}")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")

_TAKES_PORTS = 'a port, a range, or several such as "80,443,8000-8100"'

T = TypeVar("T")


class RuleError(ValueError):
    """What is wrong with a rule, in one line: its number, the key, the value and what it takes."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One rule. What is not given matches everything. Each description says what the key takes."""

    protocol: Annotated[
        int | None, Meta(description="a name such as tcp, udp, icmp or gre, or a number from 0 to 255")
    ] = None
    src_address: Annotated[
        Network | None, Meta(description="an address or prefix such as 10.0.0.0/8 or 2001:db8::/32")
    ] = None
    dst_address: Annotated[
        Network | None, Meta(description="an address or prefix such as 10.0.0.0/8 or 2001:db8::/32")
    ] = None
    src_port: Annotated[
        Ports, Meta(description=_TAKES_PORTS)
    ] = ()
    dst_port: Annotated[
        Ports, Meta(description=_TAKES_PORTS)
    ] = ()
    in_interface: Annotated[
        str | None, Meta(description="the name of the interface that the connection's first packet came in through")
    ] = None
    connection_state: Annotated[
        tuple[str, ...],
        Meta(description=f"{ESTABLISHED}, {RELATED} or both; for {FASTTRACK}, which takes no other connections anyway"),
    ] = ()
    action: Annotated[Literal["mark-connection", "fasttrack-connection"], Meta(description=f"{MARK} or {FASTTRACK}")]
    new_connection_mark: Annotated[
        str, Meta(description=f"the mark's name, 1 to {LONGEST_MARK} printable characters; {NO_MARK}: none")
    ] = ""


_KEYS = {f.encode_name: f.name for f in msgspec.structs.fields(Rule)}
_TYPES = get_type_hints(Rule, include_extras=True)
_SHORT = {"name": "new-connection-mark"}


def parse_rules(value: object) -> tuple[Rule, ...]:
    """The rules of a configuration, as TOML gives them: a list of tables. Raises RuleError."""
    if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
        raise RuleError(f"rule takes tables, each under a line [[rule]], not {_shown(value)}")
    rules = tuple(_rule(number, table) for number, table in enumerate(value, 1))
    entries = 0
    for number, rule in enumerate(rules, 1):
        entries += len(_ranges(rule.src_port)) * len(_ranges(rule.dst_port))
        if entries > LARGEST:
            raise RuleError(
                f"rule {number}: too many rules: there is room for {LARGEST}, "
                "where each combination of a src-port and a dst-port in a list counts as one"
            )
    return rules


LARGEST = 512
"""Rules that the kernel's list has room for: RULES_MAX in ebpf/rules.h."""


def _rule(number: int, table: dict[str, object]) -> Rule:
    values: dict[str, Any] = {}
    for given, value in table.items():
        key = _SHORT.get(given, given)
        if key not in _KEYS:
            raise RuleError(f"rule {number}: unknown key {_shown(given)}; there are {', '.join(_KEYS)}")
        if _KEYS[key] in values:
            raise RuleError(f"rule {number}: {given}: it is the same as {key}, which is given too")
        try:
            values[_KEYS[key]] = _READ[key](value)
        except (ValueError, TypeError):
            takes = get_args(_TYPES[_KEYS[key]])[1].description
            raise RuleError(f"rule {number}: {given}: takes {takes}, not {_shown(value)}") from None
    needed = ["action"] if values.get("action") == FASTTRACK else ["action", "new-connection-mark"]
    for key in needed:
        if _KEYS[key] not in values:
            takes = get_args(_TYPES[_KEYS[key]])[1].description
            raise RuleError(f"rule {number}: {key}: is missing; it takes {takes}")
    rule = Rule(**values)
    if rule.action == FASTTRACK:
        if rule.new_connection_mark:
            raise RuleError(f"rule {number}: new-connection-mark: {FASTTRACK} gives none; make it a rule of its own")
        if rule.protocol not in (None, TCP, UDP):
            raise RuleError(f"rule {number}: protocol: {FASTTRACK} takes tcp and udp only")
    elif rule.connection_state:
        raise RuleError(f"rule {number}: connection-state: is for {FASTTRACK}; {MARK} asks the first packet only")
    for key, ports in (("src-port", rule.src_port), ("dst-port", rule.dst_port)):
        if ports and rule.protocol not in WITH_PORTS:
            names = ", ".join(PROTOCOLS[protocol] for protocol in WITH_PORTS)
            raise RuleError(f"rule {number}: {key}: needs a protocol that has ports: {names}")
    if rule.src_address and rule.dst_address and rule.src_address.version != rule.dst_address.version:
        raise RuleError(
            f"rule {number}: dst-address: {rule.dst_address} is IPv{rule.dst_address.version} "
            f"and src-address {rule.src_address} is not: no packet has both"
        )
    return rule


def _protocol(value: object) -> int:
    number = PROTOCOL_NUMBERS.get(value.lower() if isinstance(value, str) else str(_whole(value)))
    return _there(number)


def _address(value: object) -> Network:
    # strict=False: 10.0.0.1/8 is the prefix that 10.0.0.1 is in, as in filters.
    return ip_network(_text(value), strict=False)


def _ports(value: object) -> Ports:
    words = value.split(",") if isinstance(value, str) else [str(_whole(value))]
    ranges = []
    for word in words:
        found = _there(_PORTS.fullmatch(word.strip()))
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last <= 65535:
            raise ValueError(word)
        ranges.append((first, last))
    return tuple(ranges)


def _interface(value: object) -> str:
    return _there(_INTERFACE.fullmatch(_text(value)))[0]


def _states(value: object) -> tuple[str, ...]:
    states = tuple(word.strip() for word in _text(value).split(","))
    if not set(states) <= {ESTABLISHED, RELATED}:
        raise ValueError(value)
    return states


def _action(value: object) -> str:
    if value not in (MARK, FASTTRACK):
        raise ValueError(value)
    return str(value)


def mark_name(value: object) -> str:
    """A mark's name as it may stand in the configuration. Raises ValueError."""
    name = _text(value)
    if not 0 < len(name) <= LONGEST_MARK or not name.isprintable() or name != name.strip():
        raise ValueError(name)
    return name


_READ: dict[str, Callable[[object], Any]] = {
    "protocol": _protocol,
    "src-address": _address,
    "dst-address": _address,
    "src-port": _ports,
    "dst-port": _ports,
    "in-interface": _interface,
    "connection-state": _states,
    "action": _action,
    "new-connection-mark": mark_name,
}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(value)
    return value


def _there(value: T | None) -> T:
    if value is None:
        raise ValueError(value)
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _ranges(ports: Ports) -> Ports:
    return ports or ((0, 65535),)


def pack(
    rules: Iterable[Rule],
    layout: np.dtype[np.void],
    *,
    number: Callable[[str], int],
    indexes: Callable[[str], Sequence[int]],
) -> NDArray[np.void]:
    """The rules in the kernel's form, `layout` being that of `struct rule`. (entries,)

    number: of a mark's name. indexes: of the interfaces that a name means at the moment; a rule for an interface that
    is not there is left out. One rule becomes an entry for each combination of its ports and interfaces.
    Raises RuleError if there is no room for them all.
    """
    entries = [
        (rule, source, destination, ifindex)
        for rule in rules
        if rule.action == MARK
        for source in _ranges(rule.src_port)
        for destination in _ranges(rule.dst_port)
        for ifindex in ([None] if rule.in_interface is None else indexes(rule.in_interface))
    ]
    if len(entries) > LARGEST:
        raise RuleError(f"the rules take {len(entries)} places in the kernel's list, which has {LARGEST}")
    packed = np.zeros(len(entries), layout)
    for place, (rule, source, destination, ifindex) in zip(packed, entries, strict=True):
        network = rule.src_address or rule.dst_address
        if network is not None:
            place["family"], place["family_mask"] = network.version, 0xFF
        for name, prefix in (("src", rule.src_address), ("dst", rule.dst_address)):
            if prefix is not None:
                place[f"{name}_addr"] = _words(prefix.network_address.packed)
                place[f"{name}_mask"] = _words(prefix.netmask.packed)
        place["src_first"], place["src_last"] = source
        place["dst_first"], place["dst_last"] = destination
        if rule.protocol is not None:
            place["protocol"], place["protocol_mask"] = rule.protocol, 0xFF
        if ifindex is not None:
            place["ifindex"], place["ifindex_mask"] = ifindex, 0xFFFFFFFF
        place["mark"] = 0 if rule.new_connection_mark == NO_MARK else number(rule.new_connection_mark)
    return packed


def _words(address: bytes) -> NDArray[np.uint32]:
    """As in `struct tuple`: four words as on the wire, IPv4 in the first."""
    return np.frombuffer(address.ljust(16, b"\0"), np.uint32)
