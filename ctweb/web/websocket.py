"""flask-sock's websockets, made safe against clients that stall, flood or vanish.

simple-websocket gives each socket two threads: the request's own, which alone sends messages (live.py), and one that
receives and answers pings. Both write to the socket, without a lock and for as long as it takes; what has been received
is kept without limit. Here every write is whole and has a deadline, and what waits to be read is bounded.
"""

from __future__ import annotations

import base64
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from flask import Request
from werkzeug.exceptions import BadRequest

log = logging.getLogger(__name__)

PING_SECONDS = 4  # a client that answers no ping is let go at the second one
SEND_SECONDS = 5  # for one message to leave; a client that reads slower than that is let go
SEND_BUFFER = 128 * 1024  # bytes in the kernel: more would only be backlog
MAX_MESSAGE = 20_000  # bytes from a client: a filter may have 4096 characters
MAX_WAITING = 32  # messages from a client that wait to be read


T = TypeVar("T")


class SteadySocket:
    """A client's socket for two writing threads: each `send` is whole, in one piece, and done within `seconds`.

    When it is not, the socket is shut down, which wakes the other thread, and TimeoutError is raised. The socket may
    be one of TLS, which two threads must never be in at once: nobody waits there, but here, outside of `_one`.
    """

    def __init__(self, sock: socket.socket, seconds: float = SEND_SECONDS) -> None:
        self._sock = sock
        self._seconds = seconds
        self._sending = threading.Lock()
        self._one = threading.Lock()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def send(self, data: bytes) -> int:
        with self._sending:
            deadline = time.monotonic() + self._seconds
            rest = memoryview(data)
            while rest:
                rest = rest[self._tried(partial(self._sock.send, rest), select.POLLOUT, deadline) :]
        return len(data)

    def recv(self, size: int) -> bytes:
        """What has arrived, at least a byte; b"": the end. There is a selector before it, which sees no byte that TLS
        has read already: hence all of them."""
        return self._tried(partial(self._received, size), select.POLLIN, time.monotonic() + self._seconds)

    def _received(self, size: int) -> bytes:
        data = self._sock.recv(size)
        while isinstance(self._sock, ssl.SSLSocket) and (more := self._sock.pending()):
            data += self._sock.recv(more)
        return data

    def _tried(self, work: Callable[[], T], event: int, deadline: float) -> T:
        """What `work` returns, once it need not wait. Raises TimeoutError."""
        while True:
            try:
                with self._one:
                    return work()
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            except ssl.SSLWantWriteError:
                wanted = select.POLLOUT
            except BlockingIOError:
                wanted = event
            poll = select.poll()
            poll.register(self._sock, wanted)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                self.hang_up()
                raise TimeoutError(f"a client did not do its part within {self._seconds} s")

    def hang_up(self) -> None:
        """End both directions; the descriptor stays until `close`."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("a websocket was gone before it could be shut down")

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        with self._sending, self._one:  # not under a send, whose descriptor could be somebody else's by then
            self._sock.close()


class Inbox(list[Any]):
    """The messages of one client that wait to be read. Holds MAX_WAITING of them; `flooded` once there were more."""

    flooded = False

    def append(self, message: Any) -> None:
        if len(self) < MAX_WAITING:
            super().append(message)
        else:
            self.flooded = True


def _receiver(target: Callable[[], None]) -> threading.Thread:
    """The receiving thread of a websocket; simple-websocket calls this as its `thread_class`, before it receives."""
    websocket: Any = target.__self__  # type: ignore[attr-defined]
    websocket.input_buffer = Inbox()

    def receive() -> None:
        try:
            target()
        except Exception as error:  # whatever a client makes of the protocol, it ends its own socket only
            log.debug("a websocket broke the protocol: %s", error)
            websocket.connected = False
            websocket.sock.close()
        finally:
            websocket.event.set()

    return threading.Thread(target=receive, name="live-receive", daemon=True)


SERVER_OPTIONS = {"ping_interval": PING_SECONDS, "max_message_size": MAX_MESSAGE, "thread_class": _receiver}
"""For flask-sock's SOCK_SERVER_OPTIONS."""


UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
"""Headers of the refusal of who did not ask for a websocket, and of who asked for one of another version."""


def asked_for(request: Request) -> bool:
    """Whether this request would open a websocket, and one that we speak."""
    wanted = request.headers.get("Upgrade", "").lower() == "websocket"
    return request.method == "GET" and wanted and request.headers.get("Sec-WebSocket-Version") == "13"


def prepare(request: Request) -> None:
    """Make the websocket that this request opens a safe one: our socket, no compression. Raises BadRequest.

    Compression is accepted whenever it is offered, costs 20 times the time of sending, and wants a lock.
    """
    try:
        key = base64.b64decode(request.headers.get("Sec-WebSocket-Key", ""), validate=True)
    except ValueError:
        key = b""
    if len(key) != 16:
        raise BadRequest("no websocket handshake: Sec-WebSocket-Key must be 16 bytes in base64")
    request.environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
    request.environ["gunicorn.socket"] = SteadySocket(request.environ["gunicorn.socket"])
