"""What ingress notes in an skb for egress goes no further, and what is noted there by others is not taken for ours."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from bcc import BPF

from ctweb.datapath.bpf import bpf
from ctweb.datapath.build import SOURCE
from ctweb.datapath.links import Hook
from lab.conftest import Lab
from lab.hooks import hooks
from lab.network import Ends, Namespace, wait_for
from lab.traffic import udp, udp_count

_LINK_CREATE = 28
PACKETS = 40

# watch counts the frames of one length by whether they have a tc_index; leave puts one into all.
_PROGRAMS = b"""
enum { WATCHED = LENGTH };
BPF_ARRAY(seen, u64, 2);

int watch(struct __sk_buff *skb)
{
	u32 marked = skb->tc_index != 0;
	u64 *count = seen.lookup(&marked);

	if (count && skb->len == WATCHED)
		__sync_fetch_and_add(count, 1);
	return -1;
}

int leave(struct __sk_buff *skb)
{
	skb->tc_index = 0xc7eb;
	return -1;
}
"""


@contextmanager
def behind(machine: Namespace, interface: str, program: int) -> Iterator[None]:
    """A program at the egress of an interface, after all that are there."""
    with machine.entered():
        index = socket.if_nametoindex(interface)
        link = bpf(_LINK_CREATE, struct.pack("=4I I 4x Q", program, index, Hook.TCX_EGRESS, 0, 0, 0))
    try:
        yield
    finally:
        os.close(link)


@pytest.fixture
def programs(ends: Ends) -> Iterator[BPF]:
    length = 14 + ends.header + 8 + 100
    os.environ["BCC_KERNEL_SOURCE"] = str(SOURCE / "headers")
    module = BPF(text=_PROGRAMS, cflags=[f"-DLENGTH={length}"])
    yield module
    module.cleanup()


def test_what_stands_behind_us_at_egress_finds_no_note(lab: Lab, ends: Ends, programs: BPF):
    assert hooks(lab.router)["wan"]
    with behind(lab.router, "wan", programs.load_func(b"watch", BPF.SCHED_CLS).fd):
        sizes = [100] * PACKETS
        sport, _ = udp(ends, lab.client, lab.server, sizes, sizes)
        lab.ctweb.counts(udp_count(ends, sizes, sizes), protocol="udp", src_address=ends.shown(ends.client, sport))
    seen = programs[b"seen"]
    assert [seen[ctypes.c_int(marked)].value for marked in (0, 1)] == [PACKETS, 0]


def test_a_note_from_another_namespace_does_not_hide_that_a_connection_left(lab: Lab, ends: Ends, programs: BPF):
    """A router before this one, whose own tracker has noted something in each packet."""
    with behind(lab.client, "eth0", programs.load_func(b"leave", BPF.SCHED_CLS).fd):
        sport, _ = udp(ends, lab.client, lab.server, [50], [])
        row = lab.ctweb.counts(udp_count(ends, [50], []), protocol="udp", src_address=ends.shown(ends.client, sport))
        assert row["seen-reply"] == "false"
        wait_for(
            "confirmed",
            lambda: lab.ctweb.row(protocol="udp", src_address=ends.shown(ends.client, sport))["confirmed"] == "true",
        )
