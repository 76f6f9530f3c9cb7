"""What arrives at the server is the same with and without the fast path: every byte, the link header included."""

from __future__ import annotations

import struct
from contextlib import ExitStack

from datapath.crafted import UDP, checksum, ethernet, ipv4, ipv6, udp
from lab.network import IPV4, Ends

from fasttrack.conftest import FASTTRACK, MASQUERADED, PORTS, Lab
from fasttrack.wire import Quiet, mac, ports, quiet

MAGIC = b"on the wire"


def patched(packet: bytes, at: int, value: bytes) -> bytes:
    """An IPv4 packet with other header bytes, and the checksum that goes with them."""
    packet = packet[:at] + value + packet[at + len(value) :]
    return packet[:10] + struct.pack("!H", checksum(packet[:10] + b"\0\0" + packet[12:20])) + packet[12:]


def packets(flow: Quiet) -> list[bytes]:
    """All kinds that may go fast."""
    source, destination = flow.ends.client, flow.destination
    made = []
    for size in (0, 1, 2, 3, 100, 1001, 1400):
        datagram = udp(source, destination, flow.sport, flow.port, (MAGIC + bytes(range(256)) * 6)[: 11 + size])
        made.append((ipv4 if flow.ends is IPV4 else ipv6)(source, destination, UDP, datagram))
    if flow.ends is IPV4:
        plain = made[3]
        without = plain[:26] + b"\0\0" + plain[28:]
        made += [patched(plain, 8, bytes([ttl])) for ttl in (2, 3, 255)]
        made += [patched(plain, 1, b"\xb8"), patched(plain, 6, b"\x40\x00"), patched(plain, 4, b"\xff\xff"), without]
    else:
        plain = made[3]
        made += [plain[:7] + bytes([hops]) + plain[8:] for hops in (2, 255)]
        made.append(b"\x6b\x8f\xed\xcb" + plain[4:])  # traffic class and flow label
    return made


def with_checksum_zero(flow: Quiet, source_behind: str) -> bytes:
    """A packet whose UDP checksum comes out as 0, which is to be written as 0xffff, behind the translation."""
    source, destination = flow.ends.client, flow.destination
    for word in range(1 << 16):
        payload = MAGIC + struct.pack("!xH", word)
        if udp(source_behind, destination, flow.sport, flow.port, payload)[6:8] == b"\xff\xff":
            datagram = udp(source, destination, flow.sport, flow.port, payload)
            return (ipv4 if flow.ends is IPV4 else ipv6)(source, destination, UDP, datagram)
    raise AssertionError("no such checksum")


def test_frames_differ_in_nothing(lab: Lab, ends: Ends):
    to = mac(lab.router, "lan") + mac(lab.client, "eth0")
    with ExitStack() as stack:
        flows = [stack.enter_context(quiet(lab, ends, port)) for port in PORTS]
        near, far = stack.enter_context(ports(lab))
        sent = [packet for flow in flows for packet in packets(flow)]
        sent.append(with_checksum_zero(flows[PORTS.index(MASQUERADED)], ends.host(2, 1)))
        frames = [to + ethernet(packet)[12:] for packet in sent]

        def arrived() -> list[bytes]:
            for frame in frames:
                near.send(frame)
            return far.take(lambda frame: MAGIC in frame, len(frames))

        lab.reload("")
        for flow in flows:
            assert flow.exchange()
        before = lab.by_stack()
        slow = arrived()
        assert len(slow) == len(frames)
        assert lab.by_stack() == before + len(frames)
        lab.reload(FASTTRACK)
        for flow in flows:
            flow.until_fast()
        before = lab.by_stack()
        fast = arrived()
        assert lab.by_stack() <= before + len(flows)  # now and then one is for the stack
        assert fast == slow
        checksum_at = 14 + (26 if ends is IPV4 else 46)
        assert slow[-1][checksum_at : checksum_at + 2] == b"\xff\xff"
