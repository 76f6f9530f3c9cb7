"""A real FTP server through the router: its data connections are expected, without any help of nf_conntrack."""

from __future__ import annotations

import ftplib
import io
import sys

import pytest

from lab.network import IPV4, IPV6, Ends, client_router_server, network, wait_for
from lab.tracked import Tracked

SERVER = """
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer
authorizer = DummyAuthorizer()
authorizer.add_anonymous(sys.argv[1])
FTPHandler.authorizer = authorizer
FTPServer(("::", 21), FTPHandler).serve_forever()
"""


@pytest.mark.parametrize("hook", ["tc", "xdp"])
def test_data_connections_are_expected(tmp_path, hook):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "file").write_bytes(b"x" * 10_000)
    with network() as net:
        client, router, server = client_router_server(net)
        server.start(sys.executable, "-c", SERVER, tmp_path / "served")
        wait_for("the FTP server listens", lambda: server.listening(21))
        tracked = Tracked(router, tmp_path / "ctweb", "--hook", hook)
        with client.entered():
            for ends in (IPV4, IPV6):
                for passive in (True, False):
                    _fetch(ends, passive)
        data = wait_for("four data connections", lambda: _four(tracked.rows(expected="yes")))
        assert {(row["connection-type"], row["uses-helper"]) for row in data} == {("ftp", "false")}
        control = tracked.rows(dst_port="21")
        assert {(row["connection-type"], row["uses-helper"], row["expected"]) for row in control} == {
            ("ftp", "true", "false")
        }


def _four(rows):
    assert len(rows) <= 4, rows
    return rows if len(rows) == 4 else None


def _fetch(ends: Ends, passive: bool) -> None:
    with ftplib.FTP() as ftp:
        ftp.connect(ends.server, 21, timeout=30)
        ftp.login()
        ftp.set_pasv(passive)
        got = io.BytesIO()
        ftp.retrbinary("RETR file", got.write)
        assert got.getvalue() == b"x" * 10_000
