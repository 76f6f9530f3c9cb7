"""Numbers and addresses as text agree with Python's own way of writing them."""

from __future__ import annotations

import ipaddress

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from ctweb.settings import format_time
from ctweb.table import byte_text

# Zero groups are what IPv6's text form is about: make them likely.
ADDRESSES = st.lists(st.sampled_from([0, 0, 0, 1, 0xDB8, 0x2001, 0xFFFF]), min_size=8, max_size=8).map(
    lambda groups: int("".join(f"{g:04x}" for g in groups), 16)
) | st.integers(0, 2**128 - 1)


def lines(matrix):
    return [byte_text.joined(matrix[i : i + 1]).decode() for i in range(len(matrix))]


@given(st.lists(st.integers(0, 2**64 - 1)))
@example([0, 9_999, 10_000, 99_999_999, 100_000_000, 2**32 - 1, 2**32, 2**64 - 1])
@example([0])
@example([10_000])
def test_numbers(values):
    assert lines(byte_text.decimal(np.array(values, np.uint64))) == [str(v) for v in values]
    assert lines(byte_text.hexadecimal(np.array(values, np.uint64))) == [f"{v:X}" for v in values]


@given(st.lists(st.integers(0, 65535)))
def test_narrow_numbers(values):
    assert lines(byte_text.decimal(np.array(values, np.uint16))) == [str(v) for v in values]


@given(st.lists(st.integers(0, 2**32 - 1)))
@example([0, 60, 3600, 86_400, 604_800, 2**32 - 1])
@example([0])
@example([86_396])
def test_times(seconds):
    assert lines(byte_text.time(np.array(seconds, np.uint32))) == [format_time(s * 1000) for s in seconds]


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_ipv4(addresses):
    high = np.array(addresses, np.uint64) << np.uint64(32)
    assert lines(byte_text.ipv4(high)) == [str(ipaddress.IPv4Address(a)) for a in addresses]


def compressed(address):
    """Python 3.13 writes ::ffff:0:0/96 with an IPv4 part; RFC 5952 lets it be, and the table's filter reads both."""
    text = str(ipaddress.IPv6Address(address))
    if "." in text:
        a, b, c, d = text.rpartition(":")[2].split(".")
        text = f"::ffff:{int(a) << 8 | int(b):x}:{int(c) << 8 | int(d):x}"
    return text


@given(st.lists(ADDRESSES))
@example([0, 1, 1 << 112, 0x20010DB8_00000000_00000001_00000000, 2**128 - 1])
def test_ipv6(addresses):
    high = np.array([a >> 64 for a in addresses], np.uint64)
    low = np.array([a & (2**64 - 1) for a in addresses], np.uint64)
    assert lines(byte_text.ipv6(high, low)) == [compressed(a) for a in addresses]


def test_constants_and_hidden_rows():
    table = byte_text.constants(["tcp", "", "icmpv6"])
    rows = byte_text.rows_of(table, np.array([2, 0, 1, 0]))
    assert lines(rows) == ["icmpv6", "tcp", "", "tcp"]
    assert lines(byte_text.hidden(rows, np.array([True, False, True, True]))) == ["icmpv6", "", "", "tcp"]
