from __future__ import annotations

import ctypes
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ctweb.capture import Capture, open_source
from ctweb.datapath.build import BuildOptions, compile_datapath
from ctweb.datapath.ended import EndedLog
from ctweb.replay import Replayed, play, put_rules, remarks, selected, write_json
from ctweb.rules import parse_rules
from ctweb.settings import Tracking, parse_changes
from ctweb.table.filter_language import parse
from ctweb.table.marks import MarkNames


@dataclass(frozen=True)
class Outcome:
    """What a replay showed: the rows, the live ones first, and the remarks."""

    rows: list[dict[str, str]]
    remarks: list[str]
    played: Replayed

    def row(self, **properties: str) -> dict[str, str]:
        """The one row with these properties (`_` for `-`)."""
        wanted = {name.replace("_", "-"): value for name, value in properties.items()}
        found = [row for row in self.rows if wanted.items() <= row.items()]
        assert len(found) == 1, f"{len(found)} rows have {wanted}: {self.rows}"
        return found[0]


@pytest.fixture(scope="session")
def compiled():
    made = compile_datapath(BuildOptions(max_entries=2000, replay=True))
    yield made
    made.close()


@pytest.fixture
def replayed(compiled, tmp_path: Path):
    """Replay the bytes of a capture with these settings and rules."""

    def replay_of(
        capture: bytes, *, ended: bool = False, where: str = "", rules: Sequence[object] = (), **changes: str
    ) -> Outcome:
        compiled.connections.clear()
        shared = compiled.shared  # how many connections there are, and the ring of new ones
        shared[shared.Key(0)] = shared.Leaf()
        of_cpus = compiled.counters[compiled.counters.Key(0)]
        ctypes.memset(of_cpus, 0, ctypes.sizeof(of_cpus))
        compiled.counters[compiled.counters.Key(0)] = of_cpus
        changes = {name.replace("_", "-"): value for name, value in changes.items()}
        compiled.apply(parse_changes(Tracking(), changes))
        marks = MarkNames()
        put_rules(parse_rules(list(rules)), compiled, marks)
        path = tmp_path / "capture"
        path.write_bytes(capture)
        log = EndedLog()
        out = io.StringIO()
        with open_source(str(path)) as source:
            played = play(Capture(source), compiled, log, marks)
        write_json(selected(played, log if ended else None, parse(where)), out)
        outcome = Outcome(json.loads(out.getvalue()), list(remarks(played, log)), played)
        log.close()
        return outcome

    return replay_of
