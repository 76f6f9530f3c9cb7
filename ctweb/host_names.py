"""Names of hosts by reverse DNS: looked up in the background, kept for a while, and never waited for.

Who asks gets what is known at the moment, and asks again later. A few threads ask the system's resolver (so /etc/hosts
counts too), which may take as long as it likes: what waits for them is bounded, and what does not fit is counted and
asked for again by whoever still wants it. Names come from the wire: only what can be a host name is taken.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

THREADS = 4  # that ask at once; a resolver that hangs holds these and nothing else
WAITING = 1024  # addresses that wait for one of them
KEPT = 8192  # addresses whose names are remembered, those without a name too; about 2 MB
GOOD_SECONDS = 3600  # for a name
NONE_SECONDS = 600  # for an address that has none, or whose resolver did not say

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")
LONGEST = 253  # characters


@dataclass(frozen=True)
class _Known:
    name: str | None
    until: float  # time.monotonic()


class HostNames:
    """Any thread may ask. Its threads start with the first question, and end with the process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._known: OrderedDict[str, _Known] = OrderedDict()  # the one asked for longest ago comes first
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._asking: set[str] = set()
        self._threads: list[threading.Thread] = []
        self._asked = self._refused = 0

    def of(self, addresses: Iterable[str]) -> dict[str, str]:
        """The names known of these addresses; the others are looked up, for the next time."""
        found = {}
        now = time.monotonic()
        with self._changed:
            for address in addresses:
                known = self._known.get(address)
                if known is not None:
                    self._known.move_to_end(address)
                    if known.name is not None:
                        found[address] = known.name  # an old one is better than none until there is a new one
                if known is None or known.until < now:
                    self._ask(address)
        return found

    @property
    def counters(self) -> dict[str, int]:
        with self._changed:
            waiting = len(self._waiting) + len(self._asking)
            return {
                "names-asked": self._asked,
                "names-known": len(self._known),
                "names-waiting": waiting,
                "names-refused": self._refused,
            }

    def _ask(self, address: str) -> None:
        if address in self._waiting or address in self._asking:
            return
        if len(self._waiting) >= WAITING:
            self._refused += 1
            return
        self._waiting[address] = None
        if len(self._threads) < THREADS:
            thread = threading.Thread(target=self._run, name=f"names_{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._changed.notify()

    def _run(self) -> None:
        """The threads `names_N`."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                # Who asked last is still there to see it.
                address, _ = self._waiting.popitem()
                self._asking.add(address)
                self._asked += 1
            name = look_up(address)
            until = time.monotonic() + (NONE_SECONDS if name is None else GOOD_SECONDS)
            with self._changed:
                self._asking.discard(address)
                self._known[address] = _Known(name, until)
                self._known.move_to_end(address)
                while len(self._known) > KEPT:
                    self._known.popitem(last=False)


def look_up(address: str) -> str | None:
    """The name that the system's resolver has for an IP address, or None. Takes as long as the resolver does."""
    try:
        # Not getnameinfo, which in Python before 3.13 keeps all other threads waiting meanwhile.
        name, _, _ = socket.gethostbyaddr(address)
    except (OSError, UnicodeError):
        return None
    name = name.rstrip(".")
    return name if len(name) <= LONGEST and _HOST_NAME.fullmatch(name) else None
