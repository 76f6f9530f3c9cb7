"""Connections that ended in a replay: out of the kernel's ring buffer, into a file until they are shown."""

from __future__ import annotations

import mmap
import struct
import tempfile
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ctweb.datapath.build import ENDED_BYTES, Datapath
from ctweb.datapath.maps import columns_of
from ctweb.table.columns import Columns

Records = NDArray[np.void]  # (n,) `tuple` and `conn` as the kernel has them

_HEADER = 8  # of a ring buffer's record; its length is rounded up to as much
_IN_MEMORY = 64 << 20  # bytes of ended connections that are kept without a file
_BLOCK = 8192  # connections handed out at a time


class EndedQueue:
    """The ring buffer `ended` (ebpf/maps.h): one record for each connection that has ended, until it is taken.

    Layout, by the kernel: a page with the reader's position, a page with the writer's, then the data, mapped twice in a
    row so that a record never wraps around. Positions only grow.
    """

    def __init__(self, datapath: Datapath) -> None:
        """Raises ValueError if the datapath was not built for replay."""
        if datapath.ended is None:
            raise ValueError("this datapath was not built for replay")
        key, leaf = datapath.key_dtype, datapath.leaf_dtype
        size = key.itemsize + leaf.itemsize
        self.record = np.dtype(
            {
                "names": ["tuple", "conn"],
                "formats": [key, leaf],
                "offsets": [_HEADER, _HEADER + key.itemsize],
                "itemsize": _HEADER + size + -size % _HEADER,
            }
        )
        self.capacity = ENDED_BYTES // self.record.itemsize
        page = mmap.PAGESIZE
        self._read = mmap.mmap(datapath.ended, page)
        self._written = mmap.mmap(datapath.ended, page + 2 * ENDED_BYTES, prot=mmap.PROT_READ, offset=page)
        self._position = struct.Struct("=Q")

    def take(self) -> Records:
        """All that ended since the last time, in that order."""
        done = self._position.unpack_from(self._read)[0]
        end = self._position.unpack_from(self._written)[0]
        count = (end - done) // self.record.itemsize
        at = mmap.PAGESIZE + done % ENDED_BYTES
        records = np.frombuffer(self._written, self.record, count, at).copy() if count else np.empty(0, self.record)
        self._position.pack_into(self._read, 0, end)
        return records


class EndedLog:
    """Any number of ended connections in little memory: beyond _IN_MEMORY bytes they are in a temporary file."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  # closed by close()
        self._record = np.dtype(np.void)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, records: Records) -> None:
        """Raises OSError when the disk is full."""
        self._record = records.dtype
        self._count += len(records)
        self._file.write(records.tobytes())

    def blocks(self) -> Iterator[Columns]:
        """All of them in the order of their ends, some at a time. Nothing may be appended any more."""
        self._file.seek(0)
        while block := self._file.read(_BLOCK * self._record.itemsize):
            records = np.frombuffer(block, self._record)
            yield columns_of(records["tuple"].copy(), records["conn"].copy())

    def close(self) -> None:
        self._file.close()
