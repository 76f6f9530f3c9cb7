"""The sign-in page, and what it and the page ask: signing in and out, and who is signed in."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
from flask import Flask, Response, jsonify, make_response, request, send_from_directory
from flask.typing import ResponseReturnValue

from ctweb.users import Role
from ctweb.web.auth import Auth, caller, cookie_name
from ctweb.web.rest_answers import error_body

WRONG = "The name or the password is wrong."
NOBODY = "There is no user yet. On the machine itself, as root: ctweb user set NAME"


class Credentials(msgspec.Struct, forbid_unknown_fields=True):
    """What the sign-in page sends."""

    name: str
    password: str


def add_to(app: Flask, auth: Auth, static: Path) -> None:
    """Serve it. `static`: where the pages lie."""

    @app.get("/sign-in")
    def page() -> Response:
        return send_from_directory(static, "sign-in.html")

    @app.get("/page/session")
    def session() -> ResponseReturnValue:
        who = caller()
        return _session(who.name, who.role, who.csrf) if who is not None else _session("", "none", None)

    @app.post("/page/sign-in")
    def sign_in() -> ResponseReturnValue:
        if not request.is_json:
            return error_body(415, "it takes application/json")
        try:
            given = msgspec.json.decode(request.get_data(), type=Credentials)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return error_body(400, f"no credentials: {error}")
        if not auth.users.now():
            return error_body(401, NOBODY)
        user = auth.check.user(given.name, given.password, request.remote_addr or "")
        if user is None:
            return error_body(401, WRONG)
        auth.sessions.end(request.cookies.get(cookie_name(request), ""))
        token, session = auth.sessions.begin(given.name, user)
        answer = make_response(_session(given.name, user.role, session.csrf))
        answer.set_cookie(
            cookie_name(request), token, path="/", secure=request.is_secure, httponly=True, samesite="Strict"
        )
        return answer

    @app.post("/page/sign-out")
    def sign_out() -> Response:
        auth.sessions.end(request.cookies.get(cookie_name(request), ""))
        answer = make_response("", 204)
        answer.delete_cookie(
            cookie_name(request), path="/", secure=request.is_secure, httponly=True, samesite="Strict"
        )
        return answer


def _session(name: str, role: Role | Literal["none"], csrf: str | None) -> Response:
    return jsonify({"name": name, "role": role, "csrf": csrf or ""})
