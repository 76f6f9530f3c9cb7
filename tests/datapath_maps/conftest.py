"""The datapath for tests of the maps."""

from __future__ import annotations

import pytest

from ctweb.datapath.build import BuildOptions, compile_datapath
from ctweb.settings import Tracking


@pytest.fixture
def datapath():
    """The real programs and an empty table; nothing is attached."""
    made = compile_datapath(BuildOptions(max_entries=300_000))
    made.apply(Tracking())
    yield made
    made.close()
