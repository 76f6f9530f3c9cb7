"""Packets by hand from ghost to ghost."""

from __future__ import annotations

import itertools
import struct

from datapath.crafted import ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP, ethernet, icmp, ip, tcp, udp
from lab.network import IPV4, Ends

from parity.machines import Parity

SACK_PERMITTED = bytes((4, 2))

_ports = itertools.count(20_000)


def scale(shift: int) -> bytes:
    """A window scale option."""
    return bytes((3, 3, shift))


def sack(left: int, right: int) -> bytes:
    return bytes((5, 10)) + struct.pack("!II", left, right)


def ends_of(path: Ends, from_server: bool) -> tuple[str, str]:
    """Source and destination."""
    return (path.server, path.client) if from_server else (path.client, path.server)


def send(lab: Parity, path: Ends, protocol: int, payload: bytes, from_server: bool = False) -> None:
    """An IP packet of any protocol."""
    lab.see(ethernet(ip(*ends_of(path, from_server), protocol, payload)), from_server)


def send_udp(
    lab: Parity, path: Ends, sport: int, dport: int, payload: bytes = b"", *, from_server: bool = False,
    protocol: int = UDP,
) -> None:  # fmt: skip
    datagram = udp(*ends_of(path, from_server), sport, dport, payload, protocol=protocol)
    send(lab, path, protocol, datagram, from_server)


def send_icmp(
    lab: Parity, path: Ends, kind: int, ident: int = 0, rest: bytes = b"", *, code: int = 0, from_server: bool = False
) -> None:
    """ICMP, or ICMPv6 on a path of that family."""
    ends = ends_of(path, from_server)
    four = path.family is IPV4.family
    message = icmp(kind, code, ident, rest, pseudo=None if four else ends)
    send(lab, path, ICMP if four else ICMPV6, message, from_server)


class Conversation:
    """A TCP connection of which each segment is made by hand.

    A segment carries the numbers that are right by what was sent before, unless told others; those then change nothing
    of what comes next.
    """

    def __init__(
        self, lab: Parity, path: Ends, *, sport: int = 0, dport: int = 80, numbers: tuple[int, int] = (1000, 5000)
    ) -> None:
        self.lab = lab
        self.path = path
        self.ports = (sport or next(_ports), dport)
        self.next = list(numbers)

    def client(self, flags: int, payload: bytes = b"", **given) -> None:
        self._send(False, flags, payload, **given)

    def server(self, flags: int, payload: bytes = b"", **given) -> None:
        self._send(True, flags, payload, **given)

    def open(self, options: bytes = b"") -> Conversation:
        """The three segments that open it, both sides with these options."""
        self.client(SYN, options=options)
        self.server(SYN | ACK, options=options)
        self.client(ACK)
        return self

    def exchange(self, size: int = 100) -> Conversation:
        """A question and its answer, acknowledged."""
        self.client(ACK, bytes(size))
        self.server(ACK)
        self.server(ACK, bytes(size))
        self.client(ACK)
        return self

    def close(self) -> Conversation:
        """In order, the client first."""
        self.client(FIN | ACK)
        self.server(ACK)
        self.server(FIN | ACK)
        self.client(ACK)
        return self

    def _send(self, from_server: bool, flags: int, payload: bytes, **given) -> None:
        me, other = int(from_server), 1 - int(from_server)
        numbers = {"seq": self.next[me], "ack": self.next[other] if flags & ACK else 0} | given
        ports = (self.ports[me], self.ports[other])
        segment = tcp(*ends_of(self.path, from_server), *ports, flags, payload=payload, **numbers)
        send(self.lab, self.path, TCP, segment, from_server)
        if "seq" not in given and not flags & RST:
            self.next[me] += len(payload) + bool(flags & SYN) + bool(flags & FIN)
