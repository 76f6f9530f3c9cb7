"""Programs on real interfaces of real namespaces: hooks, links and filters, what comes and goes, what stays behind."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from crafted import UDP, ip, udp
from lab.hooks import hooks, programs
from lab.network import IPV4, IPV6, Namespace, address, network, wait_for
from lab.traffic import ping, ping_count
from pyroute2 import IPRoute

from ctweb.datapath.attach import AttachError, detach_leftovers, namespace_pins
from ctweb.datapath.build import BuildOptions, Datapath, compile_datapath
from ctweb.datapath.follow import Interfaces, Report
from ctweb.datapath.interfaces import NoSuchInterfaceError
from ctweb.datapath.maps import Reader
from ctweb.settings import Tracking

TCX = {"tcx ingress", "tcx egress"}
PORT = 4242
CLSACT = {"clsact ingress", "clsact egress", "clsact qdisc"}


@pytest.fixture(scope="module")
def datapath() -> Iterator[Datapath]:
    made = compile_datapath(BuildOptions(max_entries=1024))
    yield made
    made.close()


@pytest.fixture
def far() -> Iterator[Namespace]:
    with network() as net:
        yield net.namespace("far")


@pytest.fixture
def here() -> Iterator[Namespace]:
    """A machine of the test's own; the test is in it."""
    with network() as net:
        machine = net.namespace("here")
        with machine.entered():
            yield machine


@pytest.fixture
def follow(datapath: Datapath, here: Namespace) -> Iterator[Callable[..., Interfaces]]:
    """Starts Interfaces in `here`; stopped at the end."""
    with ExitStack() as stack:

        def start(**options) -> Interfaces:
            made = Interfaces(datapath.programs, datapath.interfaces, **options)
            stack.callback(made.stop)
            made.start()
            return made

        yield start


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "bpf", "bpf", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def report(interfaces: Interfaces, name: str) -> Report | None:
    return next((r for r in interfaces.reports if r.interface == name), None)


def seen(datapath: Datapath) -> set[int]:
    return {key.value for key in datapath.interfaces}


@pytest.mark.parametrize(
    ("hook", "tcx", "expected"),
    [
        ("auto", True, TCX),  # native XDP would take its peer's offloads away
        ("tc", True, TCX),
        ("xdp", True, {"xdp", "tcx egress"}),
        ("tc", False, CLSACT),
        ("xdp", False, {"xdp", "clsact egress", "clsact qdisc"}),
    ],
)
def test_every_choice_of_hook_and_holder(here, far, follow, datapath, hook, tcx, expected):
    here.ip(f"link add v type veth peer name v netns {far.path}")
    interfaces = follow(hook=hook, tcx=tcx)
    found = hooks(here)
    assert found["v"] == expected
    assert found["lo"] == expected - {"xdp", "tcx ingress", "clsact ingress"} | ({"tcx egress"} if tcx else set())
    told = report(interfaces, "v")
    assert (told.hook, told.held_by, told.failed) == (
        "xdp" if "xdp" in expected else "tc",
        "link" if tcx else "clsact",
        False,
    )
    assert seen(datapath) == {1, socket.if_nametoindex("v")}
    interfaces.stop()
    assert hooks(here) == {}
    assert seen(datapath) == set()


def test_a_named_interface_that_is_not_there_is_refused_and_nothing_stays_attached(here, follow, datapath):
    with pytest.raises(NoSuchInterfaceError, match="'nope'"):
        follow(names=["lo", "nope"])
    assert hooks(here) == {}
    assert seen(datapath) == set()


def test_forced_xdp_is_refused_for_a_named_interface_that_cannot(here, follow):
    here.ip("link add br0 type bridge")
    with pytest.raises(AttachError, match="'br0' cannot take --hook xdp: its driver has no native XDP; use auto or tc"):
        follow(names=["lo", "br0"], hook="xdp")
    here.run("ip", "tuntap", "add", "t0", "mode", "tun")
    with pytest.raises(AttachError, match="'t0' cannot take --hook xdp: its packets have no Ethernet header"):
        follow(names=["t0"], hook="xdp")
    assert hooks(here) == {}


