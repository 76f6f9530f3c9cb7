"""What was sent is what the table says: packets and bytes each way, states and flags, for both hooks and families."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from lab.conftest import Lab
from lab.network import IPV4, Ends, wait_for
from lab.tracked import Count, Row
from lab.traffic import (
    agree,
    bulk,
    conntrack,
    conntrack_count,
    ended,
    file_server,
    iperf3,
    iperf3_server,
    ping,
    ping_count,
    udp,
    udp_count,
    watch_with_conntrack,
)

FILE = 3_000_000  # bytes


@pytest.fixture(scope="package")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("files")
    (directory / "file").write_bytes(bytes(FILE))
    return directory


@pytest.fixture(scope="package")
def witnessed(lab: Lab) -> Lab:
    """The lab with nf_conntrack counting the same packets in the router."""
    watch_with_conntrack(lab.router)
    return lab


def test_each_ping_and_its_answer(lab: Lab, ends: Ends):
    pings = ((1, 0), (50, 56), (200, 1400))
    properties = {
        "protocol": "icmp" if ends is IPV4 else "icmpv6",
        "src-address": ends.client,
        "dst-address": ends.server,
        "icmp-type": "8" if ends is IPV4 else "128",
        "icmp-code": "0",
    }
    known = {row[".id"] for row in lab.ctweb.rows(**properties)}
    for count, size in pings:
        ping(lab.client, ends.server, count, size)

    expected = {ping_count(ends, count, size) for count, size in pings}

    def new() -> list[Row]:
        rows = [row for row in lab.ctweb.rows(**properties) if row[".id"] not in known]
        return rows if {Count.of(row) for row in rows} == expected else []

    rows = wait_for(f"rows that count {expected}", new)
    assert len(rows) == len(pings)
    for row in rows:
        assert (row["seen-reply"], row["confirmed"], row["assured"], row["dying"]) == ("true", "true", "false", "false")


def test_datagrams_of_known_sizes(lab: Lab, ends: Ends):
    sizes, answers = [0, 1, 18, 100, 1000, 1452] * 20, [1452, 3]
    sport, dport = udp(ends, lab.client, lab.server, sizes, answers)
    row = lab.ctweb.counts(udp_count(ends, sizes, answers), protocol="udp", src_address=ends.shown(ends.client, sport))
    assert row["dst-address"] == ends.shown(ends.server, dport)
    assert (row["seen-reply"], row["confirmed"]) == ("true", "true")


def test_datagrams_nobody_answers(lab: Lab, ends: Ends):
    sport = 20_000 + ends.header
    with lab.server.socket(ends.family, socket.SOCK_DGRAM) as far:
        far.bind((ends.server, 5000))
        lab.client.run("nc", "-u", "-q", "0", "-p", sport, ends.server, "5000", input="eleven byte")
        assert far.recv(100) == b"eleven byte"
    row = lab.ctweb.counts(udp_count(ends, [11], []), protocol="udp", src_address=ends.shown(ends.client, sport))
    assert (row["seen-reply"], row["confirmed"], row["assured"]) == ("false", "true", "false")


def test_a_file_fetched_by_curl(witnessed: Lab, ends: Ends, files: Path):
    lab = witnessed
    sport = 20_000 + ends.header
    with file_server(lab.server, ends, files) as port:
        told = ("-sS", "-o", "/dev/null", "-w", "%{size_download}", "--local-port", sport)
        size = lab.client.run("curl", *told, ends.url(port) + "/file")
    assert int(size) == FILE
    line = wait_for("its last packet", lambda: ended(lab.router, ends, sport))
    expected = conntrack_count(line)
    assert expected.repl_bytes > FILE
    assert "TIME_WAIT" in line
    row = lab.ctweb.counts(expected, protocol="tcp", src_address=ends.shown(ends.client, sport))
    assert row["dst-address"] == ends.shown(ends.server, port)
    assert row["tcp-state"] == "time-wait"
    assert (row["seen-reply"], row["assured"], row["confirmed"]) == ("true", "true", "true")


@pytest.mark.parametrize("direction", [[], ["--reverse"]], ids=["upload", "download"])
def test_iperf3(witnessed: Lab, ends: Ends, direction: list[str]):
    lab = witnessed
    with iperf3_server(lab.server, 5201):
        sport, arrived = iperf3(lab.client, ends, 5201, "--bytes", "8M", *direction)
        line = wait_for("its last packet", lambda: ended(lab.router, ends, sport))
    expected = conntrack_count(line)
    assert (expected.repl_bytes if direction else expected.orig_bytes) > arrived > 1 << 20
    row = lab.ctweb.counts(expected, protocol="tcp", src_address=ends.shown(ends.client, sport))
    assert row["tcp-state"] in ("time-wait", "close")


def test_a_closed_port_leaves_no_connection(witnessed: Lab, ends: Ends):
    """A reset before any other answer: forgotten at once, by nf_conntrack as well."""
    lab = witnessed
    with lab.client.socket(ends.family, socket.SOCK_STREAM) as near:
        assert near.connect_ex((ends.server, 9)) == errno.ECONNREFUSED
        sport = near.getsockname()[1]
    assert conntrack(lab.router, ends, sport) == []
    # What comes after it is there: the table has been read since.
    later, _ = udp(ends, lab.client, lab.server, [1], [])
    lab.ctweb.counts(udp_count(ends, [1], []), protocol="udp", src_address=ends.shown(ends.client, later))
    assert lab.ctweb.rows(protocol="tcp", src_address=ends.shown(ends.client, sport)) == []


def test_segmentation_offload_counts_the_packets_on_the_wire(lab: Lab, ends: Ends):
    """The two sockets know how many segments they sent; the payload and each segment's headers make the bytes."""
    machines = (lab.client, lab.router, lab.server)
    for machine in machines:
        machine.offloads("on")
    try:
        with bulk(ends, lab.client, lab.server, 2_000_000) as (near, far):
            agree(lab.ctweb, ends, near, far)
    finally:
        for machine in machines:
            machine.offloads("off")
