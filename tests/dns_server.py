"""A small DNS server for reverse look-ups: answers for the addresses it knows, and is silent about others."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

PTR, IN = 12, 1
NO_SUCH_NAME = 3


def encoded(name: bytes) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in name.split(b".")) + b"\0"


def question(query: bytes) -> tuple[bytes, int]:
    """The name asked for, and where the question ends."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]])
        at += 1 + query[at]
    return b".".join(labels), at + 5


@contextmanager
def serving(listening: socket.socket, names: Mapping[str, bytes | None]) -> Iterator[list[str]]:
    """Answer on a UDP socket while it lasts: by address a name, or None where there is none. The names asked for."""
    known = {ipaddress.ip_address(address).reverse_pointer.encode(): name for address, name in names.items()}
    asked: list[str] = []

    def run() -> None:
        while True:
            query, client = listening.recvfrom(512)
            if not query:
                return
            name, end = question(query)
            asked.append(name.decode())
            if name not in known:
                continue
            answer = known[name]
            flags = 0x8180 | (NO_SUCH_NAME if answer is None else 0)
            head = query[:2] + struct.pack(">HHHHH", flags, 1, 0 if answer is None else 1, 0, 0)
            record = b""
            if answer is not None:
                data = encoded(answer)
                record = b"\xc0\x0c" + struct.pack(">HHIH", PTR, IN, 60, len(data)) + data
            listening.sendto(head + query[12:end] + record, client)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        with suppress(OSError):  # it wakes who is receiving, and says that nobody is connected
            listening.shutdown(socket.SHUT_RDWR)
        thread.join()
        listening.close()
