"""The RouterOS REST interface under /rest.

Its conventions are RouterOS's: every value is a string, properties that do not apply are left out, and errors are
`{"error": 400, "message": "Bad Request", "detail": "..."}`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from http import HTTPStatus
from typing import Any

import msgspec
import numpy as np
from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import NotFound, UnsupportedMediaType

from ctweb.settings import READ_ONLY, SettingError, UnknownSetting, as_routeros
from ctweb.state import StateError
from ctweb.table.facts import Facts, Index, facts_of
from ctweb.table.query import QueryError, UnknownField, select
from ctweb.table.rows import rest_chunks, rest_rows
from ctweb.tracker import TableSource

PIECE = 256 * 1024  # bytes
FAMILIES = {"ip": 4, "ipv6": 6}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
TREE: dict[str, Any] = {
    "ip": {"firewall": {"connection": {"tracking": {"set": {}}}}},
    "ipv6": {"firewall": {"connection": {}}},
}
"""What there is, to say which word of a path is too much."""

_ID = re.compile(r"\*[0-9A-Fa-f]{1,16}")


class ParameterError(Exception):
    """An argument that is refused, in RouterOS's words."""


def error_body(status: int, detail: str | None = None) -> tuple[Response, int]:
    """An error as RouterOS answers it."""
    body: dict[str, str | int] = {"error": status, "message": HTTPStatus(status).phrase}
    if detail:
        body["detail"] = detail
    return jsonify(body), status


def blueprint(source: TableSource) -> Blueprint:
    """Everything under /rest, answered from `source`."""
    rest = Blueprint("rest", __name__, url_prefix="/rest")

    @rest.get("/<any(ip, ipv6):tree>/firewall/connection")
    def connections(tree: str) -> ResponseReturnValue:
        facts = facts_of(source.snapshot)
        chunks = rest_chunks(facts, _matching(facts, tree, request.args), _proplist(request.args))
        return Response(_pieces(chunks), mimetype="application/json")

    @rest.get("/<any(ip, ipv6):tree>/firewall/connection/<identity>")
    def connection(tree: str, identity: str) -> ResponseReturnValue:
        if not identity.startswith("*"):
            return nothing(f"{tree}/firewall/connection/{identity}")
        facts = facts_of(source.snapshot)
        return jsonify(rest_rows(facts, _with_id(facts, tree, identity), _proplist(request.args))[0])

    @rest.get("/ip/firewall/connection/tracking")
    def tracking() -> ResponseReturnValue:
        names = _proplist(request.args)
        values = as_routeros(source.tracking) | _totals(source)
        return jsonify({name: value for name, value in values.items() if names is None or name in names})

    @rest.post("/ip/firewall/connection/tracking/set")
    def set_tracking() -> ResponseReturnValue:
        try:
            source.set_tracking(_settings())
        except UnknownSetting as error:
            known = error.name in READ_ONLY
            return error_body(400, str(error) if known else f"unknown parameter {_shown(error.name)}")
        except SettingError as error:
            return error_body(400, str(error))
        except (StateError, OSError) as error:
            return error_body(500, str(error))
        return jsonify([])

    @rest.route("/", defaults={"path": ""}, methods=METHODS)
    @rest.route("/<path:path>", methods=METHODS)
    def nothing(path: str) -> ResponseReturnValue:
        return error_body(400, f"no such command or directory ({_shown(_first_unknown(path))})")

    @rest.errorhandler(ParameterError)
    def refuse(error: ParameterError) -> ResponseReturnValue:
        return error_body(400, str(error))

    return rest


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same in pieces, each of which even a slow client takes within the server's time limit."""
    for chunk in chunks:
        for start in range(0, len(chunk), PIECE):
            yield chunk[start : start + PIECE]


def _proplist(arguments: MultiDict[str, str]) -> Collection[str] | None:
    """The properties to answer; None: all."""
    return arguments[".proplist"].split(",") if ".proplist" in arguments else None


def _matching(facts: Facts, tree: str, arguments: MultiDict[str, str]) -> Index | None:
    """The rows of one address family that all arguments hold for, and the filter `where` if there is one; None: all."""
    equal = {name: value for name, value in arguments.items() if name not in (".proplist", "where")}
    try:
        return select(facts, family=FAMILIES[tree], where=arguments.get("where", ""), equal=equal)
    except UnknownField as error:
        raise ParameterError(f"unknown parameter {_shown(error.field)}") from None
    except QueryError as error:
        raise ParameterError(str(error)) from None


def _with_id(facts: Facts, tree: str, identity: str) -> Index:
    """The one row with this id. Raises NotFound."""
    if _ID.fullmatch(identity):
        rows = select(facts, family=FAMILIES[tree], equal={".id": identity})
        if rows is not None and len(rows):
            return rows
    raise NotFound


def _settings() -> dict[str, str]:
    """The settings in the request's body: values are strings, or JSON's own numbers and booleans."""
    if not request.is_json:
        raise UnsupportedMediaType("settings are sent as JSON, with Content-Type: application/json")
    try:
        body = msgspec.json.decode(request.get_data(), type=dict[str, str | int | bool])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ParameterError('expected a JSON object of settings such as {"udp-timeout":"10s"}') from None
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in body.items()}


def _totals(source: TableSource) -> dict[str, str]:
    """What stands beside the settings and can only be read."""
    snapshot = source.snapshot
    ipv6 = int(np.count_nonzero(facts_of(snapshot).is_ipv6))
    values = {
        "max-entries": source.max_entries,
        "total-entries": len(snapshot),
        "total-ip4-entries": len(snapshot) - ipv6,
        "total-ip6-entries": ipv6,
    }
    return {name: str(value) for name, value in values.items()} | {"active-ipv4": "true", "active-ipv6": "true"}


def _first_unknown(path: str) -> str:
    """The word of `path` that leads nowhere, or its last one if the path exists but takes no such request."""
    known = TREE
    words: Iterable[str] = [word for word in path.split("/") if word]
    word = ""
    for word in words:
        if word not in known:
            return word
        known = known[word]
    return word


def _shown(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
