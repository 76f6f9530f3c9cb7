"""Every header shape that is understood, and what becomes of it: tuple and bytes, or the reason for no entry."""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest
from crafted import (
    ACK,
    AH,
    CLIENT,
    CLIENT6,
    DCCP,
    DSTOPTS,
    FRAGMENT,
    GRE,
    HOPOPTS,
    ICMP,
    ICMPV6,
    ROUTING,
    SCTP,
    SERVER,
    SERVER6,
    SYN,
    TCP,
    UDP,
    UDPLITE,
    authentication,
    ethernet,
    extension,
    fragment6,
    icmp,
    ip,
    ipv4,
    ipv6,
    pppoe,
    tcp,
    udp,
)  # fmt: skip

from ctweb.datapath.bpf import SkBuff, TestRunner

FAMILIES = [(CLIENT, SERVER), (CLIENT6, SERVER6)]
SEGMENT4 = tcp(CLIENT, SERVER, 1234, 80, SYN)
SEGMENT6 = tcp(CLIENT6, SERVER6, 1234, 80, SYN)
PLAIN4, PLAIN6 = ipv4(CLIENT, SERVER, TCP, SEGMENT4), ipv6(CLIENT6, SERVER6, TCP, SEGMENT6)


def original(table) -> tuple[str, int, str, int, int]:
    """Source, its port, destination, its port and protocol of the one live connection."""
    (entry,) = table.live()
    key, conn = entry
    ends = [(key["lo_addr"], key["lo_port"]), (key["hi_addr"], key["hi_port"])]
    if conn["status"] & table.datapath.enums["status"]["STATUS_SWAPPED"]:
        ends.reverse()
    found: list[object] = []
    for words, port in ends:
        raw = words.tobytes()
        if key["family"] == 4:
            assert not any(raw[4:])
        found += [str(ipaddress.ip_address(raw[:4] if key["family"] == 4 else raw)), socket.ntohs(int(port))]
    assert not key["pad"].any()
    return (*found, int(key["protocol"]))  # type: ignore[return-value]


def chain(*headers: int, last: int = TCP) -> bytes:
    """An IPv6 packet with these extension headers before a TCP SYN."""
    payload, following = SEGMENT6, last
    for kind in reversed(headers):
        if kind == FRAGMENT:
            payload = fragment6(following, more=False) + payload
        elif kind == AH:
            payload = authentication(following) + payload
        else:
            payload = extension(following, words=1) + payload
        following = kind
    return ipv6(CLIENT6, SERVER6, following, payload)


