"""Where the elements of a large array stand: all in one map, or in chunks that are made one after the other."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterable, Mapping

from ctweb.datapath.bpf import bpf
from ctweb.datapath.image import MapShape
from ctweb.datapath.map import Map

# The maps of which a table that grows has chunks (ebpf/places.h), each in a map of maps. Places come last: where they
# are, packets are told that all else is there as well.
CHUNKS = {"address_chunks": "addresses", "place_chunks": "places"}

_MAP_GET_FD_BY_ID = 14
_MOMENT = 0.0005  # s


class Parts:
    """An array as a row of maps. `holder` is the map of maps that they are in; without it there is one, which stays.

    entries: elements of each map. Only one thread adds; others may read meanwhile.
    """

    def __init__(self, part: Map | MapShape, holder: Map | None = None) -> None:
        """part: the one, or how each of them looks. Raises OSError."""
        self._holder = holder
        self._maps: list[Map] = []
        self._waiting: list[threading.Thread] = []
        if holder is None:
            assert isinstance(part, Map)
            self._maps, self.shape = [part], part.shape
        else:
            assert isinstance(part, MapShape)
            self.shape = part
            self._maps = [Map(part, bpf(_MAP_GET_FD_BY_ID, struct.pack("=3I", each, 0, 0))) for each in _held(holder)]
        self.entries = self.shape.entries

    def __len__(self) -> int:
        return len(self._maps)

    @property
    def maps(self) -> tuple[Map, ...]:
        return tuple(self._maps)

    @property
    def room(self) -> int:
        """Elements that there is memory for."""
        return len(self._maps) * self.entries

    def at(self, number: int) -> tuple[Map, int]:
        """The map that has this element, and its number there."""
        part, offset = divmod(number, self.entries)
        return self._maps[part], offset

    def add(self, n: int) -> None:
        """So many more maps of them, from here on packets' too. Raises OSError, and then there are none more."""
        assert self._holder is not None
        made: list[Map] = []
        try:
            for _ in range(n):
                made.append(Map.create(self.shape))
            self._show(made)
        except OSError:
            for each in made:
                each.close()
            raise
        self._maps += made

    def _show(self, made: list[Map]) -> None:
        """Put them into the map of maps, where packets find them at once. Raises OSError.

        The call itself waits until no program runs that began before (synchronize_rcu), which takes long when the
        machine has the most to do. Nobody needs that here, so another thread waits.
        """
        holder, failed = self._holder, list[OSError]()
        assert holder is not None

        def put() -> None:
            try:
                holder.set_many(first, [each.map_fd for each in made])
            except OSError as error:
                failed.append(error)

        first = len(self._maps)
        thread = threading.Thread(target=put, name="growth-put", daemon=True)
        thread.start()
        while first + len(made) - 1 not in holder:
            if not thread.is_alive() and failed:
                raise failed[0]
            time.sleep(_MOMENT)
        self._waiting = [each for each in (*self._waiting, thread) if each.is_alive()]

    def close(self) -> None:
        """Let go of what is in a map of maps, which keeps them."""
        for thread in self._waiting:
            thread.join()
        if self._holder is not None:
            for each in self._maps:
                each.close()
            self._maps.clear()


def _held(holder: Map) -> Iterable[int]:
    """The ids of the maps in it: the first ones, for none is ever taken out."""
    for number in range(holder.shape.entries):
        try:
            yield holder[number].value
        except KeyError:
            return


def parts_of(maps: Mapping[str, Map], shapes: Mapping[str, MapShape]) -> dict[str, Parts]:
    """Places and addresses of a table with these maps, by name. Raises OSError."""
    if not CHUNKS.keys() <= maps.keys():
        return {name: Parts(maps[name]) for name in CHUNKS.values()}
    return {name: Parts(shapes[name], maps[holder]) for holder, name in CHUNKS.items()}
