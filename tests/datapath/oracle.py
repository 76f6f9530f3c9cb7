"""The kernel's own nf_conntrack as the judge: a router in a namespace that is sent the same frames."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab.network import Namespace, network

TIMEOUTS = {  # seconds, all different, so that a timeout tells which one it was
    "tcp_timeout_syn_sent": 1100,
    "tcp_timeout_syn_recv": 1200,
    "tcp_timeout_established": 90_000,
    "tcp_timeout_fin_wait": 1300,
    "tcp_timeout_close_wait": 1400,
    "tcp_timeout_last_ack": 1500,
    "tcp_timeout_time_wait": 1600,
    "tcp_timeout_close": 1700,
    "tcp_timeout_max_retrans": 1050,
    "tcp_timeout_unacknowledged": 1150,
    "udp_timeout": 1800,
    "udp_timeout_stream": 1900,
    "icmp_timeout": 2000,
    "icmpv6_timeout": 2000,
    "generic_timeout": 2100,
}
_STATES = {
    "SYN_SENT": "SYN_SENT", "SYN_RECV": "SYN_RECEIVED", "ESTABLISHED": "ESTABLISHED", "FIN_WAIT": "FIN_WAIT",
    "CLOSE_WAIT": "CLOSE_WAIT", "LAST_ACK": "LAST_ACK", "TIME_WAIT": "TIME_WAIT", "CLOSE": "CLOSE",
    "SYN_SENT2": "LISTEN", "NONE": "NONE",
}  # fmt: skip


_TRACK = """
table inet watch {
    chain seen {
        type filter hook prerouting priority 0
        ct state new accept
    }
}
"""


@dataclass(frozen=True)
class Entry:
    """What nf_conntrack knows of one connection, and what the table says of it in the same words."""

    state: str
    timeout: int
    packets: tuple[int, int]
    bytes: tuple[int, int]
    seen_reply: bool
    assured: bool


@dataclass
class Oracle:
    router: Namespace
    ends: tuple[socket.socket, socket.socket]  # of the client and of the server, bound to their interfaces
    mac: bytes  # of both of the router's interfaces

    def see(self, frame: bytes, from_server: bool = False) -> None:
        """Send a frame through the router; it is through when this returns, for veth hands over at once or soon."""
        self.ends[from_server].send(self.mac + frame[6:])

    def entries(self) -> dict[tuple[str, ...], Entry]:
        """Every entry by protocol name and original source, destination and ports (or ICMP's type, code and id)."""
        text = self.router.run("conntrack", "-L", "-o", "extended") + self.router.run(
            "conntrack", "-L", "-f", "ipv6", "-o", "extended"
        )
        found = {}
        for line in text.splitlines():
            words = line.split()
            values = [word.split("=", 1) for word in words if "=" in word]
            packets, sizes = (tuple(int(v) for k, v in values if k == name) for name in ("packets", "bytes"))
            first = [v for k, v in values if k in ("src", "dst", "sport", "dport", "type", "code", "id")]
            names = [k for k, _ in values]
            second_source = names.index("src", 1)
            first = [v for k, v in values[:second_source] if k not in ("packets", "bytes")]
            state = next((word for word in words[5:6] if word in _STATES), "")
            found[(words[2], *first)] = Entry(
                _STATES.get(state, ""), int(words[4]), packets, sizes, "[UNREPLIED]" not in words, "[ASSURED]" in words
            )
        return found

    def clear(self) -> None:
        subprocess.run(self.router.command("conntrack", "-F"), check=True, capture_output=True)

    def liberal(self, on: bool) -> None:
        self.router.run("sysctl", "-qw", f"net.netfilter.nf_conntrack_tcp_be_liberal={on:d}")


@contextmanager
def oracle() -> Iterator[Oracle]:
    """A router between 10.0.0.0/25 and 10.0.0.128/25, and 2001:db8:1::/64 and 2001:db8:2::/64, that tracks."""
    mac = bytes.fromhex("020000000001")
    text = mac.hex(":")
    with network() as net:
        client, router, server = (net.namespace(role) for role in ("client", "router", "server"))
        net.join(client, "eth0", router, "lan")
        net.join(server, "eth0", router, "wan")
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for device, low, number in (("lan", 1, 1), ("wan", 129, 2)):
            router.ip(
                f"link set {device} address {text}",
                f"addr add 10.0.0.{low}/25 dev {device}",
                f"addr add 2001:db8:{number}::ffff/64 dev {device} nodad",
            )
            for host in range(2, 6):
                router.ip(
                    f"neigh replace 10.0.0.{low + host - 1} lladdr 02:00:00:00:00:02 dev {device}",
                    f"neigh replace 2001:db8:{number}::{host} lladdr 02:00:00:00:00:02 dev {device}",
                )
        router.run("nft", "-f", "-", input=_TRACK)
        router.run("sysctl", "-qw", "net.netfilter.nf_conntrack_acct=1", "net.netfilter.nf_conntrack_checksum=0",
                   *(f"net.netfilter.nf_conntrack_{name}={value}" for name, value in TIMEOUTS.items()))  # fmt: skip
        ends = tuple(_bound(machine) for machine in (client, server))
        try:
            yield Oracle(router, ends, mac)  # type: ignore[arg-type]
        finally:
            for end in ends:
                end.close()


def _bound(machine: Namespace) -> socket.socket:
    made = machine.socket(socket.AF_PACKET, socket.SOCK_RAW)
    made.bind(("eth0", 0))
    return made
