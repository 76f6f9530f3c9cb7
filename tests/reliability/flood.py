"""New connections without end, each from another sender: `python -m reliability.flood INTERFACE MAC SECONDS [RATE]`.

Without a rate (connections a second) as fast as it can. To 10.66.0.0/16, by way of the machine that has the MAC, whose
end must take frames by NAPI (GRO on, or an XDP program).
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time
from pathlib import Path
from typing import ClassVar

from ctweb.datapath.bpf import PROG_TEST_RUN, SYS_BPF, TestRunAttr
from ctweb.datapath.build import SOURCE

NETWORK = "10.66.0.0/16"
LIVE_FRAMES = 2  # BPF_F_TEST_XDP_LIVE_FRAMES
BATCH = 64  # as many as one poll of the receiver takes
UDP_SHARE = 96  # of 256


class XdpContext(ctypes.Structure):
    """The kernel's `struct xdp_md`."""

    _fields_: ClassVar = [
        (name, ctypes.c_uint32)
        for name in ("data", "data_end", "data_meta", "ingress_ifindex", "rx_queue_index", "egress_ifindex")
    ]


class Flood:
    """Sends out of `interface`, of the network namespace that this process is in."""

    def __init__(self, interface: str, mac: str) -> None:
        os.environ["BCC_KERNEL_SOURCE"] = str(SOURCE / "headers")
        from bcc import BPF  # noqa: PLC0415  # it reads the environment

        self._module = BPF(text=Path(__file__).with_name("flood.bpf.c").read_bytes(), cflags=[f"-I{SOURCE}"])
        table = self._module.get_table(b"target")
        leaf = table.Leaf(network=0x0A420000, udp_share=UDP_SHARE)
        for place, byte in enumerate(bytes.fromhex(mac.replace(":", ""))):
            leaf.mac[place] = byte
        table[table.Key(0)] = leaf
        self._frame = ctypes.create_string_buffer(64)
        self._context = XdpContext(data_end=64, ingress_ifindex=socket.if_nametoindex(interface))
        self._attr = TestRunAttr(
            prog_fd=self._module.load_func(b"xdp_flood", BPF.XDP).fd,
            data_in=ctypes.addressof(self._frame),
            data_size_in=64,
            ctx_in=ctypes.addressof(self._context),
            ctx_size_in=ctypes.sizeof(self._context),
            flags=LIVE_FRAMES,
            batch_size=BATCH,
        )
        self._libc = ctypes.CDLL(None, use_errno=True)

    def send(self, number: int) -> None:
        self._attr.repeat = number
        if self._libc.syscall(SYS_BPF, PROG_TEST_RUN, ctypes.byref(self._attr), ctypes.sizeof(self._attr)):
            raise OSError(ctypes.get_errno(), f"live frames: {os.strerror(ctypes.get_errno())}")

    def run(self, seconds: float, rate: int = 0) -> int:
        """How many were sent."""
        began, sent = time.monotonic(), 0
        while (passed := time.monotonic() - began) < seconds:
            number = 8192 if not rate else min(int(passed * rate) - sent, rate // 10)
            if number > 0:
                self.send(number)
                sent += number
            if rate:
                time.sleep(0.02)
        return sent


if __name__ == "__main__":
    print(Flood(sys.argv[1], sys.argv[2]).run(float(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 0))