SHAPES = {
    "IPv4": (ethernet(PLAIN4), len(PLAIN4)),
    "IPv6": (ethernet(PLAIN6), len(PLAIN6)),
    "padded to 60 bytes": (ethernet(ipv4(CLIENT, SERVER, TCP, SEGMENT4)).ljust(60, b"\xff"), 40),
    "padded far beyond": (ethernet(PLAIN6) + bytes(500), len(PLAIN6)),
    "VLAN": (ethernet(PLAIN4, tags=(0x8100,)), len(PLAIN4)),
    "802.1ad": (ethernet(PLAIN6, tags=(0x88A8,)), len(PLAIN6)),
    "QinQ": (ethernet(PLAIN4, tags=(0x88A8, 0x8100)), len(PLAIN4)),
    "three tags": (ethernet(PLAIN6, tags=(0x8100, 0x8100, 0x8100)), len(PLAIN6)),
    "PPPoE": (ethernet(pppoe(PLAIN4), 0x8864), len(PLAIN4)),
    "PPPoE with IPv6": (ethernet(pppoe(PLAIN6), 0x8864), len(PLAIN6)),
    "PPPoE in QinQ": (ethernet(pppoe(PLAIN6), 0x8864, tags=(0x88A8, 0x8100)), len(PLAIN6)),
    "IPv4 options": (ethernet(ipv4(CLIENT, SERVER, TCP, SEGMENT4, options=bytes(40))), 80),
    "TCP options": (ethernet(ipv4(CLIENT, SERVER, TCP, tcp(CLIENT, SERVER, 1234, 80, SYN, options=bytes(40)))), 80),
    "IPv4 don't fragment": (ethernet(ipv4(CLIENT, SERVER, TCP, SEGMENT4, fragment=0x4000)), 40),
    "hop-by-hop": (ethernet(chain(HOPOPTS)), 76),
    "routing": (ethernet(chain(ROUTING)), 76),
    "destination options": (ethernet(chain(DSTOPTS)), 76),
    "AH": (ethernet(chain(AH)), 84),
    "an unfragmented fragment": (ethernet(chain(FRAGMENT)), 68),
    "all extensions": (ethernet(chain(HOPOPTS, DSTOPTS, ROUTING, FRAGMENT, AH, DSTOPTS)), 60 + 16 * 4 + 8 + 24),
    "eight extensions": (ethernet(chain(*[DSTOPTS] * 8)), 60 + 16 * 8),
    "a long extension": (ethernet(ipv6(CLIENT6, SERVER6, DSTOPTS, extension(TCP, words=20) + SEGMENT6)), 60 + 168),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shape_of_a_tcp_packet(table, name):
    frame, size = SHAPES[name]
    table.see(frame)
    family6 = b"\x20\x01\x0d\xb8" in frame
    assert original(table) == (*((CLIENT6, 1234, SERVER6, 80) if family6 else (CLIENT, 1234, SERVER, 80)), TCP)
    conn = table.only()
    assert (list(conn["packets"]), list(conn["bytes"])) == ([1, 0], [size, 0])
    assert table.state() == "SYN_SENT"
    table.check_conservation()


@pytest.mark.parametrize(("source", "destination"), FAMILIES, ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    ("protocol", "payload"),
    [(UDP, udp(CLIENT, SERVER, 5353, 53, b"x")), (UDPLITE, udp(CLIENT, SERVER, 5353, 53, b"x", length=8)),
     (UDPLITE, udp(CLIENT, SERVER, 5353, 53, b"x", length=0)), (SCTP, struct.pack("!HHII", 5353, 53, 1, 2) + bytes(8)),
     (DCCP, struct.pack("!HHBBHI", 5353, 53, 4, 0, 0, 1) + bytes(8))],
    ids=["UDP", "UDP-Lite", "UDP-Lite, all covered", "SCTP", "DCCP"],
)  # fmt: skip
def test_protocols_with_ports(table, source, destination, protocol, payload):
    table.see(ethernet(ip(source, destination, protocol, payload)))
    assert original(table) == (source, 5353, destination, 53, protocol)
    back = struct.pack("!HH", 53, 5353) + payload[4:]
    table.see(ethernet(ip(destination, source, protocol, back)))
    assert list(table.only()["packets"]) == [1, 1]
    assert table.flags() == {"SEEN_REPLY"}


@pytest.mark.parametrize(("source", "destination"), FAMILIES, ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("protocol", [GRE, 2, 4, 50, 89, 103, 255])
def test_every_other_protocol_goes_by_addresses(table, source, destination, protocol):
    table.see(ethernet(ip(source, destination, protocol, b"anything")))
    table.see(ethernet(ip(destination, source, protocol, b"else")))
    assert original(table) == (source, 0, destination, 0, protocol)
    assert list(table.only()["packets"]) == [1, 1]
    assert table.timeout() == 600


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(
    ("a", "b"),
    [((CLIENT, 1), (SERVER, 2)), ((CLIENT, 1), (CLIENT, 2)), ((CLIENT6, 1), (SERVER6, 2)), ((CLIENT6, 1), (CLIENT6, 2)),
     (("2001:db8:1::1", 1), ("2001:db8::1", 2)), (("::1", 5), ("::1", 256)), (("1.0.0.2", 1), ("2.0.0.1", 1))],
)  # fmt: skip
def test_both_directions_are_one_entry(table, a, b, swap):
    """Whichever end is the smaller one, who sent first is the source."""
    (source, sport), (destination, dport) = (b, a) if swap else (a, b)
    table.see(ethernet(ip(source, destination, UDP, udp(source, destination, sport, dport))))
    table.see(ethernet(ip(destination, source, UDP, udp(destination, source, dport, sport))))
    assert original(table) == (source, sport, destination, dport, UDP)
    assert list(table.only()["packets"]) == [1, 1]
    key = table.key()
    ends = [(key[f"{end}_addr"].tobytes(), key[f"{end}_port"].tobytes()) for end in ("lo", "hi")]
    assert ends[0] < ends[1]


class TestIcmp:
    @pytest.mark.parametrize(("asks", "answers"), [(8, 0), (13, 14), (15, 16), (17, 18)])
    def test_a_question_and_its_answer_are_one(self, table, asks, answers):
        table.see(ethernet(ipv4(CLIENT, SERVER, ICMP, icmp(asks, ident=77))))
        table.see(ethernet(ipv4(SERVER, CLIENT, ICMP, icmp(answers, ident=77))))
        key, conn = table.live()[0]
        assert list(conn["packets"]) == [1, 1]
        assert bytes(key["lo_addr"].tobytes()[:4]) == socket.inet_aton(CLIENT)
        assert socket.ntohs(int(key["lo_port"])) == 77
        assert socket.ntohs(int(key["hi_port"])) == asks << 8
        assert table.flags() == {"SEEN_REPLY"}
        assert table.timeout() == 10

    @pytest.mark.parametrize(("asks", "answers"), [(128, 129), (139, 140)])
    def test_the_same_in_ipv6(self, table, asks, answers):
        table.see(ethernet(ipv6(CLIENT6, SERVER6, ICMPV6, icmp(asks, ident=77))))
        table.see(ethernet(ipv6(SERVER6, CLIENT6, ICMPV6, icmp(answers, ident=77))))
        key, conn = table.live()[0]
        assert list(conn["packets"]) == [1, 1]
        assert socket.ntohs(int(key["hi_port"])) == asks << 8

    def test_both_may_ask_with_the_same_id(self, table):
        for source, destination in ((CLIENT, SERVER), (SERVER, CLIENT)):
            table.see(ethernet(ipv4(source, destination, ICMP, icmp(8, ident=77))))
            table.see(ethernet(ipv4(destination, source, ICMP, icmp(0, ident=77))))
        assert [list(conn["packets"]) for _, conn in table.live()] == [[1, 1], [1, 1]]

    def test_code_is_part_of_it(self, table):
        table.see(ethernet(ipv4(CLIENT, SERVER, ICMP, icmp(8, 3, ident=77))))
        table.see(ethernet(ipv4(SERVER, CLIENT, ICMP, icmp(0, 0, ident=77))))
        assert list(table.only()["packets"]) == [1, 0]
        assert table.untracked() == {"INVALID_ICMP": 1}

    @pytest.mark.parametrize("kind", [0, 14, 16, 18, 1, 2, 6, 9, 10, 19, 40, 255])
    def test_nothing_else_starts_one(self, table, kind):
        table.see(ethernet(ipv4(CLIENT, SERVER, ICMP, icmp(kind, ident=77))))
        assert not table.live()
        assert table.untracked() == {"INVALID_ICMP": 1}

    @pytest.mark.parametrize("kind", [130, 131, 132, 133, 134, 135, 136, 137, 143])
    def test_neighbours_and_listeners_are_left_out(self, table, kind):
        table.see(ethernet(ipv6(CLIENT6, SERVER6, ICMPV6, icmp(kind))))
        assert table.untracked() == {"NEIGHBOUR": 1}

    @pytest.mark.parametrize("kind", [129, 140, 138, 144, 200, 255])
    def test_nothing_else_starts_one_in_ipv6(self, table, kind):
        table.see(ethernet(ipv6(CLIENT6, SERVER6, ICMPV6, icmp(kind))))
        assert table.untracked() == {"INVALID_ICMP": 1}

    def test_of_the_wrong_family_is_invalid(self, table):
        table.see(ethernet(ipv6(CLIENT6, SERVER6, ICMP, icmp(8, ident=77))))
        table.see(ethernet(ipv4(CLIENT, SERVER, ICMPV6, icmp(128, ident=77))))
        assert table.untracked() == {"INVALID_ICMP": 2}


@pytest.mark.parametrize(
    ("ethertype", "payload"),
    [(0x0806, bytes(28)), (0x8863, bytes(20)), (0x8847, bytes(40)), (0x0004, bytes(46)),
     (0x8100, b"\0\1\x08\x06" + bytes(28)), (0x8864, struct.pack("!BBHHH", 0x11, 0, 7, 10, 0xC021) + bytes(8)),
     (0x8864, struct.pack("!BBHHH", 0x21, 0, 7, 10, 0x21)),
     (0x8864, struct.pack("!BBHHH", 0x11, 9, 7, 10, 0x21) + bytes(40))],
    ids=["ARP", "PPPoE discovery", "MPLS", "802.3", "ARP in a VLAN", "LCP", "PPPoE 2", "PPPoE code 9"],
)  # fmt: skip
def test_what_is_not_ip_is_not_even_counted(table, ethertype, payload):
    table.see(ethernet(payload, ethertype))
    assert not table.counted()


class TestWithoutLinkHeader:
    """A test run always makes its skb's protocol from bytes 12 and 13: here those are an address's."""

    def test_ipv4(self, table):
        source = "8.0.0.9"
        packet = ipv4(source, SERVER, TCP, tcp(source, SERVER, 1, 2, SYN))
        self.see(table, "tc_ingress_l3", packet)
        assert original(table) == (source, 1, SERVER, 2, TCP)
        assert int(table.only()["bytes"][0]) == 40

    def test_ipv6(self, table):
        source = "2001:db8:86dd::9"
        packet = ipv6(source, SERVER6, TCP, tcp(source, SERVER6, 1, 2, SYN))
        self.see(table, "tc_egress_l3", packet)
        assert original(table) == (source, 1, SERVER6, 2, TCP)
        assert "CONFIRMED" in table.flags()

    def test_anything_else(self, table):
        self.see(table, "tc_ingress_l3", ipv4(CLIENT, SERVER, TCP, SEGMENT4))
        assert not table.counted()

    @staticmethod
    def see(table, program, packet):
        """Like Table.see(), but a test run shows the packet with its first 14 bytes taken for a link header."""
        done = TestRunner(table.datapath.programs[program]).run(packet, SkBuff(tstamp=table.now))
        assert (done.retval, done.data) == (0xFFFFFFFF, packet)


def test_replay_counts_what_the_capture_cut_off(table):
    """The wire's length counts, not the capture's: 1,000 bytes of payload of which nothing was kept."""
    whole = ethernet(ipv4(CLIENT, SERVER, UDP, udp(CLIENT, SERVER, 1, 2, bytes(1000))))
    table.see(whole[:42], mark=len(whole))
    assert list(table.only()["bytes"]) == [1028, 0]
    options = bytes((2, 4, 5, 180, 1, 1, 8, 10)) + bytes(8)
    whole = ethernet(ipv4(CLIENT, SERVER, TCP, tcp(CLIENT, SERVER, 1, 2, ACK, options=options, payload=bytes(100))))
    table.see(whole[:54], mark=len(whole))
    assert sorted(int(conn["bytes"].sum()) for _, conn in table.live()) == [156, 1028]
    table.check_conservation()
