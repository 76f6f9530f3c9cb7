"""BCC's compiler runs in a process of its own; what it tells of types and errors arrives as it was meant."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from bcc import BPF

from ctweb.datapath.build import BuildError, BuildOptions, compile_datapath
from ctweb.datapath.c_types import type_of
from ctweb.datapath.compiler import compile_image

LOADED = """
from pathlib import Path
from ctweb.datapath.build import BuildOptions, compile_datapath
datapath = compile_datapath(BuildOptions(1000))
datapath.programs["tc_ingress"]
print(*{line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line})
"""


def test_the_process_that_loads_has_no_compiler_in_it(tmp_path):
    """Neither where it has to be compiled first nor where it is there already."""
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", LOADED], env=os.environ | {"CACHE_DIRECTORY": str(tmp_path / "compiled")},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "libbcc_bpf" in done.stdout
        for library in ("LLVM", "clang", "libbcc.so"):
            assert library not in done.stdout


def test_keys_and_values_have_the_types_that_bcc_would_give_them():
    datapath = compile_datapath(BuildOptions(1000))
    for each in datapath.maps:
        for description in (each.shape.key, each.shape.leaf):
            ours, theirs = type_of(description), BPF._decode_table_type(json.loads(description))
            assert np.dtype(ours) == np.dtype(theirs)
            assert ctypes.sizeof(ours) == ctypes.sizeof(theirs)
    datapath.close()


@pytest.mark.parametrize(
    "described", ['"float"', '["u", [["a", "int"]], "union"]', '["s", [["bits", "int", 3]], "struct"]', "[]"]
)
def test_a_type_that_is_not_known_is_said(described):
    with pytest.raises(ValueError, match="BCC describes a type"):
        type_of(described)


def test_the_compilers_first_error_is_the_reason(capfd):
    with pytest.raises(BuildError, match=r"does not compile: .*use of undeclared identifier 'nowhere'"):
        compile_image("int run(struct __sk_buff *skb) { return nowhere; }", [])
    assert capfd.readouterr() == ("", "")


def test_a_compiler_that_does_not_start_is_said(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python3")
    with pytest.raises(BuildError, match=r"compiler's process does not start: .*/nowhere/python3"):
        compile_image("int run(struct __sk_buff *skb) { return 7; }", [])


def test_what_stands_in_the_directory_is_not_what_it_runs(tmp_path, monkeypatch):
    """Neither where the command is given nor what PYTHONPATH says has a say in what root runs."""
    (tmp_path / "bcc.py").write_text("raise SystemExit('taken from here')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    image = compile_image("int run(struct __sk_buff *skb) { return 7; }", [])
    assert [code.name for code in image.programs] == ["run"]
