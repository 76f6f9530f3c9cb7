"""`ctweb print`: RouterOS's column form, fitted to the terminal."""

from __future__ import annotations

import naive
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctweb.table.facts import facts_of
from ctweb.table.rows import rest_rows
from ctweb.table.text import grouped, rate, table_text

ROWS = [
    {
        ".id": "*1", "protocol": "tcp", "src-address": "172.31.255.29:40000", "dst-address": "10.0.0.1:443",
        "tcp-state": "established", "timeout": "23h59m52s", "orig-bytes": "47603", "repl-bytes": "1234567",
        "orig-packets": "257", "repl-packets": "1001", "orig-rate": "1760", "repl-rate": "6400",
        "seen-reply": "true", "assured": "true", "confirmed": "true", "dying": "false", "srcnat": "false",
    },
    {
        ".id": "*2", "protocol": "icmp", "src-address": "10.0.0.9", "dst-address": "10.0.0.1", "timeout": "9s",
        "orig-bytes": "84", "repl-bytes": "0", "orig-packets": "1", "repl-packets": "0", "orig-rate": "0",
        "repl-rate": "0", "seen-reply": "false", "assured": "false", "confirmed": "true", "dying": "false",
        "srcnat": "false",
    },
]  # fmt: skip

WIDE = """\
Flags: S - SEEN-REPLY; A - ASSURED; C - CONFIRMED
Columns: PROTOCOL, SRC-ADDRESS, DST-ADDRESS, TCP-STATE, TIMEOUT, ORIG-RATE, REPL-RATE, ORIG-PACKETS, REPL-PACKETS, \
ORIG-BYTES, REPL-BYTES
#       PROTOCOL  SRC-ADDRESS          DST-ADDRESS   TCP-STATE      TIMEOUT  ORIG-RATE  REPL-RATE  ORIG-PACKETS  \
REPL-PACKETS  ORIG-BYTES  REPL-BYTES
0  SAC  tcp       172.31.255.29:40000  10.0.0.1:443  established  23h59m52s    1760bps    6.4kbps           257  \
       1 001      47 603   1 234 567
1  C    icmp      10.0.0.9             10.0.0.1                          9s       0bps       0bps             1  \
           0          84           0"""

NARROW = """\
Flags: S - SEEN-REPLY; A - ASSURED; C - CONFIRMED
Columns: PROTOCOL, SRC-ADDRESS, DST-ADDRESS, TCP-STATE, TIMEOUT
#       PROTOCOL  SRC-ADDRESS          DST-ADDRESS   TCP-STATE      TIMEOUT
0  SAC  tcp       172.31.255.29:40000  10.0.0.1:443  established  23h59m52s
1  C    icmp      10.0.0.9             10.0.0.1                          9s"""


def test_the_whole_table():
    assert table_text(ROWS) == WIDE


def test_columns_that_do_not_fit_are_left_out():
    assert table_text(ROWS, 80) == NARROW


def test_no_rows_are_nothing():
    assert table_text([]) == ""


def test_a_mark_cannot_move_the_cursor():
    assert "a?[2Jb" in table_text([ROWS[0] | {"connection-mark": "a\x1b[2Jb"}])


@pytest.mark.parametrize(
    ("bits", "text"),
    [("0", "0bps"), ("999", "999bps"), ("1760", "1760bps"), ("1999", "1999bps"), ("2000", "2.0kbps"),
     ("6400", "6.4kbps"), ("1500000", "1500.0kbps"), ("25000000", "25.0Mbps"), ("2500000000", "2.5Gbps"),
     ("9000000000000000", "9000.0Tbps")],
)  # fmt: skip
def test_rates(bits, text):
    assert rate(bits) == text


@pytest.mark.parametrize(
    ("number", "text"), [("0", "0"), ("999", "999"), ("47603", "47 603"), ("1000000", "1 000 000")]
)
def test_thousands(number, text):
    assert grouped(number) == text


@given(naive.tables, st.integers(20, 200))
def test_no_line_is_wider_than_the_terminal(snapshot, width):
    rows = rest_rows(facts_of(snapshot))
    lines = table_text(rows, width).splitlines()
    assert all(len(line) <= width for line in lines)
    assert not rows or lines[-len(rows)].split()[0] == "0"
