"""What the compiler makes of the datapath's source: maps and programs, ready to be loaded any number of times."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from ctweb.datapath.footprint import give_back_compiler

log = logging.getLogger(__name__)

SOURCE = Path(__file__).resolve().parents[2] / "ebpf"
HEADERS = SOURCE / "headers"

_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)
_ENUM = re.compile(r"\benum\b\s*(?:(\w+)\s*)?\{([^}]*)\}")
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)

# struct bpf_insn of include/uapi/linux/bpf.h; an instruction that loads a map's address takes two.
_INSTRUCTION = struct.Struct("=BBhi")
_LOAD_DOUBLE_WORD, _PSEUDO_MAP_FD = 0x18, 1


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
            struct.pack_into("=i", linked, index * _INSTRUCTION.size + 4, descriptors[name])
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


def bcc_version() -> str:
    """Raises BuildError where BCC, the distribution's module, is not: the rest of ctweb runs without it."""
    try:
        import bcc  # noqa: PLC0415
    except ImportError:
        raise BuildError(
            "BCC is not there: install python3-bpfcc and run with the distribution's own Python (make setup does both)"
        ) from None
    return str(bcc.__version__)


def compile_image(text: str, flags: list[str]) -> Image:
    """Compile the source with BCC: some seconds of one CPU, nearly all of it LLVM's. Raises BuildError."""
    from bcc import BPF  # noqa: PLC0415

    os.environ["BCC_KERNEL_SOURCE"] = str(HEADERS)
    with captured_stderr() as said:
        try:
            module = BPF(text=text.encode(), cflags=flags)
        except Exception as error:  # BCC raises nothing more particular
            raise BuildError(f"the datapath does not compile: {last_words(said(), str(error))}") from error
    try:
        return _image_of(module, text)
    finally:
        module.cleanup()
        give_back_compiler()


def _image_of(module: Any, text: str) -> Image:
    from bcc.libbcc import lib  # noqa: PLC0415

    lib.bpf_table_name.restype = ctypes.c_char_p
    lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    for function in (lib.bpf_table_key_size_id, lib.bpf_table_leaf_size_id):
        function.restype = ctypes.c_size_t
        function.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    handle = module.module
    names = [lib.bpf_table_name(handle, number) for number in range(lib.bpf_num_tables(ctypes.c_void_p(handle)))]
    maps = [
        MapShape(
            name=name.decode(),
            type=lib.bpf_table_type_id(handle, number),
            key_size=lib.bpf_table_key_size_id(handle, number),
            leaf_size=lib.bpf_table_leaf_size_id(handle, number),
            entries=lib.bpf_table_max_entries_id(handle, number),
            flags=lib.bpf_table_flags_id(handle, number),
            key=lib.bpf_table_key_desc(handle, name).decode(),
            leaf=lib.bpf_table_leaf_desc(handle, name).decode(),
        )
        for number, name in enumerate(names)
    ]
    by_descriptor = {lib.bpf_table_fd(handle, name): name.decode() for name in names}
    programs = []
    for number in range(lib.bpf_num_functions(handle)):
        name = lib.bpf_function_name(handle, number)
        start, size = lib.bpf_function_start(handle, name), lib.bpf_function_size(handle, name)
        code = ctypes.string_at(start, size)
        kind: Literal["tc", "xdp"] = "xdp" if name.startswith(b"xdp") else "tc"
        programs.append(Code(name.decode(), kind, code, dict(_map_places(code, by_descriptor))))
    return Image(maps, programs, read_enums(text), lib.bpf_module_license(handle).decode())


def _map_places(code: bytes, by_descriptor: dict[int, str]) -> Iterator[tuple[int, str]]:
    """Which instructions hold a map's descriptor, and which map that is."""
    second = False
    for index, (opcode, registers, _, immediate) in enumerate(_INSTRUCTION.iter_unpack(code)):
        if opcode == _LOAD_DOUBLE_WORD and not second:
            # Two registers of four bits; on big-endian machines the source is the lower half.
            source = registers >> 4 if sys.byteorder == "little" else registers & 15
            if source == _PSEUDO_MAP_FD:
                yield index, by_descriptor[immediate]
            second = True
        else:
            second = False


def last_words(said: str, otherwise: str) -> str:
    """The first error of the compiler, or the verifier's last line; everything goes to the log."""
    log.debug("%s", said)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    return errors[0] if errors else next((line for line in reversed(lines) if "processed" not in line), otherwise)


@contextmanager
def captured_stderr() -> Iterator[Any]:
    """BCC writes its messages to descriptor 2: take them from there. Gives a function that reads what came so far."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield lambda: _tail(sink.fileno())
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _tail(descriptor: int, size: int = 1 << 20) -> str:
    return os.pread(descriptor, size, max(0, os.fstat(descriptor).st_size - size)).decode(errors="replace")


def type_of(description: str) -> Any:
    """The ctypes type that BCC's description of a key or leaf means."""
    from bcc import BPF  # noqa: PLC0415

    return BPF._decode_table_type(json.loads(description))
