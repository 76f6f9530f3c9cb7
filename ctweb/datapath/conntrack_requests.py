"""Requests to nf_conntrack about single entries, each of them named by its original tuple."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ctweb.datapath.conntrack import PRESENT
from ctweb.datapath.ctnetlink import DELETE, NETLINK_NETFILTER
from ctweb.datapath.ctnetlink import (
    NEW as CHANGE,  # of an entry that is there, if the message does not ask for a new one
)
from ctweb.table.columns import Columns
from ctweb.table.names import GRE, ICMP, WITH_ICMP_TYPE, WITH_PORTS, Status

__all__ = ["CHANGE", "DELETE", "ask", "attribute", "follows_any", "nested"]

_ERROR = 2  # NLMSG_ERROR, an acknowledgement too
_REQUEST_ACK = 0x001 | 0x004
_NESTED = 1 << 15
_TUPLE_ORIG, _TUPLE_IP, _TUPLE_PROTO = 1, 1, 2
_NUM, _SRC_PORT, _DST_PORT = 1, 2, 3
_ICMP_ID = 4  # ICMP's id, type and code are 4, 5 and 6, ICMPv6's 7, 8 and 9
_AT_ONCE = 64  # messages; their acknowledgements fit into the socket's buffer
_SECONDS = 5  # for the kernel to answer, which it does at once

_HEADER = struct.Struct("=IHHIIBBH")  # nlmsghdr, nfgenmsg
_ATTRIBUTE = struct.Struct("=HH")
_ACK = struct.Struct("=IHHIIi")


def follows_any() -> bool:
    """Whether nf_conntrack is loaded and has an entry in this network namespace."""
    return PRESENT.exists() and bool(int(PRESENT.read_text()))


def ask(columns: Columns, kind: int, extra: Sequence[bytes] = ()) -> NDArray[np.bool_]:
    """Do something to the entries of these connections; which of them nf_conntrack has. (n,)

    kind: DELETE, or CHANGE with the attributes `extra` of each. Raises OSError if the kernel refuses one.
    """
    there = np.zeros(len(columns), np.bool_)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.settimeout(_SECONDS)
        for start in range(0, len(columns), _AT_ONCE):
            rows = range(start, min(start + _AT_ONCE, len(columns)))
            netlink.send(b"".join(_request(columns, i, kind, extra[i] if extra else b"") for i in rows))
            _take_answers(netlink, rows, there)
    return there


def _take_answers(netlink: socket.socket, rows: range, there: NDArray[np.bool_]) -> None:
    """One for each row, whose number is the message's."""
    answers = 0
    while answers < len(rows):
        data = netlink.recv(1 << 16)
        place = 0
        while place < len(data):
            length, kind, _, sequence, _, error = _ACK.unpack_from(data, place)
            if kind == _ERROR:
                answers += 1
                if error == 0:
                    there[sequence] = True
                elif error != -errno.ENOENT:
                    raise OSError(-error, f"nf_conntrack refuses a request about an entry: {os.strerror(-error)}")
            place += length + 3 & ~3


def _request(columns: Columns, i: int, kind: int, extra: bytes) -> bytes:
    lo = columns.lo_addr[i].tobytes(), int(columns.lo_port[i])
    hi = columns.hi_addr[i].tobytes(), int(columns.hi_port[i])
    swapped = bool(columns.status[i] & Status.SWAPPED)
    (source, source_port), (destination, destination_port) = (hi, lo) if swapped else (lo, hi)
    protocol, family = int(columns.protocol[i]), int(columns.family[i])
    size, first = (4, 1) if family == 4 else (16, 3)
    addresses = attribute(first, source[:size]) + attribute(first + 1, destination[:size])
    numbers = attribute(_NUM, bytes([protocol]))
    if protocol in (*WITH_PORTS, GRE):  # GRE without PPTP: zeros, which must be there
        numbers += attribute(_SRC_PORT, source_port.to_bytes(2, "big"))
        numbers += attribute(_DST_PORT, destination_port.to_bytes(2, "big"))
    elif protocol in WITH_ICMP_TYPE:  # columns.py: `lo` asks, its port is the id, the other one type and code
        id_kind = _ICMP_ID if protocol == ICMP else _ICMP_ID + 3
        numbers += attribute(id_kind, lo[1].to_bytes(2, "big"))
        numbers += attribute(id_kind + 1, bytes([hi[1] >> 8])) + attribute(id_kind + 2, bytes([hi[1] & 0xFF]))
    body = nested(_TUPLE_ORIG, nested(_TUPLE_IP, addresses) + nested(_TUPLE_PROTO, numbers)) + extra
    version = socket.AF_INET if family == 4 else socket.AF_INET6
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST_ACK, i, 0, version, 0, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    """A netlink attribute."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, attributes: bytes) -> bytes:
    """An attribute made of others."""
    return attribute(kind | _NESTED, attributes)
