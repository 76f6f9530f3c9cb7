"""`--hook auto` on a driver with native XDP that costs no offload: a TAP device whose user writes frame by frame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.hooks import hooks
from lab.network import IPV4, IPV6, Ends, Namespace, address, network, wait_for
from lab.taps import joined, open_tap
from lab.tracked import Tracked
from lab.traffic import agree, bulk, ping, ping_count, udp, udp_count

NATIVE = 1  # XDP_ATTACHED_DRV
NATIVE_XDP, TC = {"xdp", "tcx egress"}, {"tcx ingress", "tcx egress"}
ONE_SEGMENT = 1514  # bytes of the longest frame that holds one
PATHS = [Ends(ends.family, ends.client, ends.router, ends.router) for ends in (IPV4, IPV6)]  # far to here


@pytest.fixture
def far() -> Iterator[Namespace]:
    with network() as net:
        yield net.namespace("far")


@pytest.fixture
def here() -> Iterator[Namespace]:
    """The machine that is to track."""
    with network() as net:
        yield net.namespace("here")


def number(far: Namespace, here: Namespace) -> None:
    address(far, "tap0", 1, 2)
    address(here, "tap0", 1, 1)


def xdp_mode(machine: Namespace, name: str) -> int:
    """How the kernel says that XDP is attached there; 0: not at all."""
    (link,) = json.loads(machine.run("ip", "-j", "-d", "link", "show", name))
    return link.get("xdp", {}).get("mode", 0)


def test_auto_takes_native_xdp_and_counts_what_is_written_and_read(far: Namespace, here: Namespace, tmp_path: Path):
    with joined(far, here, "tap0"):
        number(far, here)
        ctweb = Tracked(here, tmp_path, "--hook", "auto")
        assert xdp_mode(here, "tap0") == NATIVE
        assert hooks(here)["tap0"] == NATIVE_XDP

        for path in PATHS:
            ping(far, path.server, 30, 200)
            echo = {"icmp-type": "8"} if path is PATHS[0] else {"icmp-type": "128"}
            ctweb.counts(ping_count(path, 30, 200), src_address=path.client, **echo)

            sizes, answers = [0, 1, 500, 1400], [1400, 3]
            port, _ = udp(path, far, here, sizes, answers)
            ctweb.counts(udp_count(path, sizes, answers), protocol="udp", src_address=path.shown(path.client, port))

            with bulk(path, far, here, 300_000) as sockets:
                agree(ctweb, path, *sockets)
        assert ctweb.end() == 0, ctweb.log.read_text()
        assert hooks(here) == {}


def test_auto_leaves_segments_that_come_in_bulk_to_tc_and_counts_each(far: Namespace, here: Namespace, tmp_path: Path):
    with joined(far, here, "tap0", bulk=True) as wire:
        number(far, here)
        ctweb = Tracked(here, tmp_path, "--hook", "auto")
        assert hooks(here)["tap0"] == TC
        for path in PATHS:
            with bulk(path, far, here, 1_000_000) as sockets:
                agree(ctweb, path, *sockets)
        assert wire.longest > 10 * ONE_SEGMENT
        assert ctweb.end() == 0, ctweb.log.read_text()


def test_auto_follows_a_tap_that_is_opened_in_another_way(here: Namespace, tmp_path: Path):
    here.ip("tuntap add tap0 mode tap", "link set tap0 up")
    ctweb = Tracked(here, tmp_path, "--hook", "auto")
    assert hooks(here)["tap0"] == NATIVE_XDP
    with open_tap(here, "tap0", bulk=True):
        wait_for("segments in bulk are met at tc", lambda: hooks(here).get("tap0") == TC)
    with open_tap(here, "tap0"):
        wait_for("single frames are met at XDP", lambda: hooks(here).get("tap0") == NATIVE_XDP)
    assert ctweb.end() == 0, ctweb.log.read_text()
