"""A translated connection is one row: counted both ways, with the tuples that nf_conntrack gives it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from lab.network import Ends, Namespace, wait_for
from lab.traffic import bulk, ping

from nat.conftest import NOWHERE, Lab


@contextmanager
def asked_and_answered(
    ends: Ends, client: Namespace, asked: tuple[str, int], server: Namespace, listens: tuple[str, int]
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Three datagrams to `asked`, which arrive at `listens`, and two answers; the sockets, still open."""
    with client.socket(ends.family, socket.SOCK_DGRAM) as near, server.socket(ends.family, socket.SOCK_DGRAM) as far:
        far.bind(listens)
        near.connect(asked)
        for size in (10, 200, 30):
            near.send(bytes(size))
            data, peer = far.recvfrom(1000)
            assert len(data) == size
        for size in (400, 5):
            far.sendto(bytes(size), peer)
            assert len(near.recv(1000)) == size
        yield near, far


def test_masqueraded_udp(lab: Lab, ends: Ends):
    with asked_and_answered(ends, lab.client, (ends.server, 6500), lab.server, (ends.server, 6500)) as (near, _):
        near_port = near.getsockname()[1]
        entry = lab.agrees(src_address=ends.shown(ends.client, near_port))
    assert (entry["srcnat"], entry["dstnat"]) == ("true", "false")
    assert (entry["orig-packets"], entry["repl-packets"]) == ("3", "2")
    assert entry["reply-dst-address"] == ends.shown(ends.host(2, 1), near_port)


def test_masqueraded_tcp(lab: Lab, ends: Ends):
    with bulk(ends, lab.client, lab.server, 300_000) as (near, _):
        entry = lab.agrees(src_address=ends.shown(ends.client, near.getsockname()[1]))
    assert entry["srcnat"] == "true"
    assert int(entry["orig-bytes"]) > 300_000 < int(entry["repl-bytes"])


def test_a_masqueraded_tcp_connection_goes_through_its_states(lab: Lab, ends: Ends):
    with bulk(ends, lab.client, lab.server, 10) as (near, _):
        source = ends.shown(ends.client, near.getsockname()[1])
        lab.agrees(src_address=source)
        row = lab.ctweb.row(src_address=source)
        assert (row["tcp-state"], row["assured"], row["confirmed"]) == ("established", "true", "true")
    lab.agrees(src_address=source)


def test_masqueraded_ping(lab: Lab, ends: Ends):
    ping(lab.client, ends.server, 7)
    entry = lab.agrees(src_address=ends.client, dst_address=ends.server)
    assert (entry["srcnat"], entry["orig-packets"], entry["repl-packets"]) == ("true", "7", "7")


def test_two_clients_of_one_port_are_told_apart(lab: Lab, ends: Ends):
    """Masquerading gives the second one another port."""
    second_address = f"{ends.host(1, 77)}/{64 if ':' in ends.client else 24} dev eth0"
    lab.client.ip(f"addr add {second_address}" + " nodad" * (":" in ends.client))
    try:
        with lab.server.socket(ends.family, socket.SOCK_DGRAM) as far:
            far.bind((ends.server, 6600))
            for host, size in ((ends.client, 11), (ends.host(1, 77), 22)):
                with lab.client.socket(ends.family, socket.SOCK_DGRAM) as near:
                    near.bind((host, 6601))
                    near.sendto(bytes(size), (ends.server, 6600))
                    data, peer = far.recvfrom(100)
                    far.sendto(bytes(2 * len(data)), peer)
                    assert len(near.recv(100)) == 2 * size
        first = lab.agrees(src_address=ends.shown(ends.client, 6601))
        second = lab.agrees(src_address=ends.shown(ends.host(1, 77), 6601))
        assert first["reply-dst-address"] != second["reply-dst-address"]
    finally:
        lab.client.ip(f"addr del {second_address}")


def test_a_forwarded_port(lab: Lab, ends: Ends):
    with asked_and_answered(ends, lab.client, (ends.router, 7100), lab.server, (ends.server, 7101)) as (near, _):
        entry = lab.agrees(src_address=ends.shown(ends.client, near.getsockname()[1]))
    assert entry["dst-address"] == ends.shown(ends.router, 7100)
    assert entry["reply-src-address"] == ends.shown(ends.server, 7101)
    assert (entry["srcnat"], entry["dstnat"]) == ("true", "true")


def test_hairpin(lab: Lab, ends: Ends):
    """The client asks its router and is answered by itself: both ends are translated, on one interface."""
    with asked_and_answered(ends, lab.client, (ends.router, 7200), lab.client, (ends.client, 7201)) as (near, _):
        entry = lab.agrees(src_address=ends.shown(ends.client, near.getsockname()[1]))
    assert (entry["srcnat"], entry["dstnat"], entry["repl-packets"]) == ("true", "true", "2")


def test_redirected_to_the_router_itself(lab: Lab, ends: Ends):
    with lab.router.socket(ends.family, socket.SOCK_STREAM) as listener:
        listener.bind((ends.router, 7001))
        listener.listen()
        with lab.client.socket(ends.family, socket.SOCK_STREAM) as near:
            near.connect((ends.server, 7000))
            far, _ = listener.accept()
            with far:
                near.sendall(b"x" * 5000)
                assert len(far.recv(5000, socket.MSG_WAITALL)) == 5000
                entry = lab.agrees(src_address=ends.shown(ends.client, near.getsockname()[1]))
    assert entry["reply-src-address"] == ends.shown(ends.router, 7001)
    assert (entry["srcnat"], entry["dstnat"]) == ("false", "true")


def test_what_the_router_itself_sends(lab: Lab, ends: Ends):
    nowhere = NOWHERE[6 if ":" in ends.server else 4]
    with asked_and_answered(ends, lab.router, (nowhere, 6700), lab.server, (ends.server, 6700)) as (near, _):
        entry = lab.agrees(src_address=ends.shown(near.getsockname()[0], near.getsockname()[1]))
    assert (entry["dst-address"], entry["dstnat"]) == (ends.shown(nowhere, 6700), "true")


@pytest.mark.parametrize("name", ["reply-dst-address", "srcnat"])
def test_translations_can_be_filtered_by(lab: Lab, ends: Ends, name: str):
    with asked_and_answered(ends, lab.client, (ends.server, 6800), lab.server, (ends.server, 6800)) as (near, _):
        entry = lab.agrees(src_address=ends.shown(ends.client, near.getsockname()[1]))
    rows = lab.ctweb.rows(**{name: entry[name], "src_address": entry["src-address"]})
    assert [row["src-address"] for row in rows] == [entry["src-address"]]


def test_nothing_is_lost(lab: Lab):
    """What was offered is on the connections, on those that ended, or untracked."""

    def balance() -> bool:
        counters = lab.ctweb.get("/healthz")["counters"]
        rows = lab.ctweb.rows()
        live = sum(int(row["orig-packets"]) + int(row["repl-packets"]) for row in rows)
        kinds = ("invalid-tcp", "ignored-tcp", "neighbour", "icmp-error", "invalid-icmp", "fragment", "busy", "refused")
        untracked = sum(counters.get(name, 0) for name in kinds)
        return counters["offered-packets"] == counters["ended-packets"] + live + untracked

    wait_for("the balance is even", balance)
