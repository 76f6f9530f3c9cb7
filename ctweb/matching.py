"""Rules asked about connections in the table, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network

import numpy as np
from numpy.typing import NDArray

from ctweb.rules import ESTABLISHED, RELATED, Rule
from ctweb.table.columns import Columns
from ctweb.table.names import Status

Mask = NDArray[np.bool_]


def matches(rule: Rule, columns: Columns, ifindexes: Sequence[int] | None) -> Mask:
    """Which of these connections, all of them established, the rule means. (n,)

    ifindexes: of the interfaces that its in-interface means; None: it names none.
    """
    swapped = (columns.status & np.uint32(Status.SWAPPED)) != 0
    found = np.ones(len(columns), np.bool_)
    if rule.protocol is not None:
        found &= columns.protocol == rule.protocol
    for prefix, ports, at_hi in (
        (rule.src_address, rule.src_port, swapped),
        (rule.dst_address, rule.dst_port, ~swapped),
    ):
        if prefix is not None:
            found &= _within(prefix, np.where(at_hi[:, None], columns.hi_addr, columns.lo_addr), columns.family)
        if ports:
            port = np.where(at_hi, columns.hi_port, columns.lo_port)
            found &= np.logical_or.reduce([(port >= first) & (port <= last) for first, last in ports])
    if ifindexes is not None:
        found &= np.isin(columns.ifindex, np.array(ifindexes, np.uint32))
    if RELATED in rule.connection_state and ESTABLISHED not in rule.connection_state:
        found &= (columns.status & np.uint32(Status.EXPECTED)) != 0
    return found


def _within(prefix: IPv4Network | IPv6Network, addresses: NDArray[np.uint8], family: NDArray[np.uint8]) -> Mask:
    """addresses: (n, 16), IPv4 in the first four bytes."""
    mask = np.frombuffer(prefix.netmask.packed, np.uint8)
    wanted = np.frombuffer(prefix.network_address.packed, np.uint8)
    within: Mask = (family == prefix.version) & ((addresses[:, : len(mask)] & mask) == wanted).all(axis=1)
    return within
