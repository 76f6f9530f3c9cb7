"""The datapath for tests of the maps."""

from __future__ import annotations

import pytest
from entries import loaded, reset


@pytest.fixture(scope="package", params=[True, False], ids=["whole", "growing"])
def compiled(request):
    with loaded(whole=request.param) as made:
        yield made


@pytest.fixture
def datapath(compiled):
    reset(compiled)
    return compiled