def test_forced_xdp_leaves_those_that_cannot_to_tc_when_none_was_named(here, follow):
    here.run("ip", "tuntap", "add", "t0", "mode", "tun")
    interfaces = follow(hook="xdp")
    assert hooks(here)["t0"] == TCX
    assert report(interfaces, "t0").hook == "tc"
    assert "no Ethernet header" in report(interfaces, "t0").reason


def test_an_xdp_program_of_somebody_else_is_left_alone(here, far, follow, datapath):
    here.ip(f"link add v type veth peer name v netns {far.path}")
    with IPRoute() as netlink:
        netlink.link("set", index=socket.if_nametoindex("v"), xdp_fd=datapath.programs["xdp_ingress"])
    with pytest.raises(AttachError, match="another XDP program is attached"):
        follow(hook="xdp", names=["v"])
    interfaces = follow(hook="xdp")
    assert hooks(here)["v"] == {"xdp", *TCX}
    interfaces.stop()
    assert hooks(here)["v"] == {"xdp"}


def test_interfaces_that_come_go_and_change_are_followed(here, far, follow, datapath):
    interfaces = follow()
    here.ip(f"link add v type veth peer name v netns {far.path}")
    wait_for("the new interface is taken", lambda: hooks(here).get("v") == TCX)
    v = socket.if_nametoindex("v")

    here.ip("link set v name w")
    wait_for("the new name is told", lambda: report(interfaces, "w"))
    assert hooks(here)["w"] == TCX

    here.ip("link add br0 type bridge", "link set w master br0")
    br0 = socket.if_nametoindex("br0")
    wait_for("the bridge is seen", lambda: seen(datapath) == {1, v, br0})
    assert "br0" not in hooks(here)
    assert report(interfaces, "br0").reason == "counted at w"

    here.ip(f"link set w netns {far.path}")
    wait_for("what moved away is let go", lambda: v not in seen(datapath))
    assert hooks(far) == {}

    far.ip(f"link set w netns {here.path}")
    wait_for("what came back is taken", lambda: hooks(here).get("w") == TCX)
    here.ip("link del w")
    wait_for("what is gone is let go", lambda: seen(datapath) == {1})


def test_both_ends_of_a_pair_are_tracked_on_their_way_out_until_they_part(here, far, follow):
    here.ip("link add east type veth peer name west")
    follow(names=["east"])
    assert hooks(here) == {"east": {"tcx egress"}, "west": {"tcx egress"}}
    here.ip(f"link set west netns {far.path}")
    wait_for("the end that is left is taken both ways", lambda: hooks(here) == {"east": TCX})


def test_named_interfaces_are_let_go_and_taken_again_and_others_are_not(here, far, follow, datapath):
    make = f"link add v type veth peer name v netns {far.path}"
    here.ip(make)
    interfaces = follow(names=["v"])
    assert set(hooks(here)) == {"v"}
    here.ip("link del v")
    wait_for("it is let go", lambda: seen(datapath) == set())
    wait_for("it is told", lambda: report(interfaces, "v").failed)
    here.ip(f"link add other type veth peer name other netns {far.path}", make)
    wait_for("it is taken again", lambda: hooks(here).get("v") == TCX)
    assert set(hooks(here)) == {"v"}


def test_more_changes_at_once_than_the_netlink_socket_holds(here, follow):
    interfaces = follow()
    with interfaces._lock:  # the thread sleeps on it while the socket overruns
        here.ip(*(f"link add v{i} type veth peer name w{i}" for i in range(60)), *(f"link del v{i}" for i in range(59)))
    wait_for("the last one is taken, the others are gone", lambda: set(hooks(here)) == {"lo", "v59", "w59"})


