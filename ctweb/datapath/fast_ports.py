"""Which interfaces take part in FastTrack: packets are forwarded by XDP only from one of these to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ctweb.datapath.driver import driver
from ctweb.datapath.interfaces import Interface
from ctweb.datapath.xdp_features import Xdp

MOST_PORTS = 4096  # FAST_PORTS of ebpf/fast_port.h: the first interface index that cannot take part
_VIRTUAL = frozenset({"virtio_net", "xen_netfront", "vif", "hv_netvsc", "vmxnet3"})


@dataclass(frozen=True)
class Hooked:
    """An interface with programs on it. `hook` and `why` it is that one: see datapath.follow.Report."""

    interface: Interface
    hook: str
    why: str


@dataclass(frozen=True)
class Port:
    """An interface that was looked at. `reason`: why it takes no part, "" if it does."""

    name: str
    ifindex: int
    mac: bytes
    virtual: bool  # its packets' checksums may be left to hardware that is not there
    reason: str

    @property
    def takes_part(self) -> bool:
        return not self.reason


def ports_of(hooked: Mapping[int, Hooked], features: Mapping[int, Xdp] | None) -> dict[int, Port]:
    """Each of them by index. `features`: None if the kernel cannot tell."""
    ports = {}
    for index, each in hooked.items():
        interface, can = each.interface, None if features is None else features.get(index, Xdp(0))
        reason = _why_not(each, can) or ("" if index < MOST_PORTS else f"its index {index} is too large")
        # Hardware has no kind, and completes checksums.
        virtual = bool(interface.kind) or driver(interface.name) in _VIRTUAL
        ports[index] = Port(interface.name, index, bytes.fromhex(interface.address.replace(":", "")), virtual, reason)
    return ports


def _why_not(each: Hooked, can: Xdp | None) -> str:
    if each.hook != "xdp":
        return f"packets are met at {each.hook or 'no hook'} there, not at XDP: {each.why}"
    if each.interface.master is not None:
        return "it is a port of another interface, which may have more to do for a packet than to forward it"
    if can is None:
        return "this kernel cannot tell whether its driver redirects (Linux 6.3 and newer can)"
    if not can & Xdp.REDIRECT:
        return "its driver cannot redirect packets to another interface"
    if not can & Xdp.TAKES:
        if each.interface.kind == "veth":
            return "its other end takes no redirected packets: switch GRO on there (ethtool -K NAME gro on)"
        return "its driver takes no packets that are redirected from another interface"
    return ""
