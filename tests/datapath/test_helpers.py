"""TFTP, PPTP with its GRE, and connection-type by port."""

from __future__ import annotations

import struct

import pytest
from control import Control, expected, forget_all, is_expected, kind, new
from crafted import CLIENT, CLIENT6, GRE, SERVER, SERVER6, SYN, TCP, UDP, ethernet, ip, tcp_frame, udp_frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(autouse=True)
def nothing_expected(table):
    forget_all(table)


@pytest.mark.parametrize(("client", "server"), [(CLIENT, SERVER), (CLIENT6, SERVER6), (SERVER, CLIENT)])
@pytest.mark.parametrize("opcode", [1, 2])
def test_tftp_data_comes_from_any_port_of_the_server(table, client, server, opcode):
    table.see(udp_frame(client, 3000, server, 69, struct.pack("!H", opcode) + b"file\0octet\0"))
    answer = new(table, udp_frame(server, 33_333, client, 3000, struct.pack("!HH", 3, 1)))
    assert (is_expected(table, answer), kind(answer)) == (True, "tftp")
    other = new(table, udp_frame(server, 33_334, client, 3000, struct.pack("!HH", 3, 1)))
    assert not is_expected(table, other)


@pytest.mark.parametrize("payload", [b"", b"\0", b"\0\3", b"\1\0", b"\0\0", b"\xff" * 500])
def test_no_tftp_request_no_expectation(table, payload):
    table.see(udp_frame(CLIENT, 3000, SERVER, 69, payload))
    assert expected(table) == []
    assert kind(table.only()) == "tftp"


def message(kind: int, body: bytes, size: int, *, cookie: int = 0x1A2B3C4D, control: int = 1) -> bytes:
    return struct.pack("!HHIHH", 12 + size, control, cookie, kind, 0) + body.ljust(size, b"\0")


PNS, PAC = 0x1111, 0x2222
START = message(1, b"\1\0", 144), message(2, b"\1\0\1\1", 144)
OUT_REQUEST = message(7, struct.pack("!H", PNS), 156)


def out_reply(call: int = PAC, peer: int = PNS, result: int = 1, size: int = 20, **given: int) -> bytes:
    return message(8, struct.pack("!HHB", call, peer, result).ljust(size, b"\0")[:size], size, **given)


def control(table, client: str = CLIENT, server: str = SERVER) -> Control:
    made = Control(table, client, server, port=1723)
    made.client_says(START[0])
    made.server_says(START[1])
    return made


def call(call_id: int, source: str, target: str) -> bytes:
    return ethernet(
        ip(source, target, GRE, struct.pack("!HHHHI", 0x3001, 0x880B, 8, call_id, 1) + b"\xff\3\xc0\x21data")
    )


def gre(table) -> list:
    return [(key, conn) for key, conn in table.live() if key["protocol"] == GRE]


@pytest.mark.parametrize("client_is_larger", [True, False])
@pytest.mark.parametrize("first", ["client", "server"])
def test_both_directions_of_a_call_are_one_connection(table, client_is_larger, first):
    client, server = (CLIENT, SERVER) if client_is_larger else (SERVER, CLIENT)
    made = control(table, client, server)
    made.client_says(OUT_REQUEST)
    made.server_says(out_reply())
    frames = [call(PAC, client, server), call(PNS, server, client)]
    for frame in frames if first == "client" else frames[::-1]:
        table.see(frame)
    ((_, conn),) = gre(table)
    assert list(conn["packets"]) == [1, 1]
    assert (is_expected(table, conn), kind(conn), int(conn["gre_protocol"])) == (True, "pptp", 0x880B)
    assert expected(table) == []


def test_an_incoming_call(table):
    made = control(table)
    made.server_says(message(9, struct.pack("!H", PAC), 208))
    made.client_says(message(10, struct.pack("!HHB", PNS, PAC, 1), 12))
    made.server_says(message(11, struct.pack("!H", PNS), 16))
    table.see(call(PAC, CLIENT, SERVER))
    table.see(call(PNS, SERVER, CLIENT))
    ((_, conn),) = gre(table)
    assert is_expected(table, conn)


def test_a_call_ends_with_its_disconnect_notify(table):
    made = control(table)
    made.client_says(OUT_REQUEST)
    made.server_says(out_reply())
    table.see(call(PAC, CLIENT, SERVER))
    assert len(gre(table)) == 1
    made.server_says(message(13, struct.pack("!H", PAC), 136))
    assert gre(table) == []


