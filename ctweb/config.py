"""The configuration file: TOML, typed, and strict about every key and value.

`Config` is the one list of keys: its fields carry name, type, default and what they take.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

from ctweb.capacity import Preallocate
from ctweb.privileges import HOW_TO_LET_READ
from ctweb.rules import Rule, RuleError, parse_rules
from ctweb.settings import LONGEST, MINUTE, SECOND, SettingError, Tracking, parse_changes, parse_time

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT = Path("/etc/ctweb/ctweb.toml")
LARGEST_FILE = 1 << 20  # bytes

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.(?!-)[A-Za-z0-9-]{1,63})*")
_PORT = re.compile(r"[0-9]{1,5}")


class ConfigError(Exception):
    """What is wrong with the configuration, in one line: file, key, value and what it takes."""


@dataclass(frozen=True)
class Listen:
    """Where to serve: an address or host name, and a port (0: any that is free)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Listen:
        """`127.0.0.1:8291`, `[::1]:8291` or `name:8291`. Raises ValueError."""
        host, colon, port = text.rpartition(":")
        if colon and _PORT.fullmatch(port) and int(port) < 65536:
            if host.startswith("[") and host.endswith("]"):
                return cls(str(ip_address(host[1:-1])), int(port))
            if _is_host(host):
                return cls(host, int(port))
        raise ValueError(f"{text!r} is not HOST:PORT")


def _is_host(text: str) -> bool:
    """A host name, or an IPv4 address: what looks like an address must be one."""
    if text.replace(".", "").isdecimal():
        try:
            return ip_address(text).version == 4
        except ValueError:
            return False
    return len(text) <= 253 and _HOST_NAME.fullmatch(text) is not None


_InterfaceName = Annotated[str, Meta(pattern=r"^(?!\.{1,2}\Z)[^\s/:]{1,15}\Z")]


_MarkName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+\Z")]


