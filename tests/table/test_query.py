"""Filters, search, order and windows on columns agree with the table taken row by row."""

from __future__ import annotations

import ipaddress
import re

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_filter import SUMS, cut, filters, holds, shows, words

from ctweb.settings import parse_time
from ctweb.table.facts import Facts, facts_of
from ctweb.table.filter_language import parse, to_text
from ctweb.table.match import mask
from ctweb.table.order import FEW, Order, part_of
from ctweb.table.properties import PROPERTIES
from ctweb.table.query import QueryError, UnknownField, View, select, window

SORTS = [*sorted(PROPERTIES), *SUMS, "src", "dport", "state", "flags", ""]


def rows_of(snapshot):
    return [naive.row(snapshot, i) for i in range(len(snapshot))]


def found(snapshot, **question):
    index = select(facts_of(snapshot), **question)
    return list(range(len(snapshot))) if index is None else index.tolist()


@given(naive.tables, filters)
@settings(max_examples=200)
def test_a_filter_means_the_rows_for_which_it_holds(snapshot, node):
    expected = [holds(row, node) for row in rows_of(snapshot)]
    assert mask(facts_of(snapshot), node).tolist() == expected
    assert found(snapshot, where=to_text(node)) == [i for i, yes in enumerate(expected) if yes]


@given(naive.tables, words | st.text(st.sampled_from("0123456789abdf:.[]"), max_size=5).map(lambda t: parse(f'"{t}"')))
@settings(max_examples=200)
def test_free_text_is_found_anywhere_in_what_is_shown(snapshot, word):
    assert mask(facts_of(snapshot), word).tolist() == [shows(row, word.text) for row in rows_of(snapshot)]


@given(naive.tables, st.data())
@settings(max_examples=50)
def test_any_piece_of_a_shown_address_finds_its_row(snapshot, data):
    for i, row in enumerate(rows_of(snapshot)):
        text = row[data.draw(st.sampled_from(["src-address", "dst-address"]))]
        start = data.draw(st.integers(0, len(text) - 1))
        piece = text[start : data.draw(st.integers(start + 1, len(text)))]
        assert mask(facts_of(snapshot), parse(f'"{piece}"'))[i], piece


@given(naive.tables, st.sampled_from(sorted(PROPERTIES)), st.data())
def test_rest_asks_for_the_value_it_was_shown(snapshot, name, data):
    shown = rows_of(snapshot)
    values = sorted({row[name] for row in shown if name in row})
    if values:
        value = data.draw(st.sampled_from(values))
        # An address without a port asks for that address with any port.
        any_port = name.endswith("-address") and not re.search(r"]:|\.\d+:", value)
        with_port = (f"{value}:", f"[{value}]:") if any_port else ()
        assert found(snapshot, equal={name: value}) == [
            i for i, row in enumerate(shown) if row.get(name) == value or row.get(name, "").startswith(with_port)
        ]


@given(naive.tables, st.sampled_from([4, 6]))
def test_the_family_is_asked_for_beside_the_rest(snapshot, family):
    expected = [i for i in range(len(snapshot)) if snapshot.columns.family[i] == family]
    assert found(snapshot, family=family) == expected
    shown = rows_of(snapshot)
    assert found(snapshot, family=family, where="port>=443", equal={"seen-reply": "yes"}) == [
        i
        for i in expected
        if shown[i]["seen-reply"] == "true"
        and max(int(shown[i].get("src-port", -1)), int(shown[i].get("dst-port", -1))) >= 443
    ]


@pytest.mark.parametrize(
    ("name", "value", "matches"),
    [
        ("src-address", "10.0.0.1", True),
        ("src-address", "10.0.0.1:40000", True),
        ("src-address", "10.0.0.1:40001", False),
        ("src-address", "10.0.0.0/8", True),
        ("src-address", "11.0.0.0/8", False),
        ("dst-address", "192.0.2.44:443", True),
        ("dst-port", "443", True),
        ("protocol", "tcp", True),
        ("protocol", "6", True),
        ("tcp-state", "syn-recv", True),
        ("tcp-state", "syn-received", True),
        ("tcp-state", "established", False),
        ("assured", "yes", True),
        ("assured", "true", True),
        ("assured", "no", False),
        ("timeout", "59s", True),
        ("timeout", "00:00:59", True),
        ("timeout", "59", True),
        ("timeout", "1m", False),
        ("orig-bytes", "1500", True),
        (".id", "*1", True),
        ("connection-mark", "voip", False),
        ("icmp-type", "8", False),
    ],
)
def test_equality_by_property(name, value, matches):
    snapshot = naive.snapshot_of(
        [
            {
                "lo": "10.0.0.1", "hi": "192.0.2.44", "family": 4, "lo_port": 40000, "hi_port": 443, "protocol": 6,
                "status": 0b100, "tcp_state": 2, "expires": naive.NOW + 59_900_000_000, "packets": (1, 1),
                "bytes": (1500, 40), "fasttrack_packets": (0, 0), "fasttrack_bytes": (0, 0), "rates": (0.0, 0.0),
            }
        ]
    )  # fmt: skip
    assert found(snapshot, equal={name: value}) == ([0] if matches else [])


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("src-adress", "10.0.0.1", UnknownField),
        ("src", "10.0.0.1", UnknownField),  # REST has RouterOS's names only
        ("flag", "S", UnknownField),
        ("src-address", "ten", QueryError),
        ("assured", "maybe", QueryError),
        ("timeout", "soon", QueryError),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(name, value, kind):
    with pytest.raises(QueryError) as caught:
        select(facts_of(naive.snapshot_of([])), equal={name: value})
    assert type(caught.value) is kind
    assert caught.value.field == name
    assert name in str(caught.value)


