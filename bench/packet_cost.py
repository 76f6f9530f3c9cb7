"""What the ingress programs cost for one packet of an established TCP connection, beside the floor in the same run."""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bcc import BPF

from bench.figure import Figure, Samples
from bench.floor_table import FLOOR, NAME, floor_over
from bench.machine import as_run
from ctweb.datapath.bpf import TestRunner
from ctweb.datapath.build import SOURCE, Datapath, compile_datapath
from ctweb.settings import Tracking

MOST_TIMES_FLOOR = 1.3
MAX_ENTRIES = 65_536

_CLIENT, _SERVER = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
_CLIENT_PORT, _SERVER_PORT = 40_000, 443
_SYN, _ACK, _PUSH = 0x02, 0x10, 0x08


def frame(flags: int, *, reply: bool = False, sequence: int = 2, acknowledged: int = 2, payload: int = 0) -> bytes:
    """An Ethernet frame with IPv4 and TCP; checksums are left zero, which no program here looks at."""
    ends = [(_CLIENT, _CLIENT_PORT), (_SERVER, _SERVER_PORT)]
    (source, source_port), (destination, destination_port) = reversed(ends) if reply else ends
    ethernet = bytes(12) + b"\x08\x00"
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40 + payload, 0, 0, 64, 6, 0, source, destination)
    tcp = struct.pack("!HHIIBBHHH", source_port, destination_port, sequence, acknowledged, 5 << 4, flags, 65_535, 0, 0)
    return ethernet + ip + tcp + bytes(payload)


PAYLOAD = 32
DATA = frame(_ACK | _PUSH, payload=PAYLOAD)


def floor_module(entries: int) -> BPF:
    """The floor programs and their map, made as that of `ctweb run` would be on this machine. To be cleaned up."""
    os.environ["BCC_KERNEL_SOURCE"] = str(SOURCE / "headers")
    text = Path(__file__).with_name("floor.bpf.c").read_bytes()
    flags = "0" if as_run(entries).preallocate else "BPF_F_NO_PREALLOC"
    return BPF(text=text, cflags=[f"-I{SOURCE}", f"-DMAX_ENTRIES={entries}", f"-DMAP_FLAGS={flags}"])


@contextmanager
def yardsticks() -> Iterator[dict[str, TestRunner]]:
    """The empty and the floor programs, the floor with the connection of DATA in its map."""
    module = floor_module(MAX_ENTRIES)
    try:
        table = module[b"floor_connections"]
        key = table.Key(protocol=6, family=4)
        key.lo_addr[0], key.hi_addr[0] = (int.from_bytes(address, sys.byteorder) for address in (_CLIENT, _SERVER))
        key.lo_port, key.hi_port = socket.htons(_CLIENT_PORT), socket.htons(_SERVER_PORT)
        table[key] = table.Leaf()
        runners = {
            name: TestRunner(module.load_func(name.encode(), BPF.XDP if name.startswith("xdp") else BPF.SCHED_CLS).fd)
            for name in ("tc_empty", "tc_floor", "xdp_empty", "xdp_floor")
        }
        for hook in ("tc", "xdp"):
            runners[f"{hook}_floor"].run(DATA)
        if table[key].packets[0] != 2:
            raise RuntimeError("the floor programs did not count the benchmark's packet")
        yield runners
    finally:
        module.cleanup()


def establish(datapath: Datapath, program: TestRunner) -> None:
    """Open the connection of DATA through `program`. Raises RuntimeError if it is not an established one afterwards."""
    opening = (frame(_SYN, sequence=1, acknowledged=0), frame(_SYN | _ACK, sequence=1, reply=True), frame(_ACK))
    for packet in (*opening, DATA, frame(_ACK, acknowledged=2 + PAYLOAD, reply=True)):
        program.run(packet)
    connections = list(datapath.connections.values())
    if len(connections) != 1 or connections[0].tcp_state != datapath.enums["tcp_state"]["TCP_ESTABLISHED"]:
        raise RuntimeError(f"not one established connection to measure on, but {len(connections)} entries")


def nanoseconds(program: TestRunner, runs: int, packet: bytes = DATA) -> float:
    """CPU time of one run, by `runs` in one go."""
    before = time.thread_time_ns()
    program.run(packet, repeat=runs)
    return (time.thread_time_ns() - before) / runs


def figures(runs: int, rounds: int) -> list[Figure]:
    """One figure a hook: net of the empty program, ctweb beside the floor."""
    found = []
    datapath = compile_datapath(as_run(MAX_ENTRIES))
    try:
        datapath.apply(Tracking())
        with yardsticks() as yardstick, floor_over(datapath) as floors:
            over_table = TestRunner(floors[FLOOR])
            for hook in ("tc", "xdp"):
                program = TestRunner(datapath.programs[f"{hook}_ingress"])
                datapath.connections.clear()
                establish(datapath, program)
                net: list[float] = []
                floor: list[float] = []
                own: list[float] = []
                for _ in range(rounds):  # interleaved: what disturbs the machine for a while disturbs all three
                    empty = nanoseconds(yardstick[f"{hook}_empty"], runs)
                    floor.append(nanoseconds(yardstick[f"{hook}_floor"], runs) - empty)
                    net.append(nanoseconds(program, runs) - empty)
                    if hook == "tc":
                        own.append(nanoseconds(over_table, runs) - empty)
                what = f"{hook}_ingress, a packet of an established TCP connection, net of an empty program"
                found.append(
                    Figure.compare(
                        what, "ns", Samples.of(net), "the floor program over the kernel's hash map", Samples.of(floor),
                        most_ratio=MOST_TIMES_FLOOR,
                    )
                )  # fmt: skip
                if own:
                    found.append(Figure.compare(f"{what}, again", "ns", Samples.of(net), NAME, Samples.of(own)))
    finally:
        datapath.close()
    return found
