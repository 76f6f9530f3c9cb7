"""TAP devices: interfaces whose wire is a file, which a program of this machine reads and writes frames at."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from lab.network import Namespace

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6 = 1, 2, 4
_LONGEST = 1 << 17  # bytes: a packet of 64 KiB with what stands before it


@contextmanager
def open_tap(machine: Namespace, name: str, *, bulk: bool = False) -> Iterator[int]:
    """The descriptor of a TAP device, made if it is not there; it goes with the descriptor unless it is persistent.

    bulk: segments are handed over many at a time, behind a header that says so, as with a virtual machine.
    """
    with machine.entered():
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if bulk else 0)
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH14x", name.encode(), flags))
        if bulk:
            fcntl.ioctl(tap, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6)
        yield tap
    finally:
        os.close(tap)


class Wire:
    """Carries frames between two TAP devices, as they are: what one's kernel sends is written to the other.

    longest: bytes of the longest frame so far.
    """

    def __init__(self, one: int, other: int) -> None:
        self.longest = 0
        self._other_end = {one: other, other: one}
        self._quit = os.eventfd(0)
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        while self._quit not in (ready := select.select([*self._other_end, self._quit], [], [])[0]):
            for tap in ready:
                frame = os.read(tap, _LONGEST)
                self.longest = max(self.longest, len(frame))
                os.write(self._other_end[tap], frame)

    def cut(self) -> None:
        os.eventfd_write(self._quit, 1)
        self._thread.join()
        os.close(self._quit)


@contextmanager
def joined(one: Namespace, other: Namespace, name: str, *, bulk: bool = False) -> Iterator[Wire]:
    """A TAP device of this name on each of two machines, up, and the wire between them."""
    with ExitStack() as stack:
        taps = [stack.enter_context(open_tap(machine, name, bulk=bulk)) for machine in (one, other)]
        for machine in (one, other):
            machine.ip(f"link set {name} up")
        wire = Wire(*taps)
        stack.callback(wire.cut)
        yield wire
