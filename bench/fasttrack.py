"""What a router takes to forward a small packet of one of 10,000 connections: the kernel's ways, bare XDP, FastTrack.

client - router - server are three network namespaces on one CPU. The client's packets come from an XDP program in a
test run with live frames, and end in one at the server's door. CPU time of all of it is taken, and that of a run in
which the router drops the packets at its door is taken off: what is left is the router's own part.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from bcc import BPF
from pyroute2 import netns

from bench.figure import Figure, Samples
from bench.machine import as_run
from bench.router import entered, real_time, run_live
from ctweb.datapath.build import SOURCE, compile_datapath
from ctweb.datapath.conntrack import Conntrack
from ctweb.datapath.fasttrack import FastTrack
from ctweb.datapath.follow import Interfaces
from ctweb.datapath.links import BpfLink, Hook
from ctweb.datapath.marking import Marking
from ctweb.datapath.rulebook import Rulebook
from ctweb.rules import parse_rules
from ctweb.settings import Tracking
from ctweb.table.names import Status
from ctweb.tracker import Tracker

CONNECTIONS = 10_000
MAX_ENTRIES = 65_536
MOST_OF_KERNEL, MOST_OF_BARE = 0.25, 1.4

_BURST = 300_000  # packets in one go; then the machine is everybody's again for a moment
_PAUSE = 0.02
_TRIES = 3
_FIRST_PORT, _SERVER_PORT = 20_000, 9
_CLIENT, _LAN, _WAN, _SERVER = "10.9.1.2", "10.9.1.1", "10.9.2.1", "10.9.2.2"
_MACS = {name: f"02:00:00:00:00:0{number}" for number, name in enumerate(("client", "lan", "wan", "server"), 1)}
_CONNTRACK = "table inet f {\n chain f { type filter hook forward priority 0\n ct state established accept\n }\n }"
_NAT = 'table inet n {\n chain n { type nat hook postrouting priority srcnat\n oifname "wan" masquerade\n }\n }'
_RULE = {"action": "fasttrack-connection", "connection-state": "established,related"}


def run(namespace: str, *command: str, given: str = "") -> None:
    subprocess.run(
        ["nsenter", f"--net=/run/netns/{namespace}", "--", *command], input=given, text=True, check=True,
        capture_output=True,
    )  # fmt: skip


@dataclass(frozen=True)
class Machines:
    """Names of the three namespaces."""

    client: str
    router: str
    server: str


@contextmanager
def machines() -> Iterator[Machines]:
    """Each knows its neighbours, and every interface takes redirected packets."""
    made = Machines(*(f"bench-{os.getpid()}-{role}" for role in ("client", "router", "server")))
    with ExitStack() as stack:
        for name in (made.client, made.router, made.server):
            netns.create(name)
            stack.callback(netns.remove, name)
        ends = ((made.client, "client", "lan", _CLIENT, _LAN), (made.server, "server", "wan", _SERVER, _WAN))
        for end, far, near, far_address, near_address in ends:
            run(made.router, "ip", "link", "add", near, "address", _MACS[near], "type", "veth",
                "peer", "name", "eth0", "address", _MACS[far], "netns", end)  # fmt: skip
            for place, name, address, other, mac in (
                (end, "eth0", far_address, near_address, _MACS[near]),
                (made.router, near, near_address, far_address, _MACS[far]),
            ):
                run(place, "ip", "link", "set", name, "up")
                run(place, "ip", "address", "add", f"{address}/24", "dev", name)
                run(place, "ip", "neigh", "replace", other, "lladdr", mac, "dev", name, "nud", "permanent")
                run(place, "ethtool", "-K", name, "gro", "on")
            run(end, "ip", "route", "add", "default", "via", near_address)
        run(made.router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        yield made


class Lab:
    """The namespaces with the programs of bench/forwarding.bpf.c."""

    def __init__(self, at: Machines, module: Any, stack: ExitStack) -> None:
        self.at = at
        self._module = module
        self._stack = stack
        self._programs = {
            name: module.load_func(name.encode(), BPF.XDP).fd for name in ("xdp_generate", "xdp_end", "xdp_bare")
        }
        for end in (at.client, at.server):
            stack.enter_context(self.attached(end, "eth0", "xdp_end"))
        self._softirqs = _ksoftirqd(min(os.sched_getaffinity(0)))

    @contextmanager
    def attached(self, namespace: str, interface: str, program: str) -> Iterator[None]:
        with entered(namespace):
            link = BpfLink.create(self._programs[program], socket.if_nametoindex(interface), Hook.XDP)
        try:
            yield
        finally:
            link.close()

    def there(self, packets: int) -> float:
        """From the client to the server; ns of CPU for each. Raises RuntimeError if not all arrive, _TRIES times over.

        A queue of a veth pair may run over once in a while, when something else takes the CPU for long.
        """
        for _ in range(_TRIES):
            taken, came = self._send(self.at.client, (_CLIENT, _SERVER), ("client", "lan"), packets, reply=False)
            if came == packets or packets <= CONNECTIONS:
                return taken / packets
        raise RuntimeError(f"{packets} packets were sent, and {came} arrived")

    def back(self, to: str) -> None:
        """An answer on each connection."""
        self._send(self.at.server, (_SERVER, to), ("server", "wan"), CONNECTIONS, reply=True)

    def _send(
        self, namespace: str, addresses: tuple[str, str], macs: tuple[str, str], packets: int, *, reply: bool
    ) -> tuple[int, int]:
        """ns of CPU that it takes, and how many packets arrive at one of the ends."""
        shape, arrived = self._module[b"shape"], self._module[b"arrived"]
        frame = _frame(addresses, macs, reply=reply)
        leaf = shape.Leaf(connections=CONNECTIONS, first=_FIRST_PORT, at=int(reply))
        ctypes.memmove(leaf.head, frame, 42)
        data = ctypes.create_string_buffer(frame, len(frame))
        with entered(namespace):
            leaf.ifindex = socket.if_nametoindex("eth0")
            shape[shape.Key(0)] = leaf
            before = sum(arrived[arrived.Key(0)])
            taken = 0
            for done in range(0, packets, _BURST):
                taken += self._burst(data, min(_BURST, packets - done))
                time.sleep(_PAUSE)
        return taken, sum(arrived[arrived.Key(0)]) - before

    def _burst(self, data: ctypes.Array[ctypes.c_char], packets: int) -> int:
        """ns of CPU that they take."""
        with real_time():  # so that no softirq waits for the kernel's thread, nor is a queue full meanwhile
            softirqs, start = _cpu_time(self._softirqs), time.thread_time_ns()
            run_live(self._programs["xdp_generate"], data, packets)
            return time.thread_time_ns() - start + _cpu_time(self._softirqs) - softirqs


def _frame(addresses: tuple[str, str], macs: tuple[str, str], *, reply: bool) -> bytes:
    """60 bytes with a UDP packet of 46; one of its ports is written by the generator. Its checksum is left out."""
    source, destination = (bytes.fromhex(_MACS[name].replace(":", "")) for name in macs)
    ends = b"".join(ip_address(each).packed for each in addresses)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 46, 0, 0, 64, 17, 0) + ends
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    ports = (_SERVER_PORT, 0) if reply else (0, _SERVER_PORT)
    packet = head[:10] + struct.pack("!H", total) + head[12:] + struct.pack("!HHHH", *ports, 26, 0)
    return (destination + source + b"\x08\x00" + packet).ljust(60, b"\0")


def _ksoftirqd(cpu: int) -> Path:
    for each in Path("/proc").glob("[0-9]*/comm"):
        if each.read_text().strip() == f"ksoftirqd/{cpu}":
            return each.with_name("schedstat")
    raise RuntimeError(f"no ksoftirqd of CPU {cpu}")


def _cpu_time(schedstat: Path) -> int:
    return int(schedstat.read_text().split()[0])


@contextmanager
def fasttracked(lab: Lab, state: Path, replies_to: str) -> Iterator[None]:
    """ctweb on the router, all connections on the fast path. Raises RuntimeError if they do not get there."""
    with ExitStack() as stack, entered(lab.at.router):
        datapath = compile_datapath(as_run(MAX_ENTRIES))
        stack.callback(datapath.close)
        tracker = Tracker(datapath, Tracking(udp_timeout=600_000), state)
        fasttrack = tracker.fasttrack = FastTrack(datapath)
        rulebook = Rulebook(Marking(datapath.set_rules, datapath.rule_dtype, tracker.marks.number), fasttrack)
        rulebook.set(parse_rules([_RULE]))
        conntrack = Conntrack(datapath, tracker.marks, {})
        conntrack.start()
        stack.callback(conntrack.stop)
        interfaces = Interfaces(
            fasttrack.programs, datapath.interfaces, hook="xdp", names=("lan", "wan"), noticed=rulebook.interfaces_are,
            settled=fasttrack.hooks_are,
        )  # fmt: skip
        interfaces.attach()
        stack.callback(interfaces.stop)
        stack.enter_context(fasttrack.running(interfaces.replace))
        deadline = time.monotonic() + 60
        while True:
            lab.there(CONNECTIONS)
            lab.back(replies_to)
            status = tracker.sweep().columns.status
            if ((status & Status.FASTTRACK) != 0).sum() >= CONNECTIONS:
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"not all connections are fasttracked: {fasttrack.refusals}")
            time.sleep(0.2)
        lab.there(CONNECTIONS)
        before = datapath.read_counters()
        yield
        after = datapath.read_counters()
        fast, met = (after[name] - before[name] for name in ("COUNT_FASTTRACK_PACKETS", "COUNT_OFFERED_PACKETS"))
        if fast < 0.9 * met:  # the rest is for the kernel's entries
            raise RuntimeError(f"only {fast} of {met} packets went fast")


def measured(lab: Lab, state: Path, packets: int, rounds: int) -> dict[str, Samples]:
    """ns of CPU a packet, by what the router does."""

    def samples() -> Samples:
        lab.there(CONNECTIONS)  # once for nothing
        return Samples.of([lab.there(packets) for _ in range(rounds)])

    found = {}
    with lab.attached(lab.at.router, "lan", "xdp_end"):
        found["control"] = samples()
    found["kernel"] = samples()
    with lab.attached(lab.at.router, "lan", "xdp_bare"), lab.attached(lab.at.router, "wan", "xdp_bare"):
        found["bare"] = samples()
    for kernels, ours, rules, replies_to in (
        ("conntrack", "fasttracked", _CONNTRACK, _CLIENT), ("masquerade", "fasttracked NAT", _NAT, _WAN),
    ):  # fmt: skip
        run(lab.at.router, "nft", "-f", "-", given=rules)
        run(lab.at.router, "conntrack", "-F")
        lab.there(CONNECTIONS)
        lab.back(replies_to)
        found[kernels] = samples()
        with fasttracked(lab, state, replies_to):
            found[ours] = samples()
    return found


def figures(packets: int, rounds: int) -> Iterator[Figure]:
    """The router's own part, each beside what it is held against."""
    os.environ["BCC_KERNEL_SOURCE"] = str(SOURCE / "headers")
    module = BPF(text=Path(__file__).with_name("forwarding.bpf.c").read_bytes(), cflags=[f"-I{SOURCE}"])
    try:
        with machines() as at, ExitStack() as stack, tempfile.TemporaryDirectory() as state:
            found = measured(Lab(at, module, stack), Path(state), packets, rounds)
    finally:
        module.cleanup()
    control = found.pop("control").median
    own = {name: Samples.of([value - control for value in samples.values]) for name, samples in found.items()}
    names = {
        "kernel": "the kernel without nf_conntrack", "bare": "bare XDP (bpf_fib_lookup, redirect)",
        "conntrack": "the kernel with nf_conntrack", "masquerade": "the kernel with masquerade",
        "fasttracked": "fasttracked", "fasttracked NAT": "fasttracked with masquerade",
    }  # fmt: skip
    for name, beside, most in (
        ("kernel", "conntrack", None), ("masquerade", "conntrack", None), ("fasttracked", "conntrack", MOST_OF_KERNEL),
        ("fasttracked NAT", "masquerade", MOST_OF_KERNEL), ("fasttracked", "bare", MOST_OF_BARE),
    ):  # fmt: skip
        yield Figure.compare(
            f"forwarding a UDP packet of {CONNECTIONS:,} connections, {names[name]}, the router's own part", "ns",
            own[name], names[beside], own[beside], most_ratio=most,
        )  # fmt: skip
