"""ctnetlink's messages: what the kernel's nf_conntrack tells of its entries, read straight from the bytes.

Layouts are those of include/uapi/linux/netfilter/nfnetlink_conntrack.h. Addresses and ports stay in network order.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

NETLINK_NETFILTER = 12
GROUPS = 0b111  # NEW, UPDATE and DESTROY of entries, as a mask of multicast groups

_SUBSYSTEM = 1  # NFNL_SUBSYS_CTNETLINK, the upper byte of a message's type
_MSG_NEW, _MSG_GET, _MSG_DELETE = 0, 1, 2
NEW = _SUBSYSTEM << 8 | _MSG_NEW
DELETE = _SUBSYSTEM << 8 | _MSG_DELETE
_GET = _SUBSYSTEM << 8 | _MSG_GET
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP = 0x001 | 0x300
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR
_CREATED = 0x400  # NLM_F_CREATE: of a NEW message, an UPDATE has none

_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _HELP, _MARK, _TUPLE_MASTER = 1, 2, 3, 5, 8, 14  # enum ctattr_type
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_V4_SRC, _V4_DST, _V6_SRC, _V6_DST = 1, 2, 3, 4
_NUM, _SRC_PORT, _DST_PORT = 1, 2, 3
_IDS, _TYPES, _CODES = (4, 7), (5, 8), (6, 9)  # ICMP's and ICMPv6's
_HELP_NAME = 1

STATUS_EXPECTED, STATUS_SRC_NAT, STATUS_DST_NAT, STATUS_HELPER = 1 << 0, 1 << 4, 1 << 5, 1 << 13
INTERESTING = STATUS_EXPECTED | STATUS_SRC_NAT | STATUS_DST_NAT | STATUS_HELPER

_HEADER = struct.Struct("=IHHII")
_GENERIC = struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")
_BODY = _HEADER.size + _GENERIC.size  # where the attributes begin
_TYPE = 0x3FFF  # without the bits that tell of nesting and byte order
_U32 = struct.Struct(">I")


class Malformed(ValueError):
    """A message that is not what ctnetlink sends."""


class Ends(NamedTuple):
    """One direction's tuple, all in network order.

    ICMP: `source_port` is the id, `destination_port` type and code. GRE: call ids of PPTP, otherwise 0.
    """

    source: bytes  # 4 or 16
    destination: bytes
    protocol: int
    source_port: bytes  # 2
    destination_port: bytes


class Entry(NamedTuple):
    """One entry as a message tells it."""

    gone: bool  # DESTROY
    original: Ends
    reply: Ends
    status: int  # IPS_*
    mark: int | None  # None: not told, which is to say none or as before
    helper: str  # its name, "" without one
    master: Ends | None = None  # the original direction of the connection that expected it

    @property
    def says_something(self) -> bool:
        """Whether it is more than an entry without a mark, which is all that a dump tells of most."""
        return bool(self.mark or self.status & INTERESTING)


def dump_request(sequence: int) -> bytes:
    """Ask for every entry, IPv4 and IPv6."""
    return _HEADER.pack(_BODY, _GET, _REQUEST_DUMP, sequence, 0) + _GENERIC.pack(socket.AF_UNSPEC, 0, 0)


def messages(data: bytes | memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Every message in what one recv gave: type, flags, start and end. Raises Malformed where it ends too early."""
    start = 0
    while start < len(data):
        if len(data) - start < _HEADER.size:
            raise Malformed("cut in a message's header")
        length, kind, flags, _, _ = _HEADER.unpack_from(data, start)
        if length < _HEADER.size or start + length > len(data):
            raise Malformed(f"a message of {length} bytes in {len(data) - start}")
        yield kind, flags, start, start + length
        start += length + 3 & ~3


def parse(data: bytes, start: int, end: int) -> Entry | None:
    """The entry of the message of type NEW or DELETE that stands there. Raises Malformed.

    None: nothing of it is of interest, it is neither translated nor marked, expected or watched by a helper.
    """
    if end - start < _BODY:
        raise Malformed("cut in the header")
    status = 0
    mark: int | None = None
    helper = ""
    has_helper = False
    original = reply = master = None
    at = start + _BODY
    while end - at >= 4:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        kind &= _TYPE
        stop = at + length
        if length < 4 or stop > end:
            raise Malformed(f"attribute {kind} of {length} bytes in {end - at}")
        if kind == _TUPLE_ORIG:
            original = (at + 4, stop)
        elif kind == _TUPLE_REPLY:
            reply = (at + 4, stop)
        elif kind == _TUPLE_MASTER:
            master = (at + 4, stop)
        elif kind == _STATUS:
            status = _u32(data, at, length)
        elif kind == _MARK:
            mark = _u32(data, at, length)
        elif kind == _HELP:
            has_helper = True
            helper = _helper(data, at + 4, stop)
        at += length + 3 & ~3
    if original is None or reply is None:
        raise Malformed("without tuples")
    gone = _HEADER.unpack_from(data, start)[1] == DELETE
    status = status | STATUS_HELPER if has_helper else status & ~STATUS_HELPER
    if not status & INTERESTING and mark is None:
        return None
    expected_by = _ends(data, *master) if master else None
    return Entry(gone, _ends(data, *original), _ends(data, *reply), status, mark, helper, expected_by)


def done(data: bytes, kind: int, start: int) -> bool:
    """Whether this message ends a dump. Raises OSError if it says that the kernel refused it."""
    if kind == _NLMSG_ERROR:
        if len(data) - start < _HEADER.size + 4:
            raise Malformed("cut in an error")
        code = -struct.unpack_from("=i", data, start + _HEADER.size)[0]
        raise OSError(code, "the kernel refuses to list its connections")
    return kind == _NLMSG_DONE


