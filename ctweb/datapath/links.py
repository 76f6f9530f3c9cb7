"""BPF links: a program's hold on an interface's hook, gone with its last descriptor unless pinned in bpffs.

Straight on bpf(2): the layouts are those of `union bpf_attr` and `struct bpf_link_info` in include/uapi/linux/bpf.h.
XDP links are there from kernel 5.9, tcx links from 6.6.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from ctweb.datapath.bpf import bpf, obj_get, obj_pin

_OBJ_GET_INFO_BY_FD, _LINK_CREATE, _LINK_UPDATE, _LINK_DETACH = 15, 28, 29, 34

_BPF_F_BEFORE = 1 << 3  # tcx: with no other program named, before all of them
_XDP_FLAGS_DRV_MODE = 1 << 2
_LINK_TYPE_XDP, _LINK_TYPE_TCX = 6, 11

_LINK_INFO = struct.Struct(
    "=I 4x 4x 4x I I"
)  # type, (id, program id, padding), the head of the union: index, attach type


class Hook(IntEnum):
    """A place for a program, by its `enum bpf_attach_type`."""

    XDP = 37
    TCX_INGRESS = 46
    TCX_EGRESS = 47


@dataclass
class BpfLink:
    """One link, owned through its descriptor. Closing it detaches the program, unless the link is pinned."""

    fd: int
    hook: Hook
    pinned: Path | None = None

    @classmethod
    def create(cls, program: int, ifindex: int, hook: Hook) -> BpfLink:
        """Attach the program behind descriptor `program`, first in line, so that it sees every packet.

        Raises OSError: EINVAL where the kernel has no such link, EOPNOTSUPP where the driver has no native XDP,
        EBUSY where another XDP program sits, ENODEV where the interface is gone.
        """
        flags = _XDP_FLAGS_DRV_MODE if hook is Hook.XDP else _BPF_F_BEFORE
        # The zeros: relative to no other program, at any revision of the list.
        attr = struct.pack("=4I I 4x Q", program, ifindex, hook, flags, 0, 0)
        return cls(bpf(_LINK_CREATE, attr), hook)

    @classmethod
    def open(cls, path: Path) -> BpfLink:
        """The link pinned at `path`. Raises OSError, and ValueError if something else is pinned there."""
        fd = obj_get(path)
        try:
            kind, _, attach_type = _info(fd)
            if kind not in (_LINK_TYPE_XDP, _LINK_TYPE_TCX):
                raise ValueError(f"{path}: not a link of an interface's hook")
            return cls(fd, Hook.XDP if kind == _LINK_TYPE_XDP else Hook(attach_type), path)
        except BaseException:
            os.close(fd)
            raise

    @property
    def ifindex(self) -> int:
        """The interface it holds on to; 0 once that is gone."""
        return _info(self.fd)[1]

    def update(self, program: int) -> None:
        """Swap the program without a gap. Raises OSError (ENOLINK: the interface is gone)."""
        bpf(_LINK_UPDATE, struct.pack("=4I", self.fd, program, 0, 0))

    def pin(self, path: Path) -> None:
        """Keep the link beyond this process, under `path` in a mounted bpffs. Raises OSError."""
        obj_pin(self.fd, path)
        self.pinned = path

    def detach(self) -> None:
        """Take the program off now; without a pin and closed, the link is gone as well, but some time later.

        Raises OSError.
        """
        bpf(_LINK_DETACH, struct.pack("=I", self.fd))

    def unpin(self) -> None:
        if self.pinned is not None:
            self.pinned.unlink(missing_ok=True)
            self.pinned = None

    def close(self) -> None:
        os.close(self.fd)


def _info(fd: int) -> tuple[int, int, int]:
    """Type of the link, its interface's index, and for tcx its attach type."""
    info = ctypes.create_string_buffer(_LINK_INFO.size)
    bpf(_OBJ_GET_INFO_BY_FD, struct.pack("=2I Q", fd, len(info), ctypes.addressof(info)))
    kind, ifindex, attach_type = _LINK_INFO.unpack(info.raw)
    return kind, ifindex, attach_type
