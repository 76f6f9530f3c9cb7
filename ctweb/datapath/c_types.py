"""The types of keys and values, from BCC's description of them."""

from __future__ import annotations

import ctypes
import json
from typing import Any

_NUMBERS: dict[str, Any] = {
    "_Bool": ctypes.c_bool,
    "char": ctypes.c_char,
    "signed char": ctypes.c_int8,
    "unsigned char": ctypes.c_uint8,
    "short": ctypes.c_int16,
    "unsigned short": ctypes.c_uint16,
    "int": ctypes.c_int32,
    "unsigned int": ctypes.c_uint32,
    "long": ctypes.c_long,
    "unsigned long": ctypes.c_ulong,
    "long long": ctypes.c_int64,
    "unsigned long long": ctypes.c_uint64,
}


def type_of(description: str) -> Any:
    """The ctypes type that BCC's JSON means: a number, or a struct of such. Raises ValueError for anything else."""
    return _decoded(json.loads(description))


def _decoded(described: Any) -> Any:
    """A number's name, or [name, members, kind] of a struct."""
    match described:
        case str() if described in _NUMBERS:
            return _NUMBERS[described]
        case [str(name), [*members], "struct" | "struct_packed" as kind]:
            packed = {"_pack_": 1} if kind == "struct_packed" else {}
            return type(name, (ctypes.Structure,), packed | {"_fields_": [_member(each) for each in members]})
    raise ValueError(f"BCC describes a type that is not known here (c_types.py): {described}")


def _member(described: Any) -> tuple[str, Any]:
    """[name, type], or [name, type, [length]] of an array."""
    match described:
        case [str(name), kind]:
            return name, _decoded(kind)
        case [str(name), kind, [int(length)]]:
            return name, _decoded(kind) * length
    raise ValueError(f"BCC describes a type's member that is not known here (c_types.py): {described}")
