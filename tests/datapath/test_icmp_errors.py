"""ICMP errors: each belongs to the connection of the packet that it quotes, changes nothing on it and starts none."""

from __future__ import annotations

import pytest
from crafted import (
    CLIENT,
    CLIENT6,
    DCCP,
    DSTOPTS,
    FRAGMENT,
    GRE,
    HOPOPTS,
    ICMP,
    ICMPV6,
    SCTP,
    SERVER,
    SERVER6,
    SYN,
    TCP,
    UDP,
    UDPLITE,
    ethernet,
    extension,
    fragment6,
    icmp,
    ip,
    ipv4,
    ipv6,
    tcp,
    udp,
)  # fmt: skip

ROUTER, ROUTER6 = "10.9.9.9", "2001:db8:9::9"
ERRORS = {4: (3, 4, 5, 11, 12), 6: (1, 2, 3, 4)}


def family(packet: bytes) -> int:
    return packet[0] >> 4


def packets(source: str, destination: str) -> dict[str, bytes]:
    """One of each kind."""
    question = (ICMP, 8) if source == CLIENT else (ICMPV6, 128)
    return {
        "TCP": ip(source, destination, TCP, tcp(source, destination, 1000, 80, SYN)),
        "UDP": ip(source, destination, UDP, udp(source, destination, 1000, 53, bytes(40))),
        "UDP-Lite": ip(source, destination, UDPLITE, udp(source, destination, 1000, 53, bytes(40))),
        "SCTP": ip(source, destination, SCTP, b"\0\1\0\2" + bytes(40)),
        "DCCP": ip(source, destination, DCCP, b"\0\1\0\2" + bytes(40)),
        "echo": ip(source, destination, question[0], icmp(question[1], ident=7, rest=bytes(20))),
        "GRE with a key": ip(source, destination, GRE, b"\x20\0\x08\0\0\0\0\7" + bytes(40)),
        "PPTP": ip(source, destination, GRE, b"\x30\x81\x88\x0b\0\x04\0\7" + bytes(40)),
        "another protocol": ip(source, destination, 99, bytes(40)),
    }


PACKETS = {
    **packets(CLIENT, SERVER),
    **{f"{name} in IPv6": packet for name, packet in packets(CLIENT6, SERVER6).items()},
    "IPv4 options": ipv4(CLIENT, SERVER, UDP, udp(CLIENT, SERVER, 1, 2, bytes(40)), options=bytes(40)),
    "extension headers": ipv6(
        CLIENT6, SERVER6, HOPOPTS, extension(DSTOPTS) + extension(UDP, 1) + udp(CLIENT6, SERVER6, 1, 2)
    ),
    "a first fragment": ipv4(CLIENT, SERVER, UDP, udp(CLIENT, SERVER, 1, 2, bytes(40)), fragment=0x2000),
    "a first fragment in IPv6": ipv6(
        CLIENT6, SERVER6, FRAGMENT, fragment6(UDP) + udp(CLIENT6, SERVER6, 1, 2, bytes(40))
    ),
}
HEADERS = {"IPv4 options": 60, "extension headers": 64, "a first fragment in IPv6": 48}
"""Length of what stands before the transport header, if that is more than an IP header."""


def error(
    packet: bytes, kind: int = 3, *, size: int | None = None, router: str | None = None, to: str | None = None
) -> bytes:
    """A frame with an ICMP error about `packet`, of which it quotes `size` bytes, for its sender."""
    if family(packet) == 4:
        return ethernet(ipv4(router or ROUTER, to or CLIENT, ICMP, icmp(kind, 1, rest=packet[:size])))
    return ethernet(ipv6(router or ROUTER6, to or CLIENT6, ICMPV6, icmp(kind, 1, rest=packet[:size])))


def enough(name: str) -> int:
    """How much of the packet an error must quote at least."""
    headers = HEADERS.get(name, 20 if family(PACKETS[name]) == 4 else 40)
    return headers + (0 if "another" in name else 8)


def check_unchanged(table, before) -> None:
    assert [(k.tobytes(), c.tobytes()) for k, c in table.entries()] == [(k.tobytes(), c.tobytes()) for k, c in before]
    table.check_conservation()


@pytest.mark.parametrize("name", PACKETS)
def test_about_a_connection(table, name):
    table.see(ethernet(PACKETS[name]))
    before = table.entries()
    assert len(before) == 1
    table.sleep(1)
    for seen, kind in enumerate(ERRORS[family(PACKETS[name])], 1):
        table.see(error(PACKETS[name], kind))
        assert table.untracked() == {"ICMP_ERROR": seen}
    check_unchanged(table, before)


@pytest.mark.parametrize("name", PACKETS)
def test_about_no_connection(table, name):
    for seen, kind in enumerate(ERRORS[family(PACKETS[name])], 1):
        table.see(error(PACKETS[name], kind))
        assert table.untracked() == {"INVALID_ICMP": seen}
    check_unchanged(table, [])


@pytest.mark.parametrize(("client", "server"), [(CLIENT, SERVER), (CLIENT6, SERVER6)])
def test_about_a_reply(table, client, server):
    """From the other end of the connection: the error goes to the server."""
    answer = ip(server, client, UDP, udp(server, client, 53, 1000))
    table.see(ethernet(ip(client, server, UDP, udp(client, server, 1000, 53))))
    table.see(ethernet(answer))
    before = table.entries()
    table.see(error(answer, to=server, router=client))
    assert table.untracked() == {"ICMP_ERROR": 1}
    check_unchanged(table, before)


