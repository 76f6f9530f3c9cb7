"""Bursts of TCP through the fast path: the packet that the stack gets now and then is not overtaken by the others."""

from __future__ import annotations

import json
import time

from lab.network import Ends, Namespace, wait_for

from fasttrack.conftest import MASQUERADED, PLAIN, Lab
from fasttrack.flows import connected

BURST = bytes(60_000)  # some forty segments, handed to the interface in one piece
SILENCE = 5.0  # seconds; longer than a packet for the stack is waited for
SILENCES = 3


def out_of_order(machine: Namespace) -> int:
    """Segments that had to wait for one before them."""
    return int(json.loads(machine.run("nstat", "-azsj", "TcpExtTCPOFOQueue"))["kernel"]["TcpExtTCPOFOQueue"])


class Connection:
    """From the client, of which one end sends."""

    protocol = "tcp"

    def __init__(self, lab: Lab, ends: Ends, port: int, *, download: bool) -> None:
        self._near, self._far = connected(lab, ends, port)
        self.source = ends.shown(ends.client, self._near.getsockname()[1])
        self._from, self._to = (self._far, self._near) if download else (self._near, self._far)
        self.way = "repl" if download else "orig"
        self.receiver = lab.client if download else lab.server

    def burst(self) -> None:
        self._from.sendall(BURST)
        received = 0
        while received < len(BURST):
            received += len(self._to.recv(1 << 20))

    def close(self) -> None:
        self._near.close()
        self._far.close()


def test_nothing_of_a_burst_is_overtaken(lab: Lab, ends: Ends):
    """Neither as a connection begins to go fast, nor after a silence, both ways."""
    for machine in (lab.client, lab.server):
        machine.sysctl(ipv4_tcp_slow_start_after_idle=0)
    flows = [Connection(lab, ends, PLAIN, download=False), Connection(lab, ends, MASQUERADED, download=True)]
    before = [out_of_order(flow.receiver) for flow in flows]

    def bursts(number: int) -> None:
        for _ in range(number):
            for flow in flows:
                flow.burst()
            time.sleep(0.05)

    def are_fast() -> bool:
        bursts(1)
        ways = [lab.row(flow)[f"{flow.way}-fasttrack-packets"] for flow in flows]
        return all(int(packets) > 100 for packets in ways)

    wait_for("bursts go fast", are_fast)
    for _ in range(SILENCES):
        time.sleep(SILENCE)
        stack = lab.by_stack()
        bursts(3)
        assert lab.by_stack() > stack  # nf_conntrack is told
    overtaken = [out_of_order(flow.receiver) - then for flow, then in zip(flows, before, strict=True)]
    # The checksum of one packet in 65,535 looks as if it were left to hardware; it goes to the stack for that.
    assert max(overtaken) <= 1, (overtaken, SILENCES + 1)
    for flow in flows:
        flow.close()
