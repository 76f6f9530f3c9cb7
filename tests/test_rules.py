"""Rules as the configuration has them: read, refused, and laid out for the kernel."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import numpy as np
import pytest

from ctweb import config
from ctweb.config import ConfigError
from ctweb.datapath.image import SOURCE, read_enums
from ctweb.datapath.interfaces import Interface
from ctweb.datapath.marking import Marking, indexes_of
from ctweb.rules import LARGEST, RuleError, parse_rules

LAYOUT = np.dtype(
    [("src_addr", "u4", 4), ("src_mask", "u4", 4), ("dst_addr", "u4", 4), ("dst_mask", "u4", 4), ("ifindex", "u4"),
     ("ifindex_mask", "u4"), ("src_first", "u2"), ("src_last", "u2"), ("dst_first", "u2"), ("dst_last", "u2"),
     ("protocol", "u1"), ("protocol_mask", "u1"), ("family", "u1"), ("family_mask", "u1"), ("mark", "u4")]
)  # fmt: skip
MARK = {"action": "mark-connection", "new-connection-mark": "voip"}


def one(**keys):
    """The rule of these keys, `_` for `-`, that marks voip."""
    return parse_rules([MARK | {key.replace("_", "-"): value for key, value in keys.items()}])[0]


def test_a_rule_in_a_file():
    text = b"""
[[rule]]
protocol = "udp"
src-address = "10.0.0.0/8"
dst-port = "5060,10000-20000"
in-interface = "lan"
action = "mark-connection"
new-connection-mark = "voip"

