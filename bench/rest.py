"""A GET of a million connections over HTTP, beside `conntrack -L` on as many entries."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from flask import Flask
from pyroute2 import netns

from bench.figure import Figure, Samples
from bench.sweep import filled
from ctweb.datapath.ctnetlink import NETLINK_NETFILTER, NEW
from ctweb.settings import Tracking
from ctweb.tracker import Tracker
from ctweb.web import rest, server

ENTRIES = 1_000_000
PATH = "/rest/ip/firewall/connection"
FOUR = "?.proplist=src-address,dst-address,protocol,tcp-state"
MOST_SECONDS_TO_FIRST = 1.0
MOST_TIMES_CONNTRACK = 1.5
MOST_MEGABYTES = 64.0

_LARGEST_TABLE = Path("/proc/sys/net/netfilter/nf_conntrack_max")  # of all network namespaces
_REQUEST_CREATE = 0x001 | 0x400  # NLM_F_REQUEST, NLM_F_CREATE
_AT_ONCE = 500  # messages


@dataclass(frozen=True)
class Answer:
    """One GET: seconds to the first byte of the body and to the last, and its bytes, as they were framed."""

    first: float
    whole: float
    size: int


# -- The served table: the datapath's own, without the rest of `ctweb run`.


def _serve(pipe: Connection, entries: int) -> None:
    """What the process of the server does until SIGTERM; the port goes into `pipe`."""
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


# -- nf_conntrack, in a network namespace of its own.


def _attribute(kind: int, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _nested(kind: int, *content: bytes) -> bytes:
    return _attribute(kind | 1 << 15, *content)


def _message(source: bytes, port: int) -> bytes:
    """Make an entry like those of bench/sweep.py: established TCP, to one server."""

    def ends(kind: int, *ends: tuple[bytes, int]) -> bytes:
        (one, one_port), (other, other_port) = ends
        return _nested(
            kind,
            _nested(1, _attribute(1, one), _attribute(2, other)),  # CTA_TUPLE_IP: CTA_IP_V4_SRC, _DST
            _nested(  # CTA_TUPLE_PROTO: _NUM, _SRC_PORT, _DST_PORT
                2, _attribute(1, b"\6"), _attribute(2, one_port.to_bytes(2, "big")),
                _attribute(3, other_port.to_bytes(2, "big")),
            ),
        )  # fmt: skip

    client, far = (source, port), (bytes([192, 168, 0, 1]), 443)
    body = struct.pack("=BBH", socket.AF_INET, 0, 0)
    body += ends(1, client, far) + ends(2, far, client)  # CTA_TUPLE_ORIG, _REPLY
    body += _attribute(3, struct.pack(">I", 0b1110))  # CTA_STATUS: seen reply, assured, confirmed
    body += _attribute(7, struct.pack(">I", 86_400))  # CTA_TIMEOUT, s
    body += _nested(4, _nested(1, _attribute(1, b"\3")))  # CTA_PROTOINFO, _TCP, _STATE: established
    return struct.pack("=IHHII", 16 + len(body), NEW, _REQUEST_CREATE, 0, 0) + body


def _messages(entries: int) -> Iterator[bytes]:
    """All of them, _AT_ONCE at a time."""
    template = np.frombuffer(_message(bytes([9, 9, 9, 9]), 0x0909), np.uint8)
    text = template.tobytes()
    addresses = [found.start() for found in re.finditer(b"\t\t\t\t", text)]
    ports = [found.start() for found in re.finditer(b"(?<!\t)\t\t(?!\t)", text)]
    if (len(addresses), len(ports)) != (2, 2):
        raise RuntimeError("the message has its addresses and ports elsewhere")
    for start in range(0, entries, _AT_ONCE):
        number = np.arange(start, min(start + _AT_ONCE, entries), dtype=np.uint32)
        made = np.tile(template, (len(number), 1))
        address = (0x0A000000 + (number >> 4)).astype(">u4").view(np.uint8).reshape(-1, 4)
        port = (1024 + (number & 15)).astype(">u2").view(np.uint8).reshape(-1, 2)
        for place in addresses:
            made[:, place : place + 4] = address
        for place in ports:
            made[:, place : place + 2] = port
        yield made.tobytes()


@contextmanager
def tracked_by_the_kernel(entries: int) -> Iterator[str]:
    """The network namespace in which nf_conntrack has that many entries. Raises OSError, RuntimeError."""
    name = f"bench-{os.getpid()}"
    largest = _LARGEST_TABLE.read_text()
    netns.create(name)
    try:
        netns.pushns(name)
        try:
            Path("/proc/sys/net/netfilter/nf_conntrack_acct").write_text("1")  # it then lists counters, as we do
            netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        finally:
            netns.popns()
        _LARGEST_TABLE.write_text(str(max(int(largest), 2 * entries)))
        with netlink:
            for messages in _messages(entries):
                netlink.send(messages)
        yield name
    finally:
        _LARGEST_TABLE.write_text(largest)
        netns.remove(name)


def listed(namespace: str) -> tuple[float, int]:
    """Seconds that `conntrack -L -o extended` takes to its last byte, and the entries."""
    command = ["ip", "netns", "exec", namespace, "conntrack", "-L", "-o", "extended"]
    lines, buffer = 0, bytearray(1 << 20)
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        while count := os.readv(process.stdout.fileno(), [buffer]):
            lines += buffer.count(b"\n", 0, count)
    return time.perf_counter() - began, lines


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
            took, lines = listed(namespace)
            if lines != entries:
                raise RuntimeError(f"{entries} entries, but conntrack lists {lines}")
            seconds.append(took)
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
