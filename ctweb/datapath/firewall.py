"""Whether this network namespace has a firewall rule: nftables (iptables-nft too), or the older iptables."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
from pathlib import Path

from ctweb.datapath.bpf import libc

_NETLINK_NETFILTER = 12
_NFNLGRP_NFTABLES = 7
_SUBSYSTEM, _GETRULE = 10, 7
_NLMSG = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP = 0x301
_AF_UNSPEC = 0

# Family, its socket level for iptables, the file that names the tables which are there.
_LEGACY = (
    (socket.AF_INET, socket.IPPROTO_IP, Path("/proc/thread-self/net/ip_tables_names")),
    (socket.AF_INET6, socket.IPPROTO_IPV6, Path("/proc/thread-self/net/ip6_tables_names")),
)
_GET_INFO = 64  # IPT_SO_GET_INFO, IP6T_SO_GET_INFO
_INFO = struct.Struct("=32s I 5I 5I I I")  # name, hooks, entry points, underflows, entries, size


class Firewall:
    """The firewall of the network namespace that this is made in."""

    def __init__(self) -> None:
        # By the path of its list: only root may open it, and whoever has it open may read it again and again.
        self._lists: dict[Path, int] = {}
        self._open_lists()

    def reason(self) -> str:
        """What there is, in words; "" if there is no rule, or the kernel has neither. Raises OSError."""
        if _nftables_rule():
            return "there is an nftables rule"
        self._open_lists()
        for family, level, path in _LEGACY:
            table = _iptables_table(family, level, self._lists[path]) if path in self._lists else ""
            if table:
                return f"there is an iptables rule in table {table}"
        return ""

    def _open_lists(self) -> None:
        """They are there once the kernel has the older iptables. Raises OSError."""
        for _, _, path in _LEGACY:
            if path not in self._lists:
                try:
                    self._lists[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue
                except PermissionError:
                    text = "the older iptables came into use after the start; restart ctweb to have it see their rules"
                    raise OSError(errno.EACCES, text) from None

    def close(self) -> None:
        for descriptor in self._lists.values():
            os.close(descriptor)
        self._lists.clear()


def reason() -> str:
    """What Firewall.reason says, asked once. Raises OSError."""
    with contextlib.closing(Firewall()) as firewall:
        return firewall.reason()


def bell() -> socket.socket | None:
    """A socket that has something to read when nftables have changed; None where the kernel has none."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER)
    try:
        made.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))
    except OSError:
        made.close()
        return None
    return made


def silence(bell: socket.socket) -> None:
    """Read away what is there. An overrun says no more than a message: something has changed."""
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                bell.recv(65536)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise


def _nftables_rule() -> bool:
    """Asks for all rules and looks at the first: closing the socket ends the rest."""
    try:
        asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    except OSError as error:
        if error.errno == errno.EPROTONOSUPPORT:
            return False
        raise
    with asking:
        asking.settimeout(5)
        body = struct.pack("=BBH", _AF_UNSPEC, 0, 0)
        kind = _SUBSYSTEM << 8 | _GETRULE
        asking.send(_NLMSG.pack(_NLMSG.size + len(body), kind, _REQUEST_DUMP, 1, 0) + body)
        answer = asking.recv(65536)
    kind = int(_NLMSG.unpack_from(answer)[1])
    if kind == _NLMSG_ERROR:
        code = -struct.unpack_from("=i", answer, _NLMSG.size)[0]
        if code in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOENT):  # nf_tables is not there
            return False
        raise OSError(code, os.strerror(code))
    return kind != _NLMSG_DONE


def _iptables_table(family: int, level: int, tables: int) -> str:
    """The first table of the older iptables that has more in it than the policies of its chains; "" if none has.

    `tables`: descriptor of the list of those that are there. Only they are asked: asking for another would make it.
    """
    for table in os.pread(tables, 4096, 0).decode().split():
        info = ctypes.create_string_buffer(_INFO.pack(table.encode(), *[0] * 13), _INFO.size)
        size = ctypes.c_uint32(_INFO.size)
        with socket.socket(family, socket.SOCK_DGRAM) as asking:  # of any kind; a raw one would take CAP_NET_RAW
            if libc.getsockopt(asking.fileno(), level, _GET_INFO, info, ctypes.byref(size)) != 0:
                code = ctypes.get_errno()
                raise OSError(code, f"{os.strerror(code)} (iptables table {table})")
        _, hooks, *_, entries, _ = _INFO.unpack(info.raw)
        if entries > hooks.bit_count() + 1:  # a policy for each chain, and the end
            return table
    return ""