[[rule]]
dst-address = "2001:db8::1"
action = "mark-connection"
name = "guest network"
"""
    first, second = config.parse(text, "ctweb.toml").rule
    assert (first.protocol, first.src_address, first.dst_address) == (17, IPv4Network("10.0.0.0/8"), None)
    assert (first.src_port, first.dst_port) == ((), ((5060, 5060), (10000, 20000)))
    assert (first.in_interface, first.new_connection_mark) == ("lan", "voip")
    assert (second.dst_address, second.new_connection_mark) == (IPv6Network("2001:db8::1/128"), "guest network")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"dst-port": "99999", "protocol": "tcp"}, "rule 2: dst-port: takes a port"),
        ({"dst-port": "90-80", "protocol": "tcp"}, "rule 2: dst-port: takes a port"),
        ({"dst-port": "", "protocol": "tcp"}, "rule 2: dst-port: takes a port"),
        ({"dst-port": True, "protocol": "tcp"}, "rule 2: dst-port: takes a port"),
        ({"dst-port": -1, "protocol": "tcp"}, "rule 2: dst-port: takes a port"),
        ({"src-port": "80"}, "rule 2: src-port: needs a protocol that has ports: tcp, udp"),
        ({"src-port": "80", "protocol": "icmp"}, "rule 2: src-port: needs a protocol that has ports: tcp, udp"),
        ({"protocol": "tcpp"}, "rule 2: protocol: takes a name such as tcp"),
        ({"protocol": 256}, "rule 2: protocol: takes a name such as tcp"),
        ({"src-address": "10.0.0.0/33"}, "rule 2: src-address: takes an address or prefix"),
        ({"src-address": 10}, "rule 2: src-address: takes an address or prefix"),
        ({"src-address": "10.0.0.1", "dst-address": "::1"}, "rule 2: dst-address: ::1/128 is IPv6 and src-address"),
        ({"in-interface": "a name that is too long"}, "rule 2: in-interface: takes the name of the interface"),
        ({"in-interface": "a\n"}, "rule 2: in-interface: takes the name of the interface"),
        ({"action": "drop"}, "rule 2: action: takes mark-connection or fasttrack-connection, not 'drop'"),
        ({"action": "fasttrack-connection"}, "rule 2: new-connection-mark: fasttrack-connection gives none"),
        ({"connection-state": "established"}, "rule 2: connection-state: is for fasttrack-connection"),
        ({"connection-state": "established,new"}, "rule 2: connection-state: takes established, related or both"),
        ({"action": ["mark-connection"]}, "rule 2: action: takes mark-connection"),
        ({"new-connection-mark": ""}, "rule 2: new-connection-mark: takes the mark's name"),
        ({"new-connection-mark": "a\x1bb"}, "rule 2: new-connection-mark: takes the mark's name"),
        ({"new-connection-mark": "x" * 65}, "rule 2: new-connection-mark: takes the mark's name"),
        ({"name": "other"}, "rule 2: name: it is the same as new-connection-mark, which is given too"),
        ({"dst-prt": 80}, "rule 2: unknown key 'dst-prt'; there are protocol, src-address"),
    ],
)
def test_a_bad_rule_is_refused_with_its_number_and_key(rule, said):
    with pytest.raises(RuleError) as caught:
        parse_rules([MARK, MARK | rule])
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["action", "new-connection-mark"])
def test_what_a_rule_must_have(missing):
    with pytest.raises(RuleError, match=f"rule 1: {missing}: is missing"):
        parse_rules([{key: value for key, value in MARK.items() if key != missing}])


def test_the_file_is_named_too():
    with pytest.raises(ConfigError, match=r"^/etc/x\.toml: rule 1: protocol: takes"):
        config.parse(b'[[rule]]\nprotocol = "x"\n', "/etc/x.toml")
    with pytest.raises(ConfigError, match=r"rule takes tables, each under a line \[\[rule\]\], not"):
        config.parse(b'rule = "x"\n', "/etc/x.toml")


def test_there_is_room_for_many_and_more_are_refused():
    assert read_enums((SOURCE / "rules.h").read_text())[""]["RULES_MAX"] == LARGEST >= 64
    assert len(parse_rules([MARK] * LARGEST)) == LARGEST
    with pytest.raises(RuleError, match=f"rule {LARGEST + 1}: too many rules"):
        parse_rules([MARK] * (LARGEST + 1))
    ports = ",".join(map(str, range(30)))
    with pytest.raises(RuleError, match="rule 1: too many rules"):
        parse_rules([MARK | {"protocol": "tcp", "src-port": ports, "dst-port": ports}])


def interface(index, name, master=None):
    return Interface(index, name, "", 1, master)


class Kernel:
    """What was put into force, list by list."""

    def __init__(self):
        self.lists = []
        self.broken = False

    def put(self, packed):
        if self.broken:
            raise OSError("no memory")
        self.lists.append(packed.copy())


@pytest.fixture
def kernel():
    return Kernel()


@pytest.fixture
def marking(kernel):
    return Marking(kernel.put, LAYOUT, {"voip": 1, "no-mark": 0}.__getitem__)


def test_a_bridge_means_its_ports_too():
    there = {i.index: i for i in (interface(2, "br0"), interface(3, "bond0", 2), interface(4, "eth0", 3),
                                  interface(5, "eth1"))}  # fmt: skip
    assert indexes_of("br0", there) == (2, 3, 4)
    assert indexes_of("eth1", there) == (5,)
    assert indexes_of("eth2", there) == ()


def test_rules_follow_an_interface_that_comes_and_goes(kernel, marking):
    marking.set([one(in_interface="lan")])
    assert [len(each) for each in kernel.lists] == [0]
    marking.interfaces_are({7: interface(7, "lan")})
    marking.interfaces_are({7: interface(7, "lan"), 8: interface(8, "other")})  # nothing changes for the rules
    assert [each["ifindex"].tolist() for each in kernel.lists] == [[], [7]]
    marking.interfaces_are({9: interface(9, "lan")})
    marking.interfaces_are({})
    assert [each["ifindex"].tolist() for each in kernel.lists] == [[], [7], [9], []]


def test_rules_that_cannot_be_put_into_force_leave_those_before(kernel, marking):
    before = [one(protocol="udp")]
    marking.set(before)
    kernel.broken = True
    with pytest.raises(OSError, match="no memory"):
        marking.set([one(in_interface="lan")])
    assert marking.rules == tuple(before)
    kernel.broken = False
    marking.interfaces_are({7: interface(7, "lan")})
    assert len(kernel.lists) == 1


def test_without_rules_the_kernel_is_left_alone(kernel, marking):
    marking.set([])
    marking.interfaces_are({7: interface(7, "lan")})
    assert kernel.lists == []


def test_the_layout_of_these_tests_is_the_kernels():
    fields = [line.split(";")[0].split() for line in _struct("rule") if ";" in line]
    assert [name.split("[")[0] for _, name in fields] == list(LAYOUT.names)


def _struct(name: str) -> list[str]:
    text = Path(SOURCE / "rules.h").read_text()
    return text.split(f"struct {name} {{\n")[1].split("\n};")[0].splitlines()
