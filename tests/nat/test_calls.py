"""PPTP behind NAT: our own helper, and what nf_conntrack tells, know both call ids of the client."""

from __future__ import annotations

import socket
import struct

import numpy as np
import pytest
from datapath.crafted import ACK, GRE, PSH, SYN, TCP, ethernet, ip, tcp
from entries import loaded, reset

from ctweb.datapath.bpf import TestRunner
from ctweb.datapath.ctnetlink import STATUS_EXPECTED, STATUS_SRC_NAT, Ends, Entry
from ctweb.datapath.maps import Reader
from ctweb.datapath.translations import Translations, item, type_of
from ctweb.table.names import CONNECTION_TYPES, Status

CLIENT, ROUTER, SERVER = "10.0.0.1", "10.0.0.2", "192.0.2.1"
PORT, PNS, PAC = 4000, 0x1111, 0x2222  # of the client behind NAT, which is its call id there; both call ids
CONTROL = (CLIENT, PORT, SERVER, 1723), (SERVER, 1723, ROUTER, PORT)
CALL = (CLIENT, PNS, SERVER, PAC), (SERVER, PAC, ROUTER, PORT)


def entry(protocol: int, original: tuple, reply: tuple, status: int = 0, helper: str = "") -> Entry:
    def ends(source: str, sport: int, target: str, dport: int) -> Ends:
        addresses = socket.inet_aton(source), socket.inet_aton(target)
        return Ends(*addresses, protocol, struct.pack("!H", sport), struct.pack("!H", dport))

    return Entry(False, ends(*original), ends(*reply), STATUS_SRC_NAT | status, None, helper)


@pytest.fixture(scope="module")
def datapath():
    with loaded(max_entries=1000) as made:
        yield made


@pytest.fixture
def empty(datapath):
    reset(datapath)
    datapath.expect_nat(True)
    for name in ("calls", "expectations", "watched", "translations"):
        for key in list(datapath.table(name)):
            del datapath.table(name)[key]
    return datapath


def see(datapath, source: str, target: str, protocol: int, payload: bytes) -> None:
    TestRunner(datapath.programs["tc_ingress"]).run(ethernet(ip(source, target, protocol, payload)))


def message(kind: int, body: bytes, size: int) -> bytes:
    return struct.pack("!HHIHH", 12 + size, 1, 0x1A2B3C4D, kind, 0) + body.ljust(size, b"\0")


def agree_on_a_call(datapath, peer: int) -> None:
    """The control connection, as it comes in from both sides of NAT. peer: the client's call id to the server."""
    numbers = [1000, 5000]

    def say(from_server: bool, flags: int, payload: bytes = b"") -> None:
        source, sport, target, dport = CONTROL[from_server]
        ack = numbers[not from_server] if flags & ACK else 0
        segment = tcp(source, target, sport, dport, flags, seq=numbers[from_server], ack=ack, payload=payload)
        see(datapath, source, target, TCP, segment)
        numbers[from_server] += len(payload) + bool(flags & SYN)

    say(False, SYN)
    Translations(datapath).learn([item(entry(TCP, *CONTROL), None, 1)])
    say(True, SYN | ACK)
    say(False, ACK)
    say(False, ACK | PSH, message(1, b"\1\0", 144))
    say(True, ACK | PSH, message(2, b"\1\0\1\1", 144))
    say(False, ACK | PSH, message(7, struct.pack("!H", PNS), 156))
    say(True, ACK | PSH, message(8, struct.pack("!HHB", PAC, peer, 1), 20))


def talk(datapath, from_server: bool) -> None:
    source, _, target, call = CALL[from_server]
    see(datapath, source, target, GRE, struct.pack("!HHHHI", 0x3001, 0x880B, 8, call, 1) + b"datagram")


def calls(datapath):
    columns = Reader(datapath.connections).read()
    return columns.take((columns.expires > 1) & (columns.protocol == GRE))


def told(datapath, *, status: int = STATUS_EXPECTED, kind: str = "pptp") -> None:
    Translations(datapath).learn([item(entry(GRE, *CALL, status), None, 1, type_of(kind))])


@pytest.mark.parametrize("first", [False, True], ids=["client first", "server first"])
def test_our_helper_knows_both_sides(empty, first):
    """Whoever begins, his packet is of an expected connection, under both call ids."""
    agree_on_a_call(empty, peer=PORT)
    talk(empty, first)
    columns = calls(empty)
    assert [CONNECTION_TYPES[n] for n in columns.type] == ["pptp"]
    assert columns.status[0] & Status.EXPECTED
    ports = {int(columns.lo_port[0]), int(columns.hi_port[0])}
    assert ports == {PORT if first else PNS, PAC}
    if not first:
        told(empty, status=0)
        talk(empty, True)
        assert calls(empty).packets.tolist() == [[1, 1]]


def test_another_call_id_is_not_taken_for_the_clients(empty):
    agree_on_a_call(empty, peer=PORT + 1)
    assert len(empty.table("expectations")) == 0


def test_a_call_that_only_nf_conntrack_knows(empty):
    """It was agreed on before the start: from when its entry is told, both directions are one connection."""
    told(empty)
    for from_server in (False, True, False):
        talk(empty, from_server)
    columns = calls(empty)
    assert columns.packets.tolist() == [[2, 1]]
    assert np.array_equal(np.sort([columns.lo_port[0], columns.hi_port[0]]), [PNS, PAC])
    told(empty)  # with the next dump
    columns = calls(empty)
    assert columns.status[0] & Status.EXPECTED
    assert columns.status[0] & Status.SRCNAT
    assert [CONNECTION_TYPES[n] for n in columns.type] == ["pptp"]
