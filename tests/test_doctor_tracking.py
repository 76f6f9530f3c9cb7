"""`ctweb doctor` on interfaces, the table's memory, the running instance and what a run left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute, netns
from running import command, entered

from ctweb.datapath.interfaces import Interface, Shape
from ctweb.datapath.xdp_features import native_xdp
from ctweb.doctor.tracking import (
    check_accounts,
    check_instance,
    check_interface,
    check_leftovers,
    check_memory,
    check_verdict,
    lock_holder,
)
from ctweb.enabled import Verdict
from ctweb.instance import RUNTIME, Running, announced, only_instance
from ctweb.table.names import UNTRACKED_REASONS

ROOT = Path(__file__).parents[1]
ETHERNET, NONE = 1, 0xFFFE


@pytest.fixture
def veth() -> Iterator[IPRoute]:
    """A network namespace of the test's own, entered, with one end of a veth pair; the other is elsewhere."""
    name, elsewhere = f"su-{os.getpid()}", f"su-{os.getpid()}-far"
    netns.create(name)
    netns.create(elsewhere)
    try:
        with entered(name), IPRoute() as netlink:
            netlink.link("add", ifname="su0", kind="veth", peer={"ifname": "su1", "net_ns_fd": elsewhere})
            yield netlink
    finally:
        netns.remove(name)
        netns.remove(elsewhere)


