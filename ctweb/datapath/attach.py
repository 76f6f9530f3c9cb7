"""The programs on one interface: which hook they get, and what holds them there.

Ingress is native XDP or tc, egress is always tc. Programs hang on BPF links, so that they go with the process however
it ends, or, on kernels without tcx links (before 6.6), on filters under clsact, which a later run finds by their names.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ctweb.datapath import clsact
from ctweb.datapath.driver import driver
from ctweb.datapath.image import BuildError
from ctweb.datapath.interfaces import Interface, Shape
from ctweb.datapath.links import BpfLink, Hook
from ctweb.datapath.pins import Pins
from ctweb.instance import runs_in

log = logging.getLogger(__name__)

HookChoice = Literal["auto", "xdp", "tc"]
BPFFS = Path("/sys/fs/bpf")

# Native XDP is there, but it costs the interface (veth: its peer) segmentation or receive offload. So does it on a TAP
# device whose user hands over segments in bulk: they would be made one again by a copy, and counted as one packet.
_XDP_COSTS_OFFLOAD = frozenset({"veth", "virtio_net"})

_WAYS = {Hook.TCX_INGRESS: clsact.Way.INGRESS, Hook.TCX_EGRESS: clsact.Way.EGRESS}


class AttachError(Exception):
    """An interface cannot take the programs; the message says which, why and what to do."""


@dataclass(frozen=True)
class Means:
    """How programs may be held on interfaces.

    pins: where links are pinned, and found that an earlier run left; None: there are none.
    keep: pin the links under `pins`, so that they outlive the process; needs a mounted bpffs.
    tcx: False goes the way of kernels without tcx links.
    """

    netlink: IPRoute
    pins: Path | None
    keep: bool = False
    tcx: bool = True


@dataclass
class Attachment:
    """The programs on one interface, and why they are at this hook."""

    interface: Interface
    shape: Shape
    hook: Literal["xdp", "tc"] = "tc"  # of ingress; some shapes have egress only
    reason: str = ""
    links: list[BpfLink] = field(default_factory=list)
    filters: tuple[Hook, ...] = ()  # what hangs on clsact instead

    @property
    def held_by(self) -> Literal["link", "clsact"]:
        return "clsact" if self.filters else "link"

    def alive(self, netlink: IPRoute) -> bool:
        """False once the interface is another one, or somebody took our filters away."""
        index = self.interface.index
        return all(link.ifindex == index for link in self.links) and (
            not self.filters or clsact.attached(netlink, index, [_WAYS[hook] for hook in self.filters])
        )

    def replace(self, programs: Mapping[str, int], netlink: IPRoute) -> None:
        """Swap in other programs, each without a gap. Raises OSError or NetlinkError."""
        for link in self.links:
            link.update(_program(programs, link.hook, self.shape))
        if self.filters:
            self._put_filters(self.filters, programs, netlink)

    def detach(self, means: Means) -> None:
        """Take the programs off, or with `means.keep` leave them to the kernel. Raises NetlinkError."""
        for link in self.links:
            if not link.ifindex:  # the interface is gone
                link.unpin()
            elif not means.keep:
                link.detach()
                link.unpin()
            link.close()
        self.links.clear()
        if self.filters and not means.keep:
            clsact.detach(means.netlink, self.interface.index)
        self.filters = ()

    def _put_link(self, hook: Hook, programs: Mapping[str, int], means: Means) -> None:
        """A new link, or the one that a kept run left, with its program swapped."""
        program = _program(programs, hook, self.shape)
        pin = means.pins and means.pins / f"{self.interface.index}-{hook.name.lower()}"
        link = (pin and _adopt(pin, self.interface.index, program)) or BpfLink.create(
            program, self.interface.index, hook
        )
        self.links.append(link)
        if not means.keep:
            link.unpin()
        elif pin is not None and link.pinned is None:
            try:
                link.pin(pin)
            except OSError as error:
                raise AttachError(
                    f"cannot keep programs beyond the run: {pin}: {error.strerror}; "
                    "is a BPF filesystem mounted there (mount -t bpf bpf /sys/fs/bpf)?"
                ) from error

    def _put_filters(self, hooks: tuple[Hook, ...], programs: Mapping[str, int], netlink: IPRoute) -> None:
        chosen = [(_WAYS[hook], _program(programs, hook, self.shape)) for hook in hooks]
        self.filters = hooks  # before: what a failure leaves half done is taken off too
        clsact.attach(netlink, self.interface.index, chosen)


def attach(
    interface: Interface, shape: Shape, programs: Mapping[str, int], choice: HookChoice, means: Means
) -> Attachment:
    """Put the programs on one interface. With `choice` xdp, an interface that has no native XDP raises AttachError.

    programs: descriptor by name: xdp_ingress, tc_ingress, tc_egress, and the last two with _l3.
    """
    attachment = Attachment(interface, shape)
    try:
        attachment.hook, attachment.reason = choose(interface, shape, choice)
        if attachment.hook == "xdp":
            try:
                attachment._put_link(Hook.XDP, programs, means)
            except OSError as error:
                why = _why_no_xdp(error)
                if choice == "xdp":
                    raise AttachError(
                        f"interface {interface.name!r} cannot take --hook xdp: {why}; use auto or tc"
                    ) from error
                attachment.hook, attachment.reason = "tc", why
        hooks: tuple[Hook, ...] = (Hook.TCX_EGRESS,)
        if attachment.hook == "tc" and not shape.egress_only:
            hooks = (Hook.TCX_INGRESS, Hook.TCX_EGRESS)
        if not (means.tcx and _put_tcx(attachment, hooks, programs, means)):
            attachment._put_filters(hooks, programs, means.netlink)
    except (OSError, NetlinkError, BuildError) as error:
        _undo(attachment, means)
        raise AttachError(f"cannot attach to interface {interface.name!r}: {error.args[-1]}") from error
    except AttachError:
        _undo(attachment, means)
        raise
    return attachment


def namespace_pins(bpffs: Path = BPFFS) -> Path:
    """The directory in which links of this network namespace are pinned."""
    return bpffs / "ctweb" / str(os.stat("/proc/thread-self/ns/net").st_ino)


def detach_leftovers(
    netlink: IPRoute, pins: Path, *, sparing: Mapping[int, Attachment], in_use: bool = False
) -> list[str]:
    """Remove what earlier runs left in this namespace, and pins of interfaces that are gone, wherever they were.

    `sparing`: what is attached now, by interface index. `in_use`: the directory `pins` stays, though it may be empty.
    Answers what was removed, in words.
    """
    removed = []
    ours = {pins / link.pinned.name for each in sparing.values() for link in each.links if link.pinned}
    for pin in sorted(pins.glob("*")):
        if pin not in ours and not pin.is_dir() and _remove(pin, unless_attached=False):
            removed.append(f"link {pin}")
    for other in sorted(pins.parent.glob("*")):
        if other != pins and not runs_in(other.name):
            with suppress(OSError):  # somebody else is at it
                removed += _clear_away(other)
    if not in_use and pins.is_dir() and not any(pins.iterdir()):
        pins.rmdir()
    for index in sorted(clsact.interfaces(netlink)):
        if not (index in sparing and sparing[index].filters) and clsact.detach(netlink, index):
            removed.append(f"clsact filters on the interface with index {index}")
    return removed


def _clear_away(pins: Path) -> list[str]:
    """Remove what hangs on no interface any more from another namespace's directory; with the last link, its table."""
    removed = [
        f"link {pin}" for pin in sorted(pins.glob("*")) if not pin.is_dir() and _remove(pin, unless_attached=True)
    ]
    if removed and all(path.is_dir() for path in pins.iterdir()):
        Pins(pins).remove()
    return removed


