"""`ctweb run` as a process: its start, its memory with a million connections, its CPU time with ten thousand."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simple_websocket import Client, ConnectionClosed

from bench.figure import Figure, Samples
from bench.router import CLIENT, ROUTER, SERVER_ADDRESS, Packets, Router, router
from ctweb import instance
from ctweb.instance import InstanceError

LARGE, FEW = 1_000_000, 10_000
PORT = 8291
CTWEB = Path(os.path.abspath(__file__)).parents[1] / ".venv/bin/ctweb"
CONFIG = 'max-entries = 1000000\n[tracking]\nudp-timeout = "1h"\nudp-stream-timeout = "1h"\n'
VIEW = {"type": "view", "filter": "", "sort": "-orig-rate", "offset": 0, "limit": 100}
MEGABYTE = 1e6
_CPUCLOCK_SCHED = 2  # of a process's clock id (include/linux/posix-timers.h): what its threads took, to the nanosecond


class Ctweb:
    """One `ctweb run` in the router."""

    def __init__(self, way: Router, process: subprocess.Popen[bytes], place: Path) -> None:
        self._way = way
        self._process = process
        self._log = place / "log"
        self._state = place / "state"

    @property
    def cpu(self) -> float:
        """Seconds of CPU so far, all threads."""
        return time.clock_gettime(~self._process.pid << 3 | _CPUCLOCK_SCHED)

    @property
    def resident(self) -> float:
        """Megabytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / MEGABYTE

    @property
    def _token(self) -> dict[str, str]:
        """What this machine's own command line shows. Raises InstanceError."""
        return {"Authorization": f"Bearer {instance.find(self._state).token}"}

    def get(self, path: str) -> Any:
        """The JSON at a path. Raises OSError, InstanceError while it has not started."""
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
        with self._way.inside(ROUTER):
            connection.connect()
        try:
            connection.request("GET", path, headers=self._token)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def wait(self) -> None:
        """Until it answers. Raises RuntimeError if it has ended."""
        while self._process.poll() is None:
            try:
                if self.get("/healthz")["sweep"]:
                    return
            except (OSError, InstanceError):
                pass
            time.sleep(0.02)
        raise RuntimeError(f"ctweb run ended with {self._process.returncode}: {self._log.read_text()}")

    @contextmanager
    def dashboard(self) -> Iterator[None]:
        """A client that asks for what the page asks for: a view by rate of a hundred rows, after each sweep.

        Raises RuntimeError if it got none.
        """
        with self._way.inside(ROUTER):
            client = Client(f"ws://127.0.0.1:{PORT}/live", headers=self._token)
        client.send(json.dumps(VIEW))

        rows = 0

        def read() -> None:
            nonlocal rows
            try:
                while True:
                    rows += json.loads(client.receive())["type"] == "rows"
            except ConnectionClosed:
                return

        reading = threading.Thread(target=read)
        reading.start()
        try:
            yield
        finally:
            client.close()
            reading.join()
        if rows < 2:
            raise RuntimeError(f"the dashboard got {rows} answers")


@contextmanager
def started(way: Router, place: Path, **environment: str) -> Iterator[Ctweb]:
    """`ctweb run` on both interfaces of the router, on all CPUs; `place` holds its configuration and state."""
    (place / "ctweb.toml").write_text(CONFIG)
    command = [
        str(CTWEB), "run", "--config", str(place / "ctweb.toml"), "--state-dir", str(place / "state"),
        "--listen", f"127.0.0.1:{PORT}", "--interface", "lan", "--interface", "wan", "--hook", "tc",
    ]  # fmt: skip
    affinity = os.sched_getaffinity(0)
    with (place / "log").open("ab") as log, way.inside(ROUTER):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        try:
            process = subprocess.Popen(command, stderr=log, env=os.environ | environment)
        finally:
            os.sched_setaffinity(0, affinity)
    try:
        yield Ctweb(way, process, place)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _numbered(way: Router) -> Iterator[list[float]]:
    """A datagram to the server each millisecond, to another port each: when each was sent, from port 10000 on."""
    sent: list[float] = []
    stop = threading.Event()
    with way.inside(CLIENT):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send() -> None:
        while not stop.wait(0.001) and len(sent) < 50_000:
            sent.append(time.monotonic())
            try:
                sender.sendto(b"", (SERVER_ADDRESS, 9_999 + len(sent)))
            except OSError:
                continue  # refused by the server before: the next one goes elsewhere

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()
        sender.close()


