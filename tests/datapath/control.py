"""Control connections by hand, and what is expected after them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from crafted import ACK, CLIENT, PSH, SERVER, SYN, tcp_frame
from table import Table, empty

from ctweb.table.names import CONNECTION_TYPES


@dataclass
class Control:
    """A TCP connection that is established, in sequence both ways."""

    table: Table
    client: str = CLIENT
    server: str = SERVER
    port: int = 21

    def __post_init__(self) -> None:
        self.next = [1000, 5000]
        self._send(False, SYN)
        self._send(True, SYN | ACK)
        self._send(False, ACK)

    def _send(self, from_server: bool, flags: int, payload: bytes = b"", seq: int | None = None) -> None:
        ends = ((self.client, 40_000), (self.server, self.port))
        (source, sport), (target, dport) = ends[::-1] if from_server else ends
        start = self.next[from_server] if seq is None else seq
        ack = self.next[not from_server] if flags & ACK else 0
        self.table.see(tcp_frame(source, sport, target, dport, flags, seq=start, ack=ack, payload=payload))
        if seq is None:
            self.next[from_server] += len(payload) + (flags & SYN == SYN)

    def client_says(self, payload: bytes, seq: int | None = None) -> None:
        self._send(False, ACK | PSH, payload, seq)

    def server_says(self, payload: bytes, seq: int | None = None) -> None:
        self._send(True, ACK | PSH, payload, seq)

    def greet(self) -> Control:
        """FTP: the lines that come before, so that each side's next packet begins a line."""
        self.server_says(b"220 hello\r\n")
        self.client_says(b"USER anonymous\r\n")
        return self


def forget_all(table: Table) -> None:
    for name in ("expectations", "watched", "calls"):
        empty(table.datapath.table(name))


def expected(table: Table) -> list[tuple[str, int]]:
    """Every expectation: whom a connection is expected to reach, address in hex and port."""
    found = (np.frombuffer(key, table.datapath.key_dtype)[0] for key in table.datapath.table("expectations"))
    return sorted((key["hi_addr"].tobytes().hex(), int(key["hi_port"].byteswap())) for key in found)


def kind(conn: np.void) -> str:
    """connection-type of an entry."""
    return CONNECTION_TYPES[int(conn["type"])]


def new(table: Table, frame: bytes) -> np.void:
    """The entry of the connection that a frame starts."""
    before = {int(conn["id"]) for _, conn in table.live()}
    table.see(frame)
    (entry,) = (conn for _, conn in table.live() if int(conn["id"]) not in before)
    return entry


def data(table: Table, source: str, target: str, port: int, sport: int = 50_000) -> np.void:
    return new(table, tcp_frame(source, sport, target, port, SYN))


def is_expected(table: Table, conn: np.void) -> bool:
    return bool(int(conn["status"]) & table.datapath.enums["status"]["STATUS_EXPECTED"])
