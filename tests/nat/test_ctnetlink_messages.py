"""Messages of any kind: either an entry comes out, or they are malformed; nothing else happens."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctweb.datapath.ctnetlink import (
    DELETE,
    NEW,
    STATUS_DST_NAT,
    STATUS_SRC_NAT,
    Ends,
    Entry,
    Malformed,
    messages,
    parse,
)
from ctweb.datapath.translations import PAIR, item
from ctweb.table.names import Status


def attribute(kind: int, *parts: bytes) -> bytes:
    value = b"".join(parts)
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def ends_attribute(kind: int, ends: Ends) -> bytes:
    first = 1 if len(ends.source) == 4 else 3
    address = attribute(0x8001, attribute(first, ends.source), attribute(first + 1, ends.destination))
    number = attribute(1, bytes([ends.protocol]))
    if ends.protocol == socket.IPPROTO_ICMP:
        rest = (attribute(4, ends.source_port), attribute(5, ends.destination_port[:1]),
                attribute(6, ends.destination_port[1:]))  # fmt: skip
    else:
        rest = (attribute(2, ends.source_port), attribute(3, ends.destination_port))
    return attribute(0x8000 | kind, address, attribute(0x8002, number, *rest))


def message(entry: Entry) -> bytes:
    """As the kernel sends it."""
    body = struct.pack("=BBH", socket.AF_INET, 0, 0)
    body += ends_attribute(1, entry.original) + ends_attribute(2, entry.reply)
    body += attribute(3, struct.pack(">I", entry.status)) + attribute(7, struct.pack(">I", 30))
    if entry.helper:
        body += attribute(0x8005, attribute(1, entry.helper.encode() + b"\0"))
    if entry.mark is not None:
        body += attribute(8, struct.pack(">I", entry.mark))
    return struct.pack("=IHHII", 16 + len(body), DELETE if entry.gone else NEW, 0x600, 0, 0) + body


ports = st.binary(min_size=2, max_size=2)


@st.composite
def entries(draw) -> Entry:
    size = draw(st.sampled_from([4, 16]))
    protocol = draw(st.sampled_from([6, 17, 132] + [1] * (size == 4)))
    address = st.binary(min_size=size, max_size=size)
    a, b = (Ends(draw(address), draw(address), protocol, draw(ports), draw(ports)) for _ in range(2))
    helper = draw(st.sampled_from(["", "ftp", "pptp"]))
    status = draw(st.sampled_from([STATUS_SRC_NAT, STATUS_DST_NAT, 1])) | (1 << 13 if helper else 0)
    return Entry(draw(st.booleans()), a, b, status, draw(st.none() | st.integers(0, 2**32 - 1)), helper)


@given(entries())
def test_what_the_kernel_tells_is_read(entry: Entry):
    data = message(entry)
    assert parse(data, 0, len(data)) == entry


@given(entries(), st.data())
def test_mutated_messages_are_read_or_malformed(entry: Entry, data: st.DataObject):
    text = bytearray(message(entry))
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    del text[data.draw(st.integers(0, len(text))) :]
    read_all(bytes(text))


@given(st.binary(max_size=300))
def test_garbage_is_malformed(text: bytes):
    read_all(text)


def read_all(text: bytes) -> None:
    try:
        for kind, _, start, end in messages(text):
            assert 0 <= start < end <= len(text)
            if kind in (NEW, DELETE):
                found = parse(text, start, end)
                if found is not None:
                    assert len(item(found, found.mark, 1)) == 104
    except Malformed:
        pass


@pytest.mark.parametrize("size", range(1, 60))
def test_a_message_cut_anywhere_is_malformed(size: int):
    ends = Ends(b"\x0a\0\0\1", b"\x0a\0\0\2", 17, b"\0\1", b"\0\2")
    text = message(Entry(False, ends, ends, STATUS_SRC_NAT, None, ""))
    with pytest.raises(Malformed):
        list(messages(text[:-size]))


@pytest.mark.parametrize(
    ("original", "reply", "bits"),
    [
        (("10.0.0.9", 9, "192.0.2.1", 53), ("192.0.2.1", 53, "203.0.113.1", 9), Status.SRCNAT),
        (("10.0.0.9", 9, "192.0.2.1", 53), ("192.0.2.1", 53, "10.0.0.9", 10), Status.SRCNAT),
        (("10.0.0.9", 9, "192.0.2.1", 53), ("10.0.0.7", 5353, "10.0.0.9", 9), Status.DSTNAT),
        (("10.0.0.9", 9, "192.0.2.1", 53), ("10.0.0.7", 53, "10.0.0.1", 9), Status.SRCNAT | Status.DSTNAT),
        (("10.0.0.9", 9, "192.0.2.1", 53), ("192.0.2.1", 53, "10.0.0.9", 9), Status.NONE),
    ],
)
def test_which_end_is_translated(original, reply, bits):
    a, b = (
        Ends(socket.inet_aton(src), socket.inet_aton(dst), 17, sport.to_bytes(2, "big"), dport.to_bytes(2, "big"))
        for src, sport, dst, dport in (original, reply)
    )
    made = item(Entry(False, a, b, 0, None, ""), None, 1)
    assert struct.unpack_from("=QI", made, PAIR)[1] == bits
    assert (made[:40] == made[40:80]) == (bits == Status.NONE)
