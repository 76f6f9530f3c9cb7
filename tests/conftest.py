"""Fixtures that tests of several folders share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from running import Ctweb, new_namespace, runner

# A property that takes long on a busy machine still holds.
settings.register_profile("ctweb", deadline=None)
settings.load_profile("ctweb")


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace of the test's own, which it is in."""
    with new_namespace() as name:
        yield name


@pytest.fixture
def run(namespace: str, tmp_path: Path) -> Iterator[Callable[..., Ctweb]]:
    """Start `ctweb run` in the namespace."""
    with runner(tmp_path / "state") as start:
        yield start


@pytest.fixture(scope="module")
def ctweb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ctweb]:
    """A `ctweb run` that is ready, for all tests of a module; they are in its namespace."""
    with new_namespace(), runner(tmp_path_factory.mktemp("run") / "state") as start:
        yield start().ready()
