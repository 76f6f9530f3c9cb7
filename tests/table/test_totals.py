"""Sums over a snapshot, against counting its rows one by one."""

from __future__ import annotations

from dataclasses import replace

import naive
import numpy as np
import pytest
from hypothesis import given

from ctweb.table.facts import facts_of
from ctweb.table.rows import rest_rows
from ctweb.table.totals import busiest, connections


@given(naive.tables)
def test_each_connection_is_counted_once(snapshot):
    wanted: dict[tuple[str, str, str], int] = {}
    for row in rest_rows(facts_of(snapshot)):
        family = "ipv6" if row["src-address"].count(":") > 1 else "ip"
        protocol = "other" if row["protocol"].isdecimal() else row["protocol"]
        key = (family, protocol, row.get("tcp-state", ""))
        wanted[key] = wanted.get(key, 0) + 1
    assert {key: count for key, count in connections(snapshot).items() if count} == wanted


@given(naive.tables)
def test_busiest_hosts_by_what_they_began(snapshot):
    snapshot = replace(snapshot, rates=np.floor(np.nan_to_num(snapshot.rates)))
    wanted: dict[str, float] = {}
    for row, rates in zip(rest_rows(facts_of(snapshot)), snapshot.rates.tolist(), strict=True):
        address = row["src-address"]
        if address.startswith("["):
            address = address[1:].split("]")[0]
        elif address.count(":") == 1:
            address = address.split(":")[0]
        wanted[address] = wanted.get(address, 0.0) + sum(rates) / 8
    wanted = {host: rate for host, rate in wanted.items() if rate}
    assert busiest(snapshot, len(wanted)) == pytest.approx(wanted)
    top = busiest(snapshot, 2)
    assert sorted(top.values(), reverse=True) == pytest.approx(sorted(wanted.values(), reverse=True)[:2])
