"""The live table: `/live`, a websocket that gets one message each sweep with the rows its view shows.

Protocol: docs/architecture.md. Who wants the same view gets the same encoded message. A client that is behind gets the
newest snapshot when it is ready for one, never a backlog.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
import numpy as np
from flask import Flask, request
from flask.typing import ResponseReturnValue
from flask_sock import Sock
from msgspec import Meta
from simple_websocket import ConnectionClosed
from werkzeug.exceptions import BadRequest
from wsproto.utilities import ProtocolError

from ctweb.enabled import Enabled
from ctweb.host_names import HostNames
from ctweb.table.facts import SECOND, facts_of
from ctweb.table.groups import group_window
from ctweb.table.query import QueryError, View, window
from ctweb.table.rows import page_rows
from ctweb.table.snapshot import Snapshot
from ctweb.tracker import TableSource
from ctweb.version import VERSION
from ctweb.web import settings_page, websocket
from ctweb.web.auth import caller
from ctweb.web.rest_answers import error_body

log = logging.getLogger(__name__)

CLIENTS = 64  # websockets at once; each holds a request thread, and requests need some too (server.THREADS)
GAP_SECONDS = 0.05  # at least so long between two answers to one client, however often it changes its view
CLOSE_SECONDS = 0.5  # for a client to say goodbye in its turn

GOING_AWAY, POLICY_VIOLATION, TRY_AGAIN_LATER = 1001, 1008, 1013

NO_PAGE = "this is a websocket, which a browser's page opens; for one answer ask /rest/ip/firewall/connection"

_EMPTY = Snapshot.empty()
_PLACE = re.compile(r" - at `\$\.?([^`]*)`$")


class ViewMessage(msgspec.Struct, forbid_unknown_fields=True, tag="view"):
    """What a client asks to see."""

    filter: str = ""
    sort: str = ""
    group: str = ""
    offset: Annotated[int, Meta(ge=0, lt=2**53)] = 0
    limit: Annotated[int, Meta(ge=0, le=500)] = 60
    names: bool = False
    watch: Annotated[list[Annotated[str, Meta(pattern=r"^\*[0-9A-Fa-f]{1,16}$")]], Meta(max_length=500)] = []


class Live:
    """All open websockets, and what they have in common."""

    def __init__(self, source: TableSource, enabled: Enabled) -> None:
        self._source = source
        self.enabled = enabled
        self._host_names = HostNames()
        self._messages = _Messages()
        self._lock = threading.Lock()
        self._clients: set[Any] = set()
        self._refused = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._wake, name="live", daemon=True)

    def add_to(self, app: Flask) -> None:
        """Serve the websocket at /live."""
        app.config["SOCK_SERVER_OPTIONS"] = websocket.SERVER_OPTIONS

        @Sock(app).route("/live")  # type: ignore[untyped-decorator]
        def live(client: Any) -> None:
            who = caller()
            assert who is not None
            self.serve(client, who.still_valid)

        @app.before_request
        def before_handshake() -> ResponseReturnValue | None:
            if request.path != "/live":
                return None
            if not websocket.asked_for(request):
                answer, status = error_body(426, NO_PAGE)
                answer.headers.update(websocket.UPGRADE)
                return answer, status
            websocket.prepare(request)
            return None

        @app.errorhandler(ProtocolError)
        def refuse(error: ProtocolError) -> ResponseReturnValue:
            return app.handle_user_exception(BadRequest(f"no websocket handshake: {error}"))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send every client away. Their requests end within a second or so."""
        self._stopped.set()
        self._notify()

    @property
    def counters(self) -> dict[str, int]:
        with self._lock:
            return {"websockets": len(self._clients), "websockets-refused": self._refused}

    def _news(self, snapshot: Snapshot) -> dict[str, Any]:
        """What every message says besides its rows."""
        verdict = self.enabled.verdict
        return {
            "counters": {**snapshot.counters, **self.counters, **self._host_names.counters},
            "tracking": {"active": verdict.active, "reason": verdict.reason},
            "settings": settings_page.version(self._source.tracking),
        }

    def _wake(self) -> None:
        """The thread `live`: tells every client's sender of a new snapshot."""
        seq = -1
        while not self._stopped.is_set():
            newest = self._source.wait(seq, 1.0).seq
            if newest != seq:
                seq = newest
                self._notify()

    def _notify(self) -> None:
        with self._lock:
            for client in self._clients:
                client.event.set()

    @contextmanager
    def _place(self, client: Any) -> Iterator[bool]:
        """A place among the CLIENTS for as long as it lasts; False if there is none."""
        with self._lock:
            free = len(self._clients) < CLIENTS
            if free:
                self._clients.add(client)
            else:
                self._refused += 1
        try:
            yield free
        finally:
            with self._lock:
                self._clients.discard(client)

    def serve(self, client: Any, still_valid: Callable[[], bool]) -> None:
        """One client, from its handshake to its end, in its request's thread. `client`: a simple_websocket.Server.

        still_valid: whether it could still sign in with what it showed; once it could not, it is sent away.
        """
        try:
            with self._place(client) as free:
                if free:
                    self.enabled.page_opened()
                    try:
                        self._talk(client, still_valid)
                    finally:
                        self.enabled.page_closed()
                else:
                    client.close(TRY_AGAIN_LATER, f"too many clients: {CLIENTS} are connected, try again later")
        except (ConnectionClosed, OSError) as error:
            log.debug("a websocket ended: %s", error)
        finally:
            client.thread.join(CLOSE_SECONDS)
            client.sock.hang_up()
            # It wakes at once. Were the socket closed under it, it would wait for its next ping, and clients that come
            # and go would leave hundreds of such threads behind.
            client.thread.join()

    def _talk(self, client: Any, still_valid: Callable[[], bool]) -> None:
        hello = {"type": "hello", "version": VERSION, "interval": 1.0}
        client.send(msgspec.json.encode(hello).decode())
        asked: Asked | None = None
        answered = -1  # the snapshot last sent, as long as the view stays the same
        while client.connected:
            if not self._stopped.is_set():  # who comes while it stops is told by nobody
                client.event.wait()
            client.event.clear()
            if self._stopped.is_set():
                client.close(GOING_AWAY, "the server is stopping")
                return
            if not still_valid():
                client.close(POLICY_VIOLATION, "signed out")
                return
            inbox = client.input_buffer
            if inbox.flooded:
                client.close(POLICY_VIOLATION, "too many messages at once")
                return
            while inbox:
                try:
                    asked = read_view(inbox.pop(0))
                    answered = -1
                except ViewError as error:
                    client.send(error.message)
            snapshot = self._source.snapshot
            if asked is not None and snapshot.seq != answered:
                began = time.monotonic()
                client.send(self._answer(snapshot, asked))
                answered = snapshot.seq
                # Who changes views all the time gets at most half a processor.
                time.sleep(max(GAP_SECONDS, time.monotonic() - began))

    def _answer(self, snapshot: Snapshot, asked: Asked) -> str:
        text = self._messages.rows(snapshot, asked.view, self._news(snapshot))
        if asked.watch:
            text = with_watched(text, snapshot, asked.watch)
        if asked.names:
            text = with_names(text, self._host_names)
        return text


