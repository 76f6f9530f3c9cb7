"""CSV, read back by Python's reader and compared with the rows as JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import naive
import numpy as np
import pytest
from by_hand import make_columns
from hypothesis import given

from ctweb.table.facts import Facts, facts_of
from ctweb.table.rows import PAGE_PROPERTIES, csv_chunks, page_chunks, page_rows

NAMES = (*PAGE_PROPERTIES, "flags")


def read(facts: Facts, names=NAMES) -> list[dict[str, str]]:
    text = b"".join(csv_chunks(facts, None, names)).decode()
    assert text.count("\r\n") >= len(facts) + 1
    return list(csv.DictReader(io.StringIO(text, newline="")))


@given(naive.tables)
def test_it_says_what_json_says(snapshot):
    facts = facts_of(replace(snapshot, rates=np.floor(np.nan_to_num(snapshot.rates))))
    rows = [{name: str(value) for name, value in row.items()} for row in
            json.loads(page_rows(facts, np.arange(len(facts))))]  # fmt: skip
    assert json.loads(b"".join(page_chunks(facts, None, NAMES))) == json.loads(page_rows(facts, np.arange(len(facts))))
    found = read(facts)
    for row, wanted in zip(found, rows, strict=True):
        mark = row.pop("connection-mark").removeprefix("'")
        assert mark == wanted.pop("connection-mark", "")
        assert {name: value for name, value in row.items() if value or name in wanted} == wanted


@pytest.mark.parametrize("mark", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")'])
def test_a_spreadsheet_does_not_calculate_a_mark(mark):
    facts = Facts(make_columns([1], mark=1), np.zeros((1, 2), np.float32), np.zeros(1, np.bool_), 0, ("", mark))
    assert read(facts, ("src-address", "connection-mark"))[0]["connection-mark"] == "'" + mark
