"""Fragments: each counts on the connection of its packet, as it is on the wire, once the first one is there."""

from __future__ import annotations

import itertools

import pytest
from crafted import (
    ACK,
    CLIENT,
    CLIENT6,
    DSTOPTS,
    FRAGMENT,
    HOPOPTS,
    ICMP,
    ICMPV6,
    SCTP,
    SERVER,
    SERVER6,
    SYN,
    TCP,
    UDP,
    ethernet,
    extension,
    fragment6,
    icmp,
    ipv4,
    ipv6,
    pppoe,
    tcp,
    tcp_frame,
    udp,
    udp_frame,
)  # fmt: skip

PIECE = 64  # bytes of payload in a fragment


def fragments(source, destination, protocol, payload, ident=1, piece=PIECE) -> list[bytes]:
    """The packet's fragments in order, as IP packets."""
    made = []
    for offset in range(0, len(payload), piece):
        part, more = payload[offset : offset + piece], offset + piece < len(payload)
        if ":" in source:
            made.append(ipv6(source, destination, FRAGMENT, fragment6(protocol, offset, more, ident) + part))
        else:
            made.append(ipv4(source, destination, protocol, part, fragment=more << 13 | offset // 8, ident=ident))
    return made


def datagram(source, destination, sport, dport, size=300, ident=1) -> list[bytes]:
    """A UDP datagram in fragments."""
    return fragments(source, destination, UDP, udp(source, destination, sport, dport, bytes(size)), ident)


FAMILIES = pytest.mark.parametrize(
    ("source", "destination"),
    [(CLIENT, SERVER), (SERVER, CLIENT), (CLIENT6, SERVER6), (SERVER6, CLIENT6)],
    ids=["IPv4", "IPv4 from lo", "IPv6", "IPv6 from lo"],
)


def check_all_on(table, parts: list[bytes]) -> None:
    """They are on the one connection, all of them, and nowhere else."""
    assert list(table.only()["packets"]) == [len(parts), 0]
    assert list(table.only()["bytes"]) == [sum(map(len, parts)), 0]
    assert table.untracked() == {}
    assert "UNTRACKED_BYTES" not in table.counted()
    table.check_conservation()


@FAMILIES
@pytest.mark.parametrize("program", ["tc_ingress", "tc_egress"])
def test_in_order(table, source, destination, program):
    parts = datagram(source, destination, 1000, 2000)
    assert len(parts) == 5
    for part in parts:
        table.see(ethernet(part), program)
    check_all_on(table, parts)


@FAMILIES
def test_in_every_order(table, source, destination):
    for order in itertools.permutations(datagram(source, destination, 1000, 2000, size=200)):
        table.clear()
        for part in order:
            table.see(ethernet(part))
            table.check_conservation()
        check_all_on(table, list(order))


@FAMILIES
def test_before_the_first_they_are_untracked(table, source, destination):
    first, *rest = datagram(source, destination, 1000, 2000)
    for seen, part in enumerate(reversed(rest), 1):
        table.see(ethernet(part))
        assert not table.live()
        assert table.untracked() == {"FRAGMENT": seen}
        table.check_conservation()
    table.see(ethernet(first))
    check_all_on(table, [first, *rest])


@FAMILIES
def test_both_directions(table, source, destination):
    ask, answer = datagram(source, destination, 1, 2), datagram(destination, source, 2, 1, size=500)
    for parts in (ask, reversed(answer)):
        for part in parts:
            table.see(ethernet(part))
    assert list(table.only()["packets"]) == [len(ask), len(answer)]
    assert list(table.only()["bytes"]) == [sum(map(len, ask)), sum(map(len, answer))]
    assert "SEEN_REPLY" in table.flags()
    table.check_conservation()


@FAMILIES
def test_interleaved_ids(table, source, destination):
    ours = [datagram(source, destination, port, 53, ident=port) for port in (1000, 2000, 65_535)]
    for parts in zip(*ours, strict=True):
        for part in parts:
            table.see(ethernet(part))
    assert [list(conn["packets"]) for _, conn in table.live()] == [[5, 0]] * 3
    assert table.untracked() == {}
    table.check_conservation()


def test_ids_of_32_bits(table):
    ours = [datagram(CLIENT6, SERVER6, 1000 + n, 53, ident=n << 16 | 7) for n in range(1, 4)]
    for parts in zip(*ours, strict=True):
        for part in parts:
            table.see(ethernet(part))
    assert [list(conn["packets"]) for _, conn in table.live()] == [[5, 0]] * 3
    assert table.untracked() == {}


def test_the_same_id_of_another_protocol(table):
    """IPv4 knows fragments by their protocol too."""
    one = datagram(CLIENT, SERVER, 1000, 53)
    other = fragments(CLIENT, SERVER, ICMP, icmp(8, ident=5, rest=bytes(400)))
    for both in itertools.zip_longest(one, other):
        for part in filter(None, both):
            table.see(ethernet(part))
    counted = {int(key["protocol"]): list(conn["packets"]) for key, conn in table.live()}
    assert counted == {UDP: [len(one), 0], ICMP: [len(other), 0]}
    assert table.untracked() == {}


def test_another_protocol_in_later_fragments_of_ipv6(table):
    """Only that of the first one is good (RFC 8200, 4.5)."""
    first, *rest = datagram(CLIENT6, SERVER6, 1000, 53)
    changed = [part[:40] + bytes((TCP,)) + part[41:] for part in rest]
    for part in (first, *changed):
        table.see(ethernet(part))
    check_all_on(table, [first, *changed])


def test_the_same_id_of_another_sender(table):
    table.see(ethernet(datagram(CLIENT, SERVER, 1000, 53)[0]))
    for source, destination in ((SERVER, CLIENT), ("10.0.0.3", SERVER), (CLIENT, "10.0.0.3")):
        table.see(ethernet(datagram(source, destination, 1000, 53)[1]))
    assert list(table.only()["packets"]) == [1, 0]
    assert table.untracked() == {"FRAGMENT": 3}


def test_an_id_used_again(table):
    """The later datagram's fragments are its own."""
    for port in (1000, 1001):
        for part in datagram(CLIENT, SERVER, port, 53):
            table.see(ethernet(part))
    assert [list(conn["packets"]) for _, conn in table.live()] == [[5, 0]] * 2
    table.check_conservation()


@pytest.mark.parametrize(("source", "destination", "patience"), [(CLIENT, SERVER, 30), (CLIENT6, SERVER6, 60)])
def test_what_comes_too_late(table, source, destination, patience):
    """After the kernel's reassembly time a fragment belongs to nothing that came before, nor does a first one."""
    table.see(tcp_frame(source, 1, destination, 2, ACK))
    table.see(tcp_frame(destination, 2, source, 1, ACK))  # alive for a day
    first, second, third = fragments(
        source, destination, TCP, tcp(source, destination, 1, 2, ACK, payload=bytes(160))
    )[:3]  # fmt: skip
    table.see(ethernet(first))
    table.sleep(patience - 1)
    table.see(ethernet(second))
    assert list(table.only()["packets"]) == [3, 1]
    table.sleep(1)
    table.see(ethernet(third))
    assert list(table.only()["packets"]) == [3, 1]
    assert table.untracked() == {"FRAGMENT": 1}
    table.sleep(patience)
    table.see(ethernet(first))
    assert list(table.only()["packets"]) == [4, 1]
    assert table.untracked() == {"FRAGMENT": 1}
    table.check_conservation()


@FAMILIES
def test_fragments_keep_no_connection_alive(table, source, destination):
    first, second, third, *_ = datagram(source, destination, 1000, 2000)
    table.see(ethernet(first))
    table.sleep(9)
    table.see(ethernet(second))
    assert table.timeout() == 1
    table.sleep(1)
    table.see(ethernet(third))
    assert not table.live()
    assert table.untracked() == {"FRAGMENT": 1}
    table.check_conservation()


def test_the_next_connection_of_the_same_ends_is_another_one(table):
    first, second, *_ = datagram(CLIENT, SERVER, 1000, 2000)
    table.see(ethernet(first))
    table.sleep(11)
    table.see(udp_frame(CLIENT, 1000, SERVER, 2000))
    table.see(ethernet(second))
    assert list(table.only()["packets"]) == [1, 0]
    assert table.untracked() == {"FRAGMENT": 1}
    table.check_conservation()


@pytest.mark.parametrize("tags", [(0x8100,), (0x88A8, 0x8100)])
def test_in_vlans(table, tags):
    parts = datagram(CLIENT6, SERVER6, 1000, 2000)
    for part in reversed(parts):
        table.see(ethernet(part, tags=tags))
    check_all_on(table, parts)


def test_in_pppoe(table):
    parts = datagram(CLIENT, SERVER, 1000, 2000)
    for part in parts:
        table.see(ethernet(pppoe(part), 0x8864))
    check_all_on(table, parts)


def test_extension_headers_before_and_after_the_fragment_header(table):
    payload = extension(UDP) + udp(CLIENT6, SERVER6, 1, 2, bytes(200))
    parts = []
    for offset in range(0, len(payload), PIECE):
        more = offset + PIECE < len(payload)
        head = extension(FRAGMENT) + fragment6(DSTOPTS, offset, more)
        parts.append(ipv6(CLIENT6, SERVER6, HOPOPTS, head + payload[offset : offset + PIECE]))
    for part in parts:
        table.see(ethernet(part))
    check_all_on(table, parts)


@pytest.mark.parametrize(
    "packet",
    [fragments(CLIENT, SERVER, ICMP, icmp(8, ident=5, rest=bytes(400))),
     fragments(CLIENT6, SERVER6, ICMPV6, icmp(128, ident=5, rest=bytes(400))),
     fragments(CLIENT, SERVER, SCTP, bytes(400)), fragments(CLIENT6, SERVER6, 99, bytes(400))],
    ids=["ICMP", "ICMPv6", "SCTP", "another"],
)  # fmt: skip
def test_other_protocols(table, packet):
    for part in reversed(packet):
        table.see(ethernet(part))
    check_all_on(table, packet)


def test_fragments_change_no_tcp_state(table):
    table.see(tcp_frame(CLIENT, 1, SERVER, 2, SYN, seq=1))
    table.see(tcp_frame(SERVER, 2, CLIENT, 1, SYN | ACK, seq=10, ack=2))
    table.see(tcp_frame(CLIENT, 1, SERVER, 2, ACK, seq=2, ack=11))
    first, *rest = fragments(CLIENT, SERVER, TCP, tcp(CLIENT, SERVER, 1, 2, ACK, seq=2, ack=11, payload=bytes(300)))
    table.see(ethernet(first))
    table.sleep(5)
    before = table.only()
    for part in rest:
        table.see(ethernet(part))
    after = table.only()
    assert table.state() == "ESTABLISHED"
    assert list(after["packets"]) == [3 + len(rest), 1]
    for name in ("expires", "status", "tcp_state", "tcp_last", "window"):
        assert before[name].tobytes() == after[name].tobytes()
    table.check_conservation()


@pytest.mark.parametrize("size", [8, 16])
def test_a_first_fragment_without_all_of_its_header(table, size):
    """It has no connection, and neither have those that follow it."""
    parts = fragments(CLIENT, SERVER, TCP, tcp(CLIENT, SERVER, 1, 2, SYN) + bytes(100), piece=size)
    for part in parts:
        table.see(ethernet(part))
    assert not table.entries()
    assert table.untracked() == {"CUT_TRANSPORT": 1, "FRAGMENT": len(parts) - 1}
    table.check_conservation()


def test_what_follows_an_invalid_first_one_is_untracked_too(table):
    first, *rest = fragments(CLIENT, SERVER, TCP, tcp(CLIENT, SERVER, 1, 2, SYN | ACK, payload=bytes(100)))
    for part in (first, *rest):
        table.see(ethernet(part))
    assert not table.entries()
    assert table.untracked() == {"INVALID_TCP": 1, "FRAGMENT": len(rest)}
    table.check_conservation()


def test_a_fragment_with_nothing_before_or_after_it(table):
    """IPv6: offset 0 and no more. It is a packet as any other, also for later fragments with its id."""
    table.see(ethernet(ipv6(CLIENT6, SERVER6, FRAGMENT, fragment6(UDP, more=False) + udp(CLIENT6, SERVER6, 1, 2))))
    table.see(ethernet(datagram(CLIENT6, SERVER6, 1, 2)[1]))
    assert list(table.only()["packets"]) == [1, 0]
    assert table.untracked() == {"FRAGMENT": 1}


def test_more_datagrams_than_there_is_room_for(table):
    """The fragments of those that came first are untracked, none is lost."""
    many = [datagram(CLIENT, SERVER, 1000, 2000, ident=ident)[:2] for ident in range(10_000)]
    for part in [first for first, _ in many] + [second for _, second in reversed(many)]:
        table.see(ethernet(part))
    room = table.datapath.enums[""]["DATAGRAMS"]
    assert 10_000 < int(table.only()["packets"][0]) <= 10_000 + room
    assert set(table.untracked()) == {"FRAGMENT"}
    table.check_conservation()


def test_replies_behind_nat(table, masqueraded):
    """They have the outer address; the first one leads to the connection, and the others follow it in any order."""
    parts = datagram(SERVER, masqueraded, 53, 1000)
    for part in (parts[2], parts[0], *parts[3:], parts[1]):
        table.see(ethernet(part))
    assert list(table.only()["packets"]) == [1, len(parts)]
    assert table.untracked() == {}
    table.check_conservation()