def test_a_call_that_nobody_saw_agreed_is_two_connections(table):
    """As in nf_conntrack."""
    table.see(call(PAC, CLIENT, SERVER))
    table.see(call(PNS, SERVER, CLIENT))
    assert [list(conn["packets"]) for _, conn in gre(table)] == [[1, 0]] * 2


@pytest.mark.parametrize(
    "reply",
    [
        out_reply(result=2),
        out_reply(peer=PNS + 1),
        out_reply(size=19),
        out_reply(cookie=1),
        out_reply(control=2),
        b"\0",
        b"x" * 300,
    ],
    ids=["refused", "another call", "short", "cookie", "management", "a byte", "garbage"],
)
def test_no_agreement_no_call(table, reply):
    made = control(table)
    made.client_says(OUT_REQUEST)
    made.server_says(reply)
    assert expected(table) == []


def test_a_reply_without_a_request_is_no_agreement(table):
    control(table).server_says(out_reply(peer=0))
    assert expected(table) == []


def test_a_reply_without_a_session_is_no_agreement(table):
    made = Control(table, port=1723)
    made.client_says(OUT_REQUEST)
    made.server_says(out_reply())
    assert expected(table) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.binary(max_size=220)), max_size=6))
def test_any_messages_make_no_more_than_one_call(table, messages):
    table.clear()
    forget_all(table)
    made = control(table)
    for from_server, number, body in messages:
        (made.server_says if from_server else made.client_says)(message(number, body, max(len(body), 1)))
    assert len(expected(table)) in (0, 2)
    table.check_conservation()


def tunnel(flags: int, rest: bytes, source: str = CLIENT, target: str = SERVER, protocol: int = 0x0800) -> bytes:
    return ethernet(ip(source, target, GRE, struct.pack("!HH", flags, protocol) + rest))


def test_gre_by_key(table):
    for key in (1, 2):
        for ends in ((CLIENT, SERVER), (SERVER, CLIENT)):
            table.see(tunnel(0x2000, struct.pack("!I", key << 16 | 7) + bytes(20), *ends))
            table.see(tunnel(0xA000, bytes(4) + struct.pack("!I", key << 16 | 7) + bytes(20), *ends))
    table.see(tunnel(0, bytes(20)))
    variants = sorted((int(key["variant"]), list(conn["packets"])) for key, conn in gre(table))
    assert variants == [(0, [1, 0]), (1, [2, 2]), (1, [2, 2])]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (tunnel(0x2000, b"\0\0\0"), "CUT_TRANSPORT"),
        (tunnel(0xA000, bytes(7)), "CUT_TRANSPORT"),
        (tunnel(0x2001, b"\0\0\0", protocol=0x880B), "CUT_TRANSPORT"),
        (tunnel(0x2001, bytes(20)), "MALFORMED_TRANSPORT"),
    ],
)
def test_gre_that_is_none(table, frame, reason):
    table.see(frame)
    assert table.untracked() == {reason: 1}


@pytest.mark.parametrize(
    ("protocol", "port", "name"),
    [
        (TCP, 21, "ftp"),
        (UDP, 69, "tftp"),
        (TCP, 6667, "irc"),
        (TCP, 5060, "sip"),
        (UDP, 5060, "sip"),
        (TCP, 1723, "pptp"),
        (TCP, 1720, "h323"),
        (UDP, 27960, "quake3"),
        (UDP, 21, ""),
        (TCP, 69, ""),
        (UDP, 6667, ""),
        (TCP, 27960, ""),
        (TCP, 80, ""),
    ],
)
@pytest.mark.parametrize(("source", "target"), [(CLIENT, SERVER), (SERVER, CLIENT), (CLIENT6, SERVER6)])
def test_connection_type_by_port(table, protocol, port, name, source, target):
    frame = tcp_frame(source, 1024, target, port, SYN) if protocol == TCP else udp_frame(source, 1024, target, port)
    table.see(frame)
    assert kind(table.only()) == name
    table.clear()
    back = tcp_frame(target, port, source, 1024, SYN) if protocol == TCP else udp_frame(target, port, source, 1024)
    table.see(back)
    assert kind(table.only()) == ""
