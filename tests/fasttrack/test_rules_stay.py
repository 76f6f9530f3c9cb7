"""Rules that cannot be put into force leave those before as they were, with the programs that belong to them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from lab.hooks import programs
from lab.network import Namespace, client_router_server, network

from ctweb.datapath.attach import AttachError
from ctweb.datapath.build import BuildOptions, Datapath, compile_datapath
from ctweb.datapath.fasttrack import FastTrack
from ctweb.datapath.follow import Interfaces
from ctweb.datapath.map import Map
from ctweb.rules import Rule, parse_rules
from fasttrack.conftest import ready

FASTTRACK = {1: parse_rules([{"action": "fasttrack-connection", "connection-state": "established,related"}])[0]}
OTHER = {
    1: parse_rules([{"action": "fasttrack-connection", "connection-state": "established,related", "protocol": "udp"}])[
        0
    ]
}

NAMES = ("xdp_ingress", "xdp_fasttrack")


@dataclass
class Router:
    machine: Namespace
    datapath: Datapath
    fasttrack: FastTrack
    interfaces: Interfaces
    refused: list[Exception] = field(default_factory=list)  # what the next swaps are answered with

    def swap(self, programs: Mapping[str, int]) -> None:
        self.interfaces.replace(programs)
        if self.refused:
            raise self.refused.pop(0)

    def fast(self) -> bool:
        """Whether the fast program is attached, at both interfaces or at none."""
        there = programs(self.machine)
        (found,) = {*there["lan"]["xdp"], *there["wan"]["xdp"]}
        names = {number_of(self.datapath.programs[name]): name for name in NAMES}
        return names[found] == "xdp_fasttrack"


def number_of(program: int) -> int:
    """The kernel's own number of the program behind a descriptor."""
    return int(re.search(r"prog_id:\s*(\d+)", Path(f"/proc/self/fdinfo/{program}").read_text())[1])


@pytest.fixture
def router() -> Iterator[Router]:
    with network() as net, ExitStack() as stack:
        machines = client_router_server(net)
        ready(machines)
        stack.enter_context(machines[1].entered())
        datapath = compile_datapath(BuildOptions(max_entries=1024))
        stack.callback(datapath.close)
        fasttrack = FastTrack(datapath)
        interfaces = Interfaces(
            fasttrack.programs, datapath.interfaces, hook="xdp", names=("lan", "wan"),
            noticed=fasttrack.interfaces_are, settled=fasttrack.hooks_are,
        )  # fmt: skip
        interfaces.attach()
        stack.callback(interfaces.stop)
        made = Router(machines[1], datapath, fasttrack, interfaces)
        stack.enter_context(fasttrack.running(made.swap))
        yield made
        made.refused.clear()


@contextmanager
def refusing(there: Map) -> Iterator[None]:
    """The kernel refuses every access to the map."""
    kept = os.dup(there.map_fd)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), there.map_fd)
    try:
        yield
    finally:
        os.dup2(kept, there.map_fd)
        os.close(kept)


def stands(router: Router, rules: Mapping[int, Rule]) -> None:
    assert router.fast() is bool(rules)
    assert router.fasttrack.active is bool(rules)
    assert router.fasttrack.refusals == ()


@pytest.mark.parametrize("before", [{}, FASTTRACK], ids=["none", "some"])
@pytest.mark.parametrize("new", [{}, FASTTRACK, OTHER], ids=["to none", "to some", "to others"])
def test_programs_that_cannot_be_swapped(router: Router, before: Mapping[int, Rule], new: Mapping[int, Rule]):
    router.fasttrack.set(before)
    stands(router, before)
    router.refused.append(AttachError("interface 'wan': program not replaced: no"))
    if bool(before) != bool(new):
        with pytest.raises(AttachError, match="not replaced"):
            router.fasttrack.set(new)
        stands(router, before)
    router.refused.clear()
    router.fasttrack.set(new)
    stands(router, new)


@pytest.mark.parametrize("before", [{}, FASTTRACK], ids=["none", "some"])
def test_a_map_that_cannot_be_written(router: Router, before: Mapping[int, Rule]):
    router.fasttrack.set(before)
    with refusing(router.datapath.table("fasttrack")), pytest.raises(OSError, match="map fasttrack"):
        router.fasttrack.set(OTHER)
    stands(router, before)
    router.fasttrack.set(OTHER)
    stands(router, OTHER)


def test_what_cannot_be_taken_back_is_said(router: Router, caplog: pytest.LogCaptureFixture):
    """The programs stay as they are then, but by rules that were refused nothing goes fast."""
    router.refused += [AttachError("interface 'wan': program not replaced: no"), AttachError("nor back")]
    with pytest.raises(AttachError, match="not replaced"):
        router.fasttrack.set(FASTTRACK)
    assert "cannot go back to the rules before: nor back" in caplog.text
    assert not router.fasttrack.active
    router.fasttrack.set({})
    stands(router, {})
