"""A router between a client and a server, in three network namespaces, and packets by the million through it.

The generator is an XDP program that makes a packet of each page and redirects it to the client's interface
(PROG_TEST_RUN with live frames). The whole way to the server's interface, where an XDP program counts and drops it,
runs in the softirq at the end of each batch, and so in the thread that asked for the batch. That thread has a real-time
priority: nothing takes the softirq over, and its CPU time is the cost of its packets alone, whatever else runs.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from bcc import BPF
from pyroute2 import netns

from ctweb.datapath.bpf import PROG_TEST_RUN, SYS_BPF, TestRunAttr, libc
from ctweb.datapath.build import SOURCE, Datapath
from ctweb.datapath.links import BpfLink, Hook

PREFIX = "ctweb-bench-"
CLIENT, ROUTER, SERVER = "client", "router", "server"
SERVER_ADDRESS = "10.9.2.2"

TCP, UDP = 6, 17
SYN, ACK, PUSH = 0x02, 0x10, 0x08

_LIVE_FRAMES = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES
_CLONE_NEWNET = 0x40000000
_BATCH = 64  # packets that a poll of the receiving end takes
_BURST = 64 * 1024  # packets in one go; then the machine is everybody's again for a moment
_PAUSE = 0.02
_PRIORITY = 10
MOST_LOST = 0.001
NF_CONNTRACK_MAX = Path("/proc/sys/net/netfilter/nf_conntrack_max")
NF_CONNTRACK_BUCKETS = Path("/proc/sys/net/netfilter/nf_conntrack_buckets")

CT_STATE = """table inet bench {
chain forward {
type filter hook forward priority 0
ct state vmap { established : accept, related : accept, new : accept }
}
}
"""


@dataclass(frozen=True)
class Packets:
    """What is sent: `connections` take turns, in steps of `stride`, the first of them is number `first`.

    from_server: the server sends to the client. step: TCP's sequence number grows by it from one turn to the next.
    fresh: each packet is of another connection than all before it.
    """

    protocol: int = UDP
    connections: int = 1
    first: int = 0
    flags: int = 0
    seq: int = 1
    ack: int = 0
    step: int = 0
    from_server: bool = False
    fresh: bool = False


def _coprime(connections: int) -> int:
    """A stride that visits all of them, far from one another: no prefetcher guesses the next one."""
    stride = 7919
    while connections % stride == 0:
        stride += 2
    # 7919 is prime: it divides none but its multiples.
    return stride


def run(*command: str, text: str | None = None) -> str:
    """Raises OSError with what the command said."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Router:
    """The three namespaces and the generator. Made by router()."""

    def __init__(self, names: dict[str, str], module: Any, interfaces: dict[str, int], macs: dict[str, bytes]) -> None:
        self.names = names
        self._shapes = module.get_table(b"shapes")
        self._arrived = module.get_table(b"arrived")
        self._generator = module.load_func(b"xdp_generate", BPF.XDP).fd
        self._end = module.load_func(b"xdp_end", BPF.XDP).fd
        self.nothing: int = module.load_func(b"tc_nothing", BPF.SCHED_CLS).fd
        self.interfaces = interfaces
        self._macs = macs
        self._next_fresh = 1 << 21

    @contextmanager
    def inside(self, role: str) -> Iterator[None]:
        """The calling thread is in this namespace, and what it starts."""
        with entered(self.names[role]):
            yield

    @contextmanager
    def ends(self) -> Iterator[None]:
        """What the generator makes is counted and dropped where it arrives."""
        with ExitStack() as stack:
            for role in (CLIENT, SERVER):
                with self.inside(role):
                    stack.callback(BpfLink.create(self._end, self.interfaces[role], Hook.XDP).close)
            yield

    def arrived(self) -> int:
        return sum(self._arrived[self._arrived.Key(0)])

    def send(
        self, packets: Packets, number: int, *, cpu: int | None = None, together: threading.Barrier | None = None
    ) -> float:
        """Seconds of CPU that `number` of these packets took, from being made to being dropped at the other end.

        together: threads on several CPUs begin each burst at the same time. Raises OSError.
        """
        cpu = max(os.sched_getaffinity(0)) if cpu is None else cpu
        self._shape(packets, cpu, number)
        spent = 0.0
        data = ctypes.create_string_buffer(60)
        affinity = os.sched_getaffinity(0)
        with self.inside(SERVER if packets.from_server else CLIENT):
            os.sched_setaffinity(0, {cpu})
            try:
                left = number
                while left:
                    burst = min(left, _BURST)
                    if together:
                        together.wait()
                    with real_time():
                        before = time.thread_time_ns()
                        run_live(self._generator, data, burst)
                        spent += (time.thread_time_ns() - before) / 1e9
                    left -= burst
                    time.sleep(_PAUSE)
            finally:
                os.sched_setaffinity(0, affinity)
        return spent

    def cost(self, packets: Packets, number: int) -> float:
        """ns of CPU a packet. Raises RuntimeError if not (nearly) all have arrived."""
        spent, came = self.cost_and_arrivals(packets, number)
        check_arrivals(number, came)
        return spent

    def cost_and_arrivals(self, packets: Packets, number: int) -> tuple[float, int]:
        """ns of CPU a packet, and how many arrived."""
        before = self.arrived()
        spent = self.send(packets, number)
        return spent * 1e9 / number, self.arrived() - before

    def _shape(self, packets: Packets, cpu: int, number: int) -> None:
        first, connections, stride = packets.first, packets.connections, _coprime(packets.connections)
        if packets.fresh:
            first, connections, stride = self._next_fresh, number, 1
            self._next_fresh += number
        sender, receiver = (SERVER, "wan") if packets.from_server else (CLIENT, "lan")
        ends = (ip_address("0.0.0.0").packed, ip_address(SERVER_ADDRESS).packed)
        ports = (0, 443)
        if packets.from_server:
            ends, ports = (ends[1], ends[0]), (ports[1], ports[0])
        if packets.protocol == UDP:
            segment = struct.pack("!HHHH", *ports, 8 + 18, 0) + bytes(18)
        else:
            payload = bytes(6) if packets.flags & PUSH else b""
            head = struct.pack("!IIBBHHH", packets.seq, packets.ack, 5 << 4, packets.flags, 65_535, 0, 0)
            segment = struct.pack("!HH", *ports) + head + payload
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 0, 0, 64, packets.protocol, 0, *ends)
        total = sum(struct.unpack("!10H", ip))
        frame = (self._macs[receiver] + self._macs[sender] + b"\x08\x00" + ip + segment).ljust(60, b"\0")
        leaf = self._shapes.Leaf()
        ctypes.memmove(leaf.frame, frame, 60)
        leaf.checksum = (total & 0xFFFF) + (total >> 16)
        leaf.ifindex = self.interfaces[sender]
        leaf.from_server = packets.from_server
        leaf.connections, leaf.stride, leaf.first = connections, stride, first
        leaf.step = packets.step
        self._shapes[self._shapes.Key(cpu)] = leaf

    def establish(self, connections: int, *, first: int = 0) -> None:
        """Open these TCP connections, through whatever tracks them; from here on they are established."""
        common = {"protocol": TCP, "connections": connections, "first": first}
        self.cost(Packets(flags=SYN, **common), connections)  # type: ignore[arg-type]
        self.cost(Packets(flags=SYN | ACK, seq=1, ack=2, from_server=True, **common), connections)  # type: ignore[arg-type]
        self.cost(Packets(flags=ACK, seq=2, ack=2, **common), connections)  # type: ignore[arg-type]

    @contextmanager
    def nf_conntrack(self) -> Iterator[None]:
        """One rule that asks for the connection's state."""
        with self.inside(ROUTER):
            run("nft", "-f", "-", text=CT_STATE)
        try:
            yield
        finally:
            with self.inside(ROUTER):
                run("nft", "delete", "table", "inet", "bench")

    @contextmanager
    def hooked(self, ingress: int, egress: int) -> Iterator[None]:
        """These tc programs on both of the router's interfaces."""
        with ExitStack() as stack, self.inside(ROUTER):
            for name in ("lan", "wan"):
                for hook, program in ((Hook.TCX_INGRESS, ingress), (Hook.TCX_EGRESS, egress)):
                    stack.callback(BpfLink.create(program, self.interfaces[name], hook).close)
            yield

    @contextmanager
    def ctweb(self, datapath: Datapath) -> Iterator[None]:
        """ctweb's tc programs on both interfaces. Raises RuntimeError if a packet was not counted."""
        for name in ("lan", "wan"):
            index = datapath.interfaces.Key(self.interfaces[name])
            datapath.interfaces[index] = datapath.interfaces.Leaf(1)
        with self.hooked(datapath.programs["tc_ingress"], datapath.programs["tc_egress"]):
            before, seen = self.arrived(), datapath.read_counters()["COUNT_OFFERED_PACKETS"]
            yield
            sent, seen = self.arrived() - before, datapath.read_counters()["COUNT_OFFERED_PACKETS"] - seen
        if seen < sent:
            raise RuntimeError(f"{sent} packets came through the router, but ctweb saw {seen}")

    def forget(self) -> None:
        """Empty nf_conntrack's table."""
        with self.inside(ROUTER):
            run("conntrack", "-F")


