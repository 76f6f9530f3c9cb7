"""Who may ask: the checks before every request, and the headers on every answer.

A page of another site must neither read nor change anything here. Against DNS rebinding the Host header must name this
server; against cross-site requests a websocket and every state-changing request must come from this server's own pages
or from no page at all (curl, scripts).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Request, Response, abort, request
from gunicorn.http.errors import NoMoreData, ParseException
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_BODY = 64 * 1024  # bytes; the largest sensible request is a settings object

HEADERS = {
    "Cache-Control": "no-store",  # files say otherwise themselves
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_WHOLE_TARGET = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")  # a request for http://HOST/..., as to a proxy


class _Request(Request):
    """A body is whole, or refused. werkzeug takes what arrived of one whose sender went, and cuts off in silence one
    in chunks that is longer than MAX_CONTENT_LENGTH.
    """

    def get_data(self, *args: Any, **options: Any) -> Any:
        try:
            data = super().get_data(*args, **options)
        except NoMoreData:
            raise BadRequest("the body ended before its last chunk") from None
        except ParseException as error:
            raise BadRequest(f"the body's chunks cannot be read: {error}") from None
        said, limit = self.content_length, self.max_content_length
        if said is None and limit is not None and len(data) >= limit:
            raise RequestEntityTooLarge
        if said is not None and len(data) < said:
            raise BadRequest(f"the body ended after {len(data)} of {said} bytes")
        return data


def protect(app: Flask, hosts: Collection[str]) -> None:
    """Put the checks and the headers on `app`, which listens on `hosts` (names or addresses)."""
    app.request_class = _Request
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY

    @app.before_request
    def check() -> None:
        header = request.headers.get("Host")
        missing = header is None and request.environ["SERVER_PROTOCOL"] != "HTTP/1.0"
        if missing or "," in (header or ""):  # two of them come as a list
            abort(400, "it takes one header Host")
        for host in _hosts_named(request):
            if not host_is_ours(_host_name(host), hosts):
                abort(421, f"this server is not {host!r}: open it by its address")
        try:
            request.query_string.decode()
        except UnicodeDecodeError:
            abort(400, "the address is not UTF-8")
        websocket = request.headers.get("Upgrade", "").lower() == "websocket"
        if (websocket or request.method not in SAFE_METHODS) and not comes_from_ourselves(request):
            abort(403, "a page of another origin may not do this")

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response


def _hosts_named(request: Request) -> list[str]:
    """The Host header, and the host of a request target that is a whole URL: it stands above the header."""
    target = _WHOLE_TARGET.match(request.environ.get("RAW_URI", ""))
    return [request.host] if target is None else [request.host, target[1]]


def host_is_ours(name: str, hosts: Collection[str]) -> bool:
    """Whether a Host of this `name` (no port, no brackets) can be meant for a server listening on `hosts`.

    Rebinding needs a name that an attacker controls, so where the server listens on all addresses any address will do.
    """
    if name in LOOPBACK_NAMES or name in {host.lower() for host in hosts}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return any(host in ("0.0.0.0", "::") for host in hosts)


def comes_from_ourselves(request: Request) -> bool:
    """Whether `request` was made by a page of this server, or by no page.

    Browsers send at least one of the two headers with every request that is checked for it.
    """
    origin = request.headers.get("Origin")
    # Without TLS of ours a proxy before us may have it.
    schemes = ("https",) if request.is_secure else ("http", "https")
    if origin is not None and _authority(origin, schemes) != request.host.lower():
        return False
    return request.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")


def _authority(origin: str, schemes: Collection[str]) -> str | None:
    """`host:port` of an Origin as a Host header would have it, or None when it names no web page."""
    try:
        url = urlsplit(origin)
    except ValueError:
        return None
    return url.netloc.lower() if url.scheme in schemes else None


def _host_name(host: str) -> str:
    """The name in a Host header, in lower case, without port and brackets; empty when it is malformed."""
    try:
        url = urlsplit(f"//{host}")
        return url.hostname or "" if url.port != 0 else ""
    except ValueError:  # no address, or no port
        return ""
