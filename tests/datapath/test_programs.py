"""Programs as they are loaded: several at once, and what the kernel says against one."""

from __future__ import annotations

from pathlib import Path

import pytest

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
