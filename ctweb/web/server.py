"""The HTTP server: gunicorn's gthread worker, run in this very process.

gunicorn's arbiter is left out on purpose. It would fork, and the maps, the links and the sweep thread must live in the
process that serves them: with one process they end together, whatever ends it, and there is no second one to restart
blindly. What the arbiter did for a stuck client is done here: every wait for a client has an end.
"""

from __future__ import annotations

import json
import logging
import math
import os
import selectors
import signal
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent import futures
from http import HTTPStatus
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.http import RequestParser
from gunicorn.http.errors import LimitRequestHeaders, ParseException, UnsupportedTransferCoding
from gunicorn.workers.gthread import TConn, ThreadWorker

from ctweb.web.tls import Certificate

log = logging.getLogger(__name__)

THREADS = 80  # requests and websockets at work at once; websockets are capped below it (live.CLIENTS)
CONNECTIONS = 400  # open sockets, idle ones included: well below the usual limit of 1024 descriptors
IDLE_SECONDS = 10  # a connection that has not asked anything yet, or asks nothing more
HEADER_SECONDS = 10  # for a whole request head, however the client drips it
CHANGE_SECONDS = 30  # for a whole request that may have a body
IO_SECONDS = 10  # for one read, or one write of a piece of an answer
GRACE_SECONDS = 2  # for requests still running when the server ends
LAST_SECONDS = 1  # for what has been told to end only then


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on `host` (a name or an address) and `port`. Raises OSError, such as for a port in use."""
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    every = host == "::"  # of both families
    return socket.create_server(address[:2], family=family, backlog=128, dualstack_ipv6=every)


def serve(
    app: Flask,
    listener: socket.socket,
    *,
    certificate: Certificate | None = None,
    ready: Callable[[], None],
    alive: Callable[[], None],
    closing: Callable[[], None],
) -> None:
    """Serve `app` on `listener` in this thread, which must be the main one, until SIGTERM or SIGINT.

    certificate: of HTTPS; None: HTTP.
    `ready` is called when requests are answered from here on, `alive` at least once a second. `closing` is called,
    perhaps twice, when the server stops, and must end what would keep requests running (the websockets).
    Raises OSError where the system allows fewer threads than THREADS.
    """
    site = _Site(app, secure=certificate is not None)
    worker = _Worker(1, os.getpid(), [listener], site, 0, site.cfg, _Log(site.cfg))
    worker.certificate, worker.ready, worker.still_alive, worker.closing = certificate, ready, alive, closing
    worker.init_process()


class _Site(BaseApplication):  # type: ignore[misc]
    """gunicorn's configuration, and the app that it serves."""

    def __init__(self, app: Flask, *, secure: bool) -> None:
        self.app = app
        self.secure = secure
        super().__init__()

    def load_config(self) -> None:
        for name, value in {
            "threads": THREADS,
            "worker_connections": sys.maxsize,  # counted in _Worker.accept, see there
            "keepalive": IDLE_SECONDS,
            "graceful_timeout": GRACE_SECONDS,
            "forwarded_allow_ips": "",  # no proxy is trusted to rename the client
        }.items():
            self.cfg.set(name, value)
        if self.secure:
            self.cfg.set("certfile", "by _Connection")  # only says that it is HTTPS

    def load(self) -> Flask:
        return self.app


class _Log(Logger):  # type: ignore[misc]
    """gunicorn's messages through our own log, and no traceback for a client that is too slow."""

    def setup(self, cfg: Any) -> None:
        self.error_log = log

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        pass

    def close_on_exec(self) -> None:
        pass

    def reopen_files(self) -> None:
        pass

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        if isinstance(sys.exc_info()[1], TimeoutError):
            log.debug("closed a connection that did not read or write for %s s", IO_SECONDS)
        else:
            super().exception(msg, *args, **kwargs)


class _Connection(TConn):  # type: ignore[misc]
    """One client socket. `deadline` is the time at which it is closed unless something happens; None: not."""

    sock: socket.socket
    parser: Any
    deadline: float | None = None
    certificate: Certificate | None = None

    def init(self) -> None:
        """Called by the loop before each request. TLS begins here, its handshake in a thread: `shake_hands`."""
        self.initialized = True
        self.sock.setblocking(True)
        if self.parser is None:
            if self.certificate is not None:
                self.sock = self.certificate.wrap(self.sock)
            self.parser = RequestParser(self.cfg, self.sock, self.client)

    def shake_hands(self) -> None:
        """TLS's handshake, if it is still to come. Raises OSError."""
        if not isinstance(self.sock, ssl.SSLSocket) or self.sock.version() is not None:
            return
        try:
            self.sock.do_handshake()
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                socket.socket.sendall(self.sock, _PLAIN)
            raise

    def has_read_on(self) -> bool:
        """Whether bytes of the next request came along with the last one (pipelining): no selector tells of these.

        What is left of a body that nobody wanted is no request.
        """
        there = self.parser.unreader.buf.getbuffer().nbytes
        if isinstance(self.sock, ssl.SSLSocket):
            there += self.sock.pending()
        body = self.parser.mesg.body.reader
        left = 0 if getattr(body, "parser", None) is None else math.inf  # in chunks, and not read to its end
        return bool(there > getattr(body, "length", left))

    def overdue(self, now: float) -> bool:
        return self.deadline is not None and self.deadline < now


