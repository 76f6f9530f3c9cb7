"""The error of every question about the table that cannot be answered."""

from __future__ import annotations


class QueryError(ValueError):
    """`field`: which part of the question (filter, sort, offset, ...) or property; `position`: where in it, from 0."""

    def __init__(self, field: str, message: str, position: int | None = None) -> None:
        super().__init__(message if position is None else f"{message} (at character {position + 1})")
        self.field = field
        self.message = message
        self.position = position


class UnknownField(QueryError):
    """The question is about a property that does not exist: `field`."""


def quoted(text: str) -> str:
    """`text` for a message: hostile input stays short and on one line."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
