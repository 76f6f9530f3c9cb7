"""Every parser of what others wrote, as a function of bytes: it answers or refuses in its own words, nothing else."""

from __future__ import annotations

import gzip
import io
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flask import Flask, request
from werkzeug.exceptions import HTTPException

from ctweb import config, state
from ctweb.capture import Capture, CaptureError
from ctweb.capture.source import DamagedError, Source
from ctweb.config import ConfigError
from ctweb.datapath.ctnetlink import DELETE, NEW, Malformed, done, messages
from ctweb.datapath.ctnetlink import parse as parse_entry
from ctweb.datapath.translations import item
from ctweb.settings import SettingError, Tracking, parse_changes
from ctweb.state import StateError
from ctweb.table.facts import facts_of
from ctweb.table.filter_language import parse, to_text
from ctweb.table.query import View, window
from ctweb.table.query_error import QueryError
from ctweb.table.snapshot import Snapshot
from ctweb.web.live import ViewError, read_view, with_watched
from ctweb.web.rest_arguments import ParameterError, asked_by_get, asked_by_print, asked_by_remove, body_of, settings_in
from ctweb.web.settings_page import complaints

EMPTY = Snapshot.empty()
_app = Flask("parsers")
_scratch = Path(tempfile.mkdtemp(prefix="parsers-"))


def filter_language(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    try:
        node = parse(text)
        window(facts_of(EMPTY), View(text, "", 0, 60, ""))
    except QueryError:
        return
    assert parse(to_text(node)) == node


def configuration(data: bytes) -> None:
    with suppress(ConfigError):
        config.parse(data, "ctweb.toml")


def saved_settings(data: bytes) -> None:
    (_scratch / state.FILE).write_bytes(data)
    try:
        tracking, saved = state.load(_scratch, Tracking())
    except StateError:
        return
    assert parse_changes(Tracking(), saved) == tracking


def capture(data: bytes) -> None:
    """The first byte says whether what follows is packed."""
    if data[:1] == b"\x1f":
        data = gzip.compress(data[1:], 1)
        stream: io.BufferedReader | gzip.GzipFile = gzip.GzipFile(fileobj=io.BytesIO(data))
    else:
        stream = io.BufferedReader(io.BytesIO(data))  # type: ignore[arg-type]
    try:
        for number, (_, wire, frame) in enumerate(Capture(Source(stream, "it"))):
            assert wire >= 0
            assert isinstance(frame, bytes)
            assert number <= len(data)
    except (CaptureError, DamagedError):
        pass


def netlink(data: bytes) -> None:
    try:
        for kind, _, start, end in messages(data):
            assert 0 <= start < end <= len(data)
            if kind in (NEW, DELETE):
                found = parse_entry(data, start, end)
                if found is not None:
                    item(found, found.mark, 1)
            else:
                done(data, kind, start)
    except (Malformed, OSError):  # OSError: the kernel's own refusal
        pass


def rest_body(data: bytes) -> None:
    with _app.test_request_context("/", method="POST", data=data, content_type="application/json"):
        try:
            body = body_of(request, required=True)
        except (ParameterError, HTTPException):
            return
        for ask in (asked_by_print, asked_by_remove):
            try:
                question = ask(body)
                for family in (4, 6):
                    question.rows(facts_of(EMPTY), family)
            except (ParameterError, QueryError):
                pass
        with suppress(ParameterError, SettingError):
            changes = settings_in(body)
            complaints(Tracking(), changes)
            parse_changes(Tracking(), changes)


def rest_query(data: bytes) -> None:
    if not is_utf8(data):
        return  # refused before anybody reads it (ctweb/web/guard.py)
    with _app.test_request_context("/", environ_overrides={"QUERY_STRING": data.decode("latin-1")}):
        try:
            question = asked_by_get(request.args)
            question.rows(facts_of(EMPTY), 4)
        except (ParameterError, QueryError, HTTPException):
            pass


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def websocket_message(data: bytes) -> None:
    for text in (data, data.decode(errors="replace")):
        try:
            asked = read_view(text)
        except ViewError:
            continue
        with_watched('{"type":"rows"}', EMPTY, asked.watch)


PARSERS: dict[str, Callable[[bytes], None]] = {
    "filter": filter_language, "config": configuration, "state": saved_settings, "capture": capture,
    "netlink": netlink, "rest-body": rest_body, "rest-query": rest_query, "websocket": websocket_message,
}  # fmt: skip
