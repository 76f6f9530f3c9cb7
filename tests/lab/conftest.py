"""One network and one `ctweb run` for each hook, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab.network import IPV4, IPV6, Ends, Namespace, Network, client_router_server, network
from lab.tracked import Tracked


@dataclass(frozen=True)
class Lab:
    """client - router - server, offloads off, `ctweb run` on all interfaces of the router."""

    network: Network
    client: Namespace
    router: Namespace
    server: Namespace
    ctweb: Tracked
    hook: str


@pytest.fixture(scope="package", params=["tc", "xdp"])
def hook(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="package")
def lab(hook: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with network() as net:
        client, router, server = client_router_server(net)
        for machine in (client, router, server):
            machine.offloads("off")
        ctweb = Tracked(router, tmp_path_factory.mktemp(hook), "--hook", hook)
        yield Lab(net, client, router, server, ctweb, hook)
        ctweb.check_conservation()
        assert ctweb.end() == 0, ctweb.log.read_text()


@pytest.fixture(params=[IPV4, IPV6], ids=["ipv4", "ipv6"])
def ends(request: pytest.FixtureRequest) -> Ends:
    return request.param


@pytest.fixture(autouse=True)
def accounted(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a packet that is counted nowhere or twice; at the end of the lab the accounts are even."""
    yield
    if "lab" in request.fixturenames:
        assert request.getfixturevalue("lab").ctweb.unaccounted() == {}
