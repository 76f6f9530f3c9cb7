"""The names of connection marks, and the numbers that stand for them in the kernel's table."""

from __future__ import annotations

import threading
from collections.abc import Callable


class MarkNames:
    """Numbers for names, given out as names come and never taken back: an entry's mark means the same for ever.

    0 is no mark. Any thread may ask for a number; `names` is a new tuple each time it grows.
    """

    def __init__(self, names: tuple[str, ...] = ("",), grown: Callable[[tuple[str, ...]], None] | None = None) -> None:
        """names: those there are already, by number. grown: told of all names, before a new one's number is used."""
        self._names = names
        self._numbers = {name: number for number, name in enumerate(names)}
        self._grown = grown
        self._growing = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """All names so far, by number."""
        return self._names

    def number(self, name: str) -> int:
        """The number of `name`, a new one if it has none yet."""
        with self._growing:
            if name not in self._numbers:
                names = (*self._names, name)
                if self._grown:
                    self._grown(names)
                self._numbers[name] = len(self._names)
                self._names = names
            return self._numbers[name]
