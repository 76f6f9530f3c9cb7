"""What interfaces can do with XDP, as their drivers tell (generic netlink family `netdev`, kernel 6.3 and newer)."""

from __future__ import annotations

from enum import IntFlag
from typing import Any

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

_DEV_GET = 1  # NETDEV_CMD_DEV_GET


class Xdp(IntFlag):
    """enum netdev_xdp_act, as far as it matters here."""

    BASIC = 1  # programs may be attached, and frames aborted, dropped, passed and sent back
    REDIRECT = 2  # frames may be sent on through another interface
    TAKES = 4  # frames that came in elsewhere may be sent through this one


class _Device(genlmsg):  # type: ignore[misc]
    """The head of the family's message of one device (include/uapi/linux/netdev.h)."""

    nla_map = (
        ("UNSPEC", "none"),
        ("IFINDEX", "uint32"),
        ("PAD", "none"),
        ("XDP_FEATURES", "uint64"),
    )


def features() -> dict[int, Xdp] | None:
    """What each interface of this network namespace can, by index; None: the kernel cannot tell."""
    with GenericNetlinkSocket() as socket:
        try:
            socket.bind("netdev", _Device)
            request: Any = _Device()
            request["cmd"], request["version"] = _DEV_GET, 1
            answers = socket.nlm_request(request, msg_type=socket.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP)
            known = Xdp.BASIC | Xdp.REDIRECT | Xdp.TAKES
            return {
                answer.get_attr("IFINDEX"): Xdp((answer.get_attr("XDP_FEATURES") or 0) & known) for answer in answers
            }
        except NetlinkError:  # no such family
            return None


def native_xdp() -> dict[int, bool] | None:
    """Whether each interface of this network namespace has native XDP, by index; None: the kernel cannot tell."""
    found = features()
    return None if found is None else {index: bool(each & Xdp.BASIC) for index, each in found.items()}
