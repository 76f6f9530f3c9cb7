"""A rule that cannot be in force is refused with the reason, by the log and by doctor, and the rest runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.network import IPV4, Namespace, client_router_server, network, wait_for
from lab.tracked import CONFIG, Tracked
from lab.traffic import udp

from fasttrack.conftest import FASTTRACK, ready

Machines = tuple[Namespace, Namespace, Namespace]
MARK = '[[rule]]\naction = "mark-connection"\nnew-connection-mark = "runs"\n'


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    with network() as net:
        made = client_router_server(net)
        ready(made)
        yield made


def said(machines: Machines, directory: Path, rules: str, *words: str, hook: str = "xdp") -> None:
    """The log has these words, doctor too, and other rules are in force."""
    client, router, server = machines
    ctweb = Tracked(router, directory, "--hook", hook, config=CONFIG + rules + MARK)
    wait_for("the reason", lambda: all(each in ctweb.log.read_text() for each in words), ctweb.log.read_text)
    sport, _ = udp(IPV4, client, server, [10], [10])
    assert ctweb.row(protocol="udp", src_port=str(sport))["connection-mark"] == "runs"
    shown = json.dumps(ctweb.get("/page/settings")["fasttrack"])
    assert all(each.removeprefix("not in force: ") in shown for each in words), shown
    doctor = router.run(*ctweb.cli("doctor"))
    for each in words:
        assert each.removeprefix("not in force: rule 1: ") in doctor
    assert ctweb.end() == 0


def test_an_interface_that_is_not_there(machines: Machines, tmp_path: Path):
    why = "not in force: rule 1: in-interface: there is no interface 'dsl0'"
    said(machines, tmp_path, FASTTRACK + 'in-interface = "dsl0"\n', why)


def test_a_rule_whose_interface_comes_is_in_force_from_then_on(machines: Machines, tmp_path: Path):
    router = machines[1]
    rule = FASTTRACK + 'in-interface = "dsl0"\n'
    ctweb = Tracked(router, tmp_path, "--hook", "xdp", config=CONFIG + rule)

    def logged(*words: str) -> None:
        wait_for(f"{words} in the log", lambda: all(each in ctweb.log.read_text() for each in words))

    logged("not in force: rule 1: in-interface: there is no interface 'dsl0'")
    router.ip("link add dsl0 type veth peer name dsl1", "link set dsl0 up", "link set dsl1 up")
    logged("fasttrack: interface dsl0: packets are met at tc there", "rule 1: in-interface: dsl0 takes no part")
    router.ip("link del dsl0")
    router.ip(f"link add dsl0 type veth peer name dsl1 netns {machines[0].path}", "link set dsl0 up")
    machines[0].ip("link set dsl1 up")
    machines[0].run("ethtool", "-K", "dsl1", "gro", "on")
    try:
        logged("fasttrack: interface dsl0 takes part", "in force from now on: rule 1")
    finally:
        router.ip("link del dsl0")
    assert ctweb.end() == 0


def test_where_packets_are_not_met_at_xdp(machines: Machines, tmp_path: Path):
    words = ("no interface takes part in FastTrack", "met at tc there, not at XDP: asked for")
    said(machines, tmp_path, FASTTRACK, *words, hook="tc")


def test_an_interface_whose_other_end_takes_nothing(machines: Machines, tmp_path: Path):
    machines[2].run("ethtool", "-K", "eth0", "gro", "off")
    try:
        said(machines, tmp_path, FASTTRACK + 'in-interface = "wan"\n',
             "in-interface: wan takes no part in FastTrack: its other end takes no redirected packets")  # fmt: skip
    finally:
        machines[2].run("ethtool", "-K", "eth0", "gro", "on")


def test_doctor_tells_of_the_one_that_runs(machines: Machines, tmp_path: Path):
    """Its command line says what its configuration does not."""
    router = machines[1]
    ctweb = Tracked(router, tmp_path, "--hook", "xdp", "--interface", "lan", "--interface", "wan", config=FASTTRACK)
    doctor = router.run(*ctweb.cli("doctor"))
    assert ctweb.end() == 0
    for name in ("lan", "wan"):
        assert f"ok    interface     {name}: native XDP; ingress by xdp: so it runs" in doctor
        assert f"ok    fasttrack     {name}: takes part" in doctor
    assert " lo: " not in doctor
    assert "not in force" not in doctor
    # The next one would not do as it did.
    doctor = router.run(*ctweb.cli("doctor"))
    assert "lan: native XDP; ingress by tc" in doctor
    assert "rule 1 is not in force" in doctor
