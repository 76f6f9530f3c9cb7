"""Memory for connections that have not come yet, where the table is not made whole at the start."""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import resource
import select
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ctweb.datapath.table_memory import TableMemory

log = logging.getLogger(__name__)

_LOOK = 1000  # ms between looks, though no packet has told: where there was no memory there may be some now
_DESCRIPTORS = 1000  # of chunks, clients, and all else
_POSITION = struct.Struct("=Q")


@contextmanager
def growing(memory: TableMemory) -> Iterator[None]:
    """A thread, `growth`, that makes the next chunks as soon as packets tell that places are taken (ebpf/places.h).

    A table made whole needs none. Raises OSError.
    """
    if memory.growth is None:
        yield
        return
    _many_descriptors(memory.growth)
    bell, quit_ = _Bell(memory.growth), os.eventfd(0)
    thread = threading.Thread(target=_run, args=(memory, bell, quit_), name="growth", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.eventfd_write(quit_, 1)
        thread.join()
        os.close(quit_)


def _many_descriptors(any_one: int) -> None:
    """Have the kernel make this process's table of descriptors large now: later it would wait for all CPUs, in a hurry.

    (expand_fdtable() of fs/file.c)
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1
    with suppress(OSError):  # there is one of that number, so it is large
        os.close(fcntl.fcntl(any_one, fcntl.F_DUPFD_CLOEXEC, min(most, _DESCRIPTORS)))


def _run(memory: TableMemory, bell: _Bell, quit_: int) -> None:
    either = select.poll()
    either.register(quit_, select.POLLIN)
    either.register(bell.descriptor, select.POLLIN)
    told = ""  # the error that the log has already
    quitting = False
    while not quitting:
        bell.silence()  # before the look: what is told after it is told again
        try:
            memory.grow()
        except Exception as error:  # whatever it was, the next time may succeed
            reason = memory.no_memory or str(error)
            if reason != told:
                log.error(
                    "there is no memory for more connections: %s; look at the limits of the service (MemoryMax, "
                    "LimitNOFILE) and at dmesg; it is tried again each second", reason,
                )  # fmt: skip
            told = reason
        else:
            told = ""
        quitting = quit_ in {descriptor for descriptor, _ in either.poll(_LOOK)}


class _Bell:
    """A ring buffer of which nobody wants the words, only that there are some.

    Layout, by the kernel: a page with the reader's position, then one with the writer's.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._read = mmap.mmap(descriptor, mmap.PAGESIZE)
        self._written = mmap.mmap(descriptor, mmap.PAGESIZE, prot=mmap.PROT_READ, offset=mmap.PAGESIZE)

    def silence(self) -> None:
        """Take all that is there."""
        _POSITION.pack_into(self._read, 0, *_POSITION.unpack_from(self._written))