class _Worker(ThreadWorker):  # type: ignore[misc]
    certificate: Certificate | None
    ready: Callable[[], None]
    still_alive: Callable[[], None]  # `alive` is gunicorn's own: whether to go on
    closing: Callable[[], None]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.silent: deque[_Connection] = deque()  # connected and have not sent a byte yet, oldest first
        self.max_keepalived = CONNECTIONS // 2  # beyond it an answer says Connection: close

    # -- life of the process

    def get_thread_pool(self) -> futures.ThreadPoolExecutor:
        """Raises OSError where the system allows fewer threads."""
        pool = futures.ThreadPoolExecutor(THREADS, thread_name_prefix="http")
        # All of them from the start: what the process holds then does not depend on how many clients it once had.
        together = threading.Barrier(THREADS)
        try:
            for _ in range(THREADS):
                pool.submit(together.wait)
        except RuntimeError as error:
            together.abort()  # the interpreter waits for those that wait here
            remedy = "allow it more of them (TasksMax, pids.max), or more memory"
            raise OSError(f"{THREADS} threads to answer requests: {error}; {remedy}") from error
        return pool

    def init_signals(self) -> None:
        signal.signal(signal.SIGTERM, self.handle_exit)
        signal.signal(signal.SIGINT, self.handle_exit)
        signal.set_wakeup_fd(self.PIPE[1], warn_on_full_buffer=False)

    def run(self) -> None:
        # A signal writes to the pipe, so that the loop below sees it at once and not at the next second.
        self.poller.register(self.PIPE[0], selectors.EVENT_READ, lambda pipe: os.read(pipe, 64))
        self.ready()
        try:
            super().run()
        finally:
            signal.set_wakeup_fd(-1)
            self.alive = False
            self.closing()
            # Whoever still runs then is hung up on: the interpreter waits for these threads before it ends.
            for future in futures.wait(list(self.futures), timeout=LAST_SECONDS).not_done:
                _hang_up(future.conn)  # type: ignore[attr-defined]
            self.tpool.shutdown()

    def is_parent_alive(self) -> bool:
        """Called by the loop after each round of events, and the place to act before it waits for what still runs."""
        if not self.alive:
            self.closing()
        return True  # There is no arbiter; whoever started the program may end before it.

    def notify(self) -> None:
        """Called by the loop before each round of events, at least once a second."""
        self.still_alive()
        now = time.monotonic()
        while self.silent and (self.silent[0].initialized or self.silent[0].overdue(now)):
            self.drop_silent()
        for future in list(self.futures):
            if future.conn.overdue(now):
                _hang_up(future.conn)

    # -- one connection

    def accept(self, server: Any, listener: socket.socket) -> None:
        """gunicorn stops accepting at `worker_connections`, and spins: here the oldest silent connection gives way."""
        try:
            sock, client = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.error("cannot accept a connection: %s", error)
            time.sleep(0.1)
            return
        if self.nr_conns >= CONNECTIONS:
            while self.silent and self.nr_conns >= CONNECTIONS:
                self.drop_silent()
            if self.nr_conns >= CONNECTIONS:
                sock.close()
                return
        conn = _Connection(self.cfg, sock, client, server)
        conn.certificate = self.certificate
        conn.deadline = time.monotonic() + IDLE_SECONDS
        self.silent.append(conn)
        self.nr_conns += 1
        with self._lock:
            self.poller.register(
                conn.sock, selectors.EVENT_READ, lambda sock: self.on_client_socket_readable(conn, sock)
            )

    def drop_silent(self) -> None:
        """Take the oldest connection from `silent`, and close it if it is still silent."""
        conn = self.silent.popleft()
        if not conn.initialized:
            with self._lock:
                self.poller.unregister(conn.sock)
            self.nr_conns -= 1
            conn.close()

    def enqueue_req(self, conn: _Connection) -> None:
        conn.deadline = None  # It may have to wait for a thread, which is not its fault.
        super().enqueue_req(conn)

    def finish_request(self, fs: futures.Future[tuple[bool, _Connection]]) -> None:
        """gunicorn waits here until more arrives. What is there already gets in line, behind the requests of others."""
        try:
            if self.alive and not fs.cancelled() and fs.result()[0] and fs.conn.has_read_on():  # type: ignore[attr-defined]
                self.enqueue_req(fs.conn)  # type: ignore[attr-defined]
                return
        except Exception as error:  # it failed, or the server has just ended
            log.debug("no further request on a connection: %s", error)
        super().finish_request(fs)

    def handle(self, conn: _Connection) -> Any:
        conn.sock.settimeout(IO_SECONDS)
        conn.deadline = time.monotonic() + HEADER_SECONDS
        try:
            conn.shake_hands()
        except OSError as error:
            log.debug("no TLS with a client: %s", error)
            return False, conn
        return super().handle(conn)

    def handle_request(self, req: Any, conn: _Connection) -> Any:
        conn.deadline = None if req.method in ("GET", "HEAD") else time.monotonic() + CHANGE_SECONDS
        return super().handle_request(req, conn)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Refuse what is no HTTP, in the form of all other refusals: gunicorn's is a page of HTML."""
        if isinstance(exc, ssl.SSLError):
            log.debug("a client broke TLS, such as by a renegotiation: %s", exc)
            return
        if isinstance(exc, ParseException):
            status = {LimitRequestHeaders: 431, UnsupportedTransferCoding: 501}.get(type(exc), 400)
            log.warning("no request that can be read from %s: %s", addr[0] if addr else "", str(exc)[:200])
        else:
            status = 500
            log.error("a request failed", exc_info=exc)
        phrase = HTTPStatus(status).phrase
        body = json.dumps({"error": status, "message": phrase, "detail": str(exc)[:200] if status < 500 else phrase})
        head = f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        try:
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        except OSError as error:
            log.debug("a refusal was not taken: %s", error)


_PLAIN = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nThis is HTTPS: open https://\n"


def _hang_up(conn: _Connection) -> None:
    """End both directions, which wakes the thread that waits for the client; that thread closes the socket."""
    try:
        conn.sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        log.debug("a connection was gone before it could be closed")
