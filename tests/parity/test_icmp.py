"""ICMP and ICMPv6: questions and answers, and errors about other connections."""

from __future__ import annotations

from datapath.crafted import UDP, ip, udp

from parity.by_hand import ends_of, send, send_icmp, send_udp
from parity.conftest import Paths
from parity.machines import Parity

ECHO = {"v4": (8, 0), "v6": (128, 129)}


def questions(ghosts: Paths):
    """Each path with its types of echo request and reply."""
    return zip(ghosts, ECHO.values(), strict=True)


def test_echo_with_several_ids(lab: Parity, ghosts: Paths):
    for path, (question, answer) in questions(ghosts):
        for ident in (0, 1, 77, 65_535):
            send_icmp(lab, path, question, ident, bytes(56))
            send_icmp(lab, path, answer, ident, bytes(56), from_server=True)
        send_icmp(lab, path, question, 77, bytes(8))
    agreed = lab.agree(*ghosts)
    assert [c.packets for c in agreed].count((1, 1)) == 6
    assert [c.packets for c in agreed].count((2, 1)) == 2


def test_echo_from_both_ends(lab: Parity, ghosts: Paths):
    """The same id, each asking the other: two connections."""
    for path, (question, answer) in questions(ghosts):
        for from_server in (False, True):
            send_icmp(lab, path, question, 5, from_server=from_server)
            send_icmp(lab, path, answer, 5, bytes(10), from_server=not from_server)
    assert [c.packets for c in lab.agree(*ghosts)] == [(1, 1)] * 4


def test_echo_with_a_code(lab: Parity, ghosts: Paths):
    for path, (question, _) in questions(ghosts):
        send_icmp(lab, path, question, 5, code=3)
    assert [c.original[3] for c in lab.agree(*ghosts)] == ["3", "3"]


def test_other_questions(lab: Parity, ghosts: Paths):
    """Timestamp, information, address mask; node information in IPv6."""
    pairs = ((ghosts[0], 13, 14), (ghosts[0], 15, 16), (ghosts[0], 17, 18), (ghosts[1], 139, 140))
    for path, question, answer in pairs:
        send_icmp(lab, path, question, 9, bytes(12))
        send_icmp(lab, path, answer, 9, bytes(12), from_server=True)
    assert [c.packets for c in lab.agree(*ghosts)] == [(1, 1)] * 4


def test_answers_to_nothing(lab: Parity, ghosts: Paths):
    for path, (_, answer) in questions(ghosts):
        send_icmp(lab, path, answer, 5)
    send_icmp(lab, ghosts[0], 14, 5, bytes(12))
    assert lab.agree(*ghosts) == []


def test_unknown_types(lab: Parity, ghosts: Paths):
    for kind in (1, 9, 10, 19, 42, 255):
        send_icmp(lab, ghosts[0], kind, 5)
    for kind in (141, 145, 200, 255):
        send_icmp(lab, ghosts[1], kind, 5)
    assert lab.agree(*ghosts) == []


ERRORS = {  # type and code, in IPv4 and in IPv6
    "port unreachable": ((3, 3), (1, 4)),
    "host unreachable": ((3, 1), (1, 0)),
    "ttl exceeded": ((11, 0), (3, 0)),
    "fragmentation needed": ((3, 4), (2, 0)),
    "parameter problem": ((12, 0), (4, 1)),
}


def test_errors_about_connections(lab: Parity, ghosts: Paths):
    """An error is part of the connection in it, starts none, and is not counted on it, nor taken for an answer."""
    for port, kinds in enumerate(ERRORS.values()):
        for path, (kind, code) in zip(ghosts, kinds, strict=True):
            ends = ends_of(path, from_server=False)
            send_udp(lab, path, 1000 + port, 2000, bytes(30))
            about = ip(*ends, UDP, udp(*ends, 1000 + port, 2000, bytes(30)))
            send_icmp(lab, path, kind, 0, about, code=code, from_server=True)
    assert [(c.protocol, c.packets, c.seen_reply) for c in lab.agree(*ghosts)] == [(UDP, (1, 0), False)] * 10


def test_errors_about_nothing(lab: Parity, ghosts: Paths):
    for path, kind in zip(ghosts, (3, 1), strict=True):
        ends = ends_of(path, from_server=False)
        send_icmp(lab, path, kind, 0, ip(*ends, UDP, udp(*ends, 1000, 2000)), from_server=True)
        send_icmp(lab, path, kind, 0, b"too short", from_server=True)
    assert lab.agree(*ghosts) == []


def test_of_the_other_family(lab: Parity, ghosts: Paths):
    """ICMPv6 in IPv4 has no meaning."""
    before = lab.counters()["invalid-icmp"]
    send(lab, ghosts[0], 58, bytes((128, 0, 0, 0, 0, 5, 0, 1)))
    assert lab.agree(ghosts[0]) == []
    assert lab.counters()["invalid-icmp"] == before + 1
