"""The table of connections (ebpf/table.h), as user space reads and writes it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctweb.datapath.c_types import type_of
from ctweb.datapath.libbcc import lib
from ctweb.datapath.map import Map
from ctweb.datapath.maps import BATCH, MapError
from ctweb.datapath.parts import Parts

_CLAIMED = 0  # EXPIRES_CLAIMED: a place without an entry, or one that is on its way in or out

Put = Callable[[NDArray[Any], NDArray[Any]], int]


class ConnectionTable(Mapping[Any, Any]):
    """Entries by their tuples. Not for two threads at once: its buffers are kept between readings.

    Key, Leaf: ctypes types of `struct tuple` and `struct conn`. MAPS: what it is made of, besides its parts.
    """

    MAPS = frozenset({"buckets", "spare_places", "shared", "datagrams"})

    def __init__(self, maps: Mapping[str, Map], parts: Mapping[str, Parts], put: Put | None = None) -> None:
        """maps: MAPS by name, and others. parts: `places` and `addresses`, which stay the caller's.

        put: writes entries, and says how many found a place.
        """
        self._places, self._addresses = parts["places"], parts["addresses"]
        self._shared, self._index, self._spare = maps["shared"], maps["buckets"], maps["spare_places"]
        self._put = put
        place = type_of(self._places.shape.leaf)
        self.Leaf: Any = dict(place._fields_)["conn"]
        self.Key: Any = maps["datagrams"].Key  # the same struct, of a map that has it for a key
        self._place, self._key = np.dtype(place), np.dtype(self.Key)
        # No batch goes beyond a part: each part has a whole number of them, or is the only one.
        self._batch = min(BATCH, self._places.entries)
        self._numbers = np.empty(self._batch, np.uint32)
        self._block = np.empty(self._batch, self._place)
        self._far = np.empty(self._batch, np.dtype(type_of(self._addresses.shape.leaf)))

    @property
    def room(self) -> int:
        """Entries that there is memory for."""
        return self._places.room

    def blocks(self) -> Iterator[tuple[int, NDArray[np.void]]]:
        """The places that have ever been used, as they are: the number of the first one, and them.

        Each block is written over by the next. Raises MapError.
        """
        used = min(self._shared[0].places_used, self._places.room)
        for start in range(0, used, self._batch):
            yield start, self._read(self._places, start, self._block[: min(self._batch, used - start)])

    def read(self) -> Iterator[tuple[NDArray[np.void], NDArray[np.void]]]:
        """Keys and values, batch by batch; each is written over by the next. Raises MapError.

        The kernel copies a place from its beginning to its end, and a new entry is alive only when all of it is
        written: whose `expires` is read alive, all that stands behind it is of the same connection.
        """
        for start, block in self.blocks():
            there = block["conn"]["expires"] != _CLAIMED
            chosen = slice(None) if there.all() else np.flatnonzero(there)
            places = block[chosen]
            if len(places):
                keys = self._keys(places)
                wide = np.flatnonzero(keys["family"] == 6)
                if len(wide):
                    far = self._read(self._addresses, start, self._far[: len(block)])[chosen][wide]
                    keys["lo_addr"][wide], keys["hi_addr"][wide] = far["lo"], far["hi"]
                yield keys, places["conn"]

    def _read(self, parts: Parts, start: int, into: NDArray[np.void]) -> NDArray[np.void]:
        """The elements from `start` on, all of one part."""
        table, first = parts.at(start)
        before, place = ctypes.c_uint32(first - 1), ctypes.c_uint32()
        count = ctypes.c_uint32(len(into))
        failed = lib().bpf_lookup_batch(
            table.map_fd, ctypes.byref(before) if first else None, ctypes.byref(place),
            self._numbers.ctypes.data, into.ctypes.data, ctypes.byref(count),
        )  # fmt: skip
        if failed or count.value != len(into):
            reason = os.strerror(ctypes.get_errno()) if failed else f"{count.value} of {len(into)} entries came"
            raise MapError(f"cannot read the connection table ({table.shape.name}): {reason}")
        return into

    def _keys(self, places: NDArray[np.void]) -> NDArray[np.void]:
        """Their tuples, without the addresses of IPv6."""
        made = np.zeros(len(places), self._key)
        words, key = made.view(np.uint32).reshape(-1, 10), places["key"]
        made.view(np.uint64).reshape(-1, 5)[:, 4] = key[:, 1]
        narrow = made["family"] == 4
        for column, half in ((0, 0), (4, 1)):
            words[:, column] = np.where(narrow, key.view(np.uint32)[:, half], 0)
        return made

    def write(self, keys: NDArray[np.void], leaves: NDArray[np.void]) -> int:
        """Entries as they are, over those under the same tuples; how many found a place. Raises OSError."""
        assert self._put is not None
        return self._put(keys, leaves)

    def __iter__(self) -> Iterator[Any]:
        for keys, _ in self.read():
            for key in keys:
                yield self.Key.from_buffer_copy(key.tobytes())

    def __getitem__(self, key: Any) -> Any:
        wanted = bytes(key)
        for keys, leaves in self.read():
            for found, leaf in zip(keys, leaves, strict=True):
                if found.tobytes() == wanted:
                    return self.Leaf.from_buffer_copy(leaf.tobytes())
        raise KeyError(key)

    def items(self) -> Any:
        """All of them, in one reading."""
        return [
            (self.Key.from_buffer_copy(key.tobytes()), self.Leaf.from_buffer_copy(leaf.tobytes()))
            for keys, leaves in self.read()
            for key, leaf in zip(keys, leaves, strict=True)
        ]

    def values(self) -> Any:
        return [leaf for _, leaf in self.items()]

    def clear(self) -> None:
        """As it was when it was made. No program may be running. Raises MapError."""
        shared = self._shared[0]
        used = min(shared.places_used, self._places.room)
        for number, table in enumerate(self._places.maps):
            _empty(table, used - number * self._places.entries)
        _empty(self._spare, shared.spare_tail)
        _empty(self._index, self._index.shape.entries if used else 0)
        shared.places_used = shared.spare_head = shared.spare_tail = 0
        self._shared[0] = shared

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self.read())


def _empty(table: Map, n: int) -> None:
    """Zero in the first `n` elements, or in all that there are. Raises MapError."""
    n = min(n, table.shape.entries)
    if n <= 0:
        return
    numbers, zero, count = np.arange(n, dtype=np.uint32), np.zeros(n, np.dtype(table.Leaf)), ctypes.c_uint32(n)
    if lib().bpf_update_batch(table.map_fd, numbers.ctypes.data, zero.ctypes.data, ctypes.byref(count)):
        raise MapError(f"cannot empty the connection table: {os.strerror(ctypes.get_errno())}")
