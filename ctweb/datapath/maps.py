"""The kernel's connection table read into columns, a batch at a time."""

from __future__ import annotations

import ctypes
import errno
import math
import mmap
import os
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ctweb.datapath.libbcc import lib
from ctweb.datapath.map import Map
from ctweb.table.columns import Columns

# Entries asked of the kernel at once. What they take (200 bytes each) stays in the processor's cache until it is
# spread over the columns: 4,096 to 16,384 measure the same, 65,536 takes a tenth longer.
BATCH = 8_192

PORTS = ("lo_port", "hi_port")  # network order in the key, host order in the columns
# All zero in most tables. The kernel counts a packet in one of the two; the columns of all packets have it too.
FASTTRACK = {"fasttrack_packets": "packets", "fasttrack_bytes": "bytes"}


HUGE = 4 << 20  # bytes from which huge pages are asked for: fewer faults, at most one page not filled

COLUMNS: dict[str, NDArray[Any]] = {f.name: getattr(Columns.empty(), f.name) for f in fields(Columns)}


class MapError(OSError):
    """The kernel refused an operation on a map."""


class Batches:
    """Reads a hash map, as many entries at once as pay. Not for two threads at once: its buffers are kept.

    No entry comes twice: it never changes its bucket, and the kernel copies a bucket under its lock.
    """

    def __init__(self, table: Map, name: str) -> None:
        """`name`: what error messages call it."""
        self._lookup_batch = lib().bpf_lookup_batch
        self._fd: int = table.map_fd
        self._name = name
        self.key, self.leaf = np.dtype(table.Key), np.dtype(table.Leaf)
        # Where the kernel is in the table: opaque, a bucket's number for a hash, at most a key for any map.
        self._cursor = ctypes.create_string_buffer(max(self.key.itemsize, 8))
        self._batch = BATCH
        self._make_buffers()

    def _make_buffers(self) -> None:
        self._keys = np.empty(self._batch, self.key)
        self._leaves = np.empty(self._batch, self.leaf)

    def read(self) -> Iterator[tuple[NDArray[np.void], NDArray[np.void]]]:
        """Keys and values, batch by batch; each is written over by the next. Raises MapError."""
        place = ctypes.cast(self._cursor, ctypes.POINTER(ctypes.c_uint32))
        came_from = None
        while True:
            count = ctypes.c_uint32(self._batch)
            failed = self._lookup_batch(
                self._fd, came_from, place, self._keys.ctypes.data, self._leaves.ctypes.data, ctypes.byref(count)
            )
            error = ctypes.get_errno() if failed else 0
            if error == errno.ENOSPC:
                # A bucket holds more than a batch. The place given back is that bucket's: nothing is skipped.
                self._batch *= 2
                self._make_buffers()
            elif error not in (0, errno.ENOENT):
                raise MapError(f"cannot read the {self._name}: {os.strerror(error)}")
            else:
                yield self._keys[: count.value], self._leaves[: count.value]
                if error == errno.ENOENT:  # the end of the table
                    return
            came_from = place


class Source(Protocol):
    """A table of connections (connection_table.py)."""

    Key: Any
    Leaf: Any

    def read(self) -> Iterator[tuple[NDArray[np.void], NDArray[np.void]]]:
        """Keys and values, batch by batch. Raises MapError."""

    def write(self, keys: NDArray[np.void], leaves: NDArray[np.void]) -> int:
        """Put entries in; how many found a place. Raises OSError."""


def write(connections: Source, keys: NDArray[np.void], leaves: NDArray[np.void]) -> None:
    """Put entries into this table of connections, over those under the same keys. Raises MapError."""
    found = connections.write(np.ascontiguousarray(keys), np.ascontiguousarray(leaves))
    if found != len(keys):
        raise MapError(f"the connection table took {found} of {len(keys)} entries")


class Reader:
    """Reads the table of connections. Not for two threads at once: its buffers are kept between readings.

    A reading is no instant: it takes some tenths of a second for a million entries, and each entry is as it stood
    when it was read.
    """

    def __init__(self, connections: Source) -> None:
        self._entries = connections
        self._key, self._leaf = np.dtype(connections.Key), np.dtype(connections.Leaf)
        self._capacity = BATCH

    def read(self) -> Columns:
        """Every entry in the table's order, also those that are no connection (enum expires). Raises MapError."""
        growing = _Growing(self._key, self._leaf, self._capacity)
        for some_keys, leaves in self._entries.read():
            growing.append(some_keys, leaves)
        columns = growing.columns()
        self._capacity = len(columns) + len(columns) // 8 + BATCH
        return columns


