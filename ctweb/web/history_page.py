"""`GET /page/history?since=UNIX`: the samples of the last hour that are newer than that, for the page's charts."""

from __future__ import annotations

import math

from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

from ctweb.history import SERIES
from ctweb.tracker import TableSource
from ctweb.web.rest_answers import error_body


def add_to(app: Flask, source: TableSource) -> None:
    """Serve it."""

    @app.get("/page/history")
    def history() -> ResponseReturnValue:
        asked = request.args.get("since", "0")
        try:
            since = float(asked)
        except ValueError:
            since = math.nan
        if not math.isfinite(since):
            return error_body(400, "since takes Unix seconds")
        times, values = source.history.since(since)
        return jsonify(
            {
                "series": SERIES,
                "time": times.tolist(),
                "values": values.T.round(1).tolist(),
                "max-entries": source.max_entries,
            }
        )
