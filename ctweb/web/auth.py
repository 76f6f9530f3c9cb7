"""Who asks, and whether he may: a session's cookie, HTTP Basic, or the token of this machine's own command line.

Everything takes a sign-in except what PUBLIC lists. Everything that is no GET takes the role full except what a reader
may do, and, if it comes with a cookie, the session's CSRF token.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from flask import Flask, Request, Response, g, redirect, request
from flask.typing import ResponseReturnValue

from ctweb.users import Role, Users
from ctweb.web.guard import SAFE_METHODS
from ctweb.web.password_check import PasswordCheck, SlowDown
from ctweb.web.rest_answers import error_body
from ctweb.web.sessions import Sessions

PUBLIC = frozenset({
    "/healthz", "/sign-in", "/page/sign-in", "/page/session",
    "/static/css/sign-in.css", "/static/css/theme.css", "/static/icon.svg",
    "/static/js/sign-in.js", "/static/js/theme-first.js",
})  # fmt: skip
READER_MAY = re.compile(r"/rest/.+/print|/page/settings/check|/page/sign-out")
CSRF_HEADER = "X-CSRF-Token"
CHALLENGE = 'Basic realm="ctweb", charset="UTF-8"'


@dataclass(frozen=True)
class Caller:
    """Who asks. `csrf`: what his changes must carry; None: nothing, no browser sends his credentials by itself.

    `still_valid`: whether he could still ask, now; to be asked while an answer goes on and on.
    """

    name: str
    role: Role
    still_valid: Callable[[], bool]
    csrf: str | None = None


class Auth:
    """token: what the command line of this machine shows, as it stands in a file that only root reads."""

    def __init__(self, users: Users, sessions: Sessions, token: str) -> None:
        self.users = users
        self.sessions = sessions
        self.check = PasswordCheck(users)
        self._token = token.encode()

    def protect(self, app: Flask) -> None:
        """Ask everybody who comes to `app`."""

        @app.before_request
        def ask() -> ResponseReturnValue | None:
            g.caller = None
            g.caller = caller = self._caller(request)
            if request.path in PUBLIC:
                return None
            if caller is None:
                return _unknown(request)
            if request.method in SAFE_METHODS:
                return None
            if caller.csrf is not None and not _same(request.headers.get(CSRF_HEADER, ""), caller.csrf):
                return error_body(403, f"the header {CSRF_HEADER} does not carry the session's token: reload the page")
            if caller.role != "full" and not (request.method == "POST" and READER_MAY.fullmatch(request.path)):
                return error_body(403, "this takes the role full: the role read looks, but changes nothing")
            return None

        app.register_error_handler(SlowDown, _slow_down)

    def _caller(self, request: Request) -> Caller | None:
        """Who asks; None: nobody knows. What the Authorization header says goes before a cookie. Raises SlowDown."""
        if "Authorization" not in request.headers:
            return self._of_session(request.cookies.get(cookie_name(request), ""))
        shown = request.authorization
        if shown is None:
            return None
        if shown.type == "bearer" and shown.token:
            return Caller("", "full", lambda: True) if _same(shown.token, self._token) else None
        if shown.type != "basic" or shown.username is None or shown.password is None:
            return None
        name = shown.username
        user = self.check.user(name, shown.password, request.remote_addr or "")
        if user is None:
            return None
        return Caller(name, user.role, lambda: self.users.get(name) == user)

    def _of_session(self, token: str) -> Caller | None:
        found = self.sessions.find(token) if token else None
        if found is None:
            return None
        session, user = found
        return Caller(session.name, user.role, lambda: self.sessions.find(token) is not None, session.csrf)


def caller() -> Caller | None:
    """Who asks, in a request; None: he is not signed in, which only what is PUBLIC meets."""
    found: Caller | None = g.get("caller")
    return found


def cookie_name(request: Request) -> str:
    """One for each port: cookies do not tell ports apart, and ssh may lead several of them to several machines."""
    port = urlsplit(f"//{request.host}").port
    name = f"ctweb-{port}" if port else "ctweb"
    return f"__Host-{name}" if request.is_secure else name


def _slow_down(error: SlowDown) -> Response:
    """The refusal of one who has to wait."""
    answer, _ = error_body(429, f"{error}: try again in {error.seconds} s")
    answer.status_code = 429
    answer.headers["Retry-After"] = str(error.seconds)
    return answer


def _unknown(request: Request) -> ResponseReturnValue:
    """To the sign-in page for who opens the page, 401 for all else, in RouterOS's form.

    Basic is asked for where no page asks: a browser would show a dialog of its own, and send the password ever after.
    """
    if request.path == "/" and request.method in SAFE_METHODS:
        query = request.query_string.decode("latin-1")
        return redirect(f"/sign-in?{query}" if query else "/sign-in", 303)
    answer, status = error_body(401)
    if not any(name in request.headers for name in ("Sec-Fetch-Mode", "Cookie", CSRF_HEADER)):
        answer.headers["WWW-Authenticate"] = CHALLENGE
    return answer, status


def _same(shown: str, wanted: str | bytes) -> bool:
    """Compares in constant time."""
    expected = wanted.encode() if isinstance(wanted, str) else wanted
    return secrets.compare_digest(shown.encode("utf-8", "surrogatepass"), expected)
