"""Sums over a whole snapshot: how many connections of each kind, and which hosts are the busiest."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import numpy as np

from ctweb.table.facts import facts_of
from ctweb.table.names import ICMP, ICMPV6, PROTOCOLS, TCP, TCP_STATES, UDP
from ctweb.table.snapshot import Snapshot

OTHER = "other"  # protocols without a name

_STATES = 16  # room for the TCP states in the number that a connection is counted under


def connections(snapshot: Snapshot) -> dict[tuple[str, str, str], int]:
    """How many there are by family (ip, ipv6), protocol and TCP state ("" for other protocols).

    The usual ones are there at zero too, so that a graph has no gap.
    """
    columns = snapshot.columns
    kinds = columns.protocol.astype(np.uint16) * np.uint16(_STATES)
    kinds += np.where(columns.protocol == TCP, columns.tcp_state, 0).astype(np.uint16)
    found: dict[tuple[str, str, str], int] = {}
    for family, name in ((4, "ip"), (6, "ipv6")):
        usual = [(TCP, state) for state in TCP_STATES] + [(UDP, ""), (ICMP if family == 4 else ICMPV6, "")]
        found |= {(name, PROTOCOLS[protocol], state): 0 for protocol, state in usual}
        counts = np.bincount(kinds[columns.family == family])
        for kind in np.flatnonzero(counts).tolist():
            protocol, number = divmod(kind, _STATES)
            state = TCP_STATES[number] if protocol == TCP else ""
            key = (name, _protocol(protocol), state)
            found[key] = found.get(key, 0) + int(counts[kind])
    return found


def busiest(snapshot: Snapshot, n: int) -> dict[str, float]:
    """Bytes per second, both directions, of the connections that each of the `n` busiest hosts began."""
    active = np.flatnonzero(snapshot.rates.any(axis=1)) if n else ()
    if not len(active):
        return {}
    facts = facts_of(snapshot)
    source = facts.source
    high, low, ipv6 = source.high[active], source.low[active], facts.is_ipv6[active]
    order = np.lexsort((low, high, ipv6))
    high, low, ipv6 = high[order], low[order], ipv6[order]
    rates = snapshot.rates[active[order]].sum(axis=1, dtype=np.float64) / 8
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (np.diff(high) != 0) | (np.diff(low) != 0) | (ipv6[1:] != ipv6[:-1])
    firsts = np.flatnonzero(begins)
    sums = np.add.reduceat(rates, firsts)
    chosen = np.argsort(-sums, kind="stable")[:n]
    return {
        _address(int(high[row]), int(low[row]), bool(ipv6[row])): float(total)
        for row, total in zip(firsts[chosen], sums[chosen], strict=True)
    }


def _address(high: int, low: int, ipv6: bool) -> str:
    return str(IPv6Address(high << 64 | low) if ipv6 else IPv4Address(high >> 32))


def _protocol(number: int) -> str:
    name = PROTOCOLS[number]
    return OTHER if name == str(number) else name