def run_live(program: int, frame: ctypes.Array[ctypes.c_char], packets: int) -> None:
    """Run an XDP program on so many pages with this frame, which go where it says. Raises OSError."""
    attr = TestRunAttr(
        prog_fd=program, data_in=ctypes.addressof(frame), data_size_in=len(frame), repeat=packets, flags=_LIVE_FRAMES,
        batch_size=_BATCH,
    )  # fmt: skip
    if libc.syscall(SYS_BPF, PROG_TEST_RUN, ctypes.byref(attr), ctypes.sizeof(attr)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"sending test packets: {os.strerror(code)}")


def check_arrivals(sent: int, came: int) -> None:
    """Raises RuntimeError. A queue of a veth pair may run over once in a while, when the timer's softirq takes long."""
    if not sent * (1 - MOST_LOST) <= came <= sent:
        raise RuntimeError(f"{came} of {sent} packets came through the router")


def _enter(namespace: int) -> None:
    """The calling thread alone goes into a network namespace. Raises OSError."""
    if libc.setns(namespace, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, f"entering a network namespace: {os.strerror(code)}")


@contextmanager
def entered(name: str) -> Iterator[None]:
    """The calling thread is in a named network namespace, and what it starts."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{name}") as namespace:
        _enter(namespace.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


@contextmanager
def real_time() -> Iterator[None]:
    """The calling thread goes before all others that are not real-time."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def nf_conntrack_buckets(number: int) -> Iterator[None]:
    """nf_conntrack's hash table with at least so many buckets: one for each connection, as it has by default."""
    before = NF_CONNTRACK_BUCKETS.read_text()
    if int(before) < number:
        NF_CONNTRACK_BUCKETS.write_text(str(1 << (number - 1).bit_length()))
    try:
        yield
    finally:
        if int(before) < number:
            NF_CONNTRACK_BUCKETS.write_text(before)