def test_filters_of_others_and_their_qdisc_stay(here, far, follow, datapath):
    here.ip(f"link add v type veth peer name v netns {far.path}")
    here.run("tc", "qdisc", "add", "dev", "v", "clsact")
    v, program = socket.if_nametoindex("v"), datapath.programs["tc_egress"]
    with IPRoute() as netlink:
        # Where ours would go: a priority that is for IPv4 only, and our first handle.
        theirs = {"prio": 1, "fd": program, "name": "theirs", "direct_action": True}
        netlink.tc("add-filter", "bpf", v, 1, parent=0xFFFFFFF2, protocol=0x0800, **theirs)
        netlink.tc("add-filter", "bpf", v, 1, parent=0xFFFFFFF3, **theirs)
    before = filters(here)
    interfaces = follow(names=["v"], tcx=False)
    assert len(filters(here)) > len(before)
    interfaces.stop()
    assert filters(here) == before
    assert hooks(here)["v"] == CLSACT


def filters(machine: Namespace) -> list[str]:
    return [
        line
        for way in ("ingress", "egress")
        for line in machine.run("tc", "filter", "show", "dev", "v", way).splitlines()
        if "handle" in line
    ]


def test_an_ingress_qdisc_in_the_way_of_filters_is_told_and_left_alone(here, far, follow):
    here.ip(f"link add v type veth peer name v netns {far.path}")
    here.run("tc", "qdisc", "add", "dev", "v", "ingress")
    with pytest.raises(AttachError, match="cannot attach to interface 'v': an ingress qdisc is in the way"):
        follow(names=["v"], tcx=False)
    assert "qdisc ingress" in here.run("tc", "qdisc", "show", "dev", "v")
    assert here.run("tc", "filter", "show", "dev", "v", "ingress") == ""


def test_our_filter_taken_away_by_somebody_is_put_back(here, far, follow):
    here.ip(f"link add v type veth peer name v netns {far.path}")
    follow(names=["v"], tcx=False)
    here.run("tc", "qdisc", "del", "dev", "v", "clsact")
    here.ip("link set v up")  # what happens next to the interface shows it
    wait_for("the filters are back", lambda: hooks(here).get("v") == CLSACT)


@pytest.mark.parametrize("tcx", [True, False])
def test_replacing_the_programs_leaves_no_gap(here, far, follow, tcx):
    here.ip(f"link add v type veth peer name v netns {far.path}")
    interfaces = follow(names=["v"], tcx=tcx)
    fresh = compile_datapath(BuildOptions(max_entries=1024))
    try:
        before = program_ids(here)
        interfaces.replace(fresh.programs)
        assert hooks(here)["v"] == (TCX if tcx else CLSACT)
        assert len(program_ids(here)) == len(before)
        assert not program_ids(here) & before
    finally:
        interfaces.stop()
        fresh.close()


def test_kept_programs_stay_and_a_later_run_takes_their_links_over(here, far, follow, datapath, bpffs):
    here.ip(
        f"link add v type veth peer name v netns {far.path}", f"link add gone type veth peer name gone netns {far.path}"
    )
    follow(hook="xdp", keep=True, bpffs=bpffs).stop()
    kept = {"lo": {"tcx egress"}, "v": {"xdp", "tcx egress"}, "gone": {"xdp", "tcx egress"}}
    assert hooks(here) == kept
    here.ip("link del gone")
    del kept["gone"]

    again = follow(hook="xdp", bpffs=bpffs)
    assert hooks(here) == kept
    assert not namespace_pins(bpffs).exists()
    again.stop()
    assert hooks(here) == {}


@pytest.mark.parametrize("tcx", [True, False])
def test_detach_removes_what_kept_runs_left(here, far, follow, bpffs, tcx):
    here.ip(f"link add v type veth peer name v netns {far.path}")
    follow(keep=True, tcx=tcx, bpffs=bpffs).stop()
    assert hooks(here)["v"] == (TCX if tcx else CLSACT)
    with IPRoute() as netlink:
        removed = detach_leftovers(netlink, namespace_pins(bpffs), sparing={})
        assert removed
        assert hooks(here) == {}
        assert detach_leftovers(netlink, namespace_pins(bpffs), sparing={}) == []
    assert not namespace_pins(bpffs).exists()


def test_keeping_without_a_bpf_filesystem_is_refused_in_words(here, follow, tmp_path):
    with pytest.raises(AttachError, match="is a BPF filesystem mounted there"):
        follow(keep=True, names=["lo"], bpffs=tmp_path)
    assert hooks(here) == {}


