"""Marks by name, helpers and what they expect, as nf_conntrack has them."""

from __future__ import annotations

import socket

from lab.network import IPV4, Ends, wait_for

from nat.conftest import Lab


def send(lab: Lab, ends: Ends, near: socket.socket, port: int) -> dict[str, str]:
    """One datagram to the server; what finds its row."""
    near.sendto(b"marked", (ends.server, port))
    return {"src_address": ends.shown(ends.client, near.getsockname()[1])}


def bound(lab: Lab, ends: Ends) -> socket.socket:
    near = lab.client.socket(ends.family, socket.SOCK_DGRAM)
    near.bind((ends.client, 0))
    return near


def test_a_mark_is_shown_by_its_name(lab: Lab, ends: Ends):
    with bound(lab, ends) as near:
        row = send(lab, ends, near, 6001)
        wait_for("the mark", lambda: lab.ctweb.rows(connection_mark="voip", **row))
    assert [r["srcnat"] for r in lab.ctweb.rows(**row)] == ["true"]


def test_a_mark_without_a_name_is_shown_as_its_number(lab: Lab, ends: Ends):
    with bound(lab, ends) as near:
        row = send(lab, ends, near, 6002)
        wait_for("the mark", lambda: lab.ctweb.rows(connection_mark="4711", **row))


def test_a_mark_that_is_taken_away_goes(lab: Lab):
    with bound(lab, IPV4) as near:
        row = send(lab, IPV4, near, 6003)
        wait_for("the mark", lambda: lab.ctweb.rows(connection_mark="voip", **row))
        near.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 46 << 2)
        send(lab, IPV4, near, 6003)
        wait_for("no mark", lambda: "connection-mark" not in lab.ctweb.row(**row))


def test_a_helper_and_the_connection_that_it_expects(lab: Lab):
    """An FTP server says where it listens for data; who comes there was expected."""
    ends = IPV4
    with (
        lab.server.socket(ends.family, socket.SOCK_STREAM) as control,
        lab.server.socket(ends.family, socket.SOCK_STREAM) as data,
        lab.client.socket(ends.family, socket.SOCK_STREAM) as near,
        lab.client.socket(ends.family, socket.SOCK_STREAM) as near_data,
    ):
        control.bind((ends.server, 21))
        data.bind((ends.server, 0))
        control.listen()
        data.listen()
        near.connect((ends.server, 21))
        far, _ = control.accept()
        with far:
            high, low = divmod(data.getsockname()[1], 256)
            far.sendall(b"220 at your service\r\n")  # the helper reads from a line's begin on: it must see one end
            assert b"220" in near.recv(100)
            near.sendall(b"PASV\r\n")
            assert far.recv(100) == b"PASV\r\n"
            where = ",".join([*ends.server.split("."), str(high), str(low)])
            far.sendall(f"227 Entering Passive Mode ({where})\r\n".encode())
            assert b"227" in near.recv(100)
            near_data.connect(data.getsockname())
            source = ends.shown(ends.client, near_data.getsockname()[1])
            wait_for("expected", lambda: lab.ctweb.rows(src_address=source, expected="true", srcnat="true"))
            control_row = lab.ctweb.row(src_address=ends.shown(ends.client, near.getsockname()[1]))
            assert control_row["uses-helper"] == "true"
            assert lab.ctweb.row(src_address=source)["uses-helper"] == "false"
