"""Programs as direct-action filters under a clsact qdisc: the way in for kernels without tcx links (before 6.6).

Filters outlive their process, so that each says in its name whose it is. Nothing of anybody else's is ever touched: the
qdisc is removed only if we made it (the name says that too) and no other filter is left in it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from itertools import count
from socket import htons

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

_NAME = "ctweb"
_NAME_OWN_QDISC = "ctweb, own qdisc"
_PROTOCOL_ALL = htons(3)  # ETH_P_ALL


class Way(IntEnum):
    """The two parents under clsact."""

    INGRESS = 0xFFFFFFF2
    EGRESS = 0xFFFFFFF3


@dataclass(frozen=True)
class _Filter:
    priority: int
    protocol: int  # as on the wire
    kind: str
    handle: int  # 0: the entry of the priority itself
    name: str


def attach(netlink: IPRoute, ifindex: int, programs: Iterable[tuple[Way, int]]) -> None:
    """Put each program (its descriptor) at its way of the interface, replacing ours that is there without a gap.

    Raises NetlinkError, and OSError if an ingress qdisc is in the place of clsact.
    """
    try:
        netlink.tc("add", "clsact", ifindex)
        name = _NAME_OWN_QDISC
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
        if ifindex not in interfaces(netlink):
            # Under an ingress qdisc a filter for egress would be taken, and run on ingress.
            raise OSError(errno.EBUSY, "an ingress qdisc is in the way (tc qdisc show)") from error
        name = _NAME
    for way, program in programs:
        there = _filters(netlink, ifindex, way)
        priority, handle, before = _place(there)
        netlink.tc(
            "replace-filter", "bpf", ifindex, handle,
            parent=int(way), prio=priority, fd=program, name=before or name, direct_action=True,
        )  # fmt: skip


def attached(netlink: IPRoute, ifindex: int, ways: Iterable[Way]) -> bool:
    """Whether filters of ours are there at each of these ways."""
    return all(any(_is_ours(f) for f in _filters(netlink, ifindex, way)) for way in ways)


def detach(netlink: IPRoute, ifindex: int) -> bool:
    """Remove every filter that we ever left on the interface, and the qdisc if we made it; whether there was one."""
    ours, others = [], 0
    for way in Way:
        for found in _filters(netlink, ifindex, way):
            if _is_ours(found):
                ours.append(found)
                netlink.tc("del-filter", "bpf", ifindex, found.handle, parent=int(way), prio=found.priority)
            elif found.handle or found.kind != "bpf":
                others += 1
    if not others and any(found.name == _NAME_OWN_QDISC for found in ours):
        netlink.tc("del", "clsact", ifindex)
    return bool(ours)


def interfaces(netlink: IPRoute) -> frozenset[int]:
    """The indices of all interfaces with a clsact qdisc, whoever made it."""
    return frozenset(q["index"] for q in netlink.get_qdiscs() if q.get("kind") == "clsact")


def _is_ours(found: _Filter) -> bool:
    return found.kind == "bpf" and found.name in (_NAME, _NAME_OWN_QDISC)


def _place(there: list[_Filter]) -> tuple[int, int, str]:
    """Priority, handle, and the name of the filter of ours that is there already.

    First in line, so that no other filter's verdict hides a packet from us. One priority holds filters of one kind and
    protocol only.
    """
    for found in there:
        if _is_ours(found):
            return found.priority, found.handle, found.name
    taken = {f.priority for f in there if f.kind != "bpf" or f.protocol != _PROTOCOL_ALL}
    priority = next(p for p in count(1) if p not in taken)
    handles = {f.handle for f in there if f.priority == priority}
    return priority, next(h for h in count(1) if h not in handles), ""


def _filters(netlink: IPRoute, ifindex: int, way: Way) -> list[_Filter]:
    try:
        messages = list(netlink.get_filters(index=ifindex, parent=int(way)))
    except NetlinkError as error:
        if error.code in (errno.EINVAL, errno.ENODEV, errno.ENOENT, errno.EOPNOTSUPP):  # no clsact, or no interface
            return []
        raise
    found = []
    for message in messages:
        options = message.get("options")
        name = options.get_attr("TCA_BPF_NAME") if options is not None and message.get("kind") == "bpf" else None
        info = message["info"]
        found.append(_Filter(info >> 16, info & 0xFFFF, message.get("kind") or "", message["handle"], name or ""))
    return found
