"""Groups, against putting the rows together one by one; and the filter of each group against its rows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from ipaddress import ip_address

import naive
import numpy as np
import pytest
from by_hand import make_columns
from hypothesis import given

from ctweb.table import groups
from ctweb.table.facts import Facts, facts_of
from ctweb.table.groups import GROUPINGS, SORTS, group_window
from ctweb.table.query import QueryError, View, select
from ctweb.table.rows import rest_rows

SUMS = [name for name in SORTS if name.startswith(("orig-", "repl-"))]


def without_port(address: str) -> str:
    if address.startswith("["):
        return address[1:].split("]")[0]
    return address.split(":")[0] if address.count(":") == 1 else address


def key(row: dict[str, str], by: str) -> str:
    """What a row is grouped by, as the page shows it."""
    if by.endswith("address"):
        return without_port(row[by])
    if by == "service":
        return row["protocol"] + (f"/{row['dst-port']}" if "dst-port" in row else "")
    missing = {"tcp-state": "not TCP", "connection-mark": "no mark"}
    return row.get(by, missing.get(by))


@pytest.mark.parametrize("by", GROUPINGS)
@given(naive.tables)
def test_each_row_is_in_its_group_and_no_other(by, snapshot):
    facts = facts_of(replace(snapshot, rates=np.floor(np.nan_to_num(snapshot.rates))))
    wanted: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(["connections", *SUMS], 0))
    members = defaultdict(set)
    for row in rest_rows(facts):
        group = wanted[key(row, by)]
        group["connections"] += 1
        members[key(row, by)].add(row[".id"])
        for name in SUMS:
            group[name] = (group[name] + int(row[name])) % 2**64
    shown = group_window(facts, View(group=by, limit=500))
    assert (shown.total, shown.connections, shown.matched) == (len(facts), len(facts), len(wanted))
    assert {row["group"]: {name: row[name] for name in ["connections", *SUMS]} for row in shown.rows} == wanted
    for row in shown.rows:
        for name in ("rate", "bytes", "packets"):
            assert row[name] == (row[f"orig-{name}"] + row[f"repl-{name}"]) % 2**64
        found = {f"*{number:X}" for number in facts.columns.id[select(facts, where=row[".id"])].tolist()}
        assert found == members[row["group"]], row[".id"]


def busy() -> Facts:
    """Ports 53, 443 and 80 with 1, 2 and 3 connections, the fewest with the most bytes."""
    columns = make_columns(range(1, 7), hi_port=[53, 443, 443, 80, 80, 80])
    columns.bytes[:, 1] = [900, 1, 1, 1, 1, 1]
    return Facts(columns, np.zeros((6, 2), np.float32), np.zeros(6, np.bool_), 2_000_000_000)


@pytest.mark.parametrize(
    ("sort", "groups"),
    [
        ("", ["udp/53", "udp/80", "udp/443"]),
        ("-group", ["udp/443", "udp/80", "udp/53"]),
        ("-connections", ["udp/80", "udp/443", "udp/53"]),
        ("-bytes", ["udp/53", "udp/80", "udp/443"]),
        ("repl-bytes", ["udp/443", "udp/80", "udp/53"]),
    ],
)
def test_groups_stand_in_order_and_in_windows(sort, groups):
    assert [row["group"] for row in group_window(busy(), View(sort=sort, group="service")).rows] == groups
    window = group_window(busy(), View(sort=sort, group="service", offset=1, limit=1))
    assert ([row["group"] for row in window.rows], window.matched) == (groups[1:2], 3)


def test_only_what_matches_is_grouped():
    shown = group_window(busy(), View(filter="dport:80,53", group="service", sort="-connections"))
    assert [(row["group"], row["connections"]) for row in shown.rows] == [("udp/80", 3), ("udp/53", 1)]
    assert (shown.total, shown.connections, shown.matched) == (6, 4, 2)


@pytest.mark.parametrize(
    ("view", "field"),
    [
        (View(group="colour"), "group"),
        (View(group="service", sort="timeout"), "sort"),
        (View(group="service", filter="a:b:c=1"), "filter"),
    ],
)
def test_what_groups_do_not_have_is_refused(view, field):
    with pytest.raises(QueryError) as refused:
        group_window(busy(), view)
    assert refused.value.field == field


def both_families() -> Facts:
    """Three connections from each of 60 IPv4 and 60 IPv6 sources, of which some differ in one half only."""
    random = np.random.default_rng(5)
    addresses = np.zeros((120, 16), np.uint8)
    addresses[:60, :4] = random.integers(0, 256, (60, 4))
    addresses[60:80] = random.integers(0, 256, (20, 16))
    addresses[80:100, 15] = np.arange(1, 21)
    addresses[100:, 7] = np.arange(1, 21)
    which = random.permutation(np.repeat(np.arange(120), 3))
    columns = make_columns(range(1, 361), lo_addr=addresses[which], family=np.where(which < 60, 4, 6))
    columns.bytes[:, 0] = 100
    return Facts(columns, np.zeros((360, 2), np.float32), np.zeros(360, np.bool_), 2_000_000_000)


@pytest.mark.parametrize("factors", [None, [0, 0, 0]], ids=["usual", "all addresses have one hash"])
def test_addresses_stand_as_numbers_whatever_their_hashes(factors, monkeypatch):
    if factors is not None:
        monkeypatch.setattr(groups, "_FACTORS", np.array(factors, np.uint64))
    facts = both_families()
    shown = {
        sort: group_window(facts, View(sort=sort, group="src-address", limit=500)).rows
        for sort in ("group", "-group", "-bytes")
    }
    found = [ip_address(row["group"]) for row in shown["group"]]
    assert found == sorted(found, key=lambda address: (address.version, int(address)))
    assert len(set(found)) == 120
    assert {(row["connections"], row["bytes"]) for row in shown["group"]} == {(3, 300)}
    assert shown["-group"] == shown["group"][::-1]
    assert shown["-bytes"] == shown["group"]  # all are equal
    middle = group_window(facts, View(sort="group", group="src-address", offset=50, limit=20)).rows
    assert middle == shown["group"][50:70]
