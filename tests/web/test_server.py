"""The HTTP server against clients that say nothing, or drip, or never listen."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from running import ADDRESS, PORT, Ctweb, drip, signed_in

from ctweb.web import server


def connect() -> socket.socket:
    return socket.create_connection(("127.0.0.1", PORT), timeout=60)


def test_more_silent_connections_than_there_is_room_for_shut_nobody_out(ctweb: Ctweb):
    silent = [connect() for _ in range(server.CONNECTIONS + 50)]
    assert ctweb.get("/healthz")[0] == 200
    for sock in silent:
        sock.close()


def test_a_silent_connection_is_closed(ctweb: Ctweb):
    with connect() as sock:
        assert sock.recv(1) == b""


def test_request_heads_that_drip_do_not_hold_all_threads(ctweb: Ctweb):
    dripping = [connect() for _ in range(server.THREADS)]
    for sock in dripping:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
    drip(dripping)
    assert ctweb.get("/healthz")[0] == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: " + ADDRESS.encode() + b"\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_what_is_no_request_is_answered_with_a_refusal(ctweb: Ctweb, request_bytes):
    with connect() as sock:
        sock.sendall(request_bytes)
        answer = sock.recv(4096)
    assert answer.split(b" ")[1][:1] == b"4" or answer.split(b" ")[1] == b"501", answer
    assert b"Traceback" not in answer
    assert all(len(line) < 1000 and line.isprintable() for line in ctweb.log.read_text().splitlines())


def test_a_body_that_never_comes_ends_the_request(ctweb: Ctweb):
    with connect() as sock:
        sock.sendall(
            f"POST /rest/ip/firewall/connection/tracking/set HTTP/1.1\r\nHost: {ADDRESS}\r\n"
            f"Authorization: {signed_in(ctweb.state_dir)['Authorization']}\r\n"
            "Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{".encode()
        )
        assert b" 400 " in sock.recv(4096)
    assert "Traceback" not in ctweb.log.read_text()


def get(path: str, headers: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {ADDRESS}\r\n{headers}\r\n".encode()


@pytest.mark.parametrize(
    "first",
    [
        get("/healthz") * 2,
        f"POST /page/sign-in HTTP/1.1\r\nHost: {ADDRESS}\r\nContent-Length: 2\r\n\r\n{{}}".encode(),
        f"POST /page/sign-in HTTP/1.1\r\nHost: {ADDRESS}\r\nContent-Type: application/json\r\n".encode()
        + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ],
    ids=["GET", "with a body", "in chunks"],
)
def test_requests_that_come_at_once_are_all_answered(ctweb: Ctweb, first):
    with connect() as sock:
        sock.sendall(first + get("/healthz", "Connection: close\r\n"))
        answer = b""
        while data := sock.recv(4096):
            answer += data
    assert answer.count(b"HTTP/1.1 ") == first.count(b"HTTP/1.1") + 1
    assert answer.endswith(b'{"status":"ok"}\n')


def test_a_refused_body_that_never_comes_holds_no_thread(ctweb: Ctweb):
    """The connection waits, and not one of the threads."""
    head = f"POST /rest HTTP/1.1\r\nHost: {ADDRESS}\r\nContent-Length: 50\r\n\r\n{{".encode()
    waiting = [connect() for _ in range(server.THREADS)]
    for sock in waiting:
        sock.sendall(head)
        assert b" 401 " in sock.recv(4096)
    assert ctweb.get("/healthz")[0] == 200
    for sock in waiting:
        sock.close()


def test_a_system_that_allows_fewer_threads_is_told_of_and_not_waited_for():
    """Those that have started wait for one another: the program would never end."""
    script = (
        "import resource; from pathlib import Path; from ctweb.web.server import _Worker\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, [used + 100 * 2**20] * 2)\n"  # the stacks of few
        "_Worker.get_thread_pool(None)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert f"OSError: {server.THREADS} threads to answer requests: can't start new thread" in done.stderr
