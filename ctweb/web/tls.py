"""HTTPS: the certificate and its key, which may be renewed while it runs, and sockets that keep their deadlines."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from pathlib import Path
from typing import Any

from ctweb.config import ConfigError, Tls
from ctweb.privileges import HOW_TO_LET_READ

log = logging.getLogger(__name__)


class TlsError(ConfigError):
    """The certificate or the key cannot be used; the message says which, and why."""


class TlsSocket(ssl.SSLSocket):
    """An SSLSocket that behaves as a plain one where Python's does not."""

    def sendall(self, data: Any, flags: int = 0) -> None:
        """All of it within one timeout; Python's gives each record a new one, so that a client could read for hours."""
        timeout = self.gettimeout()
        if timeout is None:
            return super().sendall(data, flags)
        deadline = time.monotonic() + timeout
        rest = memoryview(data).cast("B")
        try:
            while rest:
                self.settimeout(max(0.001, deadline - time.monotonic()))
                rest = rest[self.send(rest, flags) :]
        finally:
            self.settimeout(timeout)
        return None

    def shutdown(self, how: int) -> None:
        """Of the connection below; Python's also goes on in plain text, while another thread may be writing."""
        socket.socket.shutdown(self, how)


class Certificate:
    """The certificate in force: new connections get the newest. Raises TlsError if there is none that can be used."""

    def __init__(self, tls: Tls) -> None:
        self._files = tls
        self._context, self._text = _read(tls)

    def renewed(self, tls: Tls) -> Certificate | None:
        """The one in these files now, or None if it is this one. Raises TlsError.

        Files that only root reads are as they were at the start: that is logged, and no reason to reload nothing.
        """
        try:
            found = Certificate(tls)
        except TlsError as error:
            if tls != self._files or not isinstance(error.__cause__, PermissionError):
                raise
            log.warning("the certificate stays as it was: %s", error)
            return None
        return found if found._text != self._text else None

    def become(self, other: Certificate) -> None:
        """Put the other one into force."""
        self._files, self._context, self._text = other._files, other._context, other._text

    def wrap(self, sock: socket.socket) -> ssl.SSLSocket:
        """The server's end of TLS on `sock`. The handshake is still to come."""
        return self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


def _read(tls: Tls) -> tuple[ssl.SSLContext, bytes]:
    """What to speak TLS with, and the certificate's text."""
    certificate, key = tls.certificate, tls.key
    text = _text("certificate", certificate)
    if b"-----BEGIN CERTIFICATE-----" not in text:
        raise TlsError(f"[tls] certificate {certificate}: there is no certificate in it: it must be a PEM file")
    if b"PRIVATE KEY-----" not in _text("key", key):
        raise TlsError(f"[tls] key {key}: there is no private key in it: it must be a PEM file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = TlsSocket
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # A passphrase would be asked for on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise TlsError(f"[tls] certificate {certificate} and key {key}: {_why(error)}") from None
    return context, text


def _text(what: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        remedy = f"; {HOW_TO_LET_READ}" if isinstance(error, PermissionError) else ""
        raise TlsError(f"[tls] {what} {path}: cannot be read: {error.strerror}{remedy}") from error


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None) or ""
    if reason == "KEY_VALUES_MISMATCH":
        return "the key is not the certificate's"
    if reason == "EE_KEY_TOO_SMALL":
        return "the key is too short to be safe: make one of 2048 bits or more, or an elliptic one"
    if "PASSWORD" in reason or "DECRYPT" in reason:
        return "the key is encrypted: take the passphrase off, the program cannot ask for it"
    return f"they cannot be used: {reason.replace('_', ' ').lower() or error}"
