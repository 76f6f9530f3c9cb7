"""bpf(2) for what BCC's library lacks: maps of any kind (it makes none of maps), test runs of programs, pins, links.

Layouts are those of `union bpf_attr` in include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

SYS_BPF = {
    "x86_64": 321, "i686": 357, "armv7l": 386, "ppc64le": 361, "ppc64": 361, "s390x": 351,
}.get(platform.machine(), 280)  # fmt: skip  # 280: every machine with the generic table (arm64, riscv, loongarch)
MAP_CREATE, PROG_TEST_RUN = 0, 10
_FRAME_MAX = 1 << 16

_OBJ_PIN, _OBJ_GET = 6, 7

libc = ctypes.CDLL(None, use_errno=True)


def bpf(command: int, attr: bytes) -> int:
    """The system call. Raises OSError."""
    result = int(libc.syscall(SYS_BPF, command, attr, len(attr)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def obj_pin(descriptor: int, path: Path) -> None:
    """Keep what is behind the descriptor beyond this process, under `path` in a mounted bpffs. Raises OSError."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    bpf(_OBJ_PIN, struct.pack("=Q 2I", ctypes.addressof(name), descriptor, 0))


def obj_get(path: Path) -> int:
    """A descriptor of what is pinned at `path`. Raises OSError."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return bpf(_OBJ_GET, struct.pack("=Q 2I", ctypes.addressof(name), 0, 0))


class TestRunAttr(ctypes.Structure):
    """What PROG_TEST_RUN is asked with; the kernel writes its answer into it."""

    __test__ = False

    _fields_: ClassVar = [
        ("prog_fd", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("data_in", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_uint64),
        ("ctx_out", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    ]


class SkBuff(ctypes.Structure):
    """The kernel's `struct __sk_buff`. A test run takes from it: mark, priority, ingress_ifindex, ifindex, cb, tstamp,
    wire_len, gso_segs and gso_size; the rest must be zero."""

    _fields_: ClassVar = [
        ("len", ctypes.c_uint32),
        ("pkt_type", ctypes.c_uint32),
        ("mark", ctypes.c_uint32),
        ("queue_mapping", ctypes.c_uint32),
        ("protocol", ctypes.c_uint32),
        ("vlan_present", ctypes.c_uint32),
        ("vlan_tci", ctypes.c_uint32),
        ("vlan_proto", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
        ("ingress_ifindex", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("tc_index", ctypes.c_uint32),
        ("cb", ctypes.c_uint32 * 5),
        ("hash", ctypes.c_uint32),
        ("tc_classid", ctypes.c_uint32),
        ("data", ctypes.c_uint32),
        ("data_end", ctypes.c_uint32),
        ("napi_id", ctypes.c_uint32),
        ("family", ctypes.c_uint32),
        ("remote_ip4", ctypes.c_uint32),
        ("local_ip4", ctypes.c_uint32),
        ("remote_ip6", ctypes.c_uint32 * 4),
        ("local_ip6", ctypes.c_uint32 * 4),
        ("remote_port", ctypes.c_uint32),
        ("local_port", ctypes.c_uint32),
        ("data_meta", ctypes.c_uint32),
        ("flow_keys", ctypes.c_uint64),
        ("tstamp", ctypes.c_uint64),
        ("wire_len", ctypes.c_uint32),
        ("gso_segs", ctypes.c_uint32),
        ("sk", ctypes.c_uint64),
        ("gso_size", ctypes.c_uint32),
        ("tstamp_type", ctypes.c_uint8),
        ("_pad", ctypes.c_uint8 * 3),
        ("hwtstamp", ctypes.c_uint64),
    ]


@dataclass(frozen=True)
class TestRun:
    """What a test run gave: the program's return value (as it is, unsigned), the frame afterwards, ns per run."""

    __test__ = False  # nothing for pytest to collect

    retval: int
    data: bytes
    duration: int


class TestRunner:
    """Runs one program again and again, with buffers kept from call to call. Not for several threads at once."""

    __test__ = False

    def __init__(self, program: int) -> None:
        self._out = ctypes.create_string_buffer(_FRAME_MAX)
        self._attr = TestRunAttr(prog_fd=program)

    def run(self, data: bytes | memoryview, context: SkBuff | None = None, repeat: int = 1) -> TestRun:
        """Run the program on `data`, `repeat` times.

        Raises OSError (EINVAL: the frame is shorter than the kernel takes, 14 bytes, or longer, about a page; or
        `context` has a field that may not be set).
        """
        attr = self._attr
        source = ctypes.create_string_buffer(bytes(data), len(data))
        attr.data_in = ctypes.addressof(source)
        attr.data_size_in = len(data)
        attr.data_out = ctypes.addressof(self._out)
        attr.data_size_out = _FRAME_MAX
        attr.repeat = repeat
        attr.ctx_in = ctypes.addressof(context) if context is not None else 0
        attr.ctx_size_in = ctypes.sizeof(context) if context is not None else 0
        attr.retval = attr.duration = 0
        if libc.syscall(SYS_BPF, PROG_TEST_RUN, ctypes.byref(attr), ctypes.sizeof(attr)) < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"test run of a BPF program with {len(data)} bytes: {os.strerror(code)}")
        return TestRun(attr.retval, self._out.raw[: attr.data_size_out], attr.duration)