def test_a_process_that_is_killed_leaves_nothing_on_links_and_the_next_one_clears_its_filters(here, far, follow):
    here.ip(f"link add v type veth peer name v netns {far.path}", f"link add u type veth peer name u netns {far.path}")
    for tcx, left in ((True, {}), (False, {"lo": {"clsact egress", "clsact qdisc"}, "u": CLSACT, "v": CLSACT})):
        child = os.fork()
        if not child:
            try:
                follow(tcx=tcx)
            finally:
                os.kill(os.getpid(), 9)
        os.waitpid(child, 0)
        assert hooks(here) == left
    follow(names=["v"])
    assert hooks(here) == {"v": TCX}


def test_no_descriptor_is_lost(here, far, follow):
    def churn() -> int:
        here.ip(f"link add v type veth peer name v netns {far.path}")
        wait_for("it is taken", lambda: "v" in hooks(here))
        here.ip("link del v")
        wait_for("it is let go", lambda: report(interfaces, "v") is None)
        return len(os.listdir("/proc/self/fd"))

    interfaces = follow()
    before = churn()
    for _ in range(3):
        after = churn()
    assert after == before


def program_ids(machine: Namespace) -> set[int]:
    """Of all programs on the interface v."""
    return {program for ids in programs(machine)["v"].values() for program in ids}


def counted(datapath: Datapath) -> list[tuple[int, list[int], list[int]]]:
    """Protocol, packets and bytes each way of every connection."""
    table = Reader(datapath.connections).read()
    return list(zip(table.protocol.tolist(), table.packets.tolist(), table.bytes.tolist(), strict=True))


@pytest.mark.parametrize(("hook", "tcx"), [("tc", True), ("xdp", True), ("tc", False), ("xdp", False)])
@pytest.mark.parametrize("ends", [IPV4, IPV6], ids=["ipv4", "ipv6"])
def test_packets_are_counted_by_every_hook_however_held(here, far, follow, datapath, ends, hook, tcx):
    here.ip(f"link add v type veth peer name v netns {far.path}", "link set v up")
    far.ip("link set v up")
    address(here, "v", 1, 1)
    address(far, "v", 1, 2)
    datapath.apply(Tracking())
    datapath.connections.clear()
    follow(names=["v"], hook=hook, tcx=tcx)
    ping(far, ends.router, 20)
    ping(here, ends.client, 20)
    expected = ping_count(ends, 20)
    protocol = socket.IPPROTO_ICMP if ends is IPV4 else socket.IPPROTO_ICMPV6
    assert counted(datapath) == [(protocol, [20, 20], [expected.orig_bytes, expected.repl_bytes])] * 2


@pytest.mark.parametrize("tcx", [True, False])
@pytest.mark.parametrize("ends", [IPV4, IPV6], ids=["ipv4", "ipv6"])
def test_packets_without_a_link_header_are_counted(here, follow, datapath, ends, tcx):
    """A tun device: what is written to it comes in, what goes out is read from it."""
    with open_tun("t0") as tun:
        here.ip("link set t0 up")
        address(here, "t0", 1, 1)
        datapath.apply(Tracking())
        datapath.connections.clear()
        follow(names=["t0"], tcx=tcx)
        question = udp(ends.client, ends.router, PORT, PORT, b"question")
        with here.socket(ends.family, socket.SOCK_DGRAM) as sock:
            sock.bind((ends.router, PORT))
            tun.write(ip(ends.client, ends.router, UDP, question))
            data, peer = sock.recvfrom(100)
            assert data == b"question"
            sock.sendto(b"the answer", peer)
        headers = ends.header + 8
        assert counted(datapath) == [(UDP, [1, 1], [headers + len("question"), headers + len("the answer")])]


@contextmanager
def open_tun(name: str) -> Iterator[BinaryIO]:
    with Path("/dev/net/tun").open("r+b", buffering=0) as tun:
        iff_tun, iff_no_pi, tunsetiff = 0x0001, 0x1000, 0x400454CA
        fcntl.ioctl(tun, tunsetiff, struct.pack("16sH", name.encode(), iff_tun | iff_no_pi))
        yield tun
