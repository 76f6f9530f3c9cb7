"""A removed connection is gone from nf_conntrack too, and its next packet starts a new one in both."""

from __future__ import annotations

import socket

from lab.network import Ends, wait_for
from lab.traffic import ping

from nat.conftest import Lab
from nat.oracle import entries

TREES = {4: "ip", 6: "ipv6"}


def delete(lab: Lab, ends: Ends, identity: str) -> int:
    """The status of a DELETE of this connection."""
    tree = TREES[4 if ends.family == socket.AF_INET else 6]
    return lab.ctweb.ask("DELETE", f"/rest/{tree}/firewall/connection/{identity}")[0]


def sources(lab: Lab) -> list[str]:
    return [entry["src-address"] for entry in entries(lab.router)]


def test_a_masqueraded_udp_connection(lab: Lab, ends: Ends):
    family, kind = ends.family, socket.SOCK_DGRAM
    with lab.client.socket(family, kind) as near, lab.server.socket(family, kind) as far:
        far.bind((ends.server, 6700))
        near.connect((ends.server, 6700))
        near.send(b"one")
        far.recv(10)
        source = ends.shown(ends.client, near.getsockname()[1])
        lab.agrees(src_address=source)
        old = lab.ctweb.row(src_address=source)
        assert delete(lab, ends, old[".id"]) == 204
        assert source not in sources(lab)
        assert not lab.ctweb.rows(src_address=source)
        near.send(b"another")
        far.recv(10)
        entry = lab.agrees(src_address=source)
        assert (entry["orig-packets"], entry["srcnat"]) == ("1", "true")
        assert lab.ctweb.row(src_address=source)[".id"] != old[".id"]


def test_a_ping_among_others(lab: Lab, ends: Ends):
    wanted = {"src_address": ends.client, "dst_address": ends.host(2, 1)}
    ping(lab.client, ends.host(2, 1), 1)
    wait_for("the ping is shown", lambda: lab.ctweb.rows(**wanted))
    before = sources(lab)
    assert ends.client in before
    for row in lab.ctweb.rows(**wanted):
        assert delete(lab, ends, row[".id"]) == 204
    assert sources(lab) == [source for source in before if source != ends.client]