class Metrics(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """What /metrics shows beside the counters."""

    top_hosts: Annotated[
        int, Meta(ge=0, le=100, description="how many of the busiest source hosts /metrics names, 0 to 100")
    ] = 0


_File = Annotated[str, Meta(pattern=r"^(/[^\x00]*)?\Z")]


class Tls(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """HTTPS, once both files are given."""

    certificate: Annotated[
        _File, Meta(description="the path of a PEM file with the certificate, and those between it and the root's")
    ] = ""
    key: Annotated[_File, Meta(description="the path of a PEM file with its private key, without a passphrase")] = ""

    def __bool__(self) -> bool:
        return bool(self.certificate)


class Config(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The configuration in force. Each description says what the key takes."""

    interfaces: Annotated[
        tuple[_InterfaceName, ...],
        Meta(description='a list of interface names such as ["eth0", "eth1"]; empty: the machine\'s own'),
    ] = ()
    listen: Annotated[
        Listen, Meta(description="HOST:PORT such as 127.0.0.1:8291 or [::1]:8291")
    ] = Listen("127.0.0.1", 8291)
    state_dir: Annotated[Path, Meta(description="an absolute path")] = Path("/var/lib/ctweb")
    hook: Annotated[Literal["auto", "xdp", "tc"], Meta(description="auto, xdp or tc")] = "auto"
    max_entries: Annotated[
        Annotated[int, Meta(ge=1, le=1 << 24)] | None,
        Meta(description="a whole number from 1 to 16777216; without it, as many as suit the machine's RAM"),
    ] = None
    preallocate: Annotated[
        Preallocate,
        Meta(description="auto, yes or no: whether the table's memory is taken at the start, or as connections come"),
    ] = "auto"
    metrics: Annotated[Metrics, Meta(description="a table with top-hosts, 0 to 100")] = Metrics()
    tls: Annotated[
        Tls, Meta(description="a table with certificate and key, the absolute paths of two PEM files, for HTTPS")
    ] = Tls()
    auto_timeout: Annotated[
        int, Meta(description='a time from 1s to 7w such as "15m"')
    ] = 15 * MINUTE
    rule: Annotated[
        tuple[Rule, ...], Meta(description="tables, each under a line [[rule]]")
    ] = ()
    marks: Annotated[
        dict[_MarkName, Annotated[int, Meta(ge=1, lt=1 << 32)]],
        Meta(description="a table of mark names with nf_conntrack's numbers, 1 to 4294967295, such as voip = 0x10"),
    ] = msgspec.field(default_factory=dict)
    tracking: Annotated[
        Tracking, Meta(description="a table of tracking settings such as udp-timeout = \"10s\"")
    ] = Tracking()


_KEYS = {f.encode_name: f.name for f in msgspec.structs.fields(Config)}
_TYPES = get_type_hints(Config, include_extras=True)


class ConfigFile:
    """The configuration in `path`; None: the default file, which need not exist.

    What was read stays open, for a process that may not open the file again once it has given up root.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = DEFAULT if path is None else path
        self._needed = path is not None
        self._descriptor = -1

    def load(self) -> Config:
        """Read it, as it is now. Raises ConfigError."""
        try:
            text = self._read()
        except FileNotFoundError:
            if not self._needed:
                return Config()
            raise ConfigError(f"{self.path}: there is no such file") from None
        except (OSError, ValueError) as error:
            why = str(error.strerror if isinstance(error, OSError) else error)
            if isinstance(error, PermissionError) and self._descriptor >= 0:  # it could be, by root
                why += f"; {HOW_TO_LET_READ}"
            raise ConfigError(f"{self.path}: cannot be read: {why}") from None
        if len(text) > LARGEST_FILE:
            raise ConfigError(f"{self.path}: larger than {LARGEST_FILE} bytes, which is no configuration")
        return parse(text, str(self.path))

    def _read(self) -> bytes:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError:
            # The one that is open has no name any more: another was put in its place.
            if self._descriptor < 0 or not os.fstat(self._descriptor).st_nlink:
                raise
        else:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = descriptor
        with os.fdopen(os.dup(self._descriptor), "rb") as opened:
            if opened.seekable():
                opened.seek(0)
            return opened.read(LARGEST_FILE + 1)


def load(path: Path | None) -> Config:
    """The configuration in `path`, as ConfigFile reads it. Raises ConfigError."""
    return ConfigFile(path).load()


def parse(text: bytes, file: str) -> Config:
    """The configuration written in `text`; `file` is what error messages call it. Raises ConfigError."""
    try:
        document = tomllib.loads(text.decode())
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}: line {line} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not TOML: {_one_line(str(error))}") from None
    except (RecursionError, ValueError):  # nesting or numbers beyond what Python reads
        raise ConfigError(f"{file}: not TOML that can be read: nested too deep, or a number too long") from None
    values = {}
    for key, value in document.items():
        if key not in _KEYS:
            raise ConfigError(f"{file}: unknown key {_shown(key)}; there are {', '.join(_KEYS)}")
        values[_KEYS[key]] = _value(file, key, value)
    return Config(**values)


def _value(file: str, key: str, value: object) -> Any:
    kind, takes = get_args(_TYPES[_KEYS[key]])
    if kind is Tracking and isinstance(value, dict):
        return _tracking(file, value)
    if key == "rule":
        try:
            return parse_rules(value)
        except RuleError as error:
            raise ConfigError(f"{file}: {error}") from None
    try:
        if kind is Listen:
            return Listen.parse(msgspec.convert(value, str))
        if key == "auto-timeout":
            return _time(value)
        if kind is Path:
            return _absolute(msgspec.convert(value, str))
        converted = msgspec.convert(value, kind)
    except (msgspec.ValidationError, ValueError):
        raise ConfigError(f"{file}: {key} takes {takes.description}, not {_shown(value)}") from None
    if isinstance(converted, Tls) and bool(converted.certificate) != bool(converted.key):
        raise ConfigError(f"{file}: {key} takes {takes.description}: one of them is missing")
    if key == "marks":
        names: dict[int, str] = {}
        for name, number in converted.items():
            if names.setdefault(number, name) != name:
                raise ConfigError(f"{file}: marks: {_shown(names[number])} and {_shown(name)} are both {number}")
    return converted


def _absolute(text: str) -> Path:
    if not text.startswith("/") or "\0" in text:
        raise ValueError(text)
    return Path(text)


def _time(value: object) -> int:
    """Milliseconds of a time value, or of whole seconds."""
    ms = parse_time(str(msgspec.convert(value, str | int)))
    if not SECOND <= ms <= LONGEST:
        raise ValueError(value)
    return ms


def _tracking(file: str, table: dict[str, object]) -> Tracking:
    """[tracking]: values are strings as in RouterOS, or TOML's own true, false and whole seconds."""
    changes = {}
    for name, value in table.items():
        if isinstance(value, bool):
            changes[name] = "yes" if value else "no"
        elif isinstance(value, (str, int)):
            changes[name] = str(value)
        else:
            raise ConfigError(f"{file}: [tracking] {_shown(name)} takes a string, not {_shown(value)}")
    try:
        return parse_changes(Tracking(), changes)
    except SettingError as error:
        raise ConfigError(f"{file}: [tracking] {error}") from None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:197] + "..."
