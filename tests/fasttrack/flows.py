"""Traffic that goes on while something happens, and says in the end whether all of it arrived."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lab.network import Ends

from fasttrack.conftest import FORWARDED, Lab

CHUNK = 1 << 16
STILL = 3  # seconds without a packet: what has not come is lost
PAUSE = 0.004  # seconds between chunks: enough packets, and time for others


def asked(ends: Ends, port: int) -> tuple[str, int]:
    """What the client connects to for `port`."""
    return (ends.router if port == FORWARDED else ends.server), port


def listens(port: int) -> int:
    return 7001 if port == FORWARDED else port


def connected(lab: Lab, ends: Ends, port: int) -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection that the client has opened, its own first."""
    with lab.server.socket(ends.family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ends.server, listens(port)))
        listener.listen()
        near = lab.client.socket(ends.family, socket.SOCK_STREAM)
        near.connect(asked(ends, port))
        far, _ = listener.accept()
    return near, far


class Transfer:
    """A TCP connection on which the client sends until told to end; the server answers a little, and hashes all."""

    protocol = "tcp"

    def __init__(self, lab: Lab, ends: Ends, port: int, pause: float = PAUSE) -> None:
        self._pause = pause
        self.near, self.far = connected(lab, ends, port)
        self.sport: int = self.near.getsockname()[1]
        self.source = ends.shown(ends.client, self.sport)
        self._sent, self._received = hashlib.sha256(), hashlib.sha256()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        chunk = random.Random(self.sport).randbytes(CHUNK)
        while not self._ending.wait(self._pause):
            self._sent.update(chunk)
            self.near.sendall(chunk)
            chunk = chunk[1:] + chunk[:1]
        self.near.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        while data := self.far.recv(1 << 20):
            self._received.update(data)
        self.far.sendall(self._received.digest())
        self.far.close()

    def end(self) -> None:
        """No more is sent. All that was has arrived, byte by byte, and the server's answer too."""
        self._ending.set()
        told = b""
        while data := self.near.recv(100):
            told += data
        for thread in self._threads:
            thread.join()
        self.near.close()
        assert told == self._received.digest() == self._sent.digest()


@contextmanager
def transfer(lab: Lab, ends: Ends, port: int) -> Iterator[Transfer]:
    """A transfer that is whole in the end."""
    going = Transfer(lab, ends, port)
    try:
        yield going
    finally:
        going.end()


class Datagrams:
    """A UDP connection: the client sends numbered datagrams until told to end, the server answers each tenth."""

    protocol = "udp"

    def __init__(self, lab: Lab, ends: Ends, port: int, pause: float = 0.002) -> None:
        self._pause = pause
        self.near = lab.client.socket(ends.family, socket.SOCK_DGRAM)
        self.far = lab.server.socket(ends.family, socket.SOCK_DGRAM)
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.far.bind((ends.server, listens(port)))
        self.near.connect(asked(ends, port))
        self.near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.sport: int = self.near.getsockname()[1]
        self.source = ends.shown(ends.client, self.sport)
        self.sent = self.answered = 0
        self.received: set[int] = set()
        self.answers: set[int] = set()
        self._ending, self._over = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._send, self._receive, self._take_answers)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._ending.wait(self._pause):
            self.near.send(self.sent.to_bytes(4, "big") + bytes(self.sent % 500))
            self.sent += 1

    def _receive(self) -> None:
        for data, sender in self._arriving(self.far):
            number = int.from_bytes(data[:4], "big")
            self.received.add(number)
            if number % 10 == 0:
                self.far.sendto(data, sender)
                self.answered += 1

    def _take_answers(self) -> None:
        for data, _ in self._arriving(self.near):
            self.answers.add(int.from_bytes(data[:4], "big"))

    def _arriving(self, sock: socket.socket) -> Iterator[tuple[bytes, tuple[str, int]]]:
        sock.settimeout(0.1)
        while not self._over.is_set():
            with suppress(TimeoutError):
                yield sock.recvfrom(2000)

    def stop(self) -> None:
        """No more is sent, and what is under way has arrived. May be called twice."""
        self._ending.set()
        self._threads[0].join()
        seen, until = 0, time.monotonic() + STILL
        while (len(self.received) < self.sent or len(self.answers) < self.answered) and time.monotonic() < until:
            if (now := len(self.received) + len(self.answers)) > seen:
                seen, until = now, time.monotonic() + STILL
            time.sleep(0.02)
        self._over.set()
        for thread in self._threads:
            thread.join()
        self.near.close()
        self.far.close()

    def lost(self) -> list[int]:
        """The numbers of those that did not arrive, once all have that will."""
        self.stop()
        return sorted(set(range(self.sent)) - self.received)

    def end(self) -> None:
        self.stop()
        assert self.received == set(range(self.sent))
        assert len(self.answers) == self.answered


def in_one_piece(numbers: list[int]) -> bool:
    return not numbers or numbers == list(range(numbers[0], numbers[-1] + 1))


@contextmanager
def datagrams(lab: Lab, ends: Ends, port: int) -> Iterator[Datagrams]:
    """Datagrams of which none is lost either way."""
    going = Datagrams(lab, ends, port)
    try:
        yield going
    finally:
        going.end()
