"""nf_conntrack's table with so many connections, and what `conntrack -L` of it costs."""

from __future__ import annotations

import os
import re
import resource
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pyroute2 import netns

from bench.figure import Samples
from bench.router import entered
from ctweb.datapath.conntrack_requests import attribute, nested
from ctweb.datapath.ctnetlink import NETLINK_NETFILTER, NEW

_LARGEST_TABLE = Path("/proc/sys/net/netfilter/nf_conntrack_max")  # of all network namespaces
_REQUEST_CREATE = 0x001 | 0x400  # NLM_F_REQUEST, NLM_F_CREATE
_AT_ONCE = 500  # messages


def _message(source: bytes, port: int) -> bytes:
    """Make an entry like those of bench/sweep.py: established TCP, to one server."""

    def ends(kind: int, *ends: tuple[bytes, int]) -> bytes:
        (one, one_port), (other, other_port) = ends
        addresses = attribute(1, one) + attribute(2, other)  # CTA_IP_V4_SRC, _DST
        numbers = attribute(1, b"\6")  # CTA_PROTO_NUM, _SRC_PORT, _DST_PORT
        numbers += attribute(2, one_port.to_bytes(2, "big")) + attribute(3, other_port.to_bytes(2, "big"))
        return nested(kind, nested(1, addresses) + nested(2, numbers))  # CTA_TUPLE_IP, _PROTO

    client, far = (source, port), (bytes([192, 168, 0, 1]), 443)
    body = struct.pack("=BBH", socket.AF_INET, 0, 0)
    body += ends(1, client, far) + ends(2, far, client)  # CTA_TUPLE_ORIG, _REPLY
    body += attribute(3, struct.pack(">I", 0b1110))  # CTA_STATUS: seen reply, assured, confirmed
    body += attribute(7, struct.pack(">I", 86_400))  # CTA_TIMEOUT, s
    body += nested(4, nested(1, attribute(1, b"\3")))  # CTA_PROTOINFO, _TCP, _STATE: established
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
        with entered(name):
            Path("/proc/sys/net/netfilter/nf_conntrack_acct").write_text("1")  # it then lists counters, as we do
            netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        _LARGEST_TABLE.write_text(str(max(int(largest), 2 * entries)))
        with netlink:
            for messages in _messages(entries):
                netlink.send(messages)
        yield name
    finally:
        _LARGEST_TABLE.write_text(largest)
        netns.remove(name)


@dataclass(frozen=True)
class Listing:
    """One `conntrack -L`: seconds of CPU, seconds to its last byte, and bytes that it printed."""

    cpu: float
    seconds: float
    size: int


def list_once(namespace: str, entries: int, *options: str) -> Listing:
    """Raises RuntimeError if it lists not as many entries."""
    command = ["ip", "netns", "exec", namespace, "conntrack", "-L", *options]
    lines, size, buffer = 0, 0, bytearray(1 << 20)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        while count := os.readv(process.stdout.fileno(), [buffer]):
            lines += buffer.count(b"\n", 0, count)
            size += count
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if lines != entries:
        raise RuntimeError(f"{entries} entries, but conntrack lists {lines}")
    return Listing(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, seconds, size)


def listed(entries: int, rounds: int) -> tuple[Samples, Samples, float]:
    """Seconds of CPU and of time that one takes, and megabytes that it prints. Raises OSError, RuntimeError."""
    with tracked_by_the_kernel(entries) as namespace:
        found = [list_once(namespace, entries) for _ in range(rounds)]
    cpu, seconds = Samples.of([each.cpu for each in found]), Samples.of([each.seconds for each in found])
    return cpu, seconds, found[-1].size / 1e6
