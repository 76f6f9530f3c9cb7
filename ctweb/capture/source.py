"""A capture's bytes, read in large pieces from a file, a pipe or a gzip stream."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

PIECE = 1 << 20  # bytes asked of the stream at a time

# No packet is longer; a length beyond it is garbage. What a reader holds in memory is bounded by it.
LONGEST_RECORD = 16 << 20

# Of each packet no more than this is handed on: a whole Ethernet frame, and the headers of a larger one.
KEEP = 2048

Packet = tuple[int, int, int, bytes]
"""Time in ns since 1970, link type, length on the wire, the first bytes (KEEP at most)."""


class CaptureError(Exception):
    """The capture cannot be used at all. The text is one line for the user."""


class DamagedError(Exception):
    """The capture cannot be read on from here; what came before is good. The text says where and why."""


class Source:
    """The bytes of one capture in order. `offset` counts those handed out, for messages."""

    def __init__(self, stream: io.BufferedReader | gzip.GzipFile, name: str) -> None:
        self.name = name
        self.offset = 0
        self._stream = stream
        self._failure: DamagedError | None = None

    def refill(self, rest: bytes, need: int) -> bytes:
        """`rest` and what follows it, at least `need` bytes unless the capture ends before.

        Raises DamagedError when there is nothing because the file system or gzip cannot go on.
        """
        pieces = [rest]
        have = len(rest)
        while have < need and not self._failure:
            try:
                piece = self._stream.read1(max(PIECE, need - have))
            except (OSError, EOFError, zlib.error) as error:
                self._failure = DamagedError(f"it cannot be read beyond byte {self.offset}: {_reason(error)}")
                break
            if not piece:
                break
            pieces.append(piece)
            have += len(piece)
            self.offset += len(piece)
        if self._failure and not have:
            raise self._failure
        return b"".join(pieces)

    def skip(self, count: int) -> bytes:
        """Passes over `count` bytes; what was read beyond them. Raises DamagedError if there are fewer."""
        while True:
            data = self.refill(b"", 1)
            if not data:
                raise self.cut_off("a block")
            if len(data) >= count:
                return data[count:]
            count -= len(data)

    def cut_off(self, within: str) -> DamagedError:
        return self._failure or DamagedError(f"it is cut off at byte {self.offset}, within {within}")

    def damaged(self, left: int, what: str) -> DamagedError:
        """`left`: bytes handed out that stand behind the place."""
        return DamagedError(f"it is damaged at byte {self.offset - left}: {what}")


@contextmanager
def open_source(path: str) -> Iterator[Source]:
    """The file at `path`, or standard input for `-`, unpacked when it is gzip. Raises CaptureError."""
    name = "standard input" if path == "-" else path
    try:
        raw = open(0, "rb", closefd=False) if path == "-" else open(path, "rb")  # noqa: SIM115
    except (OSError, ValueError) as error:
        raise CaptureError(f"cannot open {name}: {_reason(error)}") from error
    with raw:
        try:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
        except OSError as error:
            raise CaptureError(f"cannot read {name}: {_reason(error)}") from error
        yield Source(gzip.GzipFile(fileobj=raw) if packed else raw, name)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