def keys(columns: Columns, rows: NDArray[np.intp], key: np.dtype[np.void]) -> NDArray[np.void]:
    """The keys (`struct tuple`, whose layout is `key`) under which the kernel has these rows. (len(rows),)"""
    made = np.zeros(len(rows), key)
    elements = made.view(_as_elements(key, [n for n in COLUMNS if n in (key.names or ())]))
    for name in elements.dtype.names or ():
        elements[name] = _elements(getattr(columns, name))[rows]
    return made


def columns_of(keys: NDArray[np.void], leaves: NDArray[np.void]) -> Columns:
    """The kernel's structs (`struct tuple` and `struct conn`, in the layouts that BCC tells) as columns."""
    growing = _Growing(keys.dtype, leaves.dtype, len(keys))
    growing.append(keys, leaves)
    return growing.columns()


class _Growing:
    """Columns being filled from batches of the kernel's structs, which they follow name by name."""

    def __init__(self, key: np.dtype[np.void], leaf: np.dtype[np.void], capacity: int) -> None:
        self._columns: dict[str, NDArray[Any]] = {}
        self._used = 0
        self._capacity = capacity
        for name in COLUMNS:
            if name not in FASTTRACK:
                self._columns[name] = _rows(name, capacity)
        self._key = _as_elements(key, [n for n in self._columns if n in (key.names or ())])
        self._leaf = _as_elements(leaf, [n for n in self._columns if n not in (key.names or ())])
        self._fasttrack = _as_elements(leaf, list(FASTTRACK))

    def append(self, keys: NDArray[np.void], leaves: NDArray[np.void]) -> None:
        """As many more rows, struct by struct to column by column."""
        if self._used + len(keys) > self._capacity:
            self._grow(2 * self._capacity + len(keys))
        if FASTTRACK.keys() - self._columns and any(leaves[name].any() for name in FASTTRACK):
            self._columns |= {name: _rows(name, self._capacity) for name in FASTTRACK}
        end = self._used + len(keys)
        for view in (keys.view(self._key), leaves.view(self._leaf), leaves.view(self._fasttrack)):
            for name in view.dtype.names or ():
                if name in self._columns:
                    _elements(self._columns[name])[self._used : end] = view[name]
        self._used = end

    def _grow(self, capacity: int) -> None:
        for name, column in self._columns.items():
            larger = _rows(name, capacity)
            larger[: self._used] = column[: self._used]
            self._columns[name] = larger
        self._capacity = capacity

    def columns(self) -> Columns:
        """What was filled, without the room that was not needed."""
        filled = {name: column[: self._used] for name, column in self._columns.items()}
        for name, whole in FASTTRACK.items():
            if name in filled:
                filled[whole] += filled[name]
            else:
                filled[name] = np.broadcast_to(_rows(name, 1), (self._used, 2))
        return Columns(**filled)


def _rows(name: str, n: int) -> NDArray[Any]:
    """Room for `n` rows of a column, zero, in memory of its own.

    The allocator would keep what a million rows leave behind, and take half as much again from the system.
    """
    like = COLUMNS[name]
    shape = (max(n, 1), *like.shape[1:])
    memory = mmap.mmap(-1, math.prod(shape) * like.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if len(memory) >= HUGE:
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, like.dtype).reshape(shape)[:n]


def _elements(column: NDArray[Any]) -> NDArray[Any]:
    """The column with each row as one element: rows of two or sixteen are copied several times faster so."""
    return column if column.ndim == 1 else column.view(f"V{column.strides[0]}")[:, 0]


def _as_elements(struct: np.dtype[np.void], names: list[str]) -> np.dtype[np.void]:
    """The struct's layout as BCC tells it, only these fields, each as one element. Raises ValueError."""
    formats: list[Any] = []
    offsets: list[int] = []
    for name in names:
        if struct.fields is None or name not in struct.fields:
            raise ValueError(f"the datapath's struct has no field {name}: ebpf/types.h and this version differ")
        field, offset = struct.fields[name][:2]
        formats.append(">u2" if name in PORTS else f"V{field.itemsize}" if field.shape else field)
        offsets.append(offset)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": struct.itemsize})
