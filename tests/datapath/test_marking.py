"""Rules in the kernel: real packets start connections, and the first rule that matches marks them."""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_network

import numpy as np
import pytest
from control import Control, data, forget_all, is_expected
from crafted import ICMP, SERVER, SYN, TCP, UDP, ethernet, icmp, ipv4, tcp_frame, udp_frame

from ctweb.rules import LARGEST, pack, parse_rules
from ctweb.table.marks import MarkNames


@pytest.fixture
def marks():
    return MarkNames()


@pytest.fixture
def enforce(replaying, marks):
    """Puts rules into force: dictionaries as TOML gives them. `there`: indexes of interfaces by name."""

    def put(*rules, there=None):
        there = there or {}
        packed = pack(
            parse_rules([{"action": "mark-connection"} | rule for rule in rules]),
            replaying.rule_dtype, number=marks.number, indexes=lambda name: there.get(name, ()),
        )  # fmt: skip
        replaying.set_rules(packed)

    yield put
    replaying.set_rules(np.zeros(0, replaying.rule_dtype))


@pytest.fixture
def mark(table, marks):
    """The mark of the connection that a frame starts, "" for none; the table is empty again afterwards."""

    def see(frame, **context):
        table.see(frame, **context)
        found = marks.names[table.only()["mark"]]
        table.clear()
        return found

    return see


def packet(source="10.1.2.3", destination=SERVER, protocol=UDP, sport=1000, dport=53):
    if protocol == TCP:
        return tcp_frame(source, sport, destination, dport, SYN)
    return udp_frame(source, sport, destination, dport)


@pytest.mark.parametrize(
    ("rule", "matching", "other"),
    [
        ({"protocol": "udp"}, packet(), packet(protocol=TCP)),
        ({"protocol": 17}, packet(), packet(protocol=TCP)),
        ({"src-address": "10.1.0.0/16"}, packet("10.1.255.255"), packet("10.2.0.0")),
        ({"src-address": "10.1.2.3"}, packet("10.1.2.3"), packet("10.1.2.2")),
        ({"dst-address": "192.0.2.0/25"}, packet(destination="192.0.2.127"), packet(destination="192.0.2.128")),
        ({"src-address": "0.0.0.0/0"}, packet(), packet("2001:db8::1", "2001:db8::2")),
        ({"src-address": "::/0"}, packet("2001:db8::1", "2001:db8::2"), packet()),
        ({"src-address": "2001:db8::/32"}, packet("2001:db8:ffff::1", "::1"), packet("2001:db9::1", "::1")),
        ({"dst-address": "2001:db8::/127"}, packet("::1", "2001:db8::1"), packet("::1", "2001:db8::2")),
        ({"dst-address": "::8000:0:0:0/65"}, packet("::1", "::8000:0:0:1"), packet("::1", "::7000:0:0:1")),
        ({"protocol": "udp", "dst-port": 53}, packet(), packet(dport=54)),
        ({"protocol": "udp", "dst-port": "53"}, packet(), packet(sport=53, dport=1000)),
        ({"protocol": "udp", "src-port": "1000-2000"}, packet(sport=2000), packet(sport=2001)),
        ({"protocol": "udp", "src-port": "1000-2000"}, packet(sport=1000), packet(sport=999)),
        ({"protocol": "tcp", "dst-port": "80,443,8000-8100"}, packet(protocol=TCP, dport=8100),
         packet(protocol=TCP, dport=81)),
        ({"protocol": "udp", "dst-port": "65535"}, packet(dport=65535), packet(dport=65534)),
        ({"protocol": "udp", "dst-port": 0}, packet(dport=0), packet(dport=1)),
        ({"protocol": "icmp"}, ethernet(ipv4("10.1.2.3", SERVER, ICMP, icmp(8))), packet()),
    ],
)  # fmt: skip
def test_each_key(enforce, mark, rule, matching, other):
    enforce(rule | {"new-connection-mark": "voip"})
    assert mark(matching) == "voip"
    assert mark(other) == ""


@pytest.mark.parametrize(("source", "destination"), [("10.0.0.1", "10.0.0.9"), ("10.0.0.9", "10.0.0.1")])
def test_source_is_who_sends_the_first_packet_whichever_end_is_smaller(enforce, mark, source, destination):
    enforce({"src-address": source, "protocol": "udp", "dst-port": 53, "new-connection-mark": "asked"})
    assert mark(packet(source, destination)) == "asked"
    assert mark(packet(destination, source)) == ""


def test_the_first_match_wins_and_no_mark_exempts(enforce, mark):
    enforce(
        {"src-address": "10.1.2.0/24", "new-connection-mark": "no-mark"},
        {"src-address": "10.1.0.0/16", "new-connection-mark": "narrow"},
        {"src-address": "10.0.0.0/8", "new-connection-mark": "wide"},
        {"src-address": "10.1.3.0/24", "new-connection-mark": "too-late"},
    )
    assert [mark(packet(f"10.{host}")) for host in ("1.2.3", "1.3.3", "9.9.9")] == ["", "narrow", "wide"]


