"""Every parser of what others wrote, fed by a fuzzer for a moment, and all that was ever found fed to it again."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reliability.parsers import PARSERS

TESTS = Path(__file__).parents[1]
CORPUS = Path(__file__).with_name("corpus")
SECONDS = 2

FOUND = {  # what once came through as another exception than the parser's own
    "state": [b'{"udp-\xf4imeout": "\x110s", "enabled": "yes"}'],
    "websocket": [b'{"\x8fype": "view"}'],
    "rest-query": [b"=\xf9F1"],
}


@pytest.mark.parametrize("name", PARSERS)
def test_what_is_kept_of_earlier_runs(name):
    kept = (CORPUS / f"{name}.base64").read_text().split()  # a line for each
    cases = [base64.b64decode(line) for line in kept] + [
        path.read_bytes() for path in sorted((CORPUS / name).iterdir())
    ]
    assert len(cases) > 40
    for data in cases + FOUND.get(name, []):
        PARSERS[name](data)


@pytest.mark.parametrize("name", PARSERS)
def test_a_moment_of_fuzzing(name, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "reliability.fuzz_parsers", name, str(SECONDS), tmp_path],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": f"{TESTS}:{TESTS.parent}"}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    tried = [line for line in ran.stderr.splitlines() if "number_of_executed_units" in line]
    assert int(tried[0].split(":")[-1]) > 50, ran.stderr
