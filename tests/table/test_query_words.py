"""RouterOS's query words on columns agree with a stack machine on one row at a time."""

from __future__ import annotations

import naive
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_filter import one

from ctweb.table.facts import facts_of
from ctweb.table.filter_language import MOST_TERMS
from ctweb.table.query import select
from ctweb.table.query_error import QueryError, UnknownField
from ctweb.table.query_words import MOST_OPERATIONS, read

CONDITIONS = {
    "protocol=tcp": lambda row: row["protocol"] == "tcp",
    "?protocol=udp": lambda row: row["protocol"] == "udp",
    "?=seen-reply=yes": lambda row: row["seen-reply"] == "true",
    "assured=false": lambda row: row["assured"] == "false",
    "tcp-state": lambda row: "tcp-state" in row,
    "?-tcp-state": lambda row: "tcp-state" not in row,
    "-src-port": lambda row: "src-port" not in row,
    ">connection-mark=": lambda row: "connection-mark" in row,
    "gre-key": lambda row: False,
    "src-address=10.0.0.0/8": lambda row: one(row, "src-address", "=", "10.0.0.0/8"),
    "<orig-bytes=1000": lambda row: int(row["orig-bytes"]) < 1000,
    "?>repl-packets=60": lambda row: int(row["repl-packets"]) > 60,
    "<timeout=10s": lambda row: one(row, "timeout", "<", "10s"),
    ">dst-port=100": lambda row: int(row.get("dst-port", 0)) > 100,
}


def holds(row, words) -> bool:
    """The manual's words, taken literally."""
    stack: list[bool] = []
    for word in words:
        if word in CONDITIONS:
            stack.append(CONDITIONS[word](row))
            continue
        text = word.removeprefix("?").removeprefix("#")
        digits = ""
        for place, sign in enumerate(text):
            if sign.isdigit():
                digits += sign
                if place == len(text) - 1:
                    stack = [stack[-1 - int(digits)]]
                continue
            if digits:
                stack.append(stack[-1 - int(digits)])
                digits = ""
                if sign == ".":
                    continue
            if sign == "!":
                stack[-1] = not stack[-1]
            elif sign == ".":
                stack.append(stack[-1])
            else:
                first, second = stack.pop(), stack.pop()
                stack.append((first and second) if sign == "&" else (first or second))
    return all(stack)


@st.composite
def queries(draw):
    """Words whose stack never runs out."""
    words, depth = [], 0
    for _ in range(draw(st.integers(0, 8))):
        choices = ["condition"]
        choices += ["#!", "#.", "#0", "#0."] * (depth > 0) + ["#&", "#|", "#|!", "#1", "#1!"] * (depth > 1)
        choice = draw(st.sampled_from(choices))
        words.append(draw(st.sampled_from(sorted(CONDITIONS))) if choice == "condition" else choice)
        if choice in ("condition", "#.", "#0.", "#1!"):
            depth += 1
        elif choice != "#!":
            depth = 1 if choice in ("#0", "#1") else depth - 1
    return words


@given(naive.tables, queries())
def test_words_mean_what_the_stack_says(snapshot, words):
    meant = select(facts_of(snapshot), words=read(words))
    found = list(range(len(snapshot))) if meant is None else meant.tolist()
    assert found == [i for i in range(len(snapshot)) if holds(naive.row(snapshot, i), words)]


def test_no_words_mean_everything():
    assert read([]) is None
    assert read(["#"]) is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["#&"], "needs 2 results before it, and there are 0"),
        (["protocol=tcp", "#|"], "needs 2 results"),
        (["protocol=tcp", "#1"], "needs 2 results"),
        (["protocol=tcp", "#9999."], "needs 10000 results"),
        (["protocol=tcp", "#x"], ".query takes #"),
        (["protocol=tcp", "#" + "1" * 5000], "needs 1112 results"),
        (["timeout=soon"], "timeout takes a time"),
        (["<src-address=10.0.0.1"], "src-address cannot be compared with <"),
        (["assured=maybe"], "assured takes yes or no"),
        (["protocol=tcp"] * (MOST_TERMS + 1), f"at most {MOST_TERMS}"),
        (["protocol=tcp", "#" + "!" * (MOST_OPERATIONS + 1)], f"at most {MOST_OPERATIONS}"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_reason(words, told):
    with pytest.raises(QueryError) as caught:
        read(words)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("word", ["", "nonsense", "-nonsense", "nonsense=1", "<nonsense=1", "src=10.0.0.1", "=", "?"])
def test_unknown_properties_are_refused_by_name(word):
    with pytest.raises(UnknownField):
        read([word])