@dataclass(frozen=True)
class Asked:
    """A view, the ids that are watched besides, and whether the hosts' names are wanted."""

    view: View
    watch: list[str]
    names: bool


class ViewError(Exception):
    """A view that cannot be used. `message`: the answer to its client."""

    def __init__(
        self, why: str, field: str | None = None, filter: str | None = None, position: int | None = None
    ) -> None:
        super().__init__(why)
        answer = {"type": "error", "message": why, "field": field, "filter": filter, "position": position}
        self.message = msgspec.json.encode({k: v for k, v in answer.items() if v is not None}).decode()


def read_view(text: str | bytes) -> Asked:
    """What a client's message asks for. Raises ViewError."""
    try:
        asked = msgspec.json.decode(text, type=ViewMessage)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        place = _PLACE.search(str(error))
        raise ViewError(f"no view: {_PLACE.sub('', str(error))}", place and place[1]) from None
    view = View(asked.filter, asked.sort, asked.offset, asked.limit, asked.group)
    try:
        _shown(_EMPTY, view)
    except QueryError as error:
        raise ViewError(str(error), error.field, view.filter, error.position) from None
    return Asked(view, asked.watch, asked.names)


def with_watched(text: str, snapshot: Snapshot, ids: list[str]) -> str:
    """The message `text` with the rows of these connections too and their age, null for those that have ended."""
    facts = facts_of(snapshot)
    wanted = np.array([int(one[1:], 16) for one in ids], np.uint64)
    index = np.flatnonzero(np.isin(facts.columns.id, wanted))
    rows = msgspec.json.decode(page_rows(facts, index))
    for row, created in zip(rows, facts.columns.created[index].tolist(), strict=True):
        row["age"] = max(0, facts.now - created) // SECOND
    watched = dict.fromkeys(ids) | {row[".id"]: row for row in rows}
    return f'{text[:-1]},"watched":{msgspec.json.encode(watched).decode()}}}'


