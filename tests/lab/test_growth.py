"""A table that grows, in a run that has given up root, and the one that takes it over; both with the unit's rights."""

from __future__ import annotations

import configparser
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.network import IPV4, Namespace, client_router_server, network, wait_for
from lab.tracked import CONFIG, Tracked

UNIT = Path(__file__).parents[2] / "service/ctweb.service"
BPFFS = Path("/sys/fs/bpf")
GROWING = f'max-entries = 200000\npreallocate = "no"\n{CONFIG}'
PORTS = 30_000


@pytest.fixture
def machines(bpffs: Path) -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    with network() as net:
        machines = client_router_server(net)
        yield machines
        subprocess.run(["rm", "-rf", BPFFS / "ctweb" / str(machines[1].inode)], check=True)


def confined() -> tuple[str, ...]:
    """What runs a command with the capabilities that the service's unit leaves it."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(UNIT)
    names = [name.removeprefix("CAP_").lower() for name in unit["Service"]["CapabilityBoundingSet"].split()]
    return ("setpriv", f"--bounding-set=-all,{','.join(f'+{name}' for name in names)}", "--inh-caps=-all")


def datagrams(client: Namespace, sources: int) -> None:
    """PORTS new connections from each of so many more ports."""
    for _ in range(sources):
        with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
            near.bind((IPV4.client, 0))
            for port in range(PORTS):
                near.sendto(b"", (IPV4.server, 1 + port))


def test_it_grows_and_is_taken_over_and_grows_on(machines, tmp_path):
    client, router, _ = machines
    options = ("--hook", "tc", "--interface", "lan", "--interface", "wan", "--keep")
    first = Tracked(router, tmp_path, *options, config=GROWING, by=confined())
    at_start = len(list(chunks(router)))
    datagrams(client, 4)
    wait_for("all are there", lambda: first.get("/healthz")["connections"] >= 4 * PORTS)
    assert len(list(chunks(router))) > at_start
    first.end(signal.SIGKILL)
    datagrams(client, 1)  # there is some room ahead
    second = Tracked(router, tmp_path, *options, config=GROWING, by=confined())
    assert "took over the connections of an earlier run" in second.log.read_text()
    wait_for("all are there", lambda: second.get("/healthz")["connections"] >= 5 * PORTS)
    datagrams(client, 1)
    wait_for("all are there", lambda: second.get("/healthz")["connections"] >= 6 * PORTS)
    counters = second.get("/healthz")["counters"]
    assert (counters["refused"], counters["early-drop"]) == (0, 0)
    second.check_conservation()
    assert not re.search("ERROR|WARNING|Traceback", second.log.read_text())


def chunks(router: Namespace) -> Iterator[Path]:
    return (BPFFS / "ctweb" / str(router.inode) / "maps").glob("places-*")
