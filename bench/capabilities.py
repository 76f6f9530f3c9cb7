"""What tc_ingress costs for other packets than the plain one, each beside that one in the same run."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from bcc import BPF

from bench.figure import Figure, Samples
from bench.machine import as_run
from bench.packet_cost import MAX_ENTRIES, establish, nanoseconds, yardsticks
from ctweb.datapath.bpf import TestRunner
from ctweb.datapath.build import SOURCE, Datapath, compile_datapath
from ctweb.datapath.ctnetlink import Ends, Entry
from ctweb.datapath.marking import Marking
from ctweb.datapath.translations import Translations, item
from ctweb.rules import parse_rules
from ctweb.settings import Tracking

FRESH = 50_000  # connections of one run: the table has room for them all
RULES = 64

_PLAIN = "a packet of an established TCP connection over IPv4"
_TCP, _UDP, _ICMP = 6, 17, 1
_SYN, _ACK, _PUSH = 0x02, 0x10, 0x08
_PAYLOAD = bytes(32)

Wrap = Callable[[bytes], bytes]
"""Puts a transport header and its payload into a frame."""


def ipv4(source: str, destination: str, protocol: int, segment: bytes, *, fragment: int = 0, tag: bytes = b"") -> bytes:
    """An Ethernet frame. fragment: flags and offset as the header has them. tag: a VLAN tag."""
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 7, fragment, 64, protocol, 0,
        ip_address(source).packed, ip_address(destination).packed,
    )  # fmt: skip
    return bytes(12) + tag + b"\x08\x00" + header + segment


def ipv6(source: str, destination: str, protocol: int, segment: bytes) -> bytes:
    ends = ip_address(source).packed + ip_address(destination).packed
    return bytes(12) + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(segment), protocol, 64) + ends + segment


def udp(source: int, destination: int, payload: bytes = _PAYLOAD) -> bytes:
    return struct.pack("!HHHH", source, destination, 8 + len(payload), 0) + payload


def tcp(source: int, destination: int, flags: int, sequence: int, acknowledged: int, payload: bytes = b"") -> bytes:
    header = struct.pack("!HHIIBBHHH", source, destination, sequence, acknowledged, 5 << 4, flags, 65_535, 0, 0)
    return header + payload


def data(source: int, destination: int, payload: bytes = _PAYLOAD, sequence: int = 2, acknowledged: int = 2) -> bytes:
    return tcp(source, destination, _ACK | _PUSH, sequence, acknowledged, payload)


def opened(there: Wrap, back: Wrap, source: int, destination: int) -> tuple[bytes, ...]:
    """The frames that make an established TCP connection on which both sides have sent data."""
    return (
        there(tcp(source, destination, _SYN, 1, 0)),
        back(tcp(destination, source, _SYN | _ACK, 1, 2)),
        there(tcp(source, destination, _ACK, 2, 2)),
        there(data(source, destination)),
        back(data(destination, source, acknowledged=2 + len(_PAYLOAD))),
        there(tcp(source, destination, _ACK, 2 + len(_PAYLOAD), 2 + len(_PAYLOAD))),
    )


@dataclass(frozen=True)
class Case:
    """A packet to measure, and what makes it one of a live connection.

    opening: frames before the first round. each: frames before each round. translations: as from nf_conntrack. expects:
    the packet announces a connection.
    """

    name: str
    packet: bytes
    opening: tuple[bytes, ...] = ()
    each: tuple[bytes, ...] = ()
    tracking: Tracking = field(default_factory=Tracking)
    translations: tuple[bytes, ...] = ()
    expects: bool = False


def cases() -> Iterator[Case]:
    """Every case has ports of its own, and so a connection of its own."""
    client, server, public = "10.0.0.1", "10.0.0.2", "192.0.2.1"
    there, back = partial(ipv4, client, server), partial(ipv4, server, client)
    tcp_there, tcp_back = partial(there, _TCP), partial(back, _TCP)

    yield Case(
        "UDP of a stream (packets seen both ways)",
        there(_UDP, udp(41_000, 53)),
        (there(_UDP, udp(41_000, 53)), back(_UDP, udp(53, 41_000))),
    )
    there6, back6 = partial(ipv6, "2001:db8::1", "2001:db8::2", _TCP), partial(ipv6, "2001:db8::2", "2001:db8::1", _TCP)
    yield Case("TCP over IPv6", there6(data(41_001, 443)), opened(there6, back6, 41_001, 443))
    tag = bytes.fromhex("81000005")
    yield Case(
        "TCP with a VLAN tag in the frame",
        tcp_there(data(41_002, 443), tag=tag),
        opened(partial(tcp_there, tag=tag), partial(tcp_back, tag=tag), 41_002, 443),
    )
    yield Case(
        "TCP far outside of the window, with liberal-tcp-tracking",
        tcp_there(data(41_003, 443, sequence=1 << 30)),
        opened(tcp_there, tcp_back, 41_003, 443),
        tracking=Tracking(liberal_tcp_tracking=True),
    )
    translated = partial(ipv4, server, public, _TCP)
    client_port, server_port = struct.pack("!H", 41_004), struct.pack("!H", 443)
    yield Case(
        "TCP, a reply behind NAT (by the map of translations)",
        translated(data(443, 41_004, acknowledged=2 + len(_PAYLOAD))),
        opened(tcp_there, translated, 41_004, 443),
        translations=(
            item(
                Entry(
                    False,
                    Ends(ip_address(client).packed, ip_address(server).packed, _TCP, client_port, server_port),
                    Ends(ip_address(server).packed, ip_address(public).packed, _TCP, server_port, client_port),
                    0,
                    0,
                    "",
                ),
                None,
                1,
            ),
        ),
    )
    datagram = udp(41_005, 53, bytes(1472))
    yield Case(
        "a later fragment of a UDP packet (tail call)",
        there(_UDP, bytes(512), fragment=1480 // 8),
        each=(there(_UDP, datagram, fragment=1 << 13),),
    )
    # The line before leaves the helper at the beginning of a line.
    line = b"USER someone\r\n"
    for port, name, command, expects in (
        (41_006, "a line without a port", b"TYPE I\r\n", False),
        (41_007, "a PORT command, which is read and expected", b"PORT 10,0,0,1,160,40\r\n", True),
    ):
        at = 2 + len(_PAYLOAD)
        yield Case(
            f"FTP control connection, {name} (helper, tail call)",
            tcp_there(data(port, 21, command, at + len(line), at)),
            (*opened(tcp_there, tcp_back, port, 21), tcp_there(data(port, 21, line, at, at))),
            expects=expects,
        )
    yield Case("ICMP echo request", there(_ICMP, struct.pack("!BBHHH", 8, 0, 0, 5, 1) + _PAYLOAD))


class Bench:
    """The loaded datapath, with the plain connection in its table."""

    def __init__(self, datapath: Datapath, empty: TestRunner, rounds: int, runs: int) -> None:
        self.datapath = datapath
        self.program = TestRunner(datapath.programs["tc_ingress"])
        self._empty = empty
        self._rounds = rounds
        self._runs = runs
        datapath.apply(Tracking())
        establish(datapath, self.program)

    def figure(self, name: str, measured: Callable[[float], float]) -> Figure:
        """measured: the case's ns, net, given those of the empty program."""
        net: list[float] = []
        plain: list[float] = []
        for _ in range(self._rounds):  # interleaved, as in packet_cost
            empty = nanoseconds(self._empty, self._runs)
            plain.append(nanoseconds(self.program, self._runs) - empty)
            net.append(measured(empty))
        return Figure.compare(
            f"tc_ingress, {name}, net of an empty program", "ns", Samples.of(net), _PLAIN, Samples.of(plain)
        )

    def counted(self) -> int:
        """Packets on all connections."""
        return sum(sum(connection.packets) for connection in self.datapath.connections.values())

    def case(self, case: Case) -> Figure:
        """Raises RuntimeError if a packet was not counted on the case's one connection, or the helper missed it."""
        others = len(self.datapath.connections)
        self.datapath.table("expectations").clear()
        self.datapath.apply(case.tracking)
        self.datapath.expect_nat(bool(case.translations))
        Translations(self.datapath).learn(case.translations)
        for packet in case.opening:
            self.program.run(packet)

        def measured(empty: float) -> float:
            for packet in (*case.each, case.packet):
                self.program.run(packet)
            before = self.counted()
            taken = nanoseconds(self.program, self._runs, case.packet)
            counted, made = self.counted() - before, len(self.datapath.connections) - others
            if counted != self._runs or made != 1:
                raise RuntimeError(f"{case.name}: {counted} of {self._runs} packets were counted on {made} connections")
            if case.expects != bool(len(self.datapath.table("expectations"))):
                raise RuntimeError(f"{case.name}: the helper did not do what is measured")
            return taken - empty

        found = self.figure(case.name, measured)
        self.datapath.apply(Tracking())
        self.datapath.expect_nat(False)
        return found

    def fresh(self, name: str, distinct: Distinct, connections: int) -> Figure:
        """A connection each packet. Raises RuntimeError if one was not made."""
        packet = ipv4("10.64.0.0", "10.0.0.2", _UDP, udp(41_008, 53))

        def measured(_: float) -> float:
            empty = distinct.nanoseconds(distinct.empty, connections, packet)
            before = self.datapath.read_counters()["COUNT_CREATED"]
            taken = distinct.nanoseconds(self.datapath.programs["tc_ingress"], connections, packet)
            made = self.datapath.read_counters()["COUNT_CREATED"] - before
            self._remove(packet)
            if made != connections:
                raise RuntimeError(f"{name}: {made} of {connections} connections were made")
            return taken - empty

        measured(0)  # once for nothing: a map that was never filled is faster, and a running machine has none
        return self.figure(name, measured)

    def _remove(self, packet: bytes) -> None:
        """End every UDP connection that has the source port of this packet."""
        batches = self.datapath.connections.read()
        port = _port(packet)
        for keys, ids in [(keys.copy(), leaves["id"].copy()) for keys, leaves in batches]:
            ours = (keys["protocol"] == _UDP) & ((keys["lo_port"] == port) | (keys["hi_port"] == port))
            self.datapath.remove(keys[ours], ids[ours])