def start_seconds(way: Router, **environment: str) -> tuple[float, float]:
    """From the start of the process to the first packet that it tracked, and the CPU time until it answers requests."""
    with tempfile.TemporaryDirectory() as place, _numbered(way) as sent:
        before = time.monotonic()
        with started(way, Path(place), **environment) as ctweb:
            ctweb.wait()
            spent = ctweb.cpu
            rows = ctweb.get("/rest/ip/firewall/connection?protocol=udp&.proplist=dst-address")
    ports = [
        int(row["dst-address"].rpartition(":")[2]) for row in rows if row["dst-address"].startswith(SERVER_ADDRESS)
    ]
    return sent[min(ports) - 10_000] - before, spent


def starts(way: Router, rounds: int) -> tuple[Samples, Samples, Samples]:
    """Seconds of a start, of CPU for it, and of one that finds no compiled programs."""
    kept, cpu, first = [], [], []
    start_seconds(way)
    for _ in range(rounds):
        took, spent = start_seconds(way)
        kept.append(took)
        cpu.append(spent)
        with tempfile.TemporaryDirectory() as cache:
            first.append(start_seconds(way, CACHE_DIRECTORY=cache)[0])
    return Samples.of(kept), Samples.of(cpu), Samples.of(first)


def busy(way: Router, ctweb: Ctweb, connections: int, seconds: float) -> float:
    """Percent of a CPU that the process takes, while each connection has a packet a second."""
    before, began = ctweb.cpu, time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        way.send(Packets(connections=connections), connections)
        time.sleep(max(0.0, 1 - (time.monotonic() - began - passed)))
    return (ctweb.cpu - before) / (time.monotonic() - began) * 100


def resident(way: Router, ctweb: Ctweb, seconds: float) -> Samples:
    """Megabytes, looked at ten times a second, while connections have packets."""
    samples, stop = [], time.monotonic() + seconds
    while time.monotonic() < stop:
        samples.append(ctweb.resident)
        time.sleep(0.1)
    return Samples.of(samples)


def figures(seconds: float, rounds: int, large: int = LARGE) -> Iterator[Figure]:
    """seconds: for how long the process is watched each time. rounds: of starts."""
    with router() as way, way.ends(), tempfile.TemporaryDirectory() as place:
        kept, cpu, first = starts(way, rounds)
        yield Figure.compare(
            "start of `ctweb run` to the first packet tracked", "s", kept,
            "its CPU time until it answers requests", cpu, most_value=1.5,
        )  # fmt: skip
        yield Figure.compare(
            "the first start of all, which compiles, to the first packet tracked", "s", first, "a later one", kept
        )
        with started(way, Path(place)) as ctweb:
            ctweb.wait()
            time.sleep(2)
            empty = resident(way, ctweb, 1)
            way.cost(Packets(connections=FEW), FEW)
            alone, watched = [], []
            for _ in range(2):
                alone.append(busy(way, ctweb, FEW, seconds))
                with ctweb.dashboard():
                    watched.append(busy(way, ctweb, FEW, seconds))
            yield Figure.compare(
                f"CPU of the process, {FEW:,} connections with a packet a second each, one dashboard",
                "% of a CPU", Samples.of(watched), "none", Samples.of(alone), most_value=3,
            )  # fmt: skip
            yield Figure.compare(
                f"CPU of the process, {FEW:,} connections with a packet a second each, no dashboard",
                "% of a CPU", Samples.of(alone), "one", Samples.of(watched), most_value=1,
            )  # fmt: skip
            way.cost(Packets(connections=large), large)
            with ctweb.dashboard():
                time.sleep(3)
                full = resident(way, ctweb, seconds)
                count = ctweb.get("/healthz")["connections"]
            if count < large * 0.999:
                raise RuntimeError(f"{count} connections in the table, not {large}")
            yield Figure.compare(
                f"resident memory of the process, {large:,} connections, one dashboard, at its highest",
                "MB", Samples((full.spread[1],)), "without connections", empty, most_value=400,
            )  # fmt: skip
