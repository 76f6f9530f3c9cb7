"""`/export/connections.csv` and `.json`: what is filtered, as a file; streamed, so a million rows are no burden.

`?where=` is a filter, `sort=` as in `/live`, `columns=` names separated by commas (all of them without it).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from flask import Flask, Response, make_response, request
from flask.typing import ResponseReturnValue

from ctweb.table.facts import Facts, Index, facts_of
from ctweb.table.query import QueryError, View, window
from ctweb.table.query_error import quoted
from ctweb.table.rows import PAGE_PROPERTIES, csv_chunks, page_chunks
from ctweb.tracker import TableSource
from ctweb.web.rest_answers import error_body, streamed

COLUMNS = (*PAGE_PROPERTIES, "flags")


def add_to(app: Flask, source: TableSource) -> None:
    """Serve both."""

    @app.get("/export/connections.<kind>")
    def export(kind: str) -> ResponseReturnValue:
        if kind not in ("csv", "json"):
            return error_body(404)
        facts = facts_of(source.snapshot)
        try:
            names = chosen(request.args.get("columns"))
            view = View(request.args.get("where", ""), request.args.get("sort", ""), 0, len(facts))
            rows = window(facts, view).indexes
        except QueryError as error:
            return error_body(400, f"{error.field}: {error}")

        def chunks(facts: Facts, index: Index | None) -> Iterator[bytes]:
            return csv_chunks(facts, index, names) if kind == "csv" else page_chunks(facts, index, names)

        answer = streamed(facts, rows, chunks, "text/csv" if kind == "csv" else "application/json")
        if isinstance(answer, Response):
            made = time.strftime("%Y-%m-%d-%H%M%S")
            answer.headers["Content-Disposition"] = f'attachment; filename="connections-{made}.{kind}"'
        return make_response(answer)


def chosen(columns: str | None) -> Sequence[str]:
    """The properties that are asked for, in that order. Raises QueryError."""
    if not columns:
        return COLUMNS
    names = list(dict.fromkeys(columns.split(",")))
    for name in names:
        if name not in COLUMNS:
            raise QueryError("columns", f"there is no property {quoted(name)}")
    return names
