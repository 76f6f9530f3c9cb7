"""What a REST request asks for: its query string or its body, read strictly."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
from flask import Request
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import UnsupportedMediaType

from ctweb.table import query_words
from ctweb.table.facts import Facts, Index
from ctweb.table.filter_language import says_nothing
from ctweb.table.query import QueryError, UnknownField, select
from ctweb.table.query_words import Words
from ctweb.web.rest_menus import ID, shown

Value = str | int | float | bool | list[str] | None
Body = dict[str, Value]

PROPLIST = (".proplist", "_proplist")  # MikroTik's manual writes both
LOOKS = ("detail", "show-ids", "stats", "terse", "value-list", "without-paging")
"""Arguments of RouterOS's print that say how a terminal shows rows; they change nothing here."""

MISSING_ID = (
    'missing .id: remove takes ids such as "*1,*2" in .id, or a filter that is not empty in .query or where; '
    "nothing was removed"
)


class ParameterError(Exception):
    """An argument that is refused, in RouterOS's words."""


@dataclass(frozen=True)
class Question:
    """Which connections are meant, and what is to be told of them. `names` None: all properties."""

    equal: Mapping[str, str] = field(default_factory=dict)
    where: str = ""
    words: Words | None = None
    ids: tuple[int, ...] | None = None
    names: Collection[str] | None = None
    count_only: bool = False

    def rows(self, facts: Facts, family: int) -> Index | None:
        """The rows of `family` that are meant; None: all. Raises ParameterError."""
        try:
            rows = select(facts, family=family, where=self.where, equal=self.equal, words=self.words)
        except UnknownField as error:
            raise ParameterError(f"unknown parameter {shown(error.field)}") from None
        except QueryError as error:
            raise ParameterError(str(error)) from None
        if self.ids is None:
            return rows
        named = np.flatnonzero(np.isin(facts.columns.id, np.array(self.ids, np.uint64)))
        return named if rows is None else np.intersect1d(named, rows, assume_unique=True)


def asked_by_get(arguments: MultiDict[str, str]) -> Question:
    """The question of a GET: `?protocol=tcp&.proplist=src-address`. Raises ParameterError."""
    equal = {}
    for name, values in arguments.lists():
        if len(values) > 1:
            raise ParameterError(f"{shown(name)} is given {len(values)} times")
        if name not in (*PROPLIST, "where", "count-only"):
            equal[name] = values[0]
    return Question(
        equal=equal,
        where=arguments.get("where", ""),
        names=_proplist(arguments.to_dict()),
        count_only=_flag("count-only", arguments.get("count-only", False)),
    )


def asked_by_print(body: Body) -> Question:
    """The question of POST .../print. Raises ParameterError."""
    _only(body, (*PROPLIST, ".query", "where", ".id", "count-only", *LOOKS))
    return Question(
        where=_text("where", body.get("where")),
        words=_words(body),
        ids=_ids(".id", body[".id"]) if ".id" in body else None,
        names=_proplist(body),
        count_only=_flag("count-only", body.get("count-only", False)),
    )


def asked_by_remove(body: Body) -> Question:
    """Which connections POST .../remove means: never all of them for want of a word. Raises ParameterError."""
    _only(body, (".id", "numbers", ".query", "where"))
    key = "numbers" if "numbers" in body else ".id"
    question = Question(
        where=_text("where", body.get("where")).strip(),
        words=_words(body),
        ids=_ids(key, body[key]) if key in body else None,
    )
    if question.ids is None and says_nothing(question.where) and question.words is None:
        raise ParameterError(MISSING_ID)
    return question


def asked_names(arguments: MultiDict[str, str] | Body) -> Collection[str] | None:
    """The properties that a request wants of one object; None: all. Raises ParameterError."""
    _only(arguments, (*PROPLIST, *LOOKS))
    return _proplist(dict(arguments))


def body_of(request: Request, *, required: bool = False) -> Body:
    """The JSON object in a request's body; unless `required`, no body is an empty one.

    Raises ParameterError, UnsupportedMediaType.
    """
    data = request.get_data()
    if not data.strip() and not required:
        return {}
    if not request.is_json:
        raise UnsupportedMediaType("arguments are sent as JSON, with Content-Type: application/json")
    try:
        return msgspec.json.decode(data, type=Body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ParameterError('expected a JSON object of arguments such as {"udp-timeout":"10s"}') from None


def settings_in(body: Body) -> dict[str, str]:
    """The settings in a body: values are strings, or JSON's own numbers and booleans. Raises ParameterError."""
    return {name: _text(name, value) for name, value in body.items()}


def _only(given: Collection[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            raise ParameterError(f"unknown parameter {shown(name)}")


def _text(name: str, value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        raise ParameterError(f"{shown(name)} takes a string, not a list")
    return "" if value is None else str(value)


def _flag(name: str, value: Value) -> bool:
    """RouterOS writes a flag that is set as `""`, as in `"count-only":""`."""
    text = _text(name, value).lower()
    if text not in ("", "yes", "true", "no", "false"):
        raise ParameterError(f"{name} takes yes or no, not {shown(text)!r}")
    return text not in ("no", "false")


def _several(name: str, value: Value) -> list[str]:
    """A list, or one string with commas."""
    return value if isinstance(value, list) else _text(name, value).split(",")


def _proplist(given: Mapping[str, Value] | Mapping[str, str]) -> Collection[str] | None:
    for name in PROPLIST:
        if name in given:
            return [word.strip() for word in _several(name, given[name])]
    return None


def _words(body: Body) -> Words | None:
    given = body.get(".query", [])
    try:
        return query_words.read(given if isinstance(given, list) else [_text(".query", given)])
    except UnknownField as error:
        raise ParameterError(f"unknown parameter {shown(error.field)}") from None
    except QueryError as error:
        raise ParameterError(str(error)) from None


def _ids(name: str, value: Value) -> tuple[int, ...]:
    ids = [word.strip() for word in _several(name, value) if word.strip()]
    for one in ids or [""]:
        if not ID.fullmatch(one):
            raise ParameterError(f'{name} takes ids such as *1F or "*1F,*20", not {shown(one)!r}')
    return tuple(int(one[1:], 16) for one in ids)
