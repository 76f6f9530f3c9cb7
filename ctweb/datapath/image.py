"""What the compiler makes of the datapath's source: maps and programs, ready to be loaded any number of times."""

from __future__ import annotations

import logging
import re
import struct
from pathlib import Path
from typing import Literal

import msgspec

log = logging.getLogger(__name__)

SOURCE = Path(__file__).resolve().parents[2] / "ebpf"
HEADERS = SOURCE / "headers"

_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)
_ENUM = re.compile(r"\benum\b\s*(?:(\w+)\s*)?\{([^}]*)\}")
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)

# struct bpf_insn of include/uapi/linux/bpf.h; an instruction that loads a map's address takes two.
INSTRUCTION = struct.Struct("=BBhi")


class BuildError(Exception):
    """The datapath cannot be compiled or loaded; the message says what is missing and what to do."""


class MapShape(msgspec.Struct, frozen=True):
    """A map as the source declares it. key, leaf: their types as BCC describes them, in JSON."""

    name: str
    type: int
    key_size: int
    leaf_size: int
    entries: int
    flags: int
    key: str
    leaf: str


class Code(msgspec.Struct, frozen=True):
    """A program. maps: which map's descriptor goes into which instruction, by index."""

    name: str
    kind: Literal["tc", "xdp"]
    instructions: bytes
    maps: dict[int, str]

    def linked(self, descriptors: dict[str, int]) -> bytes:
        """The instructions with the descriptors of these maps in their places."""
        linked = bytearray(self.instructions)
        for index, name in self.maps.items():
            struct.pack_into("=i", linked, index * INSTRUCTION.size + 4, descriptors[name])
        return bytes(linked)


class Image(msgspec.Struct, frozen=True):
    """The compiled datapath. enums: constants of the source by enum, those of enums without a name under ''."""

    maps: list[MapShape]
    programs: list[Code]
    enums: dict[str, dict[str, int]]
    licence: str


def read_source() -> str:
    """The datapath's source as one text: BCC rewrites map accesses only in the file that it is given."""

    def expand(path: Path) -> str:
        text = _INCLUDE.sub(lambda found: expand(SOURCE / found[1]), path.read_text())
        return f'#line 1 "{path.name}"\n{text}'

    return expand(SOURCE / "ctweb.bpf.c")


def read_enums(text: str) -> dict[str, dict[str, int]]:
    """Every enum of a C text by its name, each a mapping of constant to value. Enums without a name share ''.

    Values may be left out or be integers, other constants, and shifts of them. Raises ValueError for others.
    """
    enums: dict[str, dict[str, int]] = {}
    known: dict[str, int] = {}

    def value_of(expression: str) -> int:
        left, _, right = expression.partition("<<")
        if right:
            return value_of(left) << value_of(right)
        word = expression.strip()
        return known[word] if word in known else int(word, 0)

    for found in _ENUM.finditer(_COMMENT.sub(" ", text)):
        value = -1
        for entry in found[2].split(","):
            if not entry.strip():
                continue
            name, _, expression = entry.partition("=")
            value = value_of(expression) if expression else value + 1
            known[name.strip()] = value
            enums.setdefault(found[1] or "", {})[name.strip()] = value
    return enums


def last_words(said: str, otherwise: str) -> str:
    """The first error of the compiler, or the verifier's last line; everything goes to the log."""
    log.debug("%s", said)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    return errors[0] if errors else next((line for line in reversed(lines) if "processed" not in line), otherwise)
