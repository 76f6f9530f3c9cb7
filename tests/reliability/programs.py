"""The programs under test: frames in by PROG_TEST_RUN, at speed; the table and the counters out."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bcc.libbcc import lib

from ctweb.datapath.bpf import PROG_TEST_RUN, SYS_BPF, SkBuff, TestRunAttr
from ctweb.datapath.build import Datapath
from ctweb.datapath.maps import Batches

XDP_PASS = 2
TCX_NEXT = 0xFFFFFFFF  # TC_ACT_UNSPEC: what stands behind the program runs as if it were not there
FRAME_MAX = 3072
SHORT = 14 + 40  # the kernel itself refuses test runs of shorter frames whose IP header does not fit

Facts = tuple[object, ...]


class Altered(AssertionError):
    """A program did not let a frame pass as it was."""


class Runner:
    """One program, with buffers kept from call to call."""

    def __init__(self, program: int, *, xdp: bool) -> None:
        self._in = ctypes.create_string_buffer(FRAME_MAX)
        self._out = ctypes.create_string_buffer(FRAME_MAX)
        self._bytes = memoryview(self._in).cast("B")
        self._out_at = ctypes.addressof(self._out)
        self._context = SkBuff()
        self._verdict = XDP_PASS if xdp else TCX_NEXT
        self._attr = TestRunAttr(
            prog_fd=program,
            data_in=ctypes.addressof(self._in),
            data_out=self._out_at,
            ctx_in=0 if xdp else ctypes.addressof(self._context),
            ctx_size_in=0 if xdp else ctypes.sizeof(self._context),
            repeat=1,
        )
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._arguments = (
            ctypes.c_long(SYS_BPF),
            ctypes.c_long(PROG_TEST_RUN),
            ctypes.c_void_p(ctypes.addressof(self._attr)),
            ctypes.c_long(ctypes.sizeof(self._attr)),
        )

    def run(self, frame: bytes, now: int = 0, gso_size: int = 0, segments: int = 0) -> bool:
        """False: the kernel does not take such a frame for a test run. Raises Altered."""
        size = len(frame)
        attr, context = self._attr, self._context
        self._bytes[:size] = frame
        attr.data_size_in = size
        attr.data_size_out = FRAME_MAX
        context.tstamp = now
        context.gso_size, context.gso_segs = gso_size, segments
        if self._syscall(*self._arguments):
            code = ctypes.get_errno()
            if code == errno.EINVAL and size < SHORT:
                return False
            raise OSError(code, f"test run with {size} bytes, {frame.hex()}: {os.strerror(code)}")
        if attr.retval != self._verdict:
            raise Altered(f"verdict {attr.retval} for {frame.hex()}")
        if attr.data_size_out != size or ctypes.string_at(self._out_at, size) != frame:
            raise Altered(f"{frame.hex()} left as {ctypes.string_at(self._out_at, attr.data_size_out).hex()}")
        return True


@dataclass
class Kernel:
    """A loaded datapath whose table is emptied again and again."""

    datapath: Datapath
    _runners: dict[str, Runner] = field(default_factory=dict)
    _before: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tables = [
            (self.datapath.table(name), Batches(self.datapath.table(name), name))
            for name in ("datagrams", "expectations", "watched", "calls")
        ]
        self._status = self.datapath.enums["status"]

    def runner(self, program: str) -> Runner:
        if program not in self._runners:
            made = Runner(self.datapath.programs[program], xdp=program.startswith("xdp"))
            self._runners[program] = made
        return self._runners[program]

    def entries(self) -> dict[bytes, Facts]:
        """By key as the kernel has it, in the order of Connection.facts; without what is over."""
        status = self._status
        found: dict[bytes, Facts] = {}
        for keys, leaves in self.datapath.connections.read():
            raw = keys.tobytes()
            names = ("expires", "status", "tcp_state", "packets", "bytes")
            for number, (expires, bits, state, packets, sizes) in enumerate(
                zip(*(leaves[name].tolist() for name in names), strict=True)
            ):
                found[raw[number * 40 : number * 40 + 40]] = (
                    bool(bits & status["STATUS_SWAPPED"]), tuple(packets), tuple(sizes),
                    bool(bits & status["STATUS_SEEN_REPLY"]), bool(bits & status["STATUS_ASSURED"]),
                    state, expires,
                )  # fmt: skip
        return found

    def counters(self) -> dict[str, int]:
        """Since clear(), by name of enum counter; those that are zero left out."""
        grown = {
            name.removeprefix("COUNT_"): value - self._before.get(name, 0)
            for name, value in self.datapath.read_counters().items()
        }
        return {name: value for name, value in grown.items() if value}

    def clear(self) -> None:
        """An empty table, and counters that start from here."""
        self.datapath.connections.clear()
        for table, batches in self._tables:
            keys = b"".join([some.tobytes() for some, _ in batches.read()])
            if keys:
                count = ctypes.c_uint32(len(keys) // batches.key.itemsize)
                assert lib.bpf_delete_batch(table.map_fd, keys, ctypes.byref(count)) == 0
        shared: Any = self.datapath.shared
        shared[shared.Key(0)] = shared.Leaf()
        self._before = self.datapath.read_counters()
