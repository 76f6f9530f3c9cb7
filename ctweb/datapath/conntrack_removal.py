"""Deletes connections from nf_conntrack too, where it runs: what is removed here starts anew there as well."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

from ctweb.datapath.conntrack import PRESENT
from ctweb.datapath.ctnetlink import NETLINK_NETFILTER
from ctweb.table.columns import Columns
from ctweb.table.names import GRE, ICMP, WITH_ICMP_TYPE, WITH_PORTS, Status

_DELETE = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
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


def delete(columns: Columns) -> int:
    """Delete nf_conntrack's entries of these connections; how many there were. Raises OSError.

    An entry is known by its original tuple. Nothing happens where nf_conntrack is not loaded, or follows nothing.
    """
    if not PRESENT.exists() or not int(PRESENT.read_text()):
        return 0
    deleted = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.settimeout(_SECONDS)
        waiting: list[bytes] = []
        for request in _requests(columns):
            waiting.append(request)
            if len(waiting) == _AT_ONCE:
                deleted += _ask(netlink, waiting)
                waiting = []
        return deleted + _ask(netlink, waiting)


def _ask(netlink: socket.socket, requests: list[bytes]) -> int:
    """Send them in one go; how many entries were there. Raises OSError if the kernel refuses one."""
    if not requests:
        return 0
    netlink.send(b"".join(requests))
    answers = deleted = 0
    while answers < len(requests):
        data = netlink.recv(1 << 16)
        place = 0
        while place < len(data):
            length, kind, _, _, _, error = _ACK.unpack_from(data, place)
            if kind == _ERROR:
                answers += 1
                if error == 0:
                    deleted += 1
                elif error != -errno.ENOENT:
                    raise OSError(-error, f"nf_conntrack does not delete an entry: {os.strerror(-error)}")
            place += length + 3 & ~3
    return deleted


def _requests(columns: Columns) -> Iterator[bytes]:
    """One message for each connection."""
    for i in range(len(columns)):
        lo = columns.lo_addr[i].tobytes(), int(columns.lo_port[i])
        hi = columns.hi_addr[i].tobytes(), int(columns.hi_port[i])
        swapped = bool(columns.status[i] & Status.SWAPPED)
        (source, source_port), (destination, destination_port) = (hi, lo) if swapped else (lo, hi)
        protocol, family = int(columns.protocol[i]), int(columns.family[i])
        size, first = (4, 1) if family == 4 else (16, 3)
        addresses = _attribute(first, source[:size]) + _attribute(first + 1, destination[:size])
        numbers = _attribute(_NUM, bytes([protocol]))
        if protocol in (*WITH_PORTS, GRE):  # GRE without PPTP: zeros, which must be there
            numbers += _attribute(_SRC_PORT, source_port.to_bytes(2, "big"))
            numbers += _attribute(_DST_PORT, destination_port.to_bytes(2, "big"))
        elif protocol in WITH_ICMP_TYPE:  # columns.py: `lo` asks, its port is the id, the other one type and code
            kind = _ICMP_ID if protocol == ICMP else _ICMP_ID + 3
            numbers += _attribute(kind, lo[1].to_bytes(2, "big"))
            numbers += _attribute(kind + 1, bytes([hi[1] >> 8])) + _attribute(kind + 2, bytes([hi[1] & 0xFF]))
        ends = _attribute(_TUPLE_IP | _NESTED, addresses) + _attribute(_TUPLE_PROTO | _NESTED, numbers)
        body = _attribute(_TUPLE_ORIG | _NESTED, ends)
        version = socket.AF_INET if family == 4 else socket.AF_INET6
        yield _HEADER.pack(_HEADER.size + len(body), _DELETE, _REQUEST_ACK, i, 0, version, 0, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)
