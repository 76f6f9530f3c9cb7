"""The RouterOS REST interface under /rest.

Its conventions are RouterOS's: every value is a string, properties that do not apply are left out, and errors are
`{"error": 400, "message": "Bad Request", "detail": "..."}`. The menus are listed in rest_menus.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from ctweb.settings import READ_ONLY, SettingError, UnknownSetting, as_routeros
from ctweb.state import StateError
from ctweb.table.facts import Facts, facts_of
from ctweb.table.rows import rest_rows
from ctweb.tracker import TableSource
from ctweb.web.rest_answers import error_body, rows_answer
from ctweb.web.rest_arguments import (
    ParameterError,
    Question,
    asked_by_get,
    asked_by_print,
    asked_by_remove,
    asked_names,
    body_of,
    settings_in,
)
from ctweb.web.rest_menus import CONNECTIONS, ID, IDENTITY, RESOURCE, TRACKING, Menu, refusal, shown
from ctweb.web.rest_system import Resource, accounted, identity

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def blueprint(source: TableSource) -> Blueprint:
    """Everything under /rest, answered from `source`."""
    rest = Blueprint("rest", __name__, url_prefix="/rest")
    for menu in CONNECTIONS:
        _add_connections(rest, menu, source)
    _add_object(rest, TRACKING, lambda: as_routeros(source.tracking) | _totals(source))
    resource = Resource()
    _add_object(rest, RESOURCE, lambda: resource.values() | accounted(source.snapshot.counters))
    _add_object(rest, IDENTITY, identity)

    @rest.post(f"/{TRACKING.path}/set")
    def set_tracking() -> ResponseReturnValue:
        try:
            source.set_tracking(settings_in(body_of(request, required=True)))
        except UnknownSetting as error:
            known = error.name in READ_ONLY
            return error_body(400, str(error) if known else f"unknown parameter {shown(error.name)}")
        except SettingError as error:
            return error_body(400, str(error))
        return jsonify([])

    @rest.route("/", defaults={"path": ""}, methods=METHODS)
    @rest.route("/<path:path>", methods=METHODS)
    def nothing(path: str) -> ResponseReturnValue:
        return error_body(400, refusal(request.method, path))

    @rest.errorhandler(StateError)
    @rest.errorhandler(OSError)
    def fail(error: Exception) -> ResponseReturnValue:
        return error_body(500, str(error))

    @rest.errorhandler(ParameterError)
    def refuse(error: ParameterError) -> ResponseReturnValue:
        return error_body(400, str(error))

    return rest


def _add_connections(rest: Blueprint, menu: Menu, source: TableSource) -> None:
    """A tree of connections: all of them, one of them, print and remove."""
    family = menu.family or 0
    place = f"/{menu.path}"

    def found(question: Question) -> ResponseReturnValue:
        facts = facts_of(source.snapshot)
        index = question.rows(facts, family)
        if question.count_only:
            return jsonify({"ret": str(len(facts) if index is None else len(index))})
        return rows_answer(facts, index, question.names)

    def remove(question: Question) -> int:
        """How many were removed. Raises NotFound if ids were asked for and none of them is there."""
        facts = facts_of(source.snapshot)
        rows = question.rows(facts, family)
        ids = facts.columns.id if rows is None else facts.columns.id[rows]
        if question.ids is not None and not len(ids):
            raise NotFound
        return source.remove(ids.tolist())

    def connections() -> ResponseReturnValue:
        return found(asked_by_get(request.args))

    def print_connections() -> ResponseReturnValue:
        return found(asked_by_print(body_of(request)))

    def remove_connections() -> ResponseReturnValue:
        question = asked_by_remove(body_of(request))
        count = remove(question)
        return jsonify([] if question.ids is not None else {"ret": str(count)})

    def connection(identity: str) -> ResponseReturnValue:
        if not identity.startswith("*"):
            return error_body(400, refusal(request.method, f"{menu.path}/{identity}"))
        if not ID.fullmatch(identity):
            raise NotFound
        question = Question(ids=(int(identity[1:], 16),), names=asked_names(request.args))
        if request.method == "DELETE":
            remove(question)
            return Response(status=204)
        return jsonify(_one_row(facts_of(source.snapshot), question, family))

    name = menu.path.replace("/", "-")
    rest.add_url_rule(place, name, connections)
    rest.add_url_rule(f"{place}/print", f"{name}-print", print_connections, methods=["POST"])
    rest.add_url_rule(f"{place}/remove", f"{name}-remove", remove_connections, methods=["POST"])
    rest.add_url_rule(f"{place}/<identity>", f"{name}-one", connection, methods=["GET", "DELETE"])


def _one_row(facts: Facts, question: Question, family: int) -> dict[str, str]:
    """The one row with the id of `question`. Raises NotFound."""
    rows = question.rows(facts, family)
    if rows is None or not len(rows):
        raise NotFound
    return rest_rows(facts, rows, question.names)[0]


def _add_object(rest: Blueprint, menu: Menu, values: Callable[[], Mapping[str, str]]) -> None:
    """A menu of one object. GET answers it; print, as every print, a list."""

    def chosen(names: Collection[str] | None) -> dict[str, str]:
        return {name: value for name, value in values().items() if names is None or name in names}

    def show() -> ResponseReturnValue:
        return jsonify(chosen(asked_names(request.args)))

    def print_it() -> ResponseReturnValue:
        return jsonify([chosen(asked_names(body_of(request)))])

    name = menu.path.replace("/", "-")
    rest.add_url_rule(f"/{menu.path}", name, show)
    rest.add_url_rule(f"/{menu.path}/print", f"{name}-print", print_it, methods=["POST"])


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
    verdict = source.verdict
    texts = {name: str(value) for name, value in values.items()}
    texts |= {"active": "true" if verdict.active else "false", "reason": verdict.reason}
    return texts | {"active-ipv4": "true", "active-ipv6": "true"}
