"""Fixtures that tests of several folders share."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from running import Ctweb, new_namespace, runner
from shares import Shares, place

# A property that takes long on a busy machine still holds.
settings.register_profile("ctweb", deadline=None)
settings.load_profile("ctweb")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)  # after pytest has put together what shares a fixture
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: place(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Shares:
    return Shares(config, log)


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


@pytest.fixture(scope="session")
def bpffs() -> Path:
    """The BPF file system, mounted as systemd has it on every machine."""
    place = Path("/sys/fs/bpf")
    if not os.path.ismount(place):
        subprocess.run(["mount", "-t", "bpf", "bpf", place], check=True)
    return place


@pytest.fixture(scope="module")
def ctweb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ctweb]:
    """A `ctweb run` that is ready, for all tests of a module; they are in its namespace."""
    with new_namespace(), runner(tmp_path_factory.mktemp("run") / "state") as start:
        yield start().ready()
