"""A GET of a million connections over HTTP, beside `conntrack -L` on as many entries."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from flask import Flask

from bench.conntrack_table import list_once, tracked_by_the_kernel
from bench.figure import Figure, Samples
from bench.sweep import filled
from ctweb.settings import Tracking
from ctweb.tracker import Tracker
from ctweb.web import rest, server

ENTRIES = 1_000_000
PATH = "/rest/ip/firewall/connection"
FOUR = "?.proplist=src-address,dst-address,protocol,tcp-state"
MOST_SECONDS_TO_FIRST = 1.0
MOST_TIMES_CONNTRACK = 1.5
MOST_MEGABYTES = 64.0


@dataclass(frozen=True)
class Answer:
    """One GET: seconds to the first byte of the body and to the last, and its bytes, as they were framed."""

    first: float
    whole: float
    size: int


def _serve(pipe: Connection, entries: int) -> None:
    """What the process of the server does until SIGTERM; the port goes into `pipe`.

    It serves the datapath's own table, without the rest of `ctweb run`.
    """
    logging.getLogger("ctweb.tracker").setLevel(logging.CRITICAL)  # whose accounts lack what no packet brought here
    with tempfile.TemporaryDirectory() as state, filled(entries) as datapath:
        tracker = Tracker(datapath, Tracking(), Path(state))
        tracker.start()
        app = Flask(__name__)
        app.register_blueprint(rest.blueprint(tracker))
        listener = server.listen("127.0.0.1", 0)
        server.serve(
            app,
            listener,
            ready=lambda: pipe.send(listener.getsockname()[1]),
            alive=lambda: None,
            closing=lambda: None,
        )
        tracker.stop()


@contextmanager
def served(entries: int) -> Iterator[tuple[int, int]]:
    """The port and the process of a server with that many connections, swept each second as always."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, entries))
    process.start()
    theirs.close()
    try:
        if not ours.poll(120):
            raise RuntimeError("the server of the benchmark does not start")
        port: int = ours.recv()
        assert process.pid is not None
        yield port, process.pid
    finally:
        process.terminate()
        process.join()


def get(port: int, path: str) -> Answer:
    """Ask as curl does, and throw away what comes. Raises RuntimeError if it is not a 200."""
    buffer = bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        began = time.perf_counter()
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while not (found := re.search(rb"\r\n\r\n(?=.)", head, re.DOTALL)):
            data = connection.recv(1 << 16)
            if not data:
                raise RuntimeError(f"the server closed the connection after {head!r}")
            head += data
        first = time.perf_counter() - began
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"GET {path}: {head[:200]!r}")
        size = len(head) - found.end()
        while count := connection.recv_into(buffer):
            size += count
        return Answer(first, time.perf_counter() - began, size)


def rows(port: int) -> int:
    """How many connections there are, by the server's own count."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"GET {PATH}?count-only= HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    found = re.search(rb'"ret": ?"(\d+)"', answer)
    return int(found[1]) if found else 0


def resident(pid: int, what: str) -> float:
    """`VmRSS` or `VmHWM` of a process, MB."""
    found = re.search(rf"^{what}:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def growth(pid: int, port: int) -> float:
    """How much larger the server gets at most while it answers with the whole table, MB."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from here
    before = resident(pid, "VmRSS")
    get(port, PATH)
    return max(0.0, resident(pid, "VmHWM") - before)


def measure(entries: int, rounds: int) -> tuple[list[Answer], list[Answer], list[float], list[float]]:
    """Answers with all properties and with four, seconds of conntrack, growth of the server in MB; turn by turn."""
    whole, four, seconds, grown = [], [], [], []
    with tracked_by_the_kernel(entries) as namespace, served(entries) as (port, pid):
        if (found := rows(port)) != entries:
            raise RuntimeError(f"{entries} connections, but {found} are served")
        get(port, PATH + FOUR)  # what is worked out once
        for _ in range(rounds):
            whole.append(get(port, PATH))
            four.append(get(port, PATH + FOUR))
            seconds.append(list_once(namespace, entries, "-o", "extended").seconds)
            grown.append(growth(pid, port))
    return whole, four, seconds, grown


def figures(rounds: int, entries: int = ENTRIES) -> Iterator[Figure]:
    """First byte, all of it, four properties, and memory."""
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))  # a server and its client, as they always are
    try:
        whole, four, seconds, grown = measure(entries, rounds)
    finally:
        os.sched_setaffinity(0, pinned)
    conntrack = f"conntrack -L -o extended on {entries:,} entries"

    def seconds_of(what: str, values: Sequence[float], **target: float) -> Figure:
        name = f"GET of {entries:,} connections over HTTP, {what}"
        return Figure.compare(name, "s", Samples.of(values), conntrack, Samples.of(seconds), **target)

    yield seconds_of("to the first byte", [each.first for each in whole], most_value=MOST_SECONDS_TO_FIRST)
    yield seconds_of("every property", [each.whole for each in whole], most_ratio=MOST_TIMES_CONNTRACK)
    yield seconds_of("four properties (.proplist)", [each.whole for each in four], most_ratio=1.0)
    yield Figure.compare(
        f"GET of {entries:,} connections over HTTP, every property: what the server grows by meanwhile",
        "MB", Samples.of(grown), "the answer's own size", Samples.of([each.size / 1e6 for each in whole]),
        most_value=MOST_MEGABYTES,
    )  # fmt: skip
