"""Those who sign in, and those who only try: users, sessions, and requests as a browser or an attacker makes them."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from dataclasses import dataclass, field
from pathlib import Path

from running import ADDRESS, PORT, Ctweb, command, exchange

COOKIE = f"ctweb-{PORT}"
PASSWORDS = {"boss": "correct horse battery", "guest": "only looking"}
ROLES = {"boss": "full", "guest": "read"}
IDENTITY = "/rest/system/identity"
TRACKING = "/rest/ip/firewall/connection/tracking"


def settle(state_dir: Path) -> None:
    """Make the users."""
    for name, password in PASSWORDS.items():
        set_user(state_dir, name, password, "--role", ROLES[name])


def set_user(state_dir: Path, name: str, password: str, *options: str) -> None:
    done = command("user", "set", name, "--password-stdin", *options, "--state-dir", state_dir, input=password)
    assert (done.returncode, done.stderr) == (0, ""), done


def basic(name: str, password: str) -> dict[str, str]:
    """HTTP Basic's header."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def known(name: str) -> dict[str, str]:
    return basic(name, PASSWORDS[name])


@dataclass
class Page:
    """A browser's page: its cookie goes along with everything, its CSRF token if it wants."""

    ctweb: Ctweb
    source: str = "127.0.0.1"  # the address it comes from
    token: str = ""
    csrf: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, body: object = None, *, csrf: bool = True, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        sent = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            sent["Cookie"] = f"{COOKIE}={self.token}"
        if self.csrf and csrf:
            sent["X-CSRF-Token"] = self.csrf
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30, source_address=(self.source, 0))
        return exchange(connection, method, path, body, sent)

    def status(self, method: str, path: str, body: object = None, **options: object) -> int:
        return self.ask(method, path, body, **options)[0]  # type: ignore[arg-type]

    def sign_in(self, name: str, password: str | None = None) -> int:
        """The status; the page keeps the cookie and the CSRF token."""
        credentials = {"name": name, "password": PASSWORDS[name] if password is None else password}
        status, headers, body = self.ask("POST", "/page/sign-in", credentials)
        if status == 200:
            self.token = headers["Set-Cookie"].partition("=")[2].partition(";")[0]
            self.csrf = json.loads(body)["csrf"]
        return status


def websocket_cookie(page: Page) -> dict[str, str]:
    """The page's cookie for simple_websocket's client: it leaves the port out of Host, so the name has none."""
    return {"Cookie": f"ctweb={page.token}"}


def raw(request: bytes, source: str = "127.0.0.1") -> bytes:
    """What is answered to these bytes, until the server closes the connection or 30 s of silence."""
    with socket.create_connection(("127.0.0.1", PORT), timeout=30, source_address=(source, 0)) as sock:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while data := sock.recv(65536):
                answer += data
        except ConnectionResetError:
            pass
    return answer


def head(method: str, path: str, headers: dict[str, str]) -> bytes:
    """A request's head."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {ADDRESS}", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def status_of(answer: bytes) -> int:
    """The status that an answer begins with."""
    return int(answer.split(b" ", 2)[1])
