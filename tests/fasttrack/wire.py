"""Frames sent and captured past the stacks of client and server."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lab.network import Ends, Namespace, wait_for

from fasttrack.conftest import Lab
from fasttrack.flows import asked, listens

_ETH_P_ALL = 3


def mac(machine: Namespace, interface: str) -> bytes:
    link = json.loads(machine.run("ip", "-j", "link", "show", interface))[0]
    return bytes.fromhex(link["address"].replace(":", ""))


class Port:
    """A machine's eth0: what is sent leaves as it is; what arrives is kept from here on."""

    def __init__(self, machine: Namespace) -> None:
        self._sock = machine.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        with machine.entered():
            self._sock.bind(("eth0", _ETH_P_ALL))
        self._sock.settimeout(0.05)

    def send(self, frame: bytes) -> None:
        self._sock.send(frame)

    def take(self, wanted: Callable[[bytes], bool], count: int) -> list[bytes]:
        """The next `count` frames that are wanted; fewer if no more come within some seconds."""
        found: list[bytes] = []
        deadline = time.monotonic() + 5
        while len(found) < count and time.monotonic() < deadline:
            try:
                frame, where = self._sock.recvfrom(65536)
            except TimeoutError:
                continue
            if where[2] != socket.PACKET_OUTGOING and wanted(frame):
                found.append(frame)
        return found

    def close(self) -> None:
        self._sock.close()


@contextmanager
def ports(lab: Lab) -> Iterator[tuple[Port, Port]]:
    """Of client and server."""
    client, server = Port(lab.client), Port(lab.server)
    try:
        yield client, server
    finally:
        client.close()
        server.close()


class Quiet:
    """A UDP connection on which nothing is sent but what the test sends."""

    protocol = "udp"

    def __init__(self, lab: Lab, ends: Ends, port: int) -> None:
        self.ends, self.port = ends, port
        self._lab = lab
        self.near = lab.client.socket(ends.family, socket.SOCK_DGRAM)
        self.far = lab.server.socket(ends.family, socket.SOCK_DGRAM)
        self.far.bind((ends.server, listens(port)))
        self.near.connect(asked(ends, port))
        self.sport: int = self.near.getsockname()[1]
        self.source = ends.shown(ends.client, self.sport)
        self.destination = asked(ends, port)[0]

    def exchange(self) -> bool:
        self.near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # of what the test has sent before
        self.near.send(b"there")
        data, peer = self.far.recvfrom(2000)
        while data != b"there":  # what the test has sent before
            data, peer = self.far.recvfrom(2000)
        self.far.sendto(b"back", peer)
        return self.near.recv(100) == b"back"

    def until_fast(self) -> None:
        """Exchange packets until they go fast."""

        def is_fast() -> bool:
            assert self.exchange()
            rows = self._lab.rows(self)
            return bool(rows) and int(rows[0]["orig-fasttrack-packets"]) > before

        before = int(rows[0]["orig-fasttrack-packets"]) if (rows := self._lab.rows(self)) else 0
        wait_for("packets go fast", is_fast, lambda: self._lab.row(self))

    def counted(self) -> int:
        """Packets of the original direction that have gone fast, once the sweep has seen all that were sent."""
        self._lab.settle()
        return int(self._lab.row(self)["orig-fasttrack-packets"])

    def close(self) -> None:
        self.near.close()
        self.far.close()


@contextmanager
def quiet(lab: Lab, ends: Ends, port: int) -> Iterator[Quiet]:
    flow = Quiet(lab, ends, port)
    try:
        yield flow
    finally:
        flow.close()
