"""BCC's compiler, in a process of its own: what it takes, some 150 MB, goes with it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from ctweb.datapath.image import HEADERS, INSTRUCTION, BuildError, Code, Image, MapShape, last_words, read_enums

_LOAD_DOUBLE_WORD, _PSEUDO_MAP_FD = 0x18, 1

# -I: nothing comes from where the command happens to be given, or from its environment.
_COMMAND = ("-I", "-c", "import sys; sys.path[:] = sys.argv[1:]; from ctweb.datapath.compiler import main; main()")


def compile_image(text: str, flags: list[str]) -> Image:
    """Compile the source with BCC: some seconds of one CPU, nearly all of it LLVM's. Raises BuildError."""
    try:
        done = subprocess.run(
            [sys.executable, *_COMMAND, *sys.path],
            input=msgspec.msgpack.encode((text, flags)), capture_output=True, check=False, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise BuildError(f"the compiler's process does not start: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace")
        if "Cannot select" in said:
            raise BuildError("the datapath does not compile: BCC's compiler is older than LLVM 12 and knows no atomic "
                             "operations; Debian 12 and Ubuntu 24.04, and newer ones, have one that does")
        raise BuildError(f"the datapath does not compile: {last_words(said, f'BCC ended with {done.returncode}')}")
    return msgspec.msgpack.decode(done.stdout, type=Image)


def main() -> None:
    """The process: source and flags from standard input, the image to standard output."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as its parent, which stops once it has the image
    text, flags = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=tuple[str, list[str]])
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever BCC prints is no part of the image
    try:
        image = _compile(text, flags)
    except Exception as error:  # BCC raises nothing more particular
        sys.exit(f"{type(error).__name__}: {error}")
    with answer:
        answer.write(msgspec.msgpack.encode(image))


def _compile(text: str, flags: list[str]) -> Image:
    from bcc import BPF  # noqa: PLC0415

    os.environ["BCC_KERNEL_SOURCE"] = str(HEADERS)
    return _image_of(BPF(text=text.encode(), cflags=flags), text)


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
    for index, (opcode, registers, _, immediate) in enumerate(INSTRUCTION.iter_unpack(code)):
        if opcode == _LOAD_DOUBLE_WORD and not second:
            # Two registers of four bits; on big-endian machines the source is the lower half.
            source = registers >> 4 if sys.byteorder == "little" else registers & 15
            if source == _PSEUDO_MAP_FD:
                yield index, by_descriptor[immediate]
            second = True
        else:
            second = False
