"""`ctweb run` for real, on the loopback interface of a network namespace of its own."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, netns

from ctweb import instance
from ctweb.instance import InstanceError

PORT = 8291
ADDRESS = f"127.0.0.1:{PORT}"
CTWEB = Path(sys.executable).with_name("ctweb")

PREFIX = "web-"

_numbers = itertools.count()


def remove_stale() -> None:
    """Remove the namespaces of test runs that were killed."""
    for name in netns.listnetns():
        pid = name.removeprefix(PREFIX).split("-")[0]
        if name.startswith(PREFIX) and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with suppress(OSError):  # another worker was first
                netns.remove(name)


@contextmanager
def entered(name: str) -> Iterator[None]:
    """The calling thread alone, and what it starts, is in a named network namespace; it finds its own way back."""
    with open("/proc/thread-self/ns/net") as home:
        netns.setns(name)
        try:
            yield
        finally:
            netns.setns(home.fileno())


@contextmanager
def new_namespace() -> Iterator[str]:
    """A network namespace with its loopback up. The caller is in it while it lasts, and so is all that it starts."""
    remove_stale()
    name = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
    netns.create(name)
    try:
        with entered(name):
            with IPRoute() as netlink:
                netlink.link("set", index=1, state="up")
            yield name
    finally:
        netns.remove(name)


def signed_in(state_dir: Path) -> dict[str, str]:
    """The header that the command line of this machine signs in with; nothing before the instance has started."""
    try:
        return {"Authorization": f"Bearer {instance.find(state_dir).token}"}
    except InstanceError:
        return {}


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: object, headers: Mapping[str, str]
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Ask over this connection, which is closed then; status, headers and body. `body`: JSON unless it is bytes."""
    sent = dict(headers)
    if body is not None:
        sent.setdefault("Content-Type", "application/json")
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    with closing(connection):
        connection.request(method, path, data, sent)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


class Ctweb:
    """One `ctweb run`, and its answers."""

    def __init__(
        self, state_dir: Path, *arguments: str, interfaces: Sequence[str] = ("lo",), by: Sequence[str | Path] = ()
    ) -> None:
        """`by`: what runs the command, such as unshare."""
        self.state_dir = state_dir
        self.is_ready = False
        self.log = state_dir.with_suffix(f".log{next(_numbers)}")
        named = [word for name in interfaces for word in ("--interface", name)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*by, CTWEB, "run", "--state-dir", state_dir, *named, *arguments], stderr=log
            )

    def ready(self) -> Ctweb:
        """Wait until it answers and has swept."""
        deadline = time.monotonic() + 60
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"ctweb does not answer: {self.log.read_text()}"
            try:
                if self.get("/healthz")[0] == 200:
                    self.is_ready = True
                    return self
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"ctweb ended with {self.process.returncode}: {self.log.read_text()}")

    def ask(
        self, method: str, path: str, body=None, *, anonymous: bool = False, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body of the answer. Signed in, unless `anonymous` or the headers say how."""
        headers = {k.replace("_", "-"): v for k, v in headers.items()}
        if not anonymous and "Authorization" not in headers:
            headers |= signed_in(self.state_dir)
        return exchange(http.client.HTTPConnection("127.0.0.1", PORT, timeout=30), method, path, body, headers)

    def get(self, path: str, **headers: Any) -> tuple[int, object]:
        """The status and the decoded JSON of a GET."""
        status, _, body = self.ask("GET", path, **headers)
        return status, json.loads(body)

    def post(self, path: str, body: object, **headers: Any) -> tuple[int, object]:
        status, _, answer = self.ask("POST", path, body, **headers)
        return status, json.loads(answer)

    def counters(self) -> dict[str, int]:
        return self.get("/healthz")[1]["counters"]

    def check_accounts(self) -> None:
        """No sweep has found that a packet is missing from its accounts or in them twice. Of a run that never answered
        here, for it listens elsewhere or with TLS alone, only its log is asked."""
        assert "do not add up" not in self.log.read_text()
        if self.is_ready and self.process.poll() is None:
            counters = self.counters()
            assert not counters["unaccounted-packets"] | counters["unaccounted-bytes"], counters

    def end(self, signal_number: int = signal.SIGTERM) -> int:
        """Look at its accounts, send the signal and wait; the exit status."""
        self.check_accounts()
        self.process.send_signal(signal_number)
        return self.process.wait(timeout=30)


@contextmanager
def runner(state_dir: Path) -> Iterator[Callable[..., Ctweb]]:
    """Starts `ctweb run`, by default on `state_dir`; whatever still runs is killed at the end."""
    started = []

    def start(*arguments: str, state_dir: Path = state_dir, **options: Any) -> Ctweb:
        started.append(Ctweb(state_dir, *arguments, **options))
        return started[-1]

    try:
        yield start
        for one in started:
            one.check_accounts()
    finally:
        for one in started:
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait()


def command(*arguments: str | Path, before: Sequence[str] = (), **options: Any) -> subprocess.CompletedProcess[str]:
    """Run another ctweb command to its end. `before`: words that start it, such as setpriv's."""
    words = [*before, CTWEB, *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, **options)


def drip(sockets: Iterable[socket.socket]) -> None:
    """Send a byte twice a second on each of them, until the server has hung up on all; gives up after 90 s."""
    left = list(sockets)
    deadline = time.monotonic() + 90
    while left:
        assert time.monotonic() < deadline, f"{len(left)} are not hung up on"
        for sock in list(left):
            try:
                sock.sendall(b"x")
            except OSError:
                left.remove(sock)
                sock.close()
        time.sleep(0.5)


def until(condition: Callable[[], Any]) -> Any:
    """Wait until `condition` holds, and give its answer; gives up after half a minute."""
    deadline = time.monotonic() + 30
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it did not happen within 30 s"
        time.sleep(0.05)
    return answer
