"""One network with both tables for each hook. Every test has addresses of its own in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab.network import IPV4, IPV6, Ends

from parity.machines import GHOSTS, HOSTS, Parity, parity, path

Paths = tuple[Ends, Ends]  # IPv4, IPv6


@pytest.fixture(scope="package", params=["xdp", "tc"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parity]:
    with parity(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture(scope="package")
def unused(lab: Parity) -> dict[str, Iterator[int]]:
    """Numbers of hosts and ghosts that no test has used yet."""
    return {"hosts": iter(HOSTS), "ghosts": iter(GHOSTS)}


@pytest.fixture
def hosts(unused: dict[str, Iterator[int]]) -> Paths:
    """From the client to the server."""
    return _paths(next(unused["hosts"]))


@pytest.fixture
def ghosts(unused: dict[str, Iterator[int]]) -> Paths:
    """From nobody at the client's to nobody at the server's."""
    return _paths(next(unused["ghosts"]))


def _paths(number: int) -> Paths:
    return path(IPV4, number), path(IPV6, number)


@pytest.fixture
def more_hosts(unused: dict[str, Iterator[int]]) -> Paths:
    """As `hosts`, but others."""
    return _paths(next(unused["hosts"]))


@pytest.fixture(autouse=True)
def accounted(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a packet that is counted nowhere or twice; at the end of the lab the accounts are even."""
    yield
    if "lab" in request.fixturenames:
        assert request.getfixturevalue("lab").ctweb.unaccounted() == {}