def _port(packet: bytes) -> int:
    """The source port of an IPv4 frame, as tuples have it."""
    return int(struct.unpack_from("=H", packet, 34)[0])


class Distinct:
    """bench/distinct.bpf.c: another sender each run. empty: descriptor of an empty program."""

    def __init__(self, module: Any) -> None:
        self._calls = module.get_table(b"handed_to")
        self._runner = TestRunner(module.load_func(b"tc_distinct", BPF.SCHED_CLS).fd)
        self.empty: int = module.load_func(b"tc_nothing", BPF.SCHED_CLS).fd

    def nanoseconds(self, program: int, runs: int, packet: bytes) -> float:
        """CPU time of one run of `program`, and of what makes the packet another one each time."""
        self._calls[self._calls.Key(0)] = self._calls.Leaf(program)
        return nanoseconds(self._runner, runs, packet)


@contextmanager
def distinct_senders() -> Iterator[Distinct]:
    os.environ["BCC_KERNEL_SOURCE"] = str(SOURCE / "headers")
    module = BPF(text=Path(__file__).with_name("distinct.bpf.c").read_bytes(), cflags=[f"-I{SOURCE}"])
    try:
        yield Distinct(module)
    finally:
        module.cleanup()


def never_matching(datapath: Datapath) -> Marking:
    """Rules in force of which none matches: each new connection asks them all."""
    marking = Marking(datapath.set_rules, datapath.rule_dtype, lambda _: 1)
    rule = {"action": "mark-connection", "new-connection-mark": "m", "protocol": "udp"}
    marking.set(parse_rules([rule | {"dst-port": 20_000 + number} for number in range(RULES)]))
    return marking


def figures(runs: int, rounds: int, connections: int = FRESH) -> Iterator[Figure]:
    """One figure a case; new connections come first, for something expected (FTP) would cost them more."""
    datapath = compile_datapath(as_run(MAX_ENTRIES))
    try:
        with yardsticks() as yardstick, distinct_senders() as distinct:
            bench = Bench(datapath, yardstick["tc_empty"], rounds, runs)
            yield bench.fresh("a new UDP connection, no rules", distinct, connections)
            marking = never_matching(datapath)
            yield bench.fresh(f"a new UDP connection, {RULES} rules of which none matches", distinct, connections)
            marking.set(())
            for case in cases():
                yield bench.case(case)
    finally:
        datapath.close()
