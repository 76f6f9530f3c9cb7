"""The filter language: what is written is read, and a mistake is answered with its place and what was expected."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from naive_filter import filters

from ctweb.table.fields import FIELDS
from ctweb.table.filter_language import (
    DEEPEST,
    LONGEST,
    MOST_TERMS,
    And,
    Not,
    Or,
    Word,
    all_of,
    any_of,
    parse,
    term,
    to_text,
)
from ctweb.table.properties import PROPERTIES
from ctweb.table.query_error import QueryError


@given(filters)
def test_a_filter_is_read_back_as_written(node):
    assert parse(to_text(node)) == node


@given(st.text(max_size=60) | st.text(st.sampled_from('ab:=!<>()", \\orsc1.0/*[]'), max_size=30))
@example("src:1.2.3.4\x00")
def test_any_text_is_a_filter_or_refused_with_a_place_in_it(text):
    try:
        node = parse(text)
    except QueryError as error:
        assert error.field == "filter"  # noqa: PT017
        assert 0 <= error.position <= len(text)  # noqa: PT017
        assert f"at character {error.position + 1}" in str(error)  # noqa: PT017
    else:
        assert parse(to_text(node)) == node


def test_the_example_of_every_kind_of_term():
    node = parse("src:10.0.0.0/8 !dport:443 (state:established or rate>1M) proto:tcp bytes>10M mark:voip flag:S web")
    assert node == And(
        (
            term("src", "=", ["10.0.0.0/8"]),
            Not(term("dport", "=", ["443"])),
            Or((term("state", "=", ["established"]), term("rate", ">", ["1M"]))),
            term("proto", "=", ["tcp"]),
            term("bytes", ">", ["10M"]),
            term("mark", "=", ["voip"]),
            term("flag", "=", ["S"]),
            Word("web"),
        )
    )


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("a b or c d", "(a b) or (c d)"),
        ("a and b", "a b"),
        ("a AND b OR c", "(a b) or c"),
        ("not a b", "(!a) b"),
        ("!!a", "!(!(a))"),
        ("! ( a or b )", "!(a or b)"),
        ("SRC:10.0.0.1", "src=10.0.0.1"),
        ("dport=80,443", "dport:80,443"),
        ("(((a)))", "a"),
        ("a(b)c", "a b c"),
        ('a"b c"', 'a "b c"'),
        ('mark:"a",b', "mark:a,b"),
        ("  a\t\nb ", "a b"),
    ],
)
def test_two_ways_to_write_the_same(text, same):
    assert parse(text) == parse(same)


def test_nothing_means_everything():
    assert parse("") is None
    assert parse(" \n") is None
    assert to_text(None) == ""


@pytest.mark.parametrize(
    "text",
    ["10.0.0.1:443", "2001:db8::1", "[2001:db8::1]:443", "::1", "fe80::1", "dead:beef", "fe:", "443", "a-b", "*1F",
     "50%", "=5", "x\\y"],
)  # fmt: skip
def test_free_text(text):
    assert parse(text) == Word(text)


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("proto:tcp sorce:10.0.0.1", 10, "did you mean src or sport?|no field 'sorce'"),
        ("zzz=1", 0, "expected one of id, proto, src"),
        ("src:10.0.0.300", 4, "src takes an address such as 10.0.0.1"),
        ("src:10.0.0.1:65536", 4, "src takes an address"),
        ("src:10.0.0.0/33", 4, "src takes an address"),
        ("dport:80,x", 9, "dport takes a port"),
        ("dport:443-80", 6, "dport takes a port"),
        ("dport:65536", 6, "dport takes a port"),
        ("dport>1-2", 6, "one value, not the range"),
        ("rate>1,2", 6, "rate> takes one value"),
        ("rate>fast", 5, "rate takes bits per second"),
        ("bytes>10X", 6, "bytes takes a number such as"),
        ("bytes>0.5", 6, "bytes takes a number such as"),
        ("bytes>99999999999T", 6, "bytes takes a number such as"),
        ("timeout<soon", 8, "timeout takes a time"),
        ("state:open", 6, "none, syn-sent, syn-received, established"),
        ("proto:256", 6, "a name such as tcp"),
        ("flag:SX", 5, "letters of ESACDFHsdh"),
        ("assured:maybe", 8, "yes or no"),
        ("src<10.0.0.1", 4, "cannot be compared with <: expected = or !="),
        ("rate>", 5, "rate takes bits per second"),
        ("rate> 5", 5, "rate takes bits per second"),
        ("src:", 4, "src takes an address"),
        ("dport:80,", 9, "dport takes a port"),
        ("a (b or", 7, "expected a term"),
        ("a (b", 2, "expected ')' for this '('"),
        ("a b)", 3, "this ')' closes nothing"),
        ("()", 1, "expected a term"),
        ("or a", 0, "put it in quotes"),
        ("a or or b", 5, "put it in quotes"),
        ("a or", 4, "expected a term"),
        ("!", 1, "expected a term"),
        ('a "b', 2, "this quote is not closed"),
        ('mark:"b', 5, "this quote is not closed"),
    ],
)
def test_a_mistake_is_answered_with_its_place_and_what_was_expected(text, position, expected):
    with pytest.raises(QueryError) as caught:
        parse(text)
    assert caught.value.position == position
    assert any(part in caught.value.message for part in expected.split("|"))


def test_hostile_filters_are_bounded():
    for text in ("x" * (LONGEST + 1), "a " * (MOST_TERMS + 1), "dport:1" + ",1" * MOST_TERMS, "(" * 4000, "!" * 4000):
        with pytest.raises(QueryError) as caught:
            parse(text)
        assert len(str(caught.value)) < 500
    assert parse("(" * DEEPEST + "a" + ")" * DEEPEST) == Word("a")
    assert parse("a " * MOST_TERMS) is not None


def test_a_long_value_is_not_repeated_at_length():
    with pytest.raises(QueryError) as caught:
        parse("src:" + "x" * 4000)
    assert len(str(caught.value)) < 300


def test_flat_conjunctions_and_disjunctions():
    a, b, c = Word("a"), Word("b"), Word("c")
    assert all_of([And((a, b)), c]) == And((a, b, c))
    assert any_of([a, Or((b, c))]) == Or((a, b, c))
    assert all_of([a]) == any_of([a]) == a


def test_the_filters_in_the_manual_are_read_and_its_limits_are_true():
    manual = (Path(__file__).parents[2] / "docs" / "filters.md").read_text()
    manual_filters = re.findall(r"^\| `(.+?)` \|", manual, re.M)
    assert len(manual_filters) > 8
    for text in manual_filters:
        assert parse(text) is not None
    assert f"at most {LONGEST} characters and {MOST_TERMS} terms" in manual


def test_every_property_can_be_asked_for():
    assert set(PROPERTIES) <= set(FIELDS)
    assert all(field.takes for field in FIELDS.values())


def test_who_asks_for_no_field_at_all_is_told_the_short_ones():
    with pytest.raises(QueryError) as refused:
        parse("qqq:1")
    said = str(refused.value)
    assert "expected one of id, proto, src, dst," in said
    assert "orig-fasttrack-bytes" not in said
