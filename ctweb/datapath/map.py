"""One of the kernel's maps: made, and its elements read and written one by one. Batches: maps.py."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import msgspec

from ctweb.datapath.bpf import MAP_CREATE, bpf
from ctweb.datapath.c_types import type_of
from ctweb.datapath.image import MapShape
from ctweb.datapath.libbcc import lib

_PERCPU = frozenset({5, 6, 10})  # BPF_MAP_TYPE_PERCPU_HASH, _PERCPU_ARRAY, _LRU_PERCPU_HASH
_ARRAYS = frozenset({2, 6})  # BPF_MAP_TYPE_ARRAY, _PERCPU_ARRAY: every element is always there

# Of union bpf_attr, for BPF_MAP_CREATE: type, sizes of key and value, entries, flags, inner_map_fd, numa_node, name.
_MAP_CREATE = struct.Struct("=7I 16s")


class Map(MutableMapping[Any, Any]):
    """A map by its descriptor, which it owns.

    Key, Leaf: ctypes types of its keys and values, as BCC tells them; of a map per CPU, Leaf is an array over the CPUs.
    Where either is a number, a plain integer will do. An element that is not there raises KeyError, and so does one
    that goes while items are read; whatever else the kernel refuses raises OSError.
    """

    def __init__(self, shape: MapShape, descriptor: int) -> None:
        self._lib = lib()
        self.shape = shape
        self.map_fd = descriptor
        self.Key = type_of(shape.key)
        leaf = type_of(shape.leaf)
        self.Leaf: Any = leaf * possible_cpus() if shape.type in _PERCPU else leaf

    @classmethod
    def create(cls, shape: MapShape, holding: MapShape | None = None) -> Map:
        """A new map; one of maps is for those that look like `holding`. Raises OSError.

        They may have any number of entries, unless they are arrays.
        """
        if holding is not None and holding.type not in _ARRAYS:
            holding = msgspec.structs.replace(holding, entries=1)
        model = cls.create(holding) if holding else None
        try:
            return cls(shape, _create(shape, 0 if model is None else model.map_fd))
        finally:
            if model is not None:
                model.close()

    def __getitem__(self, key: Any) -> Any:
        key, leaf = self._key(key), self.Leaf()
        if self._lib.bpf_lookup_elem(self.map_fd, ctypes.byref(key), ctypes.byref(leaf)):
            raise self._refusal(key)
        return leaf

    def __setitem__(self, key: Any, leaf: Any) -> None:
        key = self._key(key)
        leaf = self.Leaf(leaf) if isinstance(leaf, int) else leaf
        if self._lib.bpf_update_elem(self.map_fd, ctypes.byref(key), ctypes.byref(leaf), 0):
            raise self._refusal(key)

    def __delitem__(self, key: Any) -> None:
        key = self._key(key)
        if self._lib.bpf_delete_elem(self.map_fd, ctypes.byref(key)):
            raise self._refusal(key)

    def __iter__(self) -> Iterator[Any]:
        """All keys. What is inserted or deleted meanwhile may be missed or come twice."""
        key, more = self.Key(), self.Key()
        came_from = None
        while self._lib.bpf_get_next_key(self.map_fd, came_from, ctypes.byref(more)) == 0:
            ctypes.memmove(ctypes.byref(key), ctypes.byref(more), ctypes.sizeof(key))
            came_from = ctypes.byref(key)
            yield type(key).from_buffer_copy(key)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def clear(self) -> None:
        """Delete every element, or set it to zero where elements cannot be deleted."""
        for key in list(self):
            if self.shape.type in _ARRAYS:
                self[key] = self.Leaf()
            else:
                del self[key]

    def close(self) -> None:
        """The kernel keeps the map as long as a program uses it."""
        os.close(self.map_fd)

    def _key(self, key: Any) -> Any:
        return self.Key(key) if isinstance(key, int) else key

    def _refusal(self, key: Any) -> Exception:
        code = ctypes.get_errno()
        if code == errno.ENOENT:
            return KeyError(key)
        return OSError(code, f"map {self.shape.name}: {os.strerror(code)}")


def _create(shape: MapShape, model: int) -> int:
    """The descriptor of a new map. model: that of one which looks like those in a map of maps. Raises OSError."""
    name = shape.name.encode()[:15]
    sizes = (shape.key_size, shape.leaf_size, shape.entries)
    try:
        return bpf(MAP_CREATE, _MAP_CREATE.pack(shape.type, *sizes, shape.flags, model, 0, name))
    except OSError as error:
        why = f"the kernel makes no map {shape.name} of {shape.entries} entries: {error.strerror}"
        raise OSError(error.errno, why) from None


def possible_cpus() -> int:
    """How many CPUs there can ever be: as many values has an element of a map per CPU."""
    ranges = Path("/sys/devices/system/cpu/possible").read_text().strip().split(",")
    return 1 + max(int(part.rpartition("-")[2]) for part in ranges)