def choose(interface: Interface, shape: Shape, choice: HookChoice) -> tuple[Literal["xdp", "tc"], str]:
    """The hook for ingress to try first, and why. Raises AttachError where `choice` cannot be had."""
    if shape is Shape.LOOPBACK:
        return "tc", "loopback: what leaves comes back, counted on its way out"
    if shape is Shape.PAIR:
        return "tc", "both ends of the pair are here, counted on its way out"
    if choice == "tc":
        return "tc", "asked for"
    if shape is Shape.LAYER3:
        if choice == "xdp":
            why = "its packets have no Ethernet header"
            raise AttachError(f"interface {interface.name!r} cannot take --hook xdp: {why}; use auto or tc")
        return "tc", "no Ethernet header"
    if choice == "xdp":
        return "xdp", "asked for"
    kind = interface.kind or driver(interface.name)
    if kind in _XDP_COSTS_OFFLOAD or interface.bulk:
        return "tc", f"native XDP would cost {kind} its offloads"
    return "xdp", "native XDP"


def _put_tcx(attachment: Attachment, hooks: tuple[Hook, ...], programs: Mapping[str, int], means: Means) -> bool:
    """False: this kernel has no tcx links."""
    for hook in hooks:
        try:
            attachment._put_link(hook, programs, means)
        except OSError as error:
            if error.errno == errno.EINVAL and hook is hooks[0]:
                return False
            raise
    return True


def _undo(attachment: Attachment, means: Means) -> None:
    try:
        attachment.detach(Means(means.netlink, means.pins))
    except (OSError, NetlinkError) as error:
        log.warning("interface %s: could not take half-attached programs off: %s", attachment.interface.name, error)


def _program(programs: Mapping[str, int], hook: Hook, shape: Shape) -> int:
    name = {Hook.XDP: "xdp_ingress", Hook.TCX_INGRESS: "tc_ingress", Hook.TCX_EGRESS: "tc_egress"}[hook]
    return programs[name + ("_l3" if shape is Shape.LAYER3 else "")]


def _adopt(pin: Path, ifindex: int, program: int) -> BpfLink | None:
    """The link pinned there with its program swapped; None, and nothing pinned there, if it cannot be used."""
    if not pin.exists():
        return None
    try:
        link = BpfLink.open(pin)
    except (OSError, ValueError):
        pin.unlink(missing_ok=True)
        return None
    try:
        if link.ifindex == ifindex:
            link.update(program)
            return link
    except OSError as error:
        log.warning("%s: not taken over: %s", pin, error)
    link.unpin()
    link.close()
    return None


def _remove(pin: Path, *, unless_attached: bool) -> bool:
    """Detach and unpin the link; whether it was done."""
    try:
        link = BpfLink.open(pin)
    except ValueError:  # something else is pinned there
        pin.unlink(missing_ok=True)
        return True
    try:
        attached = bool(link.ifindex)
        if attached and unless_attached:
            return False
        if attached:
            link.detach()
        link.unpin()
        return True
    finally:
        link.close()


def _why_no_xdp(error: OSError) -> str:
    if error.errno == errno.EOPNOTSUPP:
        return "its driver has no native XDP"
    if error.errno in (errno.EBUSY, errno.EEXIST):
        return "another XDP program is attached"
    return f"its driver refuses native XDP: {error.strerror} (a large MTU or too few queues, perhaps)"
