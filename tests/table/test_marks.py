"""Numbers for the names of marks."""

from __future__ import annotations

from ctweb.table.marks import MarkNames


def test_a_name_keeps_its_number_and_no_mark_is_zero():
    marks = MarkNames()
    assert marks.number("") == 0
    assert [marks.number(name) for name in ("voip", "guests", "voip")] == [1, 2, 1]
    before = marks.names
    marks.number("later")
    assert (before, marks.names) == (("", "voip", "guests"), ("", "voip", "guests", "later"))
