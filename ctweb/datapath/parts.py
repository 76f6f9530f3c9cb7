"""Where the elements of a large array stand: all in one map, or in chunks that are made one after the other."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Sequence

from ctweb.datapath.image import MapShape
from ctweb.datapath.map import Map
from ctweb.datapath.threads import wait_until_gone

_MOMENT = 0.0005  # s


class Parts:
    """An array as a row of maps. `holder` is the map of maps that they are in; without it there is one, which stays.

    entries: elements of each map. Only one thread at a time adds; others may read meanwhile.
    """

    def __init__(self, shape: MapShape, there: Sequence[Map], holder: Map | None = None) -> None:
        """shape: of each of them. there: the first ones, which are its own from here on. Raises OSError."""
        self.shape = shape
        self.entries = shape.entries
        self._holder = holder
        self._maps = list(there)
        self._waiting: list[threading.Thread] = []
        for number, each in enumerate(there):
            if holder is not None and number not in holder:  # the earlier run ended just then
                holder[number] = each.map_fd

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

    def add(self, keep: Callable[[int, Map], None]) -> None:
        """One more of them, from here on packets' too. Raises OSError, and then there is none.

        keep: is told its number and itself before.
        """
        number, made = len(self._maps), Map.create(self.shape)
        try:
            keep(number, made)
            self._show(number, made)
        except BaseException:
            made.close()
            raise
        self._maps.append(made)

    def _show(self, number: int, made: Map) -> None:
        """Put it into the map of maps, where packets find it at once. Raises OSError.

        The call itself waits until no program runs that began before (synchronize_rcu), which takes long when the
        machine has the most to do. Nobody needs that here, so another thread waits.
        """
        holder, failed = self._holder, list[Exception]()
        assert holder is not None

        def put() -> None:
            try:
                holder[number] = made.map_fd
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=put, name="growth-put", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, str(error)) from error
        while number not in holder:
            if failed:
                raise OSError(getattr(failed[0], "errno", None) or errno.EIO, str(failed[0]))
            time.sleep(_MOMENT)
        self._waiting = [each for each in (*self._waiting, thread) if each.is_alive()]

    def settle(self) -> None:
        """Wait until the kernel is done with what was added."""
        wait_until_gone(self._waiting)
        self._waiting.clear()

    def close(self) -> None:
        """Let go of them; the map of maps keeps them."""
        self.settle()
        for each in self._maps:
            each.close()
        self._maps.clear()
