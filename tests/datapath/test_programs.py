"""Programs as they are loaded: several at once, and what the kernel says against one."""

from __future__ import annotations

import ctypes
import struct
from contextlib import closing
from pathlib import Path

import pytest

from ctweb.datapath.bpf import bpf
from ctweb.datapath.build import BuildOptions, compile_datapath
from ctweb.datapath.image import INSTRUCTION, BuildError, Code, Image
from ctweb.datapath.programs import Programs

_EXIT, _MOVE = 0x95, 0xB7


def code(name: str, *, returns: bool) -> Code:
    """A program that gives back 0, or, which no kernel takes, what is in the register by chance."""
    move = INSTRUCTION.pack(_MOVE, 0, 0, 0) if returns else b""
    return Code(name, "tc", move + INSTRUCTION.pack(_EXIT, 0, 0, 0), {})


def test_what_the_kernel_says_against_a_program_is_told_and_the_others_are_there(capfd):
    names = [f"good{number}" for number in range(5)]
    image = Image([], [code("bad", returns=False), *(code(name, returns=True) for name in names)], {}, "GPL")
    programs = Programs(image, {})
    with pytest.raises(BuildError, match=r"^the kernel does not take bad: R0 !read_ok$"):
        programs.load_all({"tc"})
    assert capfd.readouterr().err == ""  # it is told once
    descriptors = [programs[name] for name in names]
    told = [Path(f"/proc/self/fdinfo/{descriptor}").read_text() for descriptor in descriptors]
    assert len({text.partition("prog_id:")[2].split()[0] for text in told}) == len(names)
    programs.close()


MOST_WALKED = 1_000_000  # BPF_COMPLEXITY_LIMIT_INSNS: a program for which the verifier must walk more is not taken
LARGE = 1_000_000


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "growing"])
def test_the_verifier_has_a_quarter_left_of_what_it_walks_at_most(whole):
    """Other compilers and kernels need more for the same program."""
    options = BuildOptions(1 if whole else LARGE, preallocate=whole)  # growing, its size says which kind of chunks
    with closing(compile_datapath(options)) as datapath:
        walked = {name: instructions_walked(datapath.programs[name]) for name in datapath.programs}
    assert walked["tc_ingress"] > 1_000
    assert max(walked.values()) < MOST_WALKED * 3 // 4, walked


def instructions_walked(program: int) -> int:
    """`verified_insns` of struct bpf_prog_info (include/uapi/linux/bpf.h)."""
    info = ctypes.create_string_buffer(232)
    bpf(15, struct.pack("=2IQ", program, len(info), ctypes.addressof(info)))  # BPF_OBJ_GET_INFO_BY_FD
    return int(struct.unpack_from("=I", info, 216)[0])
