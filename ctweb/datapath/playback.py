"""Captured frames through the datapath's program, at the time they were captured."""

from __future__ import annotations

import ctypes
import errno
import os

import numpy as np

from ctweb.datapath.bpf import PROG_TEST_RUN, SYS_BPF, SkBuff, TestRunAttr
from ctweb.datapath.build import Datapath
from ctweb.datapath.ended import EndedLog, EndedQueue
from ctweb.datapath.maps import Reader, keys
from ctweb.table.columns import Columns
from ctweb.table.expiry import dying

FRAME_MAX = 3072  # bytes of a frame that are handed over; a test run takes one page less about 400 bytes

_SECOND = 1_000_000_000
_WIRE_MAX = 0xFFFFFFFF  # a mark is 32 bits
_HEADERS_MIN = 14 + 40  # shorter frames are refused by the kernel when their IP header does not fit in
_ENDING = 2  # connections that one packet can end, at most


class Playback:
    """Feeds frames to a datapath that was built for replay. Its time is that of the frames and must not run backwards.

    cut: frames that the kernel did not take, for they break off within their IP header.
    """

    def __init__(self, datapath: Datapath, log: EndedLog | None) -> None:
        """`log` takes the connections that end, in their last state."""
        self.cut = 0
        self._datapath = datapath
        self._log = log
        self._reader = Reader(datapath.connections)
        self._queue = EndedQueue(datapath)
        self._max_entries = datapath.options.max_entries
        self._fed = 0
        self._due = 0  # so many frames fed: time to look after queue and table
        self._may_be_full = self._max_entries  # so many frames fed: the table may be full
        self._swept = 0

        self._frame = ctypes.create_string_buffer(FRAME_MAX)
        self._bytes = memoryview(self._frame).cast("B")
        self._context = SkBuff()
        self._attr = TestRunAttr(
            prog_fd=datapath.programs["tc_ingress"],
            data_in=ctypes.addressof(self._frame),
            ctx_in=ctypes.addressof(self._context),
            ctx_size_in=ctypes.sizeof(self._context),
            repeat=1,
        )
        # As C objects: ctypes would convert numbers anew at each call, which takes half as long again.
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._arguments = (
            ctypes.c_long(SYS_BPF),
            ctypes.c_long(PROG_TEST_RUN),
            ctypes.c_void_p(ctypes.addressof(self._attr)),
            ctypes.c_long(ctypes.sizeof(self._attr)),
        )

    def feed(self, now: int, wire: int, frame: bytes) -> None:
        """One frame: `wire` bytes on the wire, `frame` (FRAME_MAX at most) is what there is of them. Raises OSError."""
        if self._fed >= self._due:
            self._look_after(now)
        self._fed += 1
        size = len(frame)
        self._bytes[:size] = frame
        self._attr.data_size_in = size
        self._attr.data_size_out = 0  # the kernel writes there how long the frame was
        self._context.tstamp = now
        self._context.mark = min(wire, _WIRE_MAX)
        if self._syscall(*self._arguments):
            code = ctypes.get_errno()
            if code != errno.EINVAL or size >= _HEADERS_MIN:
                raise OSError(code, f"test run of the datapath with {size} bytes: {os.strerror(code)}")
            self.cut += 1

    def sweep(self, now: int) -> Columns:
        """The connections that are alive at `now`; those that have expired by then end. Raises OSError."""
        columns = self._reader.read()
        over = dying(columns, now)
        rows = np.flatnonzero(over)
        self._take_ended()
        for start in range(0, len(rows), self._queue.capacity):
            part = rows[start : start + self._queue.capacity]
            self._datapath.reap(keys(columns, part, self._datapath.key_dtype), now)
            self._take_ended()
        alive = columns.compact(~over)
        self._swept = now
        self._may_be_full = self._fed + self._max_entries - len(alive)
        return alive

    def _look_after(self, now: int) -> None:
        """Makes room in time: in queue and memory, and in the table, where an expired entry must take nobody's place.

        A table that stays full is swept once in a second of the capture, as a running tracker's is.
        """
        self._take_ended()
        self._datapath.memory.grow()  # by more places than frames come until it is looked after again
        if self._fed >= self._may_be_full and now - self._swept >= _SECOND:
            self.sweep(now)
        self._due = min(self._fed + self._queue.capacity // _ENDING, max(self._may_be_full, self._fed + 1))

    def _take_ended(self) -> None:
        ended = self._queue.take()
        if self._log is not None:
            self._log.append(ended)
