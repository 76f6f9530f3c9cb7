from __future__ import annotations

import pytest
from table import Table

from ctweb.datapath.build import BuildOptions, compile_datapath
from ctweb.settings import Tracking


@pytest.fixture(scope="session")
def replaying():
    """The programs on the clock of their frames, compiled once."""
    made = compile_datapath(BuildOptions(max_entries=10_000, replay=True))
    yield made
    made.close()


@pytest.fixture
def table(replaying) -> Table:
    """An empty table on a clock of its own, with the default settings."""
    replaying.apply(Tracking())
    made = Table(replaying)
    made.clear()
    return made
