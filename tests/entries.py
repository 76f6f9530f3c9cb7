"""Entries put into the kernel's table by hand, and packets run through its programs."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import contextmanager

import numpy as np

from ctweb.datapath.bpf import TestRunner
from ctweb.datapath.build import BuildOptions, compile_datapath
from ctweb.datapath.maps import write
from ctweb.settings import Tracking

SECOND = 1_000_000_000
BATCH = 65_536
FIRST_ID = 1 << 32  # ids that the kernel does not reach in a test


@contextmanager
def loaded(max_entries=300_000, *, whole=False):
    """The real programs and an empty table, with the default settings; nothing is attached. whole: it is made whole."""
    datapath = compile_datapath(BuildOptions(max_entries=max_entries, preallocate=whole))
    try:
        reset(datapath)
        yield datapath
    finally:
        datapath.close()


def reset(datapath) -> None:
    """As it was when it was loaded: no entries, no counts, the default settings."""
    datapath.connections.clear()
    datapath.counters[datapath.counters.Key(0)] = datapath.counters.Leaf()
    datapath.apply(Tracking())


def put(datapath, n, *, first=0, **given) -> None:
    """Write `n` UDP connections from 10.x.y.z:1000 to 192.0.2.1:53, x.y.z counting from `first`.

    Their ids are FIRST_ID + x.y.z, they were made now and expire in an hour. `given`: fields of `struct conn`,
    each one value for all or one for each entry.
    """
    now = datapath.clock.now()
    given = {"expires": now + 3600 * SECOND, "created": now} | given
    for start in range(0, n, BATCH):
        part = slice(start, min(start + BATCH, n))
        size = part.stop - part.start
        hosts = np.arange(first + part.start, first + part.stop)
        made, conns = _keys(datapath, hosts), np.zeros(size, datapath.leaf_dtype)
        conns["id"] = FIRST_ID + hosts
        for name, value in given.items():
            whole = np.asarray(value)
            conns[name] = whole[part] if whole.ndim and len(whole) == n else whole
        write(datapath.connections, made, conns)


def take_away(datapath, n, *, first=0) -> None:
    """Delete what put() wrote."""
    put(datapath, n, first=first, expires=1)
    gone = datapath.reap(_keys(datapath, np.arange(first, first + n)), datapath.clock.now())
    assert gone == n, f"the kernel deleted {gone} of {n} entries"


def _keys(datapath, hosts):
    made = np.zeros(len(hosts), datapath.key_dtype)
    made["lo_addr"][:, 0] = (0x0A000000 + hosts).astype(">u4").view(np.uint32)
    made["hi_addr"][:, 0] = np.frombuffer(socket.inet_aton("192.0.2.1"), np.uint32)[0]
    made["lo_port"], made["hi_port"] = socket.htons(1000), socket.htons(53)
    made["protocol"], made["family"] = socket.IPPROTO_UDP, 4
    return made


def udp_frame(host: int, payload: int = 0) -> bytes:
    """An Ethernet frame from the connection that put() makes for `host`."""
    udp = struct.pack("!HHHH", 1000, 53, 8 + payload, 0) + bytes(payload)
    ip = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0,
        struct.pack("!I", 0x0A000000 + host), socket.inet_aton("192.0.2.1"),
    )  # fmt: skip
    return bytes(12) + b"\x08\x00" + ip + udp


def packet(datapath, host: int, payload: int = 0, repeat: int = 1) -> None:
    """Hand such a frame to the program, as if it came in at an interface."""
    TestRunner(datapath.programs["tc_ingress"]).run(udp_frame(host, payload), repeat=repeat)


def wait_until(condition, seconds=10.0):
    """The first true answer of `condition`, asked again and again; the last one if none came in time."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return answer
