"""Rows as RouterOS's REST writes them, and as the page wants them."""

from __future__ import annotations

import json

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctweb.settings import parse_time
from ctweb.table import rows
from ctweb.table.facts import facts_of
from ctweb.table.properties import PROPERTIES

NUMBERS = ("port", "bytes", "packets", "rate", "icmp-type", "icmp-code", "icmp-id", "gre-version")

TCP = {
    "lo": "10.0.0.1", "hi": "192.0.2.44", "lo6": "2001:db8::1", "hi6": "fe80::1:0:0:1", "family": 4, "lo_port": 40000,
    "hi_port": 443, "protocol": 6, "status": 0b1110, "tcp_state": 3, "expires": naive.NOW + 86_396 * naive.SECOND + 7,
    "packets": (257, 258), "bytes": (22878, 2**40), "fasttrack_packets": (0, 0), "fasttrack_bytes": (0, 0),
    "rates": (1760.2, 0.0),
}  # fmt: skip


def rest(connection):
    (row,) = rows.rest_rows(facts_of(naive.snapshot_of([connection])))
    return row


def page(snapshot, index):
    return json.loads(rows.page_rows(facts_of(snapshot), np.array(index, np.intp)))


def test_a_tcp_row_is_what_routeros_answers():
    assert rest(TCP) == {
        ".id": "*1",
        "assured": "true",
        "confirmed": "true",
        "dst-address": "192.0.2.44:443",
        "dst-port": "443",
        "dstnat": "false",
        "dying": "false",
        "expected": "false",
        "fasttrack": "false",
        "hw-offload": "false",
        "orig-bytes": "22878",
        "orig-fasttrack-bytes": "0",
        "orig-fasttrack-packets": "0",
        "orig-packets": "257",
        "orig-rate": "1760",
        "protocol": "tcp",
        "repl-bytes": "1099511627776",
        "repl-fasttrack-bytes": "0",
        "repl-fasttrack-packets": "0",
        "repl-packets": "258",
        "repl-rate": "0",
        "reply-dst-address": "10.0.0.1:40000",
        "reply-dst-port": "40000",
        "reply-src-address": "192.0.2.44:443",
        "reply-src-port": "443",
        "seen-reply": "true",
        "src-address": "10.0.0.1:40000",
        "src-port": "40000",
        "srcnat": "false",
        "tcp-state": "established",
        "timeout": "23h59m56s",
        "uses-helper": "false",
    }


def test_swapped_means_the_original_direction_goes_the_other_way():
    row = rest(TCP | {"status": 1})
    assert (row["src-address"], row["dst-address"]) == ("192.0.2.44:443", "10.0.0.1:40000")
    assert row["orig-packets"] == "257"


def test_an_icmp_row_has_type_code_and_id_and_no_ports():
    row = rest(TCP | {"protocol": 1, "lo_port": 77, "hi_port": 8 << 8 | 3})
    assert (row["icmp-type"], row["icmp-code"], row["icmp-id"]) == ("8", "3", "77")
    assert (row["src-address"], row["dst-address"]) == ("10.0.0.1", "192.0.2.44")
    assert not {"src-port", "dst-port", "reply-src-port", "reply-dst-port", "tcp-state"} & row.keys()


@pytest.mark.parametrize(("protocol", "source"), [(6, "[2001:db8::1]:40000"), (58, "2001:db8::1")])
def test_ipv6_addresses_are_bracketed_where_a_port_follows(protocol, source):
    assert rest(TCP | {"family": 6, "protocol": protocol})["src-address"] == source


def test_the_page_gets_numbers_and_flag_letters():
    (row,) = page(naive.snapshot_of([TCP]), [0])
    assert (row["timeout"], row["orig-rate"], row["dst-port"], row["repl-bytes"]) == (86_396, 1760, 443, 2**40)
    assert (row["flags"], row["protocol"], row["tcp-state"], row[".id"]) == ("SAC", "tcp", "established", "*1")
    assert "assured" not in row


@given(naive.tables)
def test_rest_rows_agree_with_the_table_row_by_row(snapshot):
    assert rows.rest_rows(facts_of(snapshot)) == [naive.row(snapshot, i) for i in range(len(snapshot))]


@given(naive.tables)
def test_page_rows_agree_with_rest_rows(snapshot):
    for i, row in enumerate(page(snapshot, range(len(snapshot)))):
        shown = naive.row(snapshot, i)
        assert row.pop("flags") == naive.letters(shown)
        expected = {n: v for n, v in shown.items() if v not in ("true", "false")}
        expected |= {n: int(v) for n, v in shown.items() if n.endswith(NUMBERS)}
        expected["timeout"] = parse_time(shown["timeout"]) // 1000
        assert row == expected


@given(naive.tables, st.sets(st.sampled_from([*sorted(PROPERTIES), "gre-key", "no-such", ""])), st.data())
def test_a_selection_of_rows_and_properties(snapshot, names, data):
    index = data.draw(st.lists(st.integers(0, max(0, len(snapshot) - 1)), max_size=len(snapshot), unique=True))
    wanted = [{n: v for n, v in naive.row(snapshot, i).items() if n in names | {".id"}} for i in index]
    assert rows.rest_rows(facts_of(snapshot), np.array(index, np.intp), names) == wanted


def test_long_answers_come_in_pieces_that_are_one_array():
    n = 2 * rows.BLOCK + 3
    snapshot = naive.snapshot_of([TCP | {"lo_port": i} for i in range(n)])
    pieces = list(rows.rest_chunks(facts_of(snapshot)))
    assert len(pieces) >= 3
    assert [row["src-port"] for row in json.loads(b"".join(pieces))] == [str(i) for i in range(n)]
    last_first = np.arange(n)[::-1]
    assert [row["src-port"] for row in rows.rest_rows(facts_of(snapshot), last_first)] == [
        str(i) for i in reversed(range(n))
    ]


def test_no_rows_are_an_empty_array():
    empty = facts_of(naive.snapshot_of([]))
    assert b"".join(rows.rest_chunks(empty)) == b"[]"
    assert rows.page_rows(empty, np.empty(0, np.intp)) == b"[]"


def test_every_flag_is_a_property():
    assert {p.name for p in PROPERTIES.values() if p.kind.name == "FLAG"} >= {"assured", "dying", "uses-helper"}
    assert set(rows.PAGE_PROPERTIES) < set(rows.REST_PROPERTIES)
