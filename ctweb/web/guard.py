"""Who may ask: the checks before every request, and the headers on every answer.

A page of another site must neither read nor change anything here. Against DNS rebinding the Host header must name this
server; against cross-site requests a websocket and every state-changing request must come from this server's own pages
or from no page at all (curl, scripts).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Request, Response, abort, request
from werkzeug.exceptions import RequestEntityTooLarge

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


class _Request(Request):
    """A body in chunks that is longer than MAX_CONTENT_LENGTH is refused, where werkzeug cuts it off in silence."""

    def get_data(self, *args: Any, **options: Any) -> Any:
        data = super().get_data(*args, **options)
        limit = self.max_content_length
        if self.content_length is None and limit is not None and len(data) >= limit:
            raise RequestEntityTooLarge
        return data


def protect(app: Flask, hosts: Collection[str]) -> None:
    """Put the checks and the headers on `app`, which listens on `hosts` (names or addresses)."""
    app.request_class = _Request
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY

    @app.before_request
    def check() -> None:
        if not host_is_ours(_host_name(request.host), hosts):
            abort(421, f"this server is not {request.host!r}: open it by its address")
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