class _Ends(msgspec.Struct, rename=lambda name: name.replace("_", "-")):
    """What of a row, or of a group, may be a host."""

    src_address: str = ""
    dst_address: str = ""
    reply_src_address: str = ""
    reply_dst_address: str = ""
    group: str = ""


class _Seen(msgspec.Struct):
    """The rows in a message."""

    rows: list[_Ends]
    watched: dict[str, _Ends | None] = {}
    group: str = ""


def with_names(text: str, names: HostNames) -> str:
    """The message `text` with the names of the hosts in its rows, as far as they are known."""
    seen = msgspec.json.decode(text, type=_Seen)
    hosts = set()
    for row in (*seen.rows, *seen.watched.values()):
        if row is not None:
            ends = (row.src_address, row.dst_address, row.reply_src_address, row.reply_dst_address)
            hosts |= {host_of(end) for end in ends}
            if seen.group.endswith("-address"):
                hosts.add(row.group)
    hosts.discard("")
    return f'{text[:-1]},"names":{msgspec.json.encode(names.of(hosts)).decode()}}}'


def host_of(end: str) -> str:
    """The address in `10.0.0.1:443`, `[2001:db8::1]:443`, or an address alone."""
    if end.startswith("["):
        return end[1:].partition("]")[0]
    return end.partition(":")[0] if end.count(":") == 1 else end


@dataclass
class _Message:
    """One view's rows, encoded by the first who asks; the others wait for it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    text: str | None = None


class _Messages:
    """The encoded messages of one snapshot, by view."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshot = _EMPTY
        self._made: dict[View, _Message] = {}

    def rows(self, snapshot: Snapshot, view: View, news: Mapping[str, Any]) -> str:
        with self._lock:
            if snapshot is not self._snapshot or len(self._made) > 2 * CLIENTS:  # views that nobody has any more
                self._snapshot, self._made = snapshot, {}
            message = self._made.setdefault(view, _Message())
        with message.lock:
            if message.text is None:
                message.text = _rows(snapshot, view, news)
            return message.text


def _rows(snapshot: Snapshot, view: View, news: Mapping[str, Any]) -> str:
    message = {
        "type": "rows",
        "seq": snapshot.seq,
        "time": round(snapshot.time * 1000),
        "offset": view.offset,
        "filter": view.filter,
        "sort": view.sort,
        **_shown(snapshot, view),
        **news,
    }
    return msgspec.json.encode(message).decode()


def _shown(snapshot: Snapshot, view: View) -> dict[str, Any]:
    """The rows or groups that `view` shows, as its message has them. Raises QueryError."""
    facts = facts_of(snapshot)
    if view.group:
        groups = group_window(facts, view)
        return {
            "group": view.group,
            "total": groups.total,
            "matched": groups.matched,
            "connections": groups.connections,
            "rows": groups.rows,
        }
    shown = window(facts, view)
    rows = msgspec.Raw(page_rows(facts, shown.indexes))
    return {"total": shown.total, "matched": shown.matched, "rows": rows}
