"""Networks of namespaces: built for a test, gone with it however it ends.

A namespace is called lab-PID-NUMBER-ROLE: what a killed run left behind is known by its dead process and removed at the
next start. Processes enter only the network namespace (nsenter): `ip netns exec` would hide bpffs.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyroute2 import netns
from running import entered

PREFIX = "lab-"
DEADLINE = 60.0  # seconds for anything to come true; generous, for the machine may be busy

_numbers = itertools.count()


def wait_for(what: str, condition: Callable[[], Any], state: Callable[[], Any] = lambda: "") -> Any:
    """Ask until the answer is true, and give it back. At the deadline fail, with `state`."""
    end = time.monotonic() + DEADLINE
    while not (answer := condition()):
        assert time.monotonic() < end, f"{what}: not within {DEADLINE:.0f} s: {state()}"
        time.sleep(0.05)
    return answer


def remove_stale(prefix: str = PREFIX) -> None:
    """Remove the namespaces of runs that are no more."""
    for name in netns.listnetns():
        pid = name.removeprefix(prefix).split("-")[0]
        if name.startswith(prefix) and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with suppress(OSError):  # another worker was first
                netns.remove(name)


@dataclass
class Namespace:
    """One machine of the network."""

    role: str
    name: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    checks: list[Callable[[], object]] = field(default_factory=list)  # of what runs here, before it is ended

    @property
    def path(self) -> str:
        return f"/run/netns/{self.name}"

    @property
    def inode(self) -> int:
        return os.stat(self.path).st_ino

    def command(self, *arguments: object) -> list[str]:
        return ["nsenter", f"--net={self.path}", "--", *map(str, arguments)]

    def run(self, *arguments: object, **options: Any) -> str:
        """Run a program to its end; what it printed. A failure tells all it said."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=120, check=False, **options
        )
        assert done.returncode == 0, f"{self.role}: {arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def ip(self, *lines: str) -> None:
        """`ip` commands, one a line."""
        self.run("ip", "-batch", "-", input="\n".join(lines))

    def start(self, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program that is ended with the network, or by the kernel if this process is killed before."""
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = self.command("setpriv", "--pdeathsig", "KILL", "--", *arguments)
        process = subprocess.Popen(command, **(quiet | options))
        self.processes.append(process)
        return process

    def sysctl(self, **settings: int) -> None:
        """Set what stands under /proc/sys/net: `ipv4_ip_forward=1`, with _ for the first / only."""
        with self.entered():
            for name, value in settings.items():
                family, rest = name.split("_", 1)
                Path(f"/proc/sys/net/{family}/{rest.replace('__', '/')}").write_text(str(value))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in this namespace; sockets opened meanwhile stay there."""
        with entered(self.name):
            yield

    def socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        with self.entered():
            made = socket.socket(family, kind)
        made.settimeout(DEADLINE)
        return made

    def offloads(self, switch: str) -> None:
        """Segmentation and receive offloads of all Ethernet devices, "on" or "off"."""
        for link in json.loads(self.run("ip", "-j", "link")):
            if link["link_type"] == "ether":
                self.run("ethtool", "-K", link["ifname"], *(x for o in ("tso", "gso", "gro") for x in (o, switch)))

    def listening(self, port: int) -> bool:
        """Whether something accepts TCP connections on the port."""
        return bool(self.run("ss", "-Hltn", f"sport = :{port}"))

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        subprocess.run(["ip", "netns", "delete", self.name], check=True)


class Network:
    """Namespaces by role, joined by veth pairs."""

    def __init__(self, stack: ExitStack, prefix: str) -> None:
        self._stack = stack
        self._prefix = prefix
        self._namespaces: list[Namespace] = []

    def namespace(self, role: str) -> Namespace:
        """A new machine with its loopback up."""
        made = Namespace(role, f"{self._prefix}{os.getpid()}-{next(_numbers)}-{role}")
        subprocess.run(["ip", "netns", "add", made.name], check=True)
        self._stack.callback(made.close)
        self._namespaces.append(made)
        # Quiet: no packets but the test's.
        made.sysctl(ipv6_conf__default__router_solicitations=0, ipv6_conf__default__accept_dad=0)
        made.ip("link set lo up")
        return made

    def check(self) -> None:
        """What the machines' checks say, while all still runs."""
        for machine in self._namespaces:
            for check in machine.checks:
                check()

    def join(self, a: Namespace, a_name: str, b: Namespace, b_name: str) -> None:
        """A veth pair between two machines, up."""
        a.ip(f"link add {a_name} type veth peer name {b_name} netns {b.path}", f"link set {a_name} up")
        b.ip(f"link set {b_name} up")


@contextmanager
def network(prefix: str = PREFIX) -> Iterator[Network]:
    """Whoever leaves it without an error has the machines' checks made."""
    remove_stale(prefix)
    with ExitStack() as stack:
        made = Network(stack, prefix)
        yield made
        made.check()


@dataclass(frozen=True)
class Ends:
    """The addresses of a path from client to server, in one family."""

    family: socket.AddressFamily
    client: str
    server: str
    router: str  # as the client sees it

    @property
    def header(self) -> int:
        """Bytes of an IP header without options."""
        return 20 if self.family is socket.AF_INET else 40

    def shown(self, address: str, port: int) -> str:
        """An end of a connection as RouterOS writes it."""
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    def host(self, network_number: int, host: int) -> str:
        """The address of a host, in this family."""
        return f"fd09:{network_number}::{host}" if ":" in self.server else f"10.9.{network_number}.{host}"

    def url(self, port: int) -> str:
        return f"http://{f'[{self.server}]' if ':' in self.server else self.server}:{port}"


IPV4 = Ends(socket.AF_INET, "10.9.1.2", "10.9.2.2", "10.9.1.1")
IPV6 = Ends(socket.AF_INET6, "fd09:1::2", "fd09:2::2", "fd09:1::1")


def client_router_server(net: Network) -> tuple[Namespace, Namespace, Namespace]:
    """Three machines in a row, in IPv4 and IPv6; the router's interfaces are `lan` (to the client) and `wan`."""
    client, router, server = (net.namespace(role) for role in ("client", "router", "server"))
    router.sysctl(ipv4_ip_forward=1, ipv6_conf__all__forwarding=1)
    net.join(client, "eth0", router, "lan")
    net.join(server, "eth0", router, "wan")
    address(client, "eth0", 1, 2)
    address(router, "lan", 1, 1)
    address(router, "wan", 2, 1)
    address(server, "eth0", 2, 2)
    for machine, number in ((client, 1), (server, 2)):
        default_route(machine, number)
    return client, router, server


def address(machine: Namespace, interface: str, network_number: int, host: int) -> None:
    machine.ip(f"addr add 10.9.{network_number}.{host}/24 dev {interface}")
    machine.ip(f"addr add fd09:{network_number}::{host}/64 dev {interface} nodad")


def default_route(machine: Namespace, network_number: int) -> None:
    """Through the first host of that network."""
    machine.ip(f"route add 0.0.0.0/0 via 10.9.{network_number}.1", f"route add ::/0 via fd09:{network_number}::1")
