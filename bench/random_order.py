"""tc_ingress over a million connections in random order, beside the floor program over a map of the same keys."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from bcc import BPF
from bcc.libbcc import lib

from bench.capabilities import ipv4, tcp
from bench.figure import Figure, Samples
from bench.floor_table import FLOOR, NAME, WITH_WINDOW, floor_over
from bench.machine import as_run
from bench.packet_cost import floor_module, nanoseconds
from ctweb.datapath.bpf import TestRunner
from ctweb.datapath.build import SOURCE, Datapath, compile_datapath
from ctweb.datapath.connection_table import ConnectionTable
from ctweb.datapath.maps import Batches
from ctweb.settings import Tracking

ENTRIES = 1 << 20  # senders: 10.64.0.0 and those that follow
MOST_TIMES_FLOOR = 1.2
# Connections are made in the order in which their entries lie in memory; they are measured in another one.
OPENING_ORDER, MEASURED_ORDER = 0x9E3779B1, 0x85EBCA6B
OPENING = 5  # packets on each connection before it is measured
_ACK, _PUSH, _SYN = 0x10, 0x08, 0x02


def packets() -> dict[str, bytes]:
    """The frames of the first sender; the driver gives each run another one."""
    there, back = ("10.64.0.0", "10.0.0.2"), ("10.0.0.2", "10.64.0.0")
    return {
        "SYN": ipv4(*there, 6, tcp(40_000, 443, _SYN, 1, 0)),
        "SYN-ACK": ipv4(*back, 6, tcp(443, 40_000, _SYN | _ACK, 1, 2)),
        "ACK": ipv4(*there, 6, tcp(40_000, 443, _ACK, 2, 2)),
        "data": ipv4(*there, 6, tcp(40_000, 443, _ACK | _PUSH, 2, 2, bytes(32))),
        "answer": ipv4(*back, 6, tcp(443, 40_000, _ACK, 2, 34)),
    }


class Driver:
    """bench/distinct.bpf.c: each run has another one of ENTRIES senders, in an order that looks random."""

    def __init__(self, module: Any, entries: int) -> None:
        self._calls = module.get_table(b"handed_to")
        self._order = module.get_table(b"order")
        self._runner = TestRunner(module.load_func(b"tc_any_order", BPF.SCHED_CLS).fd)
        self._entries = entries

    def run(self, program: int, packet: bytes, *, answers: bool = False, step: int = MEASURED_ORDER) -> float:
        """ns of CPU of one run of `program`, the driver's own part included; each sender comes once.

        step: odd. With another one senders come in another order.
        """
        self._calls[self._calls.Key(0)] = self._calls.Leaf(program)
        order = self._order.Leaf(mask=self._entries - 1, step=step, answers=answers)
        self._order[self._order.Key(0)] = order
        return nanoseconds(self._runner, self._entries, packet)


@contextmanager
def floor_program(entries: int) -> Iterator[tuple[int, Any]]:
    """The floor program for tc, and its map, which has room for so many."""
    floor = floor_module(entries)
    try:
        yield floor.load_func(b"tc_floor", BPF.SCHED_CLS).fd, floor[b"floor_connections"]
    finally:
        floor.cleanup()


@contextmanager
def driven(entries: int) -> Iterator[tuple[Driver, dict[str, int], Any]]:
    """The driver, the programs beside it by name, and the floor's map."""
    with floor_program(entries) as (floor, table):
        distinct = BPF(text=Path(__file__).with_name("distinct.bpf.c").read_bytes(), cflags=[f"-I{SOURCE}"])
        try:
            nothing = distinct.load_func(b"tc_nothing", BPF.SCHED_CLS).fd
            yield Driver(distinct, entries), {"floor": floor, "nothing": nothing}, table
        finally:
            distinct.cleanup()


def established(datapath: Datapath, driver: Driver, entries: int) -> None:
    """Open a connection of each sender. Raises RuntimeError if they are not there afterwards."""
    program, frames = datapath.programs["tc_ingress"], packets()
    for name in ("SYN", "SYN-ACK", "ACK", "data", "answer"):
        driver.run(program, frames[name], answers=name in ("SYN-ACK", "answer"), step=OPENING_ORDER)
    counters = datapath.read_counters()
    if counters["COUNT_CREATED"] != entries or counters["COUNT_INVALID_TCP"]:
        raise RuntimeError(f"{counters['COUNT_CREATED']} connections of {entries} were made")


def fill_floor(table: Any, datapath: Datapath) -> None:
    """The same keys, in the same order, as ctweb's map."""
    for keys, leaves in datapath.connections.read():
        # The floor knows no order of the ends: the sender is first, and here the server's address is the smaller one.
        floor = keys.copy()
        for mine, other in (("lo_addr", "hi_addr"), ("lo_port", "hi_port")):
            floor[mine], floor[other] = keys[other], keys[mine]
        whole, count = np.ascontiguousarray(leaves), ctypes.c_uint32(len(floor))
        if lib.bpf_update_batch(table.map_fd, floor.ctypes.data, whole.ctypes.data, ctypes.byref(count)):
            code = ctypes.get_errno()
            raise OSError(code, f"filling the floor's map: {os.strerror(code)}")


def counts(table: Any) -> int:
    """The packets of all connections of this table, or of the floor's map."""
    source = table if isinstance(table, ConnectionTable) else Batches(table, "connections")
    return sum(int(leaves["packets"].sum()) for _, leaves in source.read())


def check(table: Any, packets: int) -> None:
    """Raises RuntimeError if the connections of this map have not so many packets."""
    counted = counts(table)
    if counted != packets:
        raise RuntimeError(f"{counted} packets were counted, not {packets}")


def figures(rounds: int, entries: int = ENTRIES) -> Iterator[Figure]:
    datapath = compile_datapath(as_run(entries))
    try:
        datapath.memory.grow(entries)
        datapath.apply(Tracking(tcp_syn_sent_timeout=3_600_000, tcp_syn_received_timeout=3_600_000))
        with driven(entries) as (driver, programs, table), floor_over(datapath) as floors:
            established(datapath, driver, entries)
            fill_floor(table, datapath)
            measured = {
                **programs, "ctweb": datapath.programs["tc_ingress"],
                "own": floors[FLOOR], "window": floors[WITH_WINDOW],
            }  # fmt: skip
            data = packets()["data"]
            net: dict[str, list[float]] = {name: [] for name in measured}
            for _ in range(rounds):
                taken = {name: driver.run(program, data) for name, program in measured.items()}
                for name, ns in taken.items():
                    net[name].append(ns - taken["nothing"])
            check(datapath.connections, entries * (OPENING + 3 * rounds))
            check(table, entries * (OPENING + rounds))
            what = f"tc_ingress over {entries:,} established TCP connections in random order, net of an empty program"
            ours, own = Samples.of(net["ctweb"]), Samples.of(net["own"])
            yield Figure.compare(what, "ns", ours, NAME, own, most_ratio=MOST_TIMES_FLOOR)
            yield Figure.compare(
                "the same by that floor program with the least that there is to ask of TCP's window", "ns",
                Samples.of(net["window"]), NAME, own,
            )  # fmt: skip
            yield Figure.compare(
                f"{what}, again", "ns", ours, "the floor program over the kernel's hash map",
                Samples.of(net["floor"]), most_ratio=MOST_TIMES_FLOOR,
            )  # fmt: skip
    finally:
        datapath.close()
