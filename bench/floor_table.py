"""The floor program over the table of a loaded datapath, beside the one over a map of its own (floor.bpf.c)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctweb.datapath.build import Datapath, compile_flags
from ctweb.datapath.compiler import compile_image
from ctweb.datapath.image import read_source
from ctweb.datapath.programs import Programs

NAME = "the floor program over ctweb's own table"
FLOOR, WITH_WINDOW = "tc_floor_table", "tc_floor_window"


@contextmanager
def floor_over(datapath: Datapath) -> Iterator[Programs]:
    """FLOOR and WITH_WINDOW. They count on the same entries as the datapath's programs. Raises BuildError."""
    text = read_source() + Path(__file__).with_name("floor_table.bpf.c").read_text()
    image = compile_image(text, compile_flags(datapath.options))
    programs = Programs(image, {each.shape.name: each for each in datapath.maps})
    try:
        yield programs
    finally:
        programs.close()
