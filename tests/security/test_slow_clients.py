"""Clients that drip: heads, and bodies."""

from __future__ import annotations

import socket

import pytest
from running import PORT, Ctweb, drip, signed_in

from ctweb.web import server
from security.people import IDENTITY, TRACKING, head

SET = TRACKING + "/set"

pytestmark = pytest.mark.usefixtures("unmoved")


def test_slow_heads_and_bodies(ctweb: Ctweb):
    """As many dripping clients as there are threads; after the deadline everybody is served again, they are gone."""
    slow = []
    headers = {"Content-Type": "application/json", "Content-Length": "5000"}
    body = head("POST", SET, signed_in(ctweb.state_dir) | headers)
    for number in range(server.THREADS):
        sock = socket.create_connection(("127.0.0.1", PORT), timeout=60)
        sock.sendall(body + b'{"' if number % 2 else head("GET", "/healthz", {})[:-2])
        slow.append(sock)
    drip(slow)
    assert ctweb.get(IDENTITY)[0] == 200
