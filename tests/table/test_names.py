"""The names in Python are those of ebpf/types.h."""

from __future__ import annotations

import re
from pathlib import Path

from ctweb.datapath.fasttrack import STAMP_SHIFT
from ctweb.table.names import END_CAUSES, FLAGS, TCP_STATES, UNTRACKED_REASONS, Status

TYPES = (Path(__file__).parents[2] / "ebpf" / "types.h").read_text()


def test_status_bits_are_those_of_the_datapath():
    bits = {name: 1 << int(bit) for name, bit in re.findall(r"STATUS_(\w+) = 1 << (\d+)", TYPES)}
    assert bits.pop("STAMP") == 1 << STAMP_SHIFT  # no flag: a number begins there
    assert bits == {status.name: status.value for status in Status if status}


def test_tcp_states_are_in_the_order_of_the_datapath():
    (body,) = re.findall(r"enum tcp_state \{(.*?)\}", TYPES, re.S)
    names = [name.removeprefix("TCP_").lower().replace("_", "-") for name in re.findall(r"\w+", body)]
    assert list(TCP_STATES) == names


def test_counters_are_those_of_the_datapath():
    (body,) = re.findall(r"enum counter \{(.*?)\tCOUNTERS", TYPES, re.S)
    names = [name.lower().replace("_", "-") for name in re.findall(r"^\tCOUNT_(\w+)", body, re.M)]
    assert tuple(names[names.index("untracked") + 1 :]) == UNTRACKED_REASONS
    assert tuple(names[names.index("expired") : names.index("merged") + 1]) == END_CAUSES


def test_flag_letters_are_in_routeros_order():
    assert " ".join(flag.letter for flag in FLAGS) == "E S A C D F H s d h"
