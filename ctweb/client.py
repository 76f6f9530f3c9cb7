"""Talking to the running instance over its HTTP address, for the commands that show or change what it does."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

import msgspec

from ctweb import instance
from ctweb.instance import InstanceError, Running

SECONDS = 60  # for an answer to begin and to go on; a million rows take a while to make
TREES = ("/rest/ip/firewall/connection", "/rest/ipv6/firewall/connection")
TRACKING = "/rest/ip/firewall/connection/tracking"
RESOURCE = "/rest/system/resource"


class Hook(msgspec.Struct):
    """Where packets of an interface are met: xdp or tc."""

    name: str
    hook: str


class Port(msgspec.Struct):
    """An interface, and why it takes no part in FastTrack; "" if it does."""

    name: str
    reason: str


class FastTrack(msgspec.Struct):
    """What stands behind rules that fasttrack. `refusals`: a line for each one that is not in force."""

    interfaces: list[Port]
    refusals: list[str]


class Hooks(msgspec.Struct):
    """What the running instance has on interfaces. `fasttrack`: None without a rule for it."""

    interfaces: list[Hook]
    fasttrack: FastTrack | None


class RefusedError(Exception):
    """The running instance did not do what was asked, in its own words."""


class Client:
    """The running instance on a state directory. Every method raises InstanceError when it does not answer,
    RefusedError when it refuses."""

    def __init__(self, state_dir: Path) -> None:
        self._running = instance.find(state_dir)
        self._state_dir = state_dir

    def connections(self, where: str) -> list[dict[str, str]]:
        """The rows that match the filter `where` (all, if empty), IPv4 first."""
        query = "?" + urlencode({"where": where}) if where else ""
        rows = []
        for tree in TREES:
            rows += msgspec.json.decode(self._ask("GET", tree + query), type=list[dict[str, str]])
        return rows

    def count(self, where: str) -> int:
        """How many connections match the filter `where`."""
        return sum(self._told(tree + "/print", {"where": where, "count-only": ""}) for tree in TREES)

    def remove(self, where: str) -> int:
        """Remove the connections that match the filter `where`, which must not be empty; how many there were."""
        return sum(self._told(tree + "/remove", {"where": where}) for tree in TREES)

    def _told(self, path: str, arguments: Mapping[str, str]) -> int:
        """The number that a command answers."""
        answer = self._ask("POST", path, msgspec.json.encode(arguments))
        return int(msgspec.json.decode(answer, type=dict[str, str])["ret"])

    def settings(self) -> dict[str, str]:
        return msgspec.json.decode(self._ask("GET", TRACKING), type=dict[str, str])

    def resource(self) -> dict[str, str]:
        """The machine, and what was counted."""
        return msgspec.json.decode(self._ask("GET", RESOURCE), type=dict[str, str])

    def hooks(self) -> Hooks:
        """The interfaces that have programs, and what FastTrack makes of them."""
        return msgspec.json.decode(self._ask("GET", "/page/settings"), type=Hooks)

    def change_settings(self, changes: Mapping[str, str]) -> None:
        self._ask("POST", TRACKING + "/set", msgspec.json.encode(changes))

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        running = self._running
        connection = _connection(running)
        headers = {"Authorization": f"Bearer {running.token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = response.read()
        except ConnectionRefusedError:
            raise InstanceError(
                f"ctweb is not running on the state directory {self._state_dir}: "
                f"nothing answers at {running.host}:{running.port}"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise InstanceError(f"ctweb at {running.host}:{running.port} does not answer: {error}") from None
        finally:
            connection.close()
        if response.status != 200:
            raise RefusedError(_reason(response.status, answer))
        return answer


def _connection(running: Running) -> http.client.HTTPConnection:
    """A connection to it, not opened yet. Its certificate, made out to some name, is not asked for: the address is this
    machine's own."""
    if not running.tls:
        return http.client.HTTPConnection(running.host, running.port, timeout=SECONDS)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(running.host, running.port, timeout=SECONDS, context=context)


def _reason(status: int, answer: bytes) -> str:
    """The message of an error body (reference: RouterOS REST), or the status alone if it has none."""
    try:
        body = msgspec.json.decode(answer, type=dict[str, str | int])
    except msgspec.MsgspecError:
        return f"the running instance answered with HTTP status {status}"
    return str(body.get("detail") or body.get("message") or status)
