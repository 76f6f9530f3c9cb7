"""The Flask app: the page, and what belongs to all of it. REST is in rest.py, the live table in live.py."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from flask import Flask, Response, jsonify, request, send_from_directory
from werkzeug.exceptions import HTTPException

from ctweb.table.services import services
from ctweb.tracker import TableSource
from ctweb.version import VERSION
from ctweb.web import export, guard, history_page, openapi, rest, settings_page, sign_in
from ctweb.web.auth import Auth, caller
from ctweb.web.live import Live
from ctweb.web.rest_answers import error_body

log = logging.getLogger(__name__)

STATIC = Path(__file__).resolve().parents[2] / "static"
CONNECTIONS = re.compile(r"/rest/ip(v6)?/firewall/connection(?!/tracking)")  # who asks for these needs tracking
STALE_SECONDS = 5  # without a sweep: the table shown is no longer the table


def create_app(
    source: TableSource,
    live: Live,
    auth: Auth,
    *,
    hosts: Collection[str],
    hooks: Callable[[], Mapping[str, str]],
    static: Path = STATIC,
) -> Flask:
    """The app that shows `source` to whom `auth` lets in.

    `hosts`: the names and addresses it listens on. `hooks`: the hook (xdp, tc) of each interface that is tracked now.
    `static`: where the page's files are.
    """
    app = Flask(__name__, static_folder=str(static), static_url_path="/static")
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.strict_slashes = app.url_map.merge_slashes = False  # no redirects
    guard.protect(app, hosts)
    auth.protect(app)
    app.register_blueprint(rest.blueprint(source))
    openapi.add_to(app)
    export.add_to(app, source)
    history_page.add_to(app, source)
    settings_page.add_to(app, source, hooks)
    sign_in.add_to(app, auth, static)
    live.add_to(app)

    @app.after_request
    def notice(response: Response) -> Response:
        if response.status_code < 400 and CONNECTIONS.match(request.path):
            live.enabled.looked()
        return response

    @app.get("/")
    def index() -> Response:
        return send_from_directory(static, "index.html")

    @app.get("/page/services")
    def service_names() -> Response:
        return jsonify(services())

    @app.get("/healthz")
    def healthz() -> tuple[Response, int]:
        snapshot = source.snapshot
        attached = dict(hooks())
        age = time.time() - snapshot.time if snapshot.seq else None
        fresh = age is not None and age < STALE_SECONDS
        status = {"status": "ok" if fresh else "stale"}
        if caller() is None:
            return jsonify(status), 200 if fresh else 503
        answer = {
            **status,
            "version": VERSION,
            "sweep": snapshot.seq,
            "sweep-age": None if age is None else round(age, 3),
            "sweep-seconds": round(snapshot.sweep_seconds, 6),
            "connections": len(snapshot),
            "tracking": {"active": source.verdict.active, "reason": source.verdict.reason},
            "attached": len(attached),
            "interfaces": attached,
            "counters": {**snapshot.counters, **live.counters, **auth.check.counters},
        }
        return jsonify(answer), 200 if fresh else 503

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> tuple[Response, int]:
        return error_body(error.code or 500, error.description if error.code != 404 else None)

    @app.errorhandler(Exception)
    def fail(error: Exception) -> tuple[Response, int]:
        log.exception("a request failed")
        return error_body(500, "an error in ctweb; its log says more")

    return app
