"""Tells the fast path when what it knows of next hops is out of date (ebpf/next_hop.h, `way_changes`)."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from contextlib import suppress
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ctweb.datapath.ctnetlink import Malformed, messages
from ctweb.datapath.map import Map

log = logging.getLogger(__name__)

# RTNLGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE, IPV4_NETCONF,
# IPV6_NETCONF, NEXTHOP of include/uapi/linux/rtnetlink.h
_GROUPS = sum(1 << (group - 1) for group in (1, 3, 5, 7, 8, 9, 11, 19, 24, 25, 32))
_RULES = frozenset({32, 33})  # RTM_NEWRULE, RTM_DELRULE
_RECEIVE_BUFFER = 1 << 16  # bytes: a flood of changes runs over, which tells as much as reading them all would
_AT_ONCE = 1000  # messages read before the kernel's programs are told
_LOOK = 1000  # ms between looks at what no message tells of
_PAUSE = 2  # ms from one change to the next: a flood costs little
# What a rule may ask for: this is what a next hop is found by, or the same for all packets of the fast path.
_ASKED = frozenset({
    "FRA_DST", "FRA_SRC", "FRA_IIFNAME", "FRA_OIFNAME", "FRA_PRIORITY", "FRA_FWMARK", "FRA_FWMASK", "FRA_TABLE",
    "FRA_GOTO", "FRA_SUPPRESS_PREFIXLEN", "FRA_SUPPRESS_IFGROUP", "FRA_PROTOCOL", "FRA_L3MDEV",
    "FRA_FLOW", "FRA_PAD", "FRA_UNSPEC",
})  # fmt: skip
# 0: of several ways a packet takes one by its addresses, and IPv6's flow label. Otherwise by more than that.
_POLICIES = tuple(Path(f"/proc/sys/net/{family}/fib_multipath_hash_policy") for family in ("ipv4", "ipv6"))


class WayChanges:
    """Counts changes of routes, rules, neighbours, addresses and interfaces of this network namespace.

    changes: the map of that name, of which this is the only writer. 0 stands there before `start`, after `stop`, and
    as long as a way depends on more than what next hops are found by: then the kernel is asked for each packet.
    """

    def __init__(self, changes: Map) -> None:
        self._map = changes
        self._count = 0
        self._written = 0
        self._keeps = False  # whether next hops may be kept
        self._bell: socket.socket | None = None
        self._quit = -1
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """From here on, in a thread. May be called twice. Raises OSError."""
        if self._thread is not None:
            return
        self._bell = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        try:
            self._bell.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            self._bell.bind((0, _GROUPS))
        except OSError:
            self._bell.close()
            raise
        self._quit = os.eventfd(0)
        self._thread = threading.Thread(target=self._follow, args=(self._bell, self._quit), name="ways", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; nothing is kept any more. May be called twice."""
        if self._thread is None:
            return
        os.eventfd_write(self._quit, 1)
        self._thread.join()
        self._thread = None
        assert self._bell is not None
        self._bell.close()
        os.close(self._quit)

    def _follow(self, bell: socket.socket, quit_: int) -> None:
        last_error = ""
        quitting, either = select.poll(), select.poll()  # poll: a descriptor may be too high for select
        quitting.register(quit_, select.POLLIN)
        either.register(quit_, select.POLLIN)
        either.register(bell, select.POLLIN)
        told: frozenset[int] | None = None  # like an overrun: nothing is known yet
        try:
            while True:
                try:
                    self._tell(told)
                    last_error = ""
                except (OSError, NetlinkError) as error:
                    if str(error) != last_error:
                        log.error("cannot follow changes of routes, so the kernel is asked for each packet: %s", error)
                    last_error = str(error)
                    self._keeps = False
                if quitting.poll(_PAUSE):
                    return
                ready = {descriptor for descriptor, _ in either.poll(_LOOK)}
                if quit_ in ready:
                    return
                told = drain(bell) if ready else frozenset()
                if last_error:
                    told = None
        finally:
            with suppress(OSError):
                self._write(0)

    def _tell(self, told: frozenset[int] | None) -> None:
        """Told by messages of these types, or by an overrun, or by none. Raises OSError, NetlinkError."""
        if told is None or told & _RULES:
            self._write(0)  # what the rules ask for is about to be read
            self._keeps = _rules_allow()
        if not (self._keeps and _policies_allow()):
            self._write(0)
        elif told or told is None or not self._written:
            self._count = self._count % 0xFFFF_FFFF + 1  # the datapath reads 32 bits, and 0 means something else
            self._write(self._count)

    def _write(self, count: int) -> None:
        self._map[0] = count
        self._written = count


def drain(bell: socket.socket) -> frozenset[int] | None:
    """The types of the messages that are there; None: some were lost."""
    found: set[int] = set()
    lost = False
    for _ in range(_AT_ONCE):
        try:
            found.update(kind for kind, *_ in messages(bell.recv(1 << 16)))
        except BlockingIOError:
            break
        except (OSError, Malformed):  # ENOBUFS; longer than could be read
            lost = True
    return None if lost else frozenset(found)


def _rules_allow() -> bool:
    """Whether no rule asks for a packet's protocol, ports, or what is not known here. Raises OSError, NetlinkError."""
    with IPRoute() as netlink:
        return all(
            name in _ASKED
            for family in (socket.AF_INET, socket.AF_INET6)
            for rule in netlink.get_rules(family=family)
            for name, _ in rule["attrs"]
        )


def _policies_allow() -> bool:
    """Raises OSError."""
    return all(policy.read_text().strip() == "0" for policy in _POLICIES if policy.exists())
