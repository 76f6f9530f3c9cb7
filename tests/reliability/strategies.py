"""Frames that hypothesis makes and makes smaller: every header field may be right, at an edge, or anything."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from reliability.frames import HOSTS, PORTS, SECOND, Step

bits8, bits16, bits32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))
ports = st.sampled_from(PORTS) | bits16
numbers = st.sampled_from((0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)) | bits32
words = st.sampled_from((0, 1, 7, 8, 20, 0xFFFF)) | bits16


@st.composite
def transports(draw, protocol: int) -> bytes:
    payload = draw(st.binary(max_size=40))
    if protocol == 6:
        options = draw(
            st.sampled_from((b"", b"\1\3\3\7", b"\4\2\1\1", b"\1\1\5\12" + bytes(8))) | st.binary(max_size=40)
        )
        options += bytes(-len(options) % 4)
        size = draw(st.just(5 + len(options) // 4) | st.integers(0, 15))
        return struct.pack(
            "!HHIIBBHHH", draw(ports), draw(ports), draw(numbers), draw(numbers), size << 4,
            draw(st.sampled_from((2, 18, 16, 17, 4, 20, 24)) | bits8), draw(words), 0, 0,
        ) + options + payload  # fmt: skip
    if protocol in (17, 136):
        return struct.pack("!HHHH", draw(ports), draw(ports), draw(st.just(8 + len(payload)) | words), 0) + payload
    if protocol in (1, 58):
        kind = draw(st.sampled_from((8, 0, 3, 11, 13, 128, 129, 1, 135)) | bits8)
        quoted = draw(packets(nested=False)) if draw(st.booleans()) else payload
        return (
            struct.pack("!BBHHH", kind, draw(st.sampled_from((0, 1)) | bits8), 0, draw(st.integers(0, 2)), 0) + quoted
        )
    if protocol == 47:
        flags = draw(st.sampled_from((0, 0x2000, 0xB000, 0x3001)) | bits16)
        return struct.pack("!HH", flags, draw(st.sampled_from((0x880B, 0x0800)) | bits16)) + payload
    return payload


@st.composite
def packets(draw, nested: bool = True) -> bytes:
    protocol = draw(st.sampled_from((6, 6, 6, 17, 17, 1, 58, 47, 132, 33, 136) if nested else (6, 17, 47, 132)) | bits8)
    body = draw(transports(protocol)) if nested or protocol not in (1, 58) else bytes(20)
    if draw(st.booleans()):
        options = draw(st.sampled_from((b"", bytes(4), bytes(40))))
        header = 20 + len(options)
        return struct.pack(
            "!BBHHHBBH4s4s", draw(st.just(0x40 | header // 4) | bits8), 0, draw(st.just(header + len(body)) | words),
            draw(st.integers(0, 2)), draw(st.sampled_from((0, 0, 0x4000, 0x2000, 0x2001, 1, 2)) | bits16), 64, protocol,
            0,
            draw(st.sampled_from(HOSTS[4])), draw(st.sampled_from(HOSTS[4])),
        ) + options + body  # fmt: skip
    for kind in draw(st.lists(st.sampled_from((0, 43, 60, 51, 44)), max_size=9)):
        if kind == 44:
            offset = draw(st.sampled_from((0, 1, 8, 9)) | bits16)
            body = struct.pack("!BBHI", protocol, 0, offset, draw(st.integers(0, 2))) + body
        else:
            length = draw(st.sampled_from((0, 1, 4, 255)))
            body = struct.pack("!BB", protocol, length) + bytes(6 + draw(st.sampled_from((0, 4, 8, 16)))) + body
        protocol = kind
    return struct.pack(
        "!BBHHBB16s16s", draw(st.just(0x60) | bits8), 0, 0, draw(st.just(len(body)) | words), protocol, 64,
        draw(st.sampled_from(HOSTS[6])), draw(st.sampled_from(HOSTS[6])),
    ) + body  # fmt: skip


@st.composite
def frames(draw) -> bytes:
    packet = draw(packets())
    kind = draw(st.just(0x0800 if packet[0] >> 4 == 4 else 0x86DD) | st.sampled_from((0x0800, 0x86DD)) | bits16)
    if draw(st.integers(0, 5)) == 5:
        ppp = 0x0021 if kind == 0x0800 else 0x0057
        packet = struct.pack("!BBHHH", draw(st.just(0x11) | bits8), draw(st.sampled_from((0, 9))), 1, 2, ppp) + packet
        kind = 0x8864
    for tag in draw(st.lists(st.sampled_from((0x8100, 0x88A8)), max_size=4)):
        packet = struct.pack("!HH", 5, kind) + packet
        kind = tag
    whole = bytes(12) + struct.pack("!H", kind) + packet
    return whole[: draw(st.none() | st.integers(15, max(15, len(whole))))]


waits = st.sampled_from((0, 0, 0, 1_000_000, SECOND, 4 * SECOND, 11 * SECOND, 31 * SECOND, 400 * SECOND))
steps = st.builds(Step, frames(), waits)
stories = st.lists(steps, min_size=1, max_size=20)
