"""Clients that drip heads and bodies, and those that leave in the middle of one."""

from __future__ import annotations

import socket

import pytest
from running import PORT, Ctweb, drip, signed_in

from ctweb.web import server
from security.people import IDENTITY, TRACKING, head, raw, status_of

SET = TRACKING + "/set"

CHANGE = b'{"udp-timeout":"11m"}'

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


@pytest.mark.parametrize(
    ("how", "body"),
    [
        ({"Content-Length": str(len(CHANGE) + 1)}, CHANGE),
        ({"Content-Length": "50"}, b""),
        ({"Transfer-Encoding": "chunked"}, b"%x\r\n%s\r\n" % (len(CHANGE), CHANGE)),
        ({"Transfer-Encoding": "chunked"}, b"%x\r\n%s" % (len(CHANGE) + 1, CHANGE)),
        ({"Transfer-Encoding": "chunked"}, b"%x\r\n%s\r\nno length\r\n" % (len(CHANGE), CHANGE)),
    ],
)
def test_bodies_that_are_cut_off(ctweb: Ctweb, how, body):
    """What has arrived of them would be a change that makes sense: nothing is changed (`unmoved`)."""
    headers = {"Content-Type": "application/json", "Connection": "close", **signed_in(ctweb.state_dir), **how}
    assert status_of(raw(head("POST", SET, headers) + body)) == 400
