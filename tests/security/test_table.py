"""The table of attacks in docs/security.md names tests that are there, and every attack's test is in it."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
TABLE = (HERE.parents[1] / "docs" / "security.md").read_text().split("## Attacks")[1]


def test_every_test_that_is_named_is_there_and_no_attack_is_missing():
    named = set(re.findall(r"`(test_\w+)`", TABLE))
    tests = {path.name: set(re.findall(r"^def (test_\w+)", path.read_text(), re.M)) for path in HERE.glob("test_*.py")}
    assert named - set().union(*tests.values()) == set()
    attacks = tests["test_attacks.py"] | tests["test_floods.py"] | tests["test_slow_clients.py"]
    assert attacks - named == {"test_reader_may_look_at_everything", "test_a_whole_url_that_names_us_is_served"}
