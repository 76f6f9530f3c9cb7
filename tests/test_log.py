"""The log: one line an event, for people and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FAILING = """
try:
    raise ValueError("bad")
except ValueError:
    log.exception("a request failed")
"""


def said(as_json: bool, code: str):
    """The one line that a program says whose logging is set up."""
    program = f"import logging; from ctweb.log import set_up; set_up(as_json={as_json}); log = logging.getLogger('x')"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\n{code}"], capture_output=True, text=True, timeout=60, check=True
    )
    (line,) = done.stderr.splitlines()
    return json.loads(line) if as_json else line


def test_an_event_is_one_line_whatever_is_in_it():
    event = r'log.warning("a mark %r and\nmore \x1b[2J", "voip")'
    assert said(False, event).endswith("warning: a mark 'voip' and more \\x1b[2J")
    line = said(True, event)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "logger": "x", "message": "a mark 'voip' and\nmore \x1b[2J"}


@pytest.mark.parametrize("as_json", [False, True])
def test_an_error_is_its_last_place(as_json):
    line = said(as_json, FAILING)
    assert "ValueError: bad at <string>:" in (line["error"] if as_json else line)


def test_a_run_logs_json_lines_if_told_so(run):
    ctweb = run("--log-json").ready()
    assert ctweb.end() == 0
    lines = [json.loads(line) for line in ctweb.log.read_text().splitlines()]
    assert any("open http" in line["message"] for line in lines)
    assert {line["level"] for line in lines} <= {"info", "warning"}
