"""What systemd is told (sd_notify): nothing when it did not start this process.

The protocol is a datagram of lines on the socket that NOTIFY_SOCKET names; see sd_notify(3).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import sys
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


def reach() -> None:
    """Connect, for a process that may not have the right to do so later. `tell` says what is wrong."""
    if name := os.environ.get("NOTIFY_SOCKET", ""):
        with contextlib.suppress(OSError):
            _connected(name)


def tell(*lines: str) -> None:
    """Send these assignments, such as `READY=1`. What cannot be sent is logged: the work goes on without."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name:
        return
    try:
        _connected(name).sendall("\n".join(lines).encode())
    except OSError as error:
        log.warning("cannot tell systemd %s at %s: %s", lines[0], name, error.strerror)


@functools.cache
def _connected(name: str) -> socket.socket:
    """Raises OSError."""
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sender.connect("\0" + name[1:] if name.startswith("@") else name)  # @: not in the file system
    except OSError:
        sender.close()
        raise
    return sender


def logs_to_journal() -> bool:
    """Whether stderr is the journal, where what is written stays and others read it. See systemd.exec(5)."""
    state = os.fstat(sys.stderr.fileno())
    return os.environ.get("JOURNAL_STREAM") == f"{state.st_dev}:{state.st_ino}"


def reloading() -> None:
    """Say that the configuration is being read again; `ready` ends it."""
    tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def ready() -> None:
    tell("READY=1")


def stopping() -> None:
    tell("STOPPING=1")


class Watchdog:
    """Says that this process is alive, as often as systemd wants to hear it, as long as `progress` goes on.

    progress: a number that is another one whenever the work has advanced.
    """

    def __init__(self, progress: Callable[[], int]) -> None:
        self._progress = progress
        self._seen: int | None = None
        self._due = 0.0
        wanted = os.environ.get("WATCHDOG_USEC", "")
        ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._every = int(wanted) / 1e6 / 4 if ours and wanted.isdecimal() else None  # seconds; None: nobody listens

    def beat(self) -> None:
        """To be called at least once a second, by the thread whose being alive counts."""
        now = time.monotonic()
        if self._every is None or now < self._due:
            return
        seen = self._progress()
        if seen != self._seen:
            self._seen = seen
            self._due = now + self._every
            tell("WATCHDOG=1")