@contextmanager
def nf_conntrack_max(most: int) -> Iterator[None]:
    """How many connections nf_conntrack may have, each namespace for itself."""
    before = NF_CONNTRACK_MAX.read_text()
    NF_CONNTRACK_MAX.write_text(str(most))
    try:
        yield
    finally:
        NF_CONNTRACK_MAX.write_text(before)


def remove_stale() -> None:
    """Remove the namespaces of runs that are no more."""
    for name in netns.listnetns():
        pid = name.removeprefix(PREFIX).split("-")[0]
        if name.startswith(PREFIX) and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            netns.remove(name)


def _wire(names: dict[str, str]) -> tuple[dict[str, int], dict[str, bytes]]:
    """Join the namespaces: eth0 - lan, wan - eth0. Indexes and MAC addresses by role (router: by interface)."""
    queues = f"numrxqueues {os.cpu_count()} numtxqueues {os.cpu_count()}"
    for role, name, net in ((CLIENT, "lan", 1), (SERVER, "wan", 2)):
        pair = f"link add eth0 {queues} type veth peer name {name} netns {names[ROUTER]} {queues}"
        run("ip", "-n", names[role], "-batch", "-", text=f"{pair}\nlink set eth0 up\naddr add 10.9.{net}.2/24 dev eth0")
        run(
            "ip",
            "-n",
            names[ROUTER],
            "-batch",
            "-",
            text=f"link set lo up\nlink set {name} up\naddr add 10.9.{net}.1/24 dev {name}",
        )
    indexes, macs = {}, {}
    for key, role, name in (
        (CLIENT, CLIENT, "eth0"),
        (SERVER, SERVER, "eth0"),
        ("lan", ROUTER, "lan"),
        ("wan", ROUTER, "wan"),
    ):
        with entered(names[role]):
            indexes[key] = socket.if_nametoindex(name)
            run("ethtool", "-K", name, "gro", "on")  # NAPI at each end
            said = run("ip", "-o", "link", "show", name)
            macs[key] = bytes.fromhex(said.split("link/ether ")[1].split()[0].replace(":", ""))
    for role, net in ((CLIENT, 1), (SERVER, 2)):
        far, near = macs[role].hex(":"), macs["lan" if role == CLIENT else "wan"].hex(":")
        run("ip", "-n", names[role], "route", "add", "default", "via", f"10.9.{net}.1")
        run(
            "ip",
            "-n",
            names[role],
            "neigh",
            "replace",
            f"10.9.{net}.1",
            "lladdr",
            near,
            "dev",
            "eth0",
            "nud",
            "permanent",
        )
        run("ip", "-n", names[ROUTER], "neigh", "replace", f"10.9.{net}.2", "lladdr", far, "dev",
            "lan" if role == CLIENT else "wan", "nud", "permanent")  # fmt: skip
    run("ip", "-n", names[ROUTER], "route", "add", "10.128.0.0/9", "via", "10.9.1.2")
    # Each CPU sends by a queue of its own, as it receives.
    for cpu in range(os.cpu_count() or 1):
        for name in ("lan", "wan"):
            queue = f"/sys/class/net/{name}/queues/tx-{cpu}/xps_cpus"
            run("ip", "netns", "exec", names[ROUTER], "sh", "-c", f"echo {_cpu_mask(cpu)} > {queue}")
    return indexes, macs


