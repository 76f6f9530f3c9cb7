"""pcapng: sections of blocks (draft-ietf-opsawg-pcapng). Packets of every interface; other blocks are skipped."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

from ctweb.capture import link
from ctweb.capture.source import KEEP, LONGEST_RECORD, CaptureError, DamagedError, Packet, Source

MAGIC = b"\x0a\x0d\x0d\x0a"  # the section header's block type, the same in both byte orders

_SECTION = 0x0A0D0D0A
_INTERFACE = 1
_PACKET = 2  # obsolete, but old files have it
_SIMPLE = 3
_ENHANCED = 6
_PACKETS = frozenset((_PACKET, _SIMPLE, _ENHANCED))
_KINDS = _PACKETS | {_INTERFACE, _SECTION}
_SECTION_HEADER = 28  # bytes at least
_FIXED = 20  # bytes before the packet in an enhanced block, and in an obsolete one

_TIME_UNIT = 9
_TIME_OFFSET = 14
_SECOND = 1_000_000_000
_MOST_INTERFACES = 65536  # bounds the memory that a file of nothing but interfaces can take


class _Interface(NamedTuple):
    link: int
    snap_length: int  # 0: none
    scale: int  # ns = ticks * scale // divisor + offset
    divisor: int
    offset: int


class _Layout:
    """The fixed parts of blocks in one byte order."""

    def __init__(self, order: str) -> None:
        self.block = struct.Struct(f"{order}II")
        self.length = struct.Struct(f"{order}I")
        self.version = struct.Struct(f"{order}4xH10x")
        self.interface = struct.Struct(f"{order}HxxI")
        self.enhanced = struct.Struct(f"{order}5I")
        self.obsolete = struct.Struct(f"{order}Hxx4I")
        self.option = struct.Struct(f"{order}HH")
        self.seconds = struct.Struct(f"{order}q")


_LAYOUTS = {b"\x4d\x3c\x2b\x1a": _Layout("<"), b"\x1a\x2b\x3c\x4d": _Layout(">")}


class _Section:
    """A section's byte order and interfaces, and what its blocks say. Bodies are blocks without type and lengths."""

    def __init__(self, layout: _Layout) -> None:
        self.layout = layout
        self._interfaces: list[_Interface] = []

    def begin(self, body: bytes) -> None:
        if len(body) < self.layout.version.size or (major := self.layout.version.unpack_from(body)[0]) != 1:
            raise DamagedError("a section header cut short" if len(body) < 16 else f"a section of version {major}")

    def add_interface(self, body: bytes) -> None:
        if len(body) < self.layout.interface.size:
            raise DamagedError("an interface cut short")
        if len(self._interfaces) == _MOST_INTERFACES:
            raise DamagedError(f"more than {_MOST_INTERFACES} interfaces")
        number, snap_length = self.layout.interface.unpack_from(body)
        options = dict(self._options(body[self.layout.interface.size :]))
        unit = (options.get(_TIME_UNIT) or b"\x06")[0]
        per_second = 2 ** (unit & 0x7F) if unit & 0x80 else 10**unit
        offset = options.get(_TIME_OFFSET, b"")
        seconds = self.layout.seconds.unpack(offset)[0] if len(offset) == self.layout.seconds.size else 0
        common = math.gcd(_SECOND, per_second)
        self._interfaces.append(
            _Interface(number, snap_length, _SECOND // common, per_second // common, seconds * _SECOND)
        )

    def _options(self, text: bytes) -> Iterator[tuple[int, bytes]]:
        at = 0
        while at + self.layout.option.size <= len(text):
            code, length = self.layout.option.unpack_from(text, at)
            if code == 0:
                return
            at += self.layout.option.size
            yield code, text[at : at + length]
            at += length + -length % 4

    def packet(self, kind: int, body: bytes, now: int) -> Packet:
        """`now`: the time of the packet before."""
        if kind == _SIMPLE:
            return self._simple(body, now)
        if len(body) < _FIXED:
            raise DamagedError("a packet block cut short")
        fields = self.layout.enhanced if kind == _ENHANCED else self.layout.obsolete
        number, high, low, captured, wire = fields.unpack_from(body)
        if captured > len(body) - _FIXED:
            raise DamagedError("a packet longer than its block")
        interface = self._of(number)
        time = (high << 32 | low) * interface.scale // interface.divisor + interface.offset
        return time, interface.link, max(wire, captured), body[_FIXED : _FIXED + min(captured, KEEP)]

    def _simple(self, body: bytes, now: int) -> Packet:
        """Of the first interface, at the time of the packet before, for it has none of its own."""
        if len(body) < 4:
            raise DamagedError("a packet block cut short")
        wire = int(self.layout.length.unpack_from(body)[0])
        interface = self._of(0)
        captured = min(wire, interface.snap_length or wire)
        if captured > len(body) - 4:
            raise DamagedError("a packet longer than its block")
        return now, interface.link, wire, body[4 : 4 + min(captured, KEEP)]

    def _of(self, number: int) -> _Interface:
        if number >= len(self._interfaces):
            raise DamagedError(f"a packet of interface {number}, which the file has not described")
        interface = self._interfaces[number]
        if interface.link not in link.FRAMES:
            raise link.refusal(interface.link)
        return interface


def packets(source: Source, start: bytes) -> Iterator[Packet]:
    """The packets in the file's order; `start` is what was read so far.

    Raises CaptureError when there is no section to begin with, or for a packet of a link type that is not
    supported; DamagedError where a block is none.
    """
    data = source.refill(start, _SECTION_HEADER)
    if len(data) < _SECTION_HEADER or data[8:12] not in _LAYOUTS:
        raise CaptureError("it begins like pcapng, but its section header is cut off or damaged")
    return _packets(source, data)


def _packets(source: Source, data: bytes) -> Iterator[Packet]:
    layout = _LAYOUTS[data[8:12]]
    section = _Section(layout)
    now = at = 0
    size = len(data)
    while True:
        if at + 12 > size:
            data = source.refill(data[at:], 12)
            at, size = 0, len(data)
            if size == 0:
                return
            if size < 12:
                raise source.cut_off("a block's header")
        kind, length = layout.block.unpack_from(data, at)
        if kind == _SECTION:
            if data[at + 8 : at + 12] not in _LAYOUTS:
                raise source.damaged(size - at, "a section header without its byte-order magic")
            layout = _LAYOUTS[data[at + 8 : at + 12]]
            section = _Section(layout)
            kind, length = layout.block.unpack_from(data, at)
        if length < 12 or length % 4:
            raise source.damaged(size - at, f"a block of the impossible length {length}")
        end = at + length
        if end > size:
            if kind not in _KINDS:
                data = source.skip(end - size)
                at, size = 0, len(data)
                continue
            if length > LONGEST_RECORD:
                raise source.damaged(size - at, f"a block that says it has {length} bytes, which none has")
            data = source.refill(data[at:], length)
            at, end, size = 0, length, len(data)
            if size < end:
                raise source.cut_off("a block")
        if layout.length.unpack_from(data, end - 4)[0] != length:
            raise source.damaged(size - at, "a block with two different lengths")
        try:
            if kind in _PACKETS:
                packet = section.packet(kind, data[at + 8 : end - 4], now)
                now = packet[0]
                yield packet
            elif kind == _INTERFACE:
                section.add_interface(data[at + 8 : end - 4])
            elif kind == _SECTION:
                section.begin(data[at + 8 : end - 4])
        except DamagedError as error:
            raise source.damaged(size - at, str(error)) from None
        at = end
