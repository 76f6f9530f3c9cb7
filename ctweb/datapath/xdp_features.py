"""Which interfaces have native XDP, as their drivers tell (generic netlink family `netdev`, kernel 6.3 and newer)."""

from __future__ import annotations

from typing import Any

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

_DEV_GET = 1  # NETDEV_CMD_DEV_GET
_XDP_ACT_BASIC = 1  # programs may be attached, and aborted, dropped, passed and sent back


class _Device(genlmsg):  # type: ignore[misc]
    """The head of the family's message of one device (include/uapi/linux/netdev.h)."""

    nla_map = (
        ("UNSPEC", "none"),
        ("IFINDEX", "uint32"),
        ("PAD", "none"),
        ("XDP_FEATURES", "uint64"),
    )


def native_xdp() -> dict[int, bool] | None:
    """Whether each interface of this network namespace has native XDP, by index; None: the kernel cannot tell."""
    with GenericNetlinkSocket() as socket:
        try:
            socket.bind("netdev", _Device)
            request: Any = _Device()
            request["cmd"], request["version"] = _DEV_GET, 1
            answers = socket.nlm_request(request, msg_type=socket.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP)
            return {
                answer.get_attr("IFINDEX"): bool((answer.get_attr("XDP_FEATURES") or 0) & _XDP_ACT_BASIC)
                for answer in answers
            }
        except NetlinkError:  # no such family
            return None