@pytest.mark.parametrize(
    ("rule", "mark"),
    [
        ({"protocol": "icmp", "new-connection-mark": "another"}, "control"),
        ({"protocol": "tcp", "dst-port": 20_000, "new-connection-mark": "data"}, "data"),
        ({"protocol": "tcp", "dst-port": 20_000, "new-connection-mark": "no-mark"}, ""),
    ],
)
def test_an_expected_connection_has_the_mark_of_its_control_connection_unless_a_rule_matches(
    enforce, marks, table, rule, mark
):
    """As in nf_conntrack, where the rules come after that too."""
    enforce({"protocol": "tcp", "dst-port": 21, "new-connection-mark": "control"}, rule)
    forget_all(table)
    control = Control(table).greet()
    control.server_says(f"227 here ({control.server.replace('.', ',')},78,32)\r\n".encode())
    conn = data(table, control.client, control.server, 20_000)
    assert is_expected(table, conn)
    (now,) = (each for _, each in table.live() if each["id"] == conn["id"])
    assert marks.names[now["mark"]] == mark
    other = data(table, control.client, control.server, 20_001)
    assert marks.names[other["mark"]] == ""


def test_as_many_rules_as_there_is_room_for(enforce, mark):
    enforce(*({"protocol": "udp", "dst-port": port, "new-connection-mark": f"mark {port}"} for port in range(LARGEST)))
    for port in (0, 1, 63, 64, 255, LARGEST - 1):
        assert mark(packet(dport=port)) == f"mark {port}"
    assert mark(packet(dport=LARGEST)) == ""


def test_an_interface_by_name_whichever_it_is_at_the_moment(enforce, mark):
    rules = [{"in-interface": "later", "new-connection-mark": "through"}, {"new-connection-mark": "rest"}]
    enforce(*rules)
    assert mark(packet(), ingress_ifindex=7) == "rest"
    enforce(*rules, there={"later": [7]})
    assert mark(packet(), ingress_ifindex=7) == "through"
    assert mark(packet(), ingress_ifindex=8) == "rest"
    enforce(*rules, there={"later": [8, 9]})  # a bridge and its ports
    assert [mark(packet(), ingress_ifindex=index) for index in (7, 8, 9)] == ["rest", "through", "through"]
    assert mark(packet(), program="tc_egress") == "rest"  # from this machine: came in nowhere


def test_only_the_first_packet_is_asked(enforce, table, marks):
    table.see(packet())
    enforce({"new-connection-mark": "late"})
    table.see(packet())
    assert table.only()["mark"] == 0
    table.clear()
    table.see(packet())
    assert marks.names[table.only()["mark"]] == "late"
    enforce({"new-connection-mark": "other"})
    table.see(packet(SERVER, "10.1.2.3", sport=53, dport=1000))
    assert marks.names[table.only()["mark"]] == "late"


def test_a_new_connection_in_the_place_of_an_expired_one_is_marked_anew(enforce, table, marks):
    enforce({"src-address": "10.1.2.3", "new-connection-mark": "there"})
    table.see(packet())
    assert marks.names[table.only()["mark"]] == "there"
    table.sleep(3600)
    table.see(packet(SERVER, "10.1.2.3", sport=53, dport=1000))
    assert table.only()["mark"] == 0


def test_no_rules_again(enforce, mark):
    enforce({"new-connection-mark": "all"})
    assert mark(packet()) == "all"
    enforce()
    assert mark(packet()) == ""


def test_agrees_with_the_rules_read_one_by_one(enforce, mark):
    """Rules and packets at random over few values, so that they meet."""
    chance = random.Random(3)
    hosts = ["10.1.2.3", "10.1.9.9", "10.0.0.1", "192.0.2.1"]
    prefixes = ["10.1.2.0/24", "10.0.0.0/8", "192.0.2.1/32", "10.1.9.8/31"]
    for _ in range(10):
        rules = []
        for number in range(80):
            rule = {"new-connection-mark": f"m{number}", "protocol": chance.choice(["udp", "tcp"])}
            for end in ("src", "dst"):
                if chance.random() < 0.8:
                    rule[f"{end}-address"] = chance.choice(prefixes)
                if chance.random() < 0.8:
                    first = chance.randrange(6)
                    rule[f"{end}-port"] = f"{first}-{chance.randrange(first, 6)}"
            rules.append(rule)
        enforce(*rules)
        for _ in range(40):
            source, destination = chance.sample(hosts, 2)
            sport, dport, protocol = chance.randrange(7), chance.randrange(7), chance.choice(["udp", "tcp"])
            matching = (
                rule["new-connection-mark"] for rule in rules if protocol == rule["protocol"]
                and _meets(rule, "src", source, sport) and _meets(rule, "dst", destination, dport)
            )  # fmt: skip
            expected = next(matching, "")
            frame = packet(source, destination, {"udp": UDP, "tcp": TCP}[protocol], sport, dport)
            assert mark(frame) == expected, (source, sport, destination, dport, protocol)


def _meets(rule, end, host, port) -> bool:
    first, last = map(int, rule.get(f"{end}-port", "0-65535").split("-"))
    return ip_address(host) in ip_network(rule.get(f"{end}-address", "0.0.0.0/0")) and first <= port <= last