def test_about_an_answer_to_ping(table):
    answer = ipv4(SERVER, CLIENT, ICMP, icmp(0, ident=7))
    table.see(ethernet(ipv4(CLIENT, SERVER, ICMP, icmp(8, ident=7))))
    table.see(ethernet(answer))
    table.see(error(answer, to=SERVER, router=CLIENT))
    assert table.untracked() == {"ICMP_ERROR": 1}


@pytest.mark.parametrize("name", ["TCP", "TCP in IPv6"])
def test_to_somebody_who_has_not_sent_it(table, name):
    table.see(ethernet(PACKETS[name]))
    table.see(error(PACKETS[name], to="10.0.0.77" if name == "TCP" else "2001:db8::77"))
    assert table.untracked() == {"INVALID_ICMP": 1}


def test_about_a_connection_that_is_over(table):
    table.see(ethernet(PACKETS["UDP"]))
    table.sleep(10)
    table.see(error(PACKETS["UDP"]))
    assert table.untracked() == {"INVALID_ICMP": 1}


@pytest.mark.parametrize("name", PACKETS)
def test_quoted_at_every_length(table, name):
    """Eight bytes of the transport header are enough, and none less is."""
    table.see(ethernet(PACKETS[name]))
    before = table.entries()
    for size in range(len(PACKETS[name]) + 1):
        counted = table.untracked()
        table.see(error(PACKETS[name], size=size))
        grown = {k: v - counted.get(k, 0) for k, v in table.untracked().items() if v != counted.get(k, 0)}
        assert grown == {"ICMP_ERROR" if size >= enough(name) else "INVALID_ICMP": 1}, f"{size} bytes"
    check_unchanged(table, before)


@pytest.mark.parametrize("name", PACKETS)
def test_what_follows_the_error_is_not_looked_at(table, name):
    """A frame that is longer than the error's own length: the rest of the quoted packet is no part of it."""
    packet, short = PACKETS[name], enough(name) - 1
    table.see(ethernet(packet))
    before = table.entries()
    table.see(error(packet, size=short) + packet[short:] + bytes(60))
    assert table.untracked() == {"INVALID_ICMP": 1}
    check_unchanged(table, before)


@pytest.mark.parametrize(
    "lie",
    [lambda p: b"\x55" + p[1:], lambda p: b"\x44" + p[1:], lambda p: b"\x4f" + p[1:], lambda p: b"\x65" + p[1:],
     lambda p: p[:2] + b"\0\0" + p[4:], lambda p: p[:2] + b"\0\x1b" + p[4:], lambda p: p[:6] + b"\0\1" + p[8:]],
    ids=["version 5", "header of 16", "header of 60", "version 6", "length 0", "length 27", "a later fragment"],
)  # fmt: skip
def test_a_quoted_packet_that_cannot_be(table, lie):
    table.see(ethernet(PACKETS["UDP"]))
    before = table.entries()
    table.see(ethernet(ipv4(ROUTER, CLIENT, ICMP, icmp(3, 1, rest=lie(PACKETS["UDP"])))))
    assert table.untracked() == {"INVALID_ICMP": 1}
    check_unchanged(table, before)


def test_about_a_packet_of_the_other_family(table):
    for name in ("UDP", "UDP in IPv6"):
        table.see(ethernet(PACKETS[name]))
    table.see(ethernet(ipv4(ROUTER, CLIENT, ICMP, icmp(3, 1, rest=PACKETS["UDP in IPv6"]))))
    table.see(ethernet(ipv6(ROUTER6, CLIENT6, ICMPV6, icmp(1, 3, rest=PACKETS["UDP"]))))
    assert table.untracked() == {"INVALID_ICMP": 2}


@pytest.mark.parametrize("name", ["TCP", "TCP in IPv6"])
def test_about_an_error(table, name):
    """Nobody may send one (RFC 1122, RFC 4443), and it belongs to nothing."""
    table.see(ethernet(PACKETS[name]))
    inner = error(PACKETS[name])[14:]
    router, client = (ROUTER, CLIENT) if name == "TCP" else (ROUTER6, CLIENT6)
    table.see(error(inner, to=router, router=client))
    assert table.untracked() == {"INVALID_ICMP": 1}


@pytest.mark.parametrize("program", ["tc_ingress", "tc_egress"])
@pytest.mark.parametrize("tags", [(), (0x8100,), (0x88A8, 0x8100)])
def test_in_vlans_and_on_the_way_out(table, program, tags):
    for name in ("UDP", "UDP in IPv6"):
        table.see(ethernet(PACKETS[name], tags=tags))
        table.see(ethernet(error(PACKETS[name])[14:], tags=tags), program)
    assert table.untracked() == {"ICMP_ERROR": 2}
    table.check_conservation()


def test_from_behind_nat(table, masqueraded):
    quoted = ipv4(masqueraded, SERVER, UDP, udp(masqueraded, SERVER, 1000, 53))
    table.see(ethernet(ipv4(SERVER, masqueraded, ICMP, icmp(3, 3, rest=quoted))))
    assert table.untracked() == {"ICMP_ERROR": 1}
    assert list(table.only()["packets"]) == [1, 0]
