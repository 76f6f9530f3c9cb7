"""Which interfaces there are in this network namespace, and which of them take programs.

A packet passes several devices on its way (a bridge and its port, a VLAN device and the card below): only the lowest
one takes programs, so that it is counted once. The devices above are still *seen*: a packet that came up through one of
them came in through a tracked interface, and must not be counted again on its way out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from pyroute2 import IPRoute

_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
# Nothing in front of the IP packet: PPP, raw IP, IP-in-IP, IPv6 tunnel, SIT, GRE, GRE over IPv6, none (tun, WireGuard).
_ARPHRD_LAYER3 = frozenset({512, 519, 768, 769, 776, 778, 823, 0xFFFE})

_MASTERS = frozenset({"bridge", "bond", "team", "vrf", "hsr", "openvswitch"})  # their ports name them as master
_STACKED = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"})  # they name the device below as link
_PAIRS = frozenset({"veth", "netkit"})  # each end names the other as link


class Shape(Enum):
    """What a packet on the interface begins with, and which ways are tracked."""

    ETHERNET = "ethernet"
    LAYER3 = "layer 3"
    LOOPBACK = "loopback"  # what leaves comes straight back
    PAIR = "pair"  # Ethernet; what leaves comes in at the other end, in this namespace too

    @property
    def egress_only(self) -> bool:
        """What comes in here has been counted on its way out, or where it came into the machine."""
        return self in (Shape.LOOPBACK, Shape.PAIR)


@dataclass(frozen=True)
class Interface:
    """What netlink says of one interface. `master` and `link` are indices in this namespace, or None.

    bulk: of kind tun, whose user may hand over many segments as one, behind a header that says so (IFF_VNET_HDR).
    """

    index: int
    name: str
    kind: str  # of IFLA_INFO_KIND, "" for hardware
    arphrd: int
    master: int | None = None
    link: int | None = None
    address: str = ""  # of the link layer, as in 02:00:00:00:00:01
    bulk: bool = False

    @property
    def shape(self) -> Shape | None:
        """None: nothing here that carries IP, or a device whose packets are counted elsewhere."""
        if self.kind == "ifb":  # packets come here from another interface's hook, and go back there
            return None
        if self.arphrd == _ARPHRD_LOOPBACK:
            return Shape.LOOPBACK
        if self.arphrd == _ARPHRD_ETHER:
            return Shape.ETHERNET
        return Shape.LAYER3 if self.arphrd in _ARPHRD_LAYER3 else None


@dataclass(frozen=True)
class Plan:
    """What to do with one interface: programs if `shape` is set; otherwise it is only seen, or left alone."""

    interface: Interface
    shape: Shape | None
    seen: bool  # packets that come in through it have been counted, here or below
    reason: str  # why it takes no programs; "" if it does


class NoSuchInterfaceError(Exception):
    """A named interface is not there, or cannot be tracked; the message says which and why."""


def read(netlink: IPRoute) -> dict[int, Interface]:
    """All interfaces of the namespace that `netlink` was opened in, by index; those that are down count as well."""
    found = {}
    for message in netlink.get_links():
        elsewhere = message.get("link_netnsid") is not None  # the device below or the other end is in another namespace
        found[message["index"]] = Interface(
            index=message["index"],
            name=message.get("ifname"),
            kind=message.get(("linkinfo", "kind")) or "",
            arphrd=message["ifi_type"],
            master=message.get("master"),
            link=None if elsewhere else message.get("link"),
            address=message.get("address") or "",
            bulk=bool(message.get(("linkinfo", "data", "tun_vnet_hdr"))),
        )
    return found


def check_names(interfaces: Mapping[int, Interface], names: Sequence[str]) -> None:
    """Raises NoSuchInterfaceError for the first name that is not there or whose interface carries no IP."""
    by_name = {interface.name: interface for interface in interfaces.values()}
    for name in names:
        if name not in by_name:
            there = ", ".join(sorted(by_name))
            raise NoSuchInterfaceError(f"no interface {name!r} in this network namespace; there are: {there}")
        if by_name[name].shape is None:
            raise NoSuchInterfaceError(f"interface {name!r} carries no IP packets of its own and cannot be tracked")


def plan(interfaces: Mapping[int, Interface], names: Sequence[str] = ()) -> dict[int, Plan]:
    """Decide for every interface, by index. `names`: only these take programs; empty: all that can.

    Names that are not there are left out: they may come later.
    """
    below = {index: _below(interface, interfaces) for index, interface in interfaces.items()}
    other_end = {
        index: other
        for index, interface in interfaces.items()
        if interface.kind in _PAIRS
        and interface.shape is Shape.ETHERNET
        and (other := interfaces.get(interface.link or 0)) is not None
    }
    wanted = {
        # A pair with both ends here is one wire: to name one end is to name both.
        index: not names or interface.name in names or (index in other_end and other_end[index].name in names)
        for index, interface in interfaces.items()
        if interface.shape is not None
    }

    def lower(index: int, visited: frozenset[int] = frozenset()) -> Interface | None:
        """The interface below at which packets through this one are counted."""
        for under in below[index] - visited:
            if (found := lower(under, visited | {index})) or wanted.get(under):
                return found or interfaces[under]
        return None

    plans = {}
    for index, interface in interfaces.items():
        counted_at = lower(index)
        if interface.shape is None:
            plans[index] = Plan(interface, None, False, "carries no IP packets of its own")
        elif counted_at is not None:
            plans[index] = Plan(interface, None, True, f"counted at {counted_at.name}")
        elif not wanted[index]:
            plans[index] = Plan(interface, None, False, "not named")
        elif not names and interface.kind in _MASTERS and not below[index]:
            plans[index] = Plan(interface, None, False, f"a {interface.kind} without ports")
        else:
            plans[index] = Plan(interface, Shape.PAIR if index in other_end else interface.shape, True, "")
    return plans


def _below(interface: Interface, interfaces: Mapping[int, Interface]) -> frozenset[int]:
    """The devices in this namespace that every packet of `interface` passes on its way to or from the wire."""
    if interface.kind == "openvswitch":  # an internal port, or the datapath itself: the switch's real ports
        datapath = interface.master or interface.index
        return frozenset(i.index for i in interfaces.values() if i.master == datapath and i.kind != "openvswitch")
    if interface.kind in _MASTERS:
        return frozenset(i.index for i in interfaces.values() if i.master == interface.index)
    link = interface.link
    return frozenset({link}) if interface.kind in _STACKED and link is not None and link in interfaces else frozenset()