def _cpu_mask(cpu: int) -> str:
    """As sysfs takes it: words of 32 bits, the first one last."""
    return ",".join([f"{1 << cpu % 32:x}", *["0"] * (cpu // 32)])


# Nothing runs out of time while it is measured; and a network card would have looked at the checksums.
_ROUTER_SETTINGS = {
    "ipv4/ip_forward": 1,
    "netfilter/nf_conntrack_checksum": 0,
    "netfilter/nf_conntrack_udp_timeout": 3600,
    "netfilter/nf_conntrack_udp_timeout_stream": 3600,
    "netfilter/nf_conntrack_tcp_timeout_syn_sent": 3600,
}


@contextmanager
def router() -> Iterator[Router]:
    """Raises OSError, RuntimeError."""
    remove_stale()
    os.environ["BCC_KERNEL_SOURCE"] = str(SOURCE / "headers")
    with ExitStack() as stack:
        names = {role: f"{PREFIX}{os.getpid()}-{role}" for role in (CLIENT, ROUTER, SERVER)}
        for name in names.values():
            netns.create(name)
            stack.callback(netns.remove, name)
        indexes, macs = _wire(names)
        module = BPF(text=Path(__file__).with_name("router.bpf.c").read_bytes(), cflags=[f"-I{SOURCE}"])
        stack.callback(module.cleanup)
        made = Router(names, module, indexes, macs)
        with made.inside(ROUTER):
            for setting, value in _ROUTER_SETTINGS.items():
                Path(f"/proc/sys/net/{setting}").write_text(str(value))
        yield made
