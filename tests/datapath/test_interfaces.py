"""Which interfaces take programs: the stacks of devices as netlink tells of them."""

from __future__ import annotations

import pytest

from ctweb.datapath.interfaces import Interface, NoSuchInterfaceError, Plan, Shape, check_names, plan

ETHER, LOOPBACK, PPP, NONE, CAN, NETLINK = 1, 772, 512, 0xFFFE, 280, 824


def machine(*interfaces: Interface) -> dict[int, Interface]:
    lo = Interface(1, "lo", "", LOOPBACK)
    return {i.index: i for i in (lo, *interfaces)}


def programs(plans: dict[int, Plan]) -> dict[str, Shape]:
    """What gets programs, by name."""
    return {p.interface.name: p.shape for p in plans.values() if p.shape is not None}


def seen(plans: dict[int, Plan]) -> set[str]:
    return {p.interface.name for p in plans.values() if p.seen}


def why(plans: dict[int, Plan], name: str) -> str:
    return next(p.reason for p in plans.values() if p.interface.name == name)


def test_every_kind_of_device_gets_the_programs_for_its_headers():
    plans = plan(
        machine(
            Interface(2, "eth0", "", ETHER),
            Interface(3, "ppp0", "ppp", PPP),
            Interface(4, "wg0", "wireguard", NONE),
            Interface(5, "tap0", "tun", ETHER),
            Interface(6, "can0", "vcan", CAN),
            Interface(7, "nlmon0", "nlmon", NETLINK),
        )
    )
    assert programs(plans) == {
        "lo": Shape.LOOPBACK, "eth0": Shape.ETHERNET, "ppp0": Shape.LAYER3, "wg0": Shape.LAYER3, "tap0": Shape.ETHERNET,
    }  # fmt: skip
    assert seen(plans) == set(programs(plans))


@pytest.mark.parametrize("kind", ["bridge", "bond", "team", "vrf"])
def test_ports_take_programs_and_their_master_is_seen(kind: str):
    plans = plan(machine(Interface(2, "p1", "", ETHER, master=9), Interface(9, "up", kind, ETHER)))
    assert programs(plans) == {"lo": Shape.LOOPBACK, "p1": Shape.ETHERNET}
    assert "up" in seen(plans)
    assert why(plans, "up") == "counted at p1"


def test_a_bridge_without_ports_takes_none_unless_it_is_named():
    interfaces = machine(Interface(9, "br0", "bridge", ETHER))
    assert programs(plan(interfaces)) == {"lo": Shape.LOOPBACK}
    assert programs(plan(interfaces, ["br0"])) == {"br0": Shape.ETHERNET}


@pytest.mark.parametrize("kind", ["vlan", "macvlan", "ipvlan"])
def test_a_device_on_another_is_counted_there_if_that_is_tracked(kind: str):
    interfaces = machine(Interface(2, "eth0", "", ETHER), Interface(3, "up", kind, ETHER, link=2))
    for names in (["eth0"], ["eth0", "up"]):
        assert programs(plan(interfaces, names)) == {"eth0": Shape.ETHERNET}
    assert seen(plan(interfaces, ["eth0"])) == {"eth0", "up"}
    assert programs(plan(interfaces, ["up"])) == {"up": Shape.ETHERNET}
    assert seen(plan(interfaces, ["up"])) == {"up"}


def test_a_device_whose_lower_one_is_in_another_namespace_is_the_lowest_here():
    plans = plan(machine(Interface(3, "eth0.7", "vlan", ETHER, link=None)))
    assert programs(plans)["eth0.7"] is Shape.ETHERNET


def test_stacks_are_counted_at_their_bottom():
    interfaces = machine(
        Interface(2, "eth0", "", ETHER, master=4),
        Interface(3, "eth1", "", ETHER, master=4),
        Interface(4, "bond0", "bond", ETHER),
        Interface(5, "bond0.7", "vlan", ETHER, master=6, link=4),
        Interface(6, "br7", "bridge", ETHER),
    )
    assert set(programs(plan(interfaces))) == {"lo", "eth0", "eth1"}
    assert seen(plan(interfaces)) == {"lo", "eth0", "eth1", "bond0", "bond0.7", "br7"}
    # bond0.7 is the lowest of those named: what br7 sees has passed it.
    assert set(programs(plan(interfaces, ["br7", "bond0.7"]))) == {"bond0.7"}


def test_a_tunnel_carries_connections_of_its_own():
    interfaces = machine(Interface(2, "eth0", "", ETHER), Interface(3, "gre1", "gre", 778, link=2))
    assert programs(plan(interfaces))["gre1"] is Shape.LAYER3


def test_a_pair_with_both_ends_in_one_namespace_is_counted_on_its_way_out_of_either():
    pair = Interface(2, "a", "veth", ETHER, link=3), Interface(3, "b", "veth", ETHER, link=2)
    for names in (("a", "b"), ("a",), ("b",)):
        assert programs(plan(machine(*pair), names)) == {"a": Shape.PAIR, "b": Shape.PAIR}
    apart = Interface(2, "a", "veth", ETHER, link=None)
    assert programs(plan(machine(apart), ["a"])) == {"a": Shape.ETHERNET}


def test_internal_ports_of_a_switch_are_counted_at_its_real_ports():
    interfaces = machine(
        Interface(2, "ovs-system", "openvswitch", ETHER),
        Interface(3, "eth0", "", ETHER, master=2),
        Interface(4, "br-int", "openvswitch", ETHER, master=2),
    )
    assert set(programs(plan(interfaces))) == {"lo", "eth0"}
    assert seen(plan(interfaces)) == {"lo", "eth0", "br-int", "ovs-system"}


def test_an_ifb_device_is_left_alone_for_its_packets_are_counted_where_they_came_from():
    plans = plan(machine(Interface(2, "eth0", "", ETHER), Interface(3, "ifb0", "ifb", ETHER)))
    assert set(programs(plans)) == {"lo", "eth0"}
    assert "ifb0" not in seen(plans)


def test_names_that_do_not_exist_are_refused_with_what_there_is():
    interfaces = machine(Interface(2, "eth0", "", ETHER), Interface(3, "can0", "vcan", CAN))
    check_names(interfaces, ["eth0", "lo"])
    with pytest.raises(NoSuchInterfaceError, match=r"no interface 'eth9'.*there are: can0, eth0, lo"):
        check_names(interfaces, ["eth0", "eth9"])
    with pytest.raises(NoSuchInterfaceError, match="'can0' carries no IP"):
        check_names(interfaces, ["can0"])