def test_a_mistake_in_the_filter_is_no_unknown_property():
    """REST answers "unknown parameter" to those, and to this what is wrong with the filter."""
    with pytest.raises(QueryError, match="no field 'prto'") as caught:
        select(facts_of(naive.snapshot_of([])), where="prto:icmp")
    assert not isinstance(caught.value, UnknownField)
    assert caught.value.field == "filter"


def place(row, name):
    """What a row is sorted by, or None if it has no such property. Independent of the columns."""
    name = {"src": "src-address", "dport": "dst-port", "state": "tcp-state"}.get(name, name)
    if name in SUMS:
        return sum(int(row[n]) for n in SUMS[name])
    if name == "flags":
        return naive.letters(row)
    if name not in row:
        return None
    value = row[name]
    if name.endswith("-address"):
        address, port = cut(value)
        ip = ipaddress.ip_address(address)
        return ip.version, int(ip), int(port or 0)
    if name == "tcp-state":
        return naive.STATES.index(value)
    if name == "timeout":
        return parse_time(value)
    if name == ".id":
        return int(value[1:], 16)
    return value if name == "protocol" else int(value) if value.isdigit() else value


def in_order(snapshot, index, sort):
    """Python's own stable sort: by id, then by the property either way, then rows without it last."""
    rows = rows_of(snapshot)
    name = sort.removeprefix("-")
    index = sorted(index, key=lambda i: int(rows[i][".id"][1:], 16))
    if not name:
        return index
    has = [i for i in index if place(rows[i], name) is not None]
    has.sort(key=lambda i: place(rows[i], name), reverse=sort.startswith("-"))  # equals stay in order either way
    return has + [i for i in index if place(rows[i], name) is None]


@given(
    naive.tables,
    st.sampled_from(SORTS),
    st.booleans(),
    st.sampled_from(["", "src:10.0.0.0/8", "!proto:tcp"]),
    st.tuples(st.integers(0, 13), st.integers(0, 13)),
)
@settings(max_examples=200)
def test_a_window_is_a_part_of_the_sorted_and_filtered_table(snapshot, name, descending, where, part):
    offset, limit = part
    sort = f"-{name}" if descending and name else name
    expected = in_order(snapshot, found(snapshot, where=where), sort)
    shown = window(facts_of(snapshot), View(where, sort, offset, limit))
    assert (shown.total, shown.matched) == (len(snapshot), len(expected))
    assert shown.indexes.tolist() == expected[offset : offset + limit]


@given(
    st.integers(0, 2**32),
    st.lists(st.sampled_from([2, 3, 1000, 2**40]), min_size=1, max_size=3),
    st.booleans(),
    st.floats(0, 1),
    st.integers(0, 400),
)
@settings(max_examples=60, deadline=None)
def test_a_part_of_a_large_table_is_a_part_of_the_whole_sorted(seed, kinds, filtered, start, length):
    """More rows than are simply sorted, with many that are equal."""
    random = np.random.default_rng(seed)
    n = FEW * 3
    keys = [random.integers(0, kind, n).astype(np.uint64) for kind in kinds] + [random.permutation(n)]
    rows = np.flatnonzero(random.random(n) < 0.8) if filtered else np.arange(n)
    first = int(start * len(rows))
    last = min(first + length, len(rows))
    order = rows[np.lexsort([key[rows] for key in reversed(keys)])]
    part = part_of(keys, rows if filtered else None, first, last)
    assert part.tolist() == order[first:last].tolist()


@pytest.mark.parametrize(
    ("view", "field"),
    [
        (View(filter="src:x"), "filter"),
        (View(sort="nope"), "sort"),
        (View(sort="--src-address"), "sort"),
        (View(sort="addr"), "sort"),
        (View(sort="flag"), "sort"),
        (View(sort="-"), "sort"),
        (View(offset=-1), "offset"),
        (View(limit=-1), "limit"),
    ],
)
def test_a_view_that_makes_no_sense_names_its_field(view, field):
    with pytest.raises(QueryError) as caught:
        window(facts_of(naive.snapshot_of([])), view)
    assert caught.value.field == field


def test_an_offset_past_the_end_shows_nothing():
    snapshot = naive.snapshot_of([])
    assert window(facts_of(snapshot), View(offset=10**12)).indexes.tolist() == []


def test_facts_are_shared_by_all_readers_of_a_snapshot():
    snapshot = naive.snapshot_of([])
    assert facts_of(snapshot) is facts_of(snapshot)
    assert isinstance(facts_of(snapshot), Facts)
    assert Order.parse("-rate") == Order("rate", descending=True)
