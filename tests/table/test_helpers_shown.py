"""connection-type and the GRE properties in rows and filters."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import make_columns

from ctweb.table.facts import Facts
from ctweb.table.filter_language import parse
from ctweb.table.match import mask
from ctweb.table.rows import rest_rows

GRE = 47


@pytest.fixture
def facts() -> Facts:
    """An FTP control connection, a call, a tunnel with a key, one without, and plain UDP."""
    columns = make_columns(
        [1, 2, 3, 4, 5], protocol=[6, GRE, GRE, GRE, 17], variant=[0, 2, 1, 0, 0], type=[2, 1, 0, 0, 0],
        lo_port=[1, 100, 0xDEAD, 0, 1], hi_port=[21, 200, 0xBEEF, 0, 2],
        gre_protocol=[0, 0x880B, 0x0800, 0x1234, 0],
    )  # fmt: skip
    return Facts(columns, np.zeros((5, 2), np.float32), np.zeros(5, np.bool_), 0)


def test_rows(facts):
    names = ("connection-type", "gre-version", "gre-key", "gre-protocol")
    assert [{name: row[name] for name in names if name in row} for row in rest_rows(facts)] == [
        {"connection-type": "ftp"},
        {"connection-type": "pptp", "gre-version": "1", "gre-key": "200", "gre-protocol": "ppp"},
        {"gre-version": "0", "gre-key": str(0xDEADBEEF), "gre-protocol": "ip"},
        {"gre-version": "0", "gre-protocol": "other"},
        {},
    ]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("type:ftp", [1]),
        ("connection-type:pptp", [2]),
        ("gre-version:1", [2]),
        ("gre-key:200", [2]),
        ("gre-protocol:ip", [3]),
    ],
)
def test_filters(facts, text, ids):
    assert list(facts.columns.id[mask(facts, parse(text))]) == ids
