"""`/openapi.json`: what is served, as OpenAPI 3.1, made of the tables that serve it.

Menus are those of rest_menus.py, properties and what they take those of the table, settings those of settings.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, jsonify

from ctweb.settings import READ_ONLY, SETTINGS, Setting
from ctweb.table.fields import FIELDS
from ctweb.table.properties import PROPERTIES, Kind, Property
from ctweb.table.rows import REST_PROPERTIES
from ctweb.version import VERSION
from ctweb.web.rest_arguments import LOOKS, MISSING_ID
from ctweb.web.rest_menus import IDENTITY, MENUS, RESOURCE, TRACKING, Menu
from ctweb.web.rest_system import IDENTITY_NAMES, RESOURCE_NAMES

Schema = dict[str, Any]

_STRING: Schema = {"type": "string"}
_YES: Schema = {"type": "string", "enum": ["true", "false"]}
_WHOLE: Schema = {"type": "string", "pattern": r"^[0-9]+$"}
_TIME: Schema = {"type": "string", "pattern": r"^([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$"}
_ID: Schema = {"type": "string", "pattern": r"^\*[0-9A-Fa-f]{1,16}$"}
_SEVERAL: Schema = {"anyOf": [_STRING, {"type": "array", "items": _STRING}]}
_FLAG: Schema = {"anyOf": [{"type": "string", "enum": ["", "yes", "no", "true", "false"]}, {"type": "boolean"}]}
_BY_KIND: dict[Kind, Schema] = {
    Kind.ID: _ID,
    Kind.ADDRESS: _STRING,
    Kind.PORT: _WHOLE,
    Kind.NUMBER: _WHOLE,
    Kind.RATE: _WHOLE,
    Kind.TIME: _TIME,
    Kind.MARK: _STRING,
    Kind.FLAG: _YES,
}

_SIGN_INS: dict[str, Schema] = {
    "basic": {"type": "http", "scheme": "basic", "description": "a user of `ctweb user`"},
    "session": {
        "type": "apiKey", "in": "cookie", "name": "ctweb-8291",
        "description": "the page's cookie; its name ends with the port, and begins with __Host- over HTTPS",
    },
    "local": {
        "type": "http", "scheme": "bearer",
        "description": "the token in running.json in the state directory, for root alone; another one each start",
    },
}  # fmt: skip

_PROPLIST = "only these properties, names with commas between them; `.id` always comes back"
_WHERE = "a filter as the page's search box takes it"
_QUERY = (
    "RouterOS's query words, all of which must hold: name, -name, name=value, <name=value, >name=value, and # with "
    "the operations & | ! on the results so far"
)


def add_to(app: Flask) -> None:
    """Serve the document."""

    @app.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(document())


@cache
def document() -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, Any] = {}
    for menu in MENUS.values():
        paths |= _object_paths(menu) if menu.family is None else _connection_paths(menu)
    paths[f"/rest/{TRACKING.path}/set"] = {
        "post": _operation(
            "Change settings, at once and for good: all that are given, or none",
            {"200": _answer("Done", {"type": "array", "maxItems": 0})},
            errors=(413, 415, 500),
            body=_reference("TrackingChanges"),
            required=True,
            changes=True,
        )
    }
    paths["/healthz"] = {
        "get": _operation(
            "Whether the table shown is the table",
            {"200": _answer("It is", _reference("Health")), "503": _answer("It is stale", _reference("Health"))},
            errors=(),
            public=True,
        )
    }
    text = {"text/plain": {"schema": _STRING}, "application/openmetrics-text": {"schema": _STRING}}
    paths["/metrics"] = {
        "get": _operation("Counters for Prometheus", {"200": {"description": "They", "content": text}}, errors=())
    }
    paths["/openapi.json"] = {
        "get": _operation("This document", {"200": _answer("It", {"type": "object"})}, errors=())
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ctweb",
            "version": VERSION,
            "description": "The connections of this machine, in the form of RouterOS's REST interface.",
        },
        "security": [{name: []} for name in _SIGN_INS],
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": _SIGN_INS},
    }


def _connection_paths(menu: Menu) -> dict[str, Any]:
    path = f"/rest/{menu.path}"
    rows = {"type": "array", "items": _reference("Connection")}
    found = {"200": _answer("The rows, or their number", {"anyOf": [rows, _reference("Count")]})}
    one = {"name": "id", "in": "path", "required": True, "schema": _ID}
    return {
        path: {
            "get": _operation(
                menu.about, found, errors=(503,), parameters=[*_filters(), *_looks()]
            )
        },
        f"{path}/print": {
            "post": _operation(menu.about, found, errors=(413, 415, 503), body=_reference("Print")),
        },
        f"{path}/remove": {
            "post": _operation(
                "Remove connections; the next packet of one starts a new one",
                {
                    "200": _answer(
                        "Done: nothing, or how many a filter meant",
                        {"anyOf": [{"type": "array", "maxItems": 0}, _reference("Count")]},
                    )
                },
                errors=(404, 413, 415, 500),
                body=_reference("Remove"),
                required=True,
                changes=True,
            )
        },
        f"{path}/{{id}}": {
            "parameters": [one],
            "get": _operation(
                "One connection",
                {"200": _answer("Its row", _reference("Connection"))},
                errors=(404,),
                parameters=[_parameter(".proplist", _PROPLIST)],
            ),
            "delete": _operation(
                "Remove one connection",
                {"204": {"description": "Done"}},
                errors=(404, 500),
                changes=True,
            ),
        },
    }


def _object_paths(menu: Menu) -> dict[str, Any]:
    path = f"/rest/{menu.path}"
    # With a `.proplist` there is less in it.
    schema = _reference({TRACKING: "Tracking", RESOURCE: "Resource", IDENTITY: "Identity"}[menu])
    return {
        path: {
            "get": _operation(
                menu.about,
                {"200": _answer("It", schema)},
                errors=(),
                parameters=[_parameter(".proplist", _PROPLIST)],
            )
        },
        f"{path}/print": {
            "post": _operation(
                menu.about,
                {"200": _answer("It", {"type": "array", "items": schema, "minItems": 1, "maxItems": 1})},
                errors=(413, 415),
                body=_closed({".proplist": _SEVERAL, **dict.fromkeys(LOOKS, _STRING)}),
            )
        },
    }


def _schemas() -> dict[str, Schema]:
    return {
        "Connection": _closed({name: _property(PROPERTIES[name]) for name in REST_PROPERTIES}, required=[".id"]),
        "Tracking": _closed(
            {name: _setting(setting) for name, setting in SETTINGS.items()} | dict.fromkeys(READ_ONLY, _STRING)
        ),
        "TrackingChanges": _closed({name: _STRING | _taking(s.takes, s.doc) for name, s in SETTINGS.items()}),
        "Resource": _closed({name: _STRING | {"description": about} for name, about in RESOURCE_NAMES.items()}),
        "Identity": _closed({name: _STRING | {"description": about} for name, about in IDENTITY_NAMES.items()}),
        "Count": _closed({"ret": _WHOLE}, required=["ret"]),
        "Print": _closed(
            {
                ".proplist": _SEVERAL | {"description": _PROPLIST},
                ".query": {"type": "array", "items": _STRING, "description": _QUERY},
                "where": _STRING | {"description": _WHERE},
                ".id": _SEVERAL | {"description": "only these connections"},
                "count-only": _FLAG | {"description": "answer the number of rows only"},
                **dict.fromkeys(LOOKS, _STRING),
            }
        ),
        "Remove": _closed(
            {
                ".id": _SEVERAL | {"description": "ids, in a list or with commas between them"},
                ".query": {"type": "array", "items": _STRING, "description": _QUERY},
                "where": _STRING | {"description": _WHERE},
            }
        )
        | {"minProperties": 1, "description": MISSING_ID},
        "Health": {"type": "object", "required": ["status"], "properties": {"status": _STRING}},
        "Error": _closed(
            {"error": {"type": "integer"}, "message": _STRING, "detail": _STRING}, required=["error", "message"]
        ),
    }


def _property(prop: Property) -> Schema:
    if prop.kind is not Kind.CHOICE:
        return _BY_KIND[prop.kind]
    named = [name for name in prop.names if not name.isdecimal()]
    return _STRING | {"enum": named} if len(named) == len(prop.names) else _STRING


def _setting(setting: Setting) -> Schema:
    if setting.kind == "choice":
        return _STRING | {"enum": list(setting.choices), "description": setting.doc}
    return (_TIME if setting.kind == "time" else _YES) | {"description": setting.doc}


def _taking(takes: str, about: str) -> Schema:
    return {"description": f"{about}; takes {takes}"}


def _filters() -> list[Schema]:
    """A query parameter for each property."""
    return [_parameter(name, f"takes {FIELDS[name].takes}") for name in REST_PROPERTIES]


def _looks() -> list[Schema]:
    return [
        _parameter(".proplist", _PROPLIST),
        _parameter("where", _WHERE),
        _parameter("count-only", "answer the number of rows only", {"enum": ["", "yes", "no", "true", "false"]}),
    ]


def _parameter(name: str, about: str, more: Mapping[str, Any] | None = None) -> Schema:
    return {"name": name, "in": "query", "description": about, "schema": _STRING | dict(more or {})}


def _closed(properties: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    """An object of these properties and no others."""
    made: Schema = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return made | ({"required": list(required)} if required else {})


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(about: str, schema: Schema) -> Schema:
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def _operation(
    about: str,
    answers: Mapping[str, Schema],
    *,
    errors: Iterable[int],
    parameters: list[Schema] | None = None,
    body: Schema | None = None,
    required: bool = False,
    changes: bool = False,
    public: bool = False,
) -> Schema:
    """One operation. changes: it takes the role full. public: it takes no sign-in."""
    responses = dict(answers)
    everywhere = (400, 421, 429, 431, *(() if public else (401,)), *((403,) if changes or body is not None else ()))
    for status in sorted({*errors, *everywhere}):
        responses[str(status)] = _answer(_error(status), _reference("Error"))
    made: Schema = {"summary": about, "responses": responses}
    if public:
        made["security"] = []
    if parameters:
        made["parameters"] = parameters
    if body is not None:
        made["requestBody"] = {"required": required, "content": {"application/json": {"schema": body}}}
    return made


def _error(status: int) -> str:
    return {
        400: "What is refused; detail says which argument, and what it takes",
        401: "It takes a sign-in",
        403: "It takes the role full, a cookie the header X-CSRF-Token, and no page of another site may do it",
        421: "This server has another name",
        429: "Too many failed sign-ins; Retry-After says when to come back",
        503: "Too many large answers at once",
    }.get(status, HTTPStatus(status).phrase)