def interrupted(flags: int) -> bool:
    """Whether the table changed in a way that may have made the dump miss an entry."""
    return bool(flags & _INTERRUPTED)


def _u32(data: bytes, at: int, length: int) -> int:
    if length != 8:
        raise Malformed(f"a number of {length - 4} bytes")
    number: int = _U32.unpack_from(data, at + 4)[0]
    return number


def _helper(data: bytes, at: int, end: int) -> str:
    name = _attributes(data, at, end).get(_HELP_NAME)
    return name.split(b"\0")[0].decode("ascii", "replace") if name else ""


def _attributes(data: bytes, at: int, end: int) -> dict[int, bytes]:
    found = {}
    while end - at >= 4:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < 4 or at + length > end:
            raise Malformed(f"attribute {kind & _TYPE} of {length} bytes in {end - at}")
        found[kind & _TYPE] = data[at + 4 : at + length]
        at += length + 3 & ~3
    return found


# How a tuple of IPv4 and ports looks, which nearly all are: header fields, and what stands between them.
_V4_PORTS = struct.Struct("=HHHH4sHH4sHHHHB3xHH2s2xHH2s2x")
_NESTED = 0x8000
_V4_PORTS_HEADERS = (
    20, _NESTED | _TUPLE_IP, 8, _V4_SRC, 8, _V4_DST,
    28, _NESTED | _TUPLE_PROTO, 5, _NUM, 6, _SRC_PORT, 6, _DST_PORT,
)  # fmt: skip


def _ends(data: bytes, at: int, end: int) -> Ends:
    if end - at == _V4_PORTS.size:
        (*one, source, d1, d2, destination, p1, p2, n1, n2, protocol, s1, s2, source_port, e1, e2, destination_port) = (
            _V4_PORTS.unpack_from(data, at)
        )
        if (*one, d1, d2, p1, p2, n1, n2, s1, s2, e1, e2) == _V4_PORTS_HEADERS:
            return Ends(source, destination, protocol, source_port, destination_port)
    parts = _attributes(data, at, end)
    addresses = _nested(parts, _TUPLE_IP)
    proto = _nested(parts, _TUPLE_PROTO)
    if _V4_SRC in addresses:
        source, destination = _sized(addresses, _V4_SRC, 4), _sized(addresses, _V4_DST, 4)
    else:
        source, destination = _sized(addresses, _V6_SRC, 16), _sized(addresses, _V6_DST, 16)
    protocol = _sized(proto, _NUM, 1)[0]
    for number, kind, code in zip(_IDS, _TYPES, _CODES, strict=True):
        if number in proto:
            what = _sized(proto, kind, 1) + _sized(proto, code, 1)
            return Ends(source, destination, protocol, _sized(proto, number, 2), what)
    ports = [_sized(proto, port, 2) if port in proto else b"\0\0" for port in (_SRC_PORT, _DST_PORT)]
    return Ends(source, destination, protocol, ports[0], ports[1])


def _nested(parts: dict[int, bytes], kind: int) -> dict[int, bytes]:
    if kind not in parts:
        raise Malformed(f"a tuple without part {kind}")
    return _attributes(parts[kind], 0, len(parts[kind]))


def _sized(parts: dict[int, bytes], kind: int, size: int) -> bytes:
    if len(parts.get(kind, b"")) != size:
        raise Malformed(f"part {kind} of a tuple is not {size} bytes")
    return parts[kind]


def event_filter() -> bytes:
    """A classic BPF program (an array of `struct sock_filter`) that passes the events worth reading.

    That is every message of an entry with a mark or a helper, and NEW and DESTROY of one that is translated or
    expected: nothing of that changes later.
    """
    load_byte, load_word_at_x, load_immediate, load_x, to_x, give = 0x30, 0x40, 0x00, 0x01, 0x07, 0x06
    equal, any_bit = 0x15, 0x45
    find = 0xFFFFF000 + 12  # SKF_AD_OFF + SKF_AD_NLATTR: where an attribute of type X stands from A on, 0: nowhere
    little = sys.byteorder == "little"
    low_byte_of_type, high_byte_of_flags = (4, 7) if little else (5, 6)

    def where(attribute: int) -> list[tuple[int, str, str, int]]:
        return [(load_immediate, "", "", _BODY), (load_x, "", "", attribute), (load_byte, "", "", find)]

    lines = [
        *where(_MARK),
        (equal, "", "pass", 0),
        *where(_HELP),
        (equal, "", "pass", 0),
        *where(_STATUS),
        (equal, "pass", "", 0),  # not as it should be: the parser is to know
        (to_x, "", "", 0),
        (load_word_at_x, "", "", 4),
        (any_bit, "", "drop", STATUS_EXPECTED | STATUS_SRC_NAT | STATUS_DST_NAT),
        (load_byte, "", "", low_byte_of_type),
        (equal, "pass", "", _MSG_DELETE),
        (load_byte, "", "", high_byte_of_flags),
        (any_bit, "pass", "drop", _CREATED >> 8),
        (give, "", "", 0xFFFFFFFF),
        (give, "", "", 0),
    ]
    labels = {"pass": len(lines) - 2, "drop": len(lines) - 1}

    def jump(at: int, label: str) -> int:
        return labels[label] - at - 1 if label else 0

    return b"".join(
        struct.pack("=HBBI", code, jump(at, yes), jump(at, no), value)
        for at, (code, yes, no, value) in enumerate(lines)
    )
