"""Answers in RouterOS's form: errors, and rows as a stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from http import HTTPStatus

from flask import Response, jsonify
from flask.typing import ResponseReturnValue

from ctweb.table.facts import Facts, Index
from ctweb.table.rows import rest_chunks

PIECE = 256 * 1024  # bytes
LARGE = 16_384  # rows; a larger answer keeps the whole table as it stood until it is sent
LARGE_AT_ONCE = 4  # so that slow clients cannot make the server keep more tables than these

Chunks = Callable[[Facts, Index | None], Iterator[bytes]]

_large = threading.BoundedSemaphore(LARGE_AT_ONCE)


def error_body(status: int, detail: str | None = None) -> tuple[Response, int]:
    """An error as RouterOS answers it."""
    body: dict[str, str | int] = {"error": status, "message": HTTPStatus(status).phrase}
    if detail:
        body["detail"] = detail
    return jsonify(body), status


def rows_answer(facts: Facts, index: Index | None, names: Collection[str] | None) -> ResponseReturnValue:
    """The rows at `index` (None: all), made while they are sent."""
    return streamed(facts, index, lambda facts, index: rest_chunks(facts, index, names), "application/json")


def streamed(facts: Facts, index: Index | None, chunks: Chunks, mimetype: str) -> ResponseReturnValue:
    """What `chunks` makes of the rows at `index` (None: all), while it is sent; 503 while too many are being sent."""
    if (len(facts) if index is None else len(index)) <= LARGE:
        part = facts if index is None else facts.take(index)
        return Response(_pieces(chunks(part, None)), mimetype=mimetype)
    if not _large.acquire(blocking=False):
        return error_body(503, f"{LARGE_AT_ONCE} answers of this size are being sent: ask for fewer rows, or later")
    response = Response(_pieces(chunks(facts, index)), mimetype=mimetype)
    response.call_on_close(_large.release)
    return response


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same in pieces, each of which even a slow client takes within the server's time limit."""
    for chunk in chunks:
        for start in range(0, len(chunk), PIECE):
            yield chunk[start : start + PIECE]
