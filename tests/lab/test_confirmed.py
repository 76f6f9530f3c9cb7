"""`confirmed` tells that a packet of the connection has left the machine."""

from __future__ import annotations

import socket

from lab.conftest import Lab
from lab.network import Ends, wait_for
from lab.traffic import udp_count


def test_a_connection_is_confirmed_by_the_first_packet_that_leaves(lab: Lab, ends: Ends):
    drop = "table inet keep_in {\nchain c { type filter hook forward priority 0; meta l4proto udp drop; }\n}"
    with (
        lab.client.socket(ends.family, socket.SOCK_DGRAM) as near,
        lab.server.socket(ends.family, socket.SOCK_DGRAM) as far,
    ):
        far.bind((ends.server, 0))
        near.connect((ends.server, far.getsockname()[1]))
        source = ends.shown(ends.client, near.getsockname()[1])

        lab.router.run("nft", "-f", "-", input=drop)
        try:
            for _ in range(3):
                near.send(b"kept in")
            row = lab.ctweb.counts(udp_count(ends, [7] * 3, []), protocol="udp", src_address=source)
            assert row["confirmed"] == "false"
        finally:
            lab.router.run("nft", "delete", "table", "inet", "keep_in")

        near.send(b"let out")
        assert far.recv(100) == b"let out"
        lab.ctweb.counts(udp_count(ends, [7] * 4, []), protocol="udp", src_address=source)
        wait_for("confirmed", lambda: lab.ctweb.row(protocol="udp", src_address=source)["confirmed"] == "true")


def test_a_connection_from_the_router_is_confirmed_at_once(lab: Lab, ends: Ends):
    with lab.router.socket(ends.family, socket.SOCK_DGRAM) as near:
        near.sendto(b"out", (ends.server, 9))
        port = str(near.getsockname()[1])
        assert lab.ctweb.row(protocol="udp", src_port=port, dst_port="9")["confirmed"] == "true"
