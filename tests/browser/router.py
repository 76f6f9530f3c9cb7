"""A router that runs `ctweb run`, with hosts on both sides of it."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.network import IPV4, Namespace, wait_for
from playwright.sync_api import Browser, BrowserContext
from running import ADDRESS, CTWEB, PORT, command, exchange, signed_in

URL = f"http://{ADDRESS}"
PASSWORDS = {"full": "full-of-might", "read": "look-but-touch-not"}  # by user, called as its role

_ports = itertools.count(6000)


@dataclass(frozen=True)
class Sender:
    """Sends UDP to a port of the server where nobody listens. (A connected socket would fail by the refusals.)"""

    socket: socket.socket
    port: int

    @property
    def source(self) -> str:
        address, port = self.socket.getsockname()
        return f"{address}:{port}"

    def send(self, data: bytes) -> None:
        self.socket.sendto(data, (IPV4.server, self.port))

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


class Server:
    """`ctweb run` on the router, with a client and a server host to make traffic between."""

    def __init__(self, client: Namespace, router: Namespace, server: Namespace, state_dir: Path) -> None:
        self.client, self.router, self.server = client, router, server
        self._state_dir = state_dir
        self._log = state_dir.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

        for name, password in PASSWORDS.items():
            words = ("user", "set", name, "--role", name, "--password-stdin", "--state-dir", state_dir)
            assert command(*words, input=password).returncode == 0
        router.checks.append(self.check_accounts)

    def start(self, config: str = "") -> None:
        """`config`: contents of the configuration file."""
        file = self._state_dir.with_suffix(".toml")
        file.parent.mkdir(exist_ok=True)
        file.write_text(config)
        with self._log.open("ab") as log:
            self.process = self.router.start(
                *self._with_resolver(), CTWEB, "run", "--interface", "lan", "--listen", f"127.0.0.1:{PORT}",
                "--state-dir", self._state_dir, "--config", file,
                stderr=log,
            )  # fmt: skip
        wait_for("ctweb answers", self._healthy)

    def _with_resolver(self) -> tuple[object, ...]:
        """What starts a program whose resolver asks the router's loopback."""
        self._state_dir.parent.mkdir(exist_ok=True)
        parts = {"resolv.conf": "nameserver 127.0.0.1\noptions timeout:30\n", "nsswitch.conf": "hosts: files dns\n"}
        for name, text in parts.items():
            (self._state_dir.parent / name).write_text(text)
        mounts = " && ".join(f'mount --bind "$0/{name}" /etc/{name}' for name in parts)
        return ("unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', self._state_dir.parent)

    def check_accounts(self) -> None:
        """No packet is missing from its accounts, nor in them twice; of one that has ended its log tells."""
        assert not self._log.exists() or "do not add up" not in self._log.read_text()
        if self.process is not None and self.process.poll() is None:
            counters = self.ask("GET", "/healthz")[1]["counters"]
            assert not counters["unaccounted-packets"] | counters["unaccounted-bytes"], counters

    def stop(self) -> None:
        assert self.process is not None
        self.check_accounts()
        self.process.terminate()
        self.process.wait(timeout=30)

    def _healthy(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"ctweb ended with {self.process.returncode}:\n{self._log.read_text()}"
        try:
            return self.ask("GET", "/healthz")[0] == 200
        except OSError:
            return False

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, object]:
        with self.router.entered():
            connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
            connection.connect()
        status, _, answer = exchange(connection, method, path, body, signed_in(self._state_dir))
        return status, json.loads(answer)

    def signed_in(self, browser: Browser, name: str = "full", **options: Any) -> BrowserContext:
        """A new context of the browser in which this user has signed in."""
        context = browser.new_context(base_url=URL, **options)
        answer = context.request.post("/page/sign-in", data={"name": name, "password": PASSWORDS[name]})
        assert answer.ok, answer.text()
        return context

    def set(self, **settings: str) -> None:
        """Tracking settings, with _ for -."""
        body = {name.replace("_", "-"): value for name, value in settings.items()}
        status, answer = self.ask("POST", "/rest/ip/firewall/connection/tracking/set", body)
        assert status == 200, answer

    def removed(self, where: str) -> int:
        """Forget the connections over IPv4 that a filter means; how many there were."""
        status, answer = self.ask("POST", "/rest/ip/firewall/connection/remove", {"where": where})
        assert status == 200, answer
        return int(answer["ret"])

    @contextmanager
    def tcp(self, port: int) -> Iterator[tuple[socket.socket, socket.socket]]:
        """An established connection from the client to a port of the server: the client's end, and the server's."""
        with (
            self.server.socket(socket.AF_INET, socket.SOCK_STREAM) as listener,
            self.client.socket(socket.AF_INET, socket.SOCK_STREAM) as near,
        ):
            listener.bind((IPV4.server, port))
            listener.listen()
            near.connect((IPV4.server, port))
            far, _ = listener.accept()
            with far:
                yield near, far

    def udp(self, port: int | None = None) -> Sender:
        """A new connection from the client to a port of the server, by default one that no test has used yet."""
        port = port or next(_ports)
        made = self.client.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((IPV4.client, 0))
        return Sender(made, port)
