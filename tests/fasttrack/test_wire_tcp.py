"""As test_wire, of TCP: segments of connections that stand still arrive the same with and without the fast path."""

from __future__ import annotations

import struct
from contextlib import ExitStack

from datapath.crafted import ACK, PSH
from lab.network import IPV4, Ends, wait_for

from fasttrack.conftest import FASTTRACK, PORTS, Lab
from fasttrack.test_back_to_stack import Connection, link
from fasttrack.test_wire import patched
from fasttrack.wire import ports

CLASS = 0x28  # of service: known by it, and on its way unchanged


def marked(packet: bytes, ends: Ends) -> bytes:
    if ends is IPV4:
        return patched(packet, 1, bytes([CLASS]))
    return struct.pack("!I", 6 << 28 | CLASS << 20) + packet[4:]


def is_marked(frame: bytes, ends: Ends) -> bool:
    return frame[15] == CLASS if ends is IPV4 else int.from_bytes(frame[14:18], "big") >> 20 == 6 << 8 | CLASS


def segments(flow: Connection) -> list[bytes]:
    """Acknowledgements, and once more what was sent before."""
    seq, ack = flow.numbers()
    stamp = b"\1\1\x08\x0a" + struct.pack("!II", 0x01020304, 0)
    made = [
        flow.segment(ACK, seq, ack),
        flow.segment(ACK, seq, ack, window=60_000),
        flow.segment(ACK, seq, ack, options=stamp),
        flow.segment(ACK | PSH, seq - 100, ack, payload=b"x" * 100),
        flow.segment(ACK, seq - 77, ack, payload=b"x" * 77),
    ]
    return [marked(each, flow.ends) for each in made]


def test_segments_differ_in_nothing(lab: Lab, ends: Ends):
    with ExitStack() as stack:
        near, far = stack.enter_context(ports(lab))
        flows = [Connection(lab, ends, near, port) for port in PORTS]
        for flow in flows:
            stack.callback(flow.close)

            def is_fast(flow: Connection = flow) -> bool:
                flow.exchange()
                return int(lab.row(flow)["orig-fasttrack-packets"]) > 0

            wait_for("packets go fast", is_fast)
        frames = [link(lab, packet) for flow in flows for packet in segments(flow)]

        def arrived() -> list[bytes]:
            for frame in frames:
                near.send(frame)
            return far.take(lambda frame: is_marked(frame, ends), len(frames))

        before = lab.by_stack()
        fast = arrived()
        assert lab.by_stack() <= before + len(flows)  # now and then one is for the stack
        lab.reload("")
        before = lab.by_stack()
        slow = arrived()
        lab.reload(FASTTRACK)
        assert lab.by_stack() >= before + len(frames)
        assert len(slow) == len(frames)
        assert fast == slow
