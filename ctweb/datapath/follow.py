"""Keeps the programs where they belong while interfaces come, go, are renamed, enslaved or moved."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ctweb.datapath.attach import (
    BPFFS,
    AttachError,
    Attachment,
    HookChoice,
    Means,
    attach,
    detach_leftovers,
    namespace_pins,
)
from ctweb.datapath.fast_ports import Hooked
from ctweb.datapath.interfaces import Interface, Plan, check_names, plan, read
from ctweb.datapath.map import Map

log = logging.getLogger(__name__)

_RTMGRP_LINK = 1
_PAUSE = 0.05  # seconds between two looks: a burst of changes costs few dumps
_RETRY = 1.0  # seconds after a look that failed


@dataclass(frozen=True)
class Report:
    """What one interface got, for logs, `ctweb doctor` and the page."""

    interface: str
    ifindex: int
    hook: Literal["xdp", "tc", ""]  # of ingress; "": no programs
    held_by: Literal["link", "clsact", ""]
    reason: str  # why this hook, or why none
    failed: bool = False  # it should have programs and has none


class Interfaces:
    """The programs on all interfaces of this network namespace. Methods may be called from any thread.

    programs: descriptor by name, see `attach`.
    seen_map: the map `interfaces` (ebpf/maps.h), of which this is the only writer.
    names: only these interfaces; empty: all that carry IP, at the lowest level.
    keep: leave the programs attached at `stop`. Needs a bpffs mounted at `bpffs`; mounting it is the caller's decision.
    tcx: False goes the way of kernels without tcx links.
    noticed: told of all interfaces there are, at each look. settled: told of those that have programs, after it.
    attached: False starts without programs; see `set_attached`.
    owner: user and group that this process will be of once `attach` is done, and that then pin.
    """

    def __init__(
        self,
        programs: Mapping[str, int],
        seen_map: Map,
        *,
        hook: HookChoice = "auto",
        names: Sequence[str] = (),
        keep: bool = False,
        tcx: bool = True,
        bpffs: Path = BPFFS,
        noticed: Callable[[Mapping[int, Interface]], None] | None = None,
        settled: Callable[[Mapping[int, Hooked]], None] | None = None,
        attached: bool = True,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self._programs = programs
        self._map = seen_map
        self._choice: HookChoice = hook
        self._names = tuple(names)
        self._keep = keep
        self._tcx = tcx
        self._leftovers = namespace_pins(bpffs)
        self._pins: Path | None = self._leftovers  # where to pin, or what to take over from
        self._pins_descriptor = -1
        self._owner = owner
        self._noticed = noticed
        self._settled = settled
        self._wanted = attached
        self._lock = threading.Lock()  # held while any of the following changes
        self._attached: dict[int, Attachment] = {}
        self._seen: set[int] = set()  # what stands in the kernel's map
        self._troubles: dict[int, str] = {}  # why an interface has no programs, logged once
        self._reports: tuple[Report, ...] = ()
        self._bell: socket.socket | None = None
        self._quit = -1
        self._thread = threading.Thread(target=self._follow, name="interfaces", daemon=True)

    @property
    def reports(self) -> tuple[Report, ...]:
        """One for each interface that has programs, should have, or was named, as of the last look."""
        return self._reports

    def start(self) -> None:
        """Attach, if that has not been done, and follow changes from here on. Raises as `attach` does."""
        if self._bell is None:
            self.attach()
        self._thread.start()

    def attach(self) -> None:
        """Attach, and clear away what earlier runs left. What is to be root's work ends here.

        Raises NoSuchInterfaceError or AttachError for a named interface, with nothing left attached.
        """
        self._quit = os.eventfd(0)
        # The bell first, so that no change falls between it and the first look.
        self._bell = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._bell.bind((0, _RTMGRP_LINK))
        try:
            with self._lock, IPRoute() as netlink:
                check_names(read(netlink), self._names)
                if self._keep:
                    self._open_pins()
                self._look(netlink, strict=True)
                for removed in detach_leftovers(
                    netlink, self._leftovers, sparing=self._attached, in_use=self._keep
                ):
                    log.info("removed what an earlier run left: %s", removed)
                if not self._keep:
                    self._pins = None
        except BaseException as error:
            self._keep = False
            self.stop()
            if isinstance(error, OSError | NetlinkError):
                raise AttachError(f"cannot attach to the interfaces: {error.args[-1]}; see `ctweb doctor`") from error
            raise

    def _open_pins(self) -> None:
        """Make the directory for pins, give it to its owner, and keep hold of it: what lies above is root's alone."""
        try:
            self._leftovers.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._pins_descriptor = os.open(self._leftovers, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if self._owner is not None:
                os.fchown(self._pins_descriptor, *self._owner)
        except OSError as error:
            raise AttachError(f"cannot keep programs beyond the run: {self._leftovers}: {error.strerror}") from error
        self._pins = Path(f"/proc/self/fd/{self._pins_descriptor}")

    def replace(self, programs: Mapping[str, int]) -> None:
        """Swap in newly built programs, each without a gap. Raises AttachError if one could not be swapped."""
        with self._lock, IPRoute() as netlink:
            self._programs = programs
            for attachment in self._attached.values():
                try:
                    attachment.replace(programs, netlink)
                except (OSError, NetlinkError) as error:
                    if attachment.alive(netlink):
                        name = attachment.interface.name
                        raise AttachError(f"interface {name!r}: program not replaced: {error.args[-1]}") from error

    def set_attached(self, attached: bool) -> None:
        """Put the programs on all interfaces, or take them off; done when this returns. Not before `start`.

        Raises OSError or NetlinkError if that could not be done at all; an interface in trouble is logged and tried
        again.
        """
        with self._lock, IPRoute() as netlink:
            self._wanted = attached
            self._look(netlink, strict=False)

    def stop(self) -> None:
        """End the thread and take all programs off, or leave them if they are to be kept. May be called twice."""
        if self._bell is None:
            return
        os.eventfd_write(self._quit, 1)
        if self._thread.ident is not None:
            self._thread.join()
        with self._lock, IPRoute() as netlink:
            for index in list(self._attached):
                self._let_go(index, netlink, keep=self._keep)
            if not self._keep:
                self._set_seen(set())
            self._reports = ()
        self._bell.close()
        self._bell = None
        os.close(self._quit)
        if self._pins_descriptor >= 0:
            os.close(self._pins_descriptor)
            self._pins_descriptor = -1

    def _follow(self) -> None:
        assert self._bell is not None
        bell, timeout = self._bell, None
        while self._quit not in select.select([bell, self._quit], [], [], timeout)[0]:
            _drain(bell)
            try:
                with self._lock, IPRoute() as netlink:
                    self._look(netlink, strict=False)
                timeout = None
            except Exception as error:  # whatever it is, the next look may go better; without this thread none comes
                log.error("cannot follow the interfaces, trying again: %s: %s", type(error).__name__, error)
                timeout = _RETRY
            if select.select([self._quit], [], [], _PAUSE)[0]:
                return

    def _look(self, netlink: IPRoute, *, strict: bool) -> None:
        """Compare what is there with what should be, and mend the difference.

        strict: trouble with a named interface raises AttachError.
        """
        interfaces = read(netlink)
        if self._noticed:
            self._noticed(interfaces)
        if not self._wanted:
            self._take_all_off(netlink)
            return
        plans = plan(interfaces, self._names)
        for index, attachment in list(self._attached.items()):
            wanted = plans.get(index)
            if wanted is None or wanted.shape is not attachment.shape or not attachment.alive(netlink):
                self._let_go(index, netlink, keep=self._keep)
            elif wanted.interface.bulk is not attachment.interface.bulk:  # another hook may be the right one
                self._let_go(index, netlink, keep=False)
            else:
                attachment.interface = wanted.interface  # it may have a new name
        seen = {index for index, each in plans.items() if each.seen}
        self._set_seen(self._seen | seen)  # before the programs that ask it
        troubles = {}
        for index, each in plans.items():
            if each.shape is None or index in self._attached:
                continue
            try:
                if index not in self._seen:
                    raise AttachError(f"interface {each.interface.name!r}: the kernel's map of interfaces is full")
                self._attached[index] = self._take(each, netlink)
            except AttachError as error:
                if strict and self._names:
                    raise
                troubles[index] = str(error)
                if self._troubles.get(index) != troubles[index]:
                    log.error("%s", error)
        self._troubles = troubles
        self._set_seen(seen - troubles.keys())
        there = {each.interface.name for each in plans.values()}
        missing = (Report(name, 0, "", "", "not there", failed=True) for name in self._names if name not in there)
        self._reports = (*(self._report(each) for each in plans.values() if self._concerns_us(each)), *missing)
        self._tell()

    def _take(self, each: Plan, netlink: IPRoute) -> Attachment:
        interface, shape = each.interface, each.shape
        assert shape is not None
        means = Means(netlink, self._pins, keep=self._keep, tcx=self._tcx)
        try:
            attachment = attach(interface, shape, self._programs, self._choice, means)
        except AttachError as error:
            if self._choice != "xdp" or self._names:
                raise
            # Nobody named this interface: --hook xdp is a wish for those that can.
            log.warning("%s; left to tc", error)
            attachment = attach(interface, shape, self._programs, "tc", means)
            attachment.reason = str(error)
        how = f"{attachment.hook}, held by {attachment.held_by}: {attachment.reason}"
        log.info("interface %s: %s", interface.name, how)
        return attachment

    def _take_all_off(self, netlink: IPRoute) -> None:
        for index in list(self._attached):
            self._let_go(index, netlink, keep=False)
        self._set_seen(set())
        self._reports = ()
        self._tell()

    def _tell(self) -> None:
        if self._settled:
            self._settled(
                {
                    index: Hooked(attachment.interface, attachment.hook, attachment.reason)
                    for index, attachment in self._attached.items()
                }
            )

    def _let_go(self, index: int, netlink: IPRoute, *, keep: bool) -> None:
        attachment = self._attached.pop(index)
        attachment.detach(Means(netlink, self._pins, keep=keep))
        log.info("interface %s: let go", attachment.interface.name)

    def _set_seen(self, seen: set[int]) -> None:
        """Bring the kernel's map to this set, as far as it has room."""
        for index in self._seen - seen:
            del self._map[self._map.Key(index)]
        self._seen &= seen
        with contextlib.suppress(OSError):  # what is missing then is trouble of its interface
            for index in sorted(seen - self._seen):
                self._map[self._map.Key(index)] = self._map.Leaf(1)
                self._seen.add(index)

    def _concerns_us(self, each: Plan) -> bool:
        return each.seen or each.shape is not None or each.interface.name in self._names

    def _report(self, each: Plan) -> Report:
        interface = each.interface
        if attachment := self._attached.get(interface.index):
            return Report(interface.name, interface.index, attachment.hook, attachment.held_by, attachment.reason)
        trouble = self._troubles.get(interface.index)
        return Report(interface.name, interface.index, "", "", trouble or each.reason, failed=trouble is not None)


def _drain(bell: socket.socket) -> None:
    """Messages only tell that something changed; so does an overrun. What changed is read afresh."""
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                bell.recv(65536)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
