"""Captures: pcap and pcapng files of any byte order and time resolution, gzip or not, as one stream of Ethernet frames.

The parsers are our own, a hundred lines a format. dpkt and scapy take up to twice as long for a packet, and
neither says where a damaged file breaks off: a capture cut short is common, and its table is worth having.
"""

from __future__ import annotations

from collections.abc import Iterator

from ctweb.capture import pcap, pcapng
from ctweb.capture.link import ETHERNET, FRAMES
from ctweb.capture.source import CaptureError, DamagedError, Source, open_source

__all__ = ["Capture", "CaptureError", "Frame", "open_source"]

Frame = tuple[int, int, bytes]
"""Time in ns since 1970, length on the wire, the Ethernet frame's first bytes (KEEP and a little more at most)."""


class Capture:
    """The packets of one capture, once.

    damage: after the last frame, why and where the rest could not be read; empty if all of it was.
    """

    def __init__(self, source: Source) -> None:
        """Raises CaptureError if it is no capture, or one that is not supported."""
        self.damage = ""
        try:
            start = source.refill(b"", 4)
        except DamagedError as error:
            raise CaptureError(str(error)) from error
        if start[:4] in pcap.MAGIC:
            self._packets = pcap.packets(source, start)
        elif start[:4] == pcapng.MAGIC:
            self._packets = pcapng.packets(source, start)
        else:
            raise CaptureError("it is empty" if not start else "it is neither pcap nor pcapng")

    def __iter__(self) -> Iterator[Frame]:
        """Raises CaptureError at a packet of a link type that is not supported (pcapng tells as late as that)."""
        try:
            for time, link, wire, packet in self._packets:
                if link == ETHERNET:
                    yield time, wire, packet
                else:
                    frame = FRAMES[link](packet)
                    yield time, max(wire + len(frame) - len(packet), len(frame)), frame
        except DamagedError as error:
            self.damage = str(error)