def doctor() -> list[str]:
    result = subprocess.run(
        [sys.executable, "-m", "ctweb.doctor"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    return result.stdout.splitlines()


def test_interfaces_of_this_namespace_and_their_hooks(veth):
    loopback, veth = (line for line in doctor() if "interface  " in line)
    assert loopback.startswith("ok    interface     lo: no native XDP; ingress by tc: loopback")
    assert veth == "ok    interface     su0: native XDP; ingress by tc: native XDP would cost veth its offloads"


def test_drivers_tell_of_native_xdp(veth):
    index = veth.link_lookup(ifname="su0")[0]
    assert native_xdp() == {1: False, index: True}


@pytest.mark.parametrize(
    ("kind", "arphrd", "shape", "choice", "native", "ok", "says"),
    [
        ("", ETHERNET, Shape.ETHERNET, "auto", True, True, "nic: native XDP; ingress by xdp"),
        ("", ETHERNET, Shape.ETHERNET, "auto", False, True, "nic: no native XDP; ingress by tc"),
        ("", ETHERNET, Shape.ETHERNET, "auto", None, True, "nic: native XDP unknown; ingress by xdp"),
        ("", ETHERNET, Shape.ETHERNET, "xdp", False, False, "nic: no native XDP for hook xdp"),
        ("", ETHERNET, Shape.ETHERNET, "tc", True, True, "nic: native XDP; ingress by tc: asked for"),
        ("veth", ETHERNET, Shape.ETHERNET, "auto", True, True, "nic: native XDP; ingress by tc: native XDP would cost"),
        ("veth", ETHERNET, Shape.ETHERNET, "xdp", True, True, "nic: native XDP; ingress by xdp"),
        ("wireguard", NONE, Shape.LAYER3, "auto", False, True, "nic: no native XDP; ingress by tc: no Ethernet header"),
        ("wireguard", NONE, Shape.LAYER3, "xdp", False, False, "cannot take --hook xdp"),
    ],
)
def test_hook_of_an_interface(kind, arphrd, shape, choice, native, ok, says):
    check = check_interface(Interface(7, "nic", kind, arphrd), shape, choice, native)
    assert check.ok is ok
    assert says in check.detail
    assert bool(check.remedy) is not ok


@pytest.mark.parametrize(
    ("kind", "choice", "native", "has", "says"),
    [
        ("veth", "auto", True, "xdp", "nic: native XDP; ingress by xdp: so it runs"),
        ("veth", "auto", True, "tc", "nic: native XDP; ingress by tc: native XDP would cost veth its offloads"),
        ("", "xdp", False, "tc", "nic: no native XDP; ingress by tc: no native XDP"),
        ("", "tc", None, "xdp", "nic: native XDP unknown; ingress by xdp: so it runs"),
    ],
)
def test_hook_of_an_interface_that_is_tracked(kind, choice, native, has, says):
    """Whatever the configuration would come to: the running instance's command line may say something else."""
    check = check_interface(Interface(7, "nic", kind, ETHERNET), Shape.ETHERNET, choice, native, has)
    assert (check.ok, check.detail) == (True, says)


def test_memory_that_does_not_suffice_is_a_note():
    meminfo = "MemTotal: 1000000 kB\nMemAvailable:   500000 kB\n"
    assert check_memory(meminfo, 100_000, 1024).remedy == ""
    short = check_memory(meminfo, 1_000_000, 1024)
    assert short.ok
    assert "max-entries" in short.remedy
    assert "976 MiB" in short.detail
    assert "488 MiB" in short.detail


def test_the_running_instance_is_found_without_touching_its_lock(veth, tmp_path):
    lock = RUNTIME / f"netns-{os.stat('/proc/self/ns/net').st_ino}.lock"
    with only_instance(tmp_path), announced(tmp_path, Running(os.getpid(), "::1", 8291)):
        holder = lock_holder(lock, Path("/proc/locks").read_text())
        assert holder == os.getpid()
        assert check_instance(holder, tmp_path).detail == f"process {holder}, at http://[::1]:8291/"
        assert "another state directory" in check_instance(holder, tmp_path / "other").detail
        assert any(line.startswith(f"ok    running       process {holder}, with another state") for line in doctor())
    assert lock_holder(lock, Path("/proc/locks").read_text()) is None
    assert check_instance(None, tmp_path).detail == "no: ctweb run starts it"


def test_what_a_kept_run_leaves_is_told_until_it_is_detached(run, tmp_path, bpffs):
    assert run("--keep").ready().end() == 0
    told = next(line for line in doctor() if line[6:].startswith("left behind"))
    assert told.startswith("note  left behind   link /sys/fs/bpf/ctweb/")
    assert "            -> ctweb run takes it over; ctweb detach removes it" in "\n".join(doctor())
    assert command("detach", "--state-dir", tmp_path / "state").returncode == 0
    assert "ok    left behind   nothing" in doctor()


def test_what_is_left_behind_only_counts_with_nobody_running():
    assert check_leftovers([], running=False).remedy == ""
    assert "2 attachments belong to the running one" in check_leftovers(["link a", "link b"], running=True).detail
    left = check_leftovers(["link a", "link b"], running=False)
    assert (left.ok, left.detail) == (True, "link a, link b")
    assert "ctweb detach" in left.remedy


@pytest.mark.parametrize(
    ("verdict", "running", "said"),
    [
        (Verdict(True, "auto: there is an nftables rule"), True, "yes: auto: there is an nftables rule"),
        (Verdict(False, "enabled=no"), True, "no: enabled=no"),
        (Verdict(True, "enabled=yes"), False, "a run tracks: enabled=yes"),
        (Verdict(False, "enabled=no"), False, "a run does not track: enabled=no"),
        (Verdict(False, "auto: no rule here"), False, "a run tracks while somebody looks: auto, and there is no rule"),
    ],
)
def test_whether_it_tracks_and_why(verdict, running, said):
    check = check_verdict(verdict, running)
    assert (check.ok, check.detail) == (True, said)


EVEN = {
    "offered-packets": "1010", "live-packets": "900", "ended-packets": "98", "untracked-packets": "12",
    "offered-bytes": "101000", "live-bytes": "90000", "ended-bytes": "9800", "untracked-bytes": "1200",
    "unaccounted-packets": "0", "unaccounted-bytes": "0", "untracked-invalid-tcp": "12",
} | {f"untracked-{reason}": "0" for reason in UNTRACKED_REASONS if reason != "invalid-tcp"}  # fmt: skip


def test_both_sides_of_the_accounts():
    check = check_accounts(EVEN)
    assert check.ok
    assert "1,010 packets offered = 900 live + 98 ended + 12 untracked;" in check.detail
    assert "101,000 bytes offered = 90,000 live + 9,800 ended + 1,200 untracked;" in check.detail
    assert check.detail.endswith("untracked packets: invalid-tcp 12")


def test_packets_that_came_while_the_table_was_read():
    check = check_accounts(EVEN | {"offered-packets": "1013"})
    assert check.ok
    assert "12 untracked + 3 while it was read" in check.detail


@pytest.mark.parametrize(("gap", "word"), [("4", "nowhere"), ("-4", "twice")])
def test_accounts_that_do_not_add_up(gap, word):
    check = check_accounts(EVEN | {"unaccounted-bytes": gap})
    assert not check.ok
    assert check.detail == f"4 bytes of 101,000 are counted {word}"
    assert check.remedy


def test_an_instance_that_has_not_swept_yet():
    assert check_accounts({"version": "1"}).ok
