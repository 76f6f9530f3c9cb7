"""pcap: a header, then records. Both byte orders, micro- and nanoseconds (draft-ietf-opsawg-pcap)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ctweb.capture import link
from ctweb.capture.source import KEEP, LONGEST_RECORD, CaptureError, Packet, Source

# First four bytes -> byte order, nanoseconds in a unit of the record's fraction.
MAGIC = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
_HEADER = 24
_RECORD = 16
_SECOND = 1_000_000_000


def packets(source: Source, start: bytes) -> Iterator[Packet]:
    """The packets in the file's order; `start` is what was read so far.

    Raises CaptureError for a header that no reader could use, DamagedError where a record is none.
    """
    data = source.refill(start, _HEADER)
    if len(data) < _HEADER:
        raise CaptureError(f"the pcap header is cut off after {len(data)} of {_HEADER} bytes")
    order, unit = MAGIC[data[:4]]
    major, minor, *_, network = struct.unpack(f"{order}4xHHIIII", data[:_HEADER])
    if major != 2 or minor < 4:
        raise CaptureError(f"pcap version {major}.{minor} is not supported, 2.4 is")
    network &= 0x3FFFFFF  # above it: the length of a frame check sequence, which is no part of the IP packet
    if network not in link.FRAMES:
        raise link.refusal(network)
    return _records(source, data[_HEADER:], struct.Struct(f"{order}IIII"), unit, network)


def _records(source: Source, data: bytes, header: struct.Struct, unit: int, network: int) -> Iterator[Packet]:
    unpack = header.unpack_from
    at, size = 0, len(data)
    while True:
        body = at + _RECORD
        if body > size:
            data = source.refill(data[at:], _RECORD)
            at, body, size = 0, _RECORD, len(data)
            if size == 0:
                return
            if size < _RECORD:
                raise source.cut_off("a record's header")
        seconds, fraction, captured, wire = unpack(data, at)
        end = body + captured
        if end > size:
            if captured > LONGEST_RECORD:
                raise source.damaged(size - at, f"a packet that says it has {captured} bytes, which none has")
            data = source.refill(data[at:], _RECORD + captured)
            at, body, end, size = 0, _RECORD, _RECORD + captured, len(data)
            if size < end:
                raise source.cut_off("a packet")
        yield seconds * _SECOND + fraction * unit, network, max(wire, captured), data[body : min(end, body + KEEP)]
        at = end
