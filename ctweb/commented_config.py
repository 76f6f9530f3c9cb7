"""The configuration file that an installation begins with: every key, commented out, at its default.

A line `# text` explains; a line `#key = value` is there to be uncommented.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from ctweb.capacity import default_max_entries, machine_memory
from ctweb.config import Config, Listen
from ctweb.settings import SETTINGS, Tracking, format_time

_HEAD = """\
# The configuration of ctweb, TOML. Every key stands here with its default: remove the # before a key to set it.
# `ctweb run --check-config` says whether the file is good, `systemctl reload ctweb` puts it into force.
"""
_RULE = """\
#[[rule]]
#protocol = "udp"
#dst-port = "5060"
#action = "mark-connection"
#new-connection-mark = "voip"
"""


def commented() -> str:
    """The text of the file. Keys stand in the order of Config, tables after them: TOML wants it so."""
    fields = msgspec.structs.fields(Config)
    plain = [field for field in fields if not _is_table(field)]
    tables = [field for field in fields if _is_table(field)]
    return _HEAD + "".join(_key(field) for field in plain) + "".join(_table(field) for field in tables)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return getattr(Config(), field.name)


def _is_table(field: msgspec.structs.FieldInfo) -> bool:
    return field.name == "rule" or isinstance(_default(field), msgspec.Struct | dict)


def _takes(kind: Any, name: str) -> str:
    description: str = get_args(get_type_hints(kind, include_extras=True)[name])[1].description
    return description


def _explained(text: str) -> str:
    return "\n" + textwrap.fill(text, 110, initial_indent="# ", subsequent_indent="# ") + "\n"


def _key(field: msgspec.structs.FieldInfo) -> str:
    value = _default(field)
    if field.name == "max_entries":
        value = default_max_entries(machine_memory())
    elif field.name == "auto_timeout":
        value = format_time(value)
    return _explained(_takes(Config, field.name)) + f"#{field.encode_name} = {_toml(value)}\n"


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        value = list(value)
    elif isinstance(value, Listen | Path):
        value = str(value)
    return json.dumps(value)  # TOML writes strings, numbers, booleans and lists of them in the same way


def _table(field: msgspec.structs.FieldInfo) -> str:
    text = _explained(_takes(Config, field.name))
    if field.name == "rule":
        return text + _RULE
    return text + f"#[{field.encode_name}]\n" + "".join(_lines(_default(field)))


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, Tracking):
        for setting in SETTINGS.values():
            yield f"# {setting.doc}: {setting.takes}\n#{setting.name} = {_toml(setting.default)}\n"
    elif isinstance(value, msgspec.Struct):
        for field in msgspec.structs.fields(type(value)):
            yield f"# {_takes(type(value), field.name)}\n#{field.encode_name} = {_toml(getattr(value, field.name))}\n"


if __name__ == "__main__":
    print(commented(), end="")
