"""Marks by name, helpers and what they expect, as nf_conntrack has them."""

from __future__ import annotations

import signal
import socket

import pytest
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


def test_other_names_after_a_reload(lab: Lab):
    """SIGHUP: the marks that are there are called otherwise; a rule's are left alone."""
    file = lab.ctweb.options[1]
    with bound(lab, IPV4) as near:
        rows = [send(lab, IPV4, near, port) | {"dst_port": str(port)} for port in (6001, 6002, 6005)]

        def marked(*names: str) -> None:
            def shown() -> list[str]:
                return [lab.ctweb.row(**row).get("connection-mark", "") for row in rows]

            wait_for(f"marks {names}", lambda: shown() == list(names), shown)

        marked("voip", "4711", "by a rule")
        before = file.read_text()
        for text, names in (
            (before.replace("voip", "telephony").replace("32", "4711"), ("telephony", "bulk data", "by a rule")),
            (before, ("voip", "4711", "by a rule")),
        ):
            file.write_text(text)
            lab.ctweb.process.send_signal(signal.SIGHUP)
            marked(*names)
    assert 'reloaded: marks: telephony=16, bulk data=4711\n' in lab.ctweb.log.read_text()


@pytest.mark.parametrize(("port", "connection_type"), [(5070, "sip"), (5071, "h323")])
def test_what_a_helper_of_nf_conntrack_watches_has_its_type(lab: Lab, ends: Ends, port: int, connection_type: str):
    """On ports that say nothing; here of protocols that only nf_conntrack has helpers for."""
    with bound(lab, ends) as near:
        row = send(lab, ends, near, port)
        wait_for("the type", lambda: lab.ctweb.rows(connection_type=connection_type, uses_helper="true", **row))


@pytest.mark.parametrize("port", [21, 2121])
def test_a_helper_and_the_connection_that_it_expects(lab: Lab, port: int):
    """An FTP server says where it listens for data; who comes there was expected. On another port than FTP's, too."""
    ends = IPV4
    with (
        lab.server.socket(ends.family, socket.SOCK_STREAM) as control,
        lab.server.socket(ends.family, socket.SOCK_STREAM) as data,
        lab.client.socket(ends.family, socket.SOCK_STREAM) as near,
        lab.client.socket(ends.family, socket.SOCK_STREAM) as near_data,
    ):
        control.bind((ends.server, port))
        data.bind((ends.server, 0))
        control.listen()
        data.listen()
        near.connect((ends.server, port))
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
            data_row = {"src_address": source, "expected": "true", "srcnat": "true", "connection_type": "ftp"}
            wait_for("expected", lambda: lab.ctweb.rows(**data_row), lambda: lab.ctweb.rows(src_address=source))
            control_row = lab.ctweb.row(src_address=ends.shown(ends.client, near.getsockname()[1]))
            assert (control_row["uses-helper"], control_row["connection-type"]) == ("true", "ftp")
            assert lab.ctweb.row(src_address=source)["uses-helper"] == "false"
