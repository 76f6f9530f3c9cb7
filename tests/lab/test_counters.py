"""What was sent is what the table says: packets and bytes each way, states and flags, for both hooks and families."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from lab.conftest import Lab
from lab.network import Ends, wait_for
from lab.tracked import Count
from lab.traffic import (
    bulk,
    conntrack,
    conntrack_count,
    file_server,
    iperf3,
    iperf3_server,
    on_the_wire,
    ping,
    ping_count,
    udp,
    udp_count,
    watch_with_conntrack,
)

PROTOCOL = {socket.AF_INET: "icmp", socket.AF_INET6: "icmpv6"}
FILE = 3_000_000  # bytes


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("files")
    (directory / "file").write_bytes(bytes(FILE))
    return directory


@pytest.fixture(scope="session")
def witnessed(lab: Lab) -> Lab:
    """The lab with nf_conntrack counting the same packets in the router."""
    watch_with_conntrack(lab.router)
    return lab


def shown(ends: Ends, address: str, port: int) -> str:
    return f"[{address}]:{port}" if ends.family is socket.AF_INET6 else f"{address}:{port}"


def test_each_ping_and_its_answer(lab: Lab, ends: Ends):
    for count, size in ((1, 0), (50, 56), (200, 1400)):
        known = {row[".id"] for row in lab.ctweb.rows(protocol=PROTOCOL[ends.family])}
        ping(lab.client, ends.server, count, size)

        def new(known: set[str] = known):
            return [r for r in lab.ctweb.rows(protocol=PROTOCOL[ends.family]) if r[".id"] not in known]

        (row,) = wait_for("a new row", new)
        row = lab.ctweb.counts(ping_count(ends, count, size), **{".id": row[".id"]})
        assert (row["src-address"], row["dst-address"]) == (ends.client, ends.server)
        assert (row["icmp-type"], row["icmp-code"]) == ("8" if ends.header == 20 else "128", "0")
        assert (row["seen-reply"], row["confirmed"], row["assured"], row["dying"]) == ("true", "true", "false", "false")


def test_datagrams_of_known_sizes(lab: Lab, ends: Ends):
    sizes, answers = [0, 1, 18, 100, 1000, 1452] * 20, [1452, 3]
    sport, dport = udp(ends, lab.client, lab.server, sizes, answers)
    row = lab.ctweb.counts(udp_count(ends, sizes, answers), protocol="udp", src_address=shown(ends, ends.client, sport))
    assert row["dst-address"] == shown(ends, ends.server, dport)
    assert (row["seen-reply"], row["confirmed"]) == ("true", "true")


def test_datagrams_nobody_answers(lab: Lab, ends: Ends):
    sport = 20_000 + ends.header
    with lab.server.socket(ends.family, socket.SOCK_DGRAM) as far:
        far.bind((ends.server, 5000))
        lab.client.run("nc", "-u", "-q", "0", "-p", sport, ends.server, "5000", input="eleven byte")
        assert far.recv(100) == b"eleven byte"
    row = lab.ctweb.counts(udp_count(ends, [11], []), protocol="udp", src_address=shown(ends, ends.client, sport))
    assert (row["seen-reply"], row["confirmed"], row["assured"]) == ("false", "true", "false")


def test_a_file_fetched_by_curl(witnessed: Lab, ends: Ends, files: Path):
    lab = witnessed
    sport = 20_000 + ends.header
    with file_server(lab.server, ends, files) as port:
        told = ("-sS", "-o", "/dev/null", "-w", "%{size_download}", "--local-port", sport)
        size = lab.client.run("curl", *told, ends.url(port) + "/file")
    assert int(size) == FILE
    (line,) = conntrack(lab.router, ends, sport)
    expected = conntrack_count(line)
    assert expected.repl_bytes > FILE
    assert "TIME_WAIT" in line
    row = lab.ctweb.counts(expected, protocol="tcp", src_address=shown(ends, ends.client, sport))
    assert row["dst-address"] == shown(ends, ends.server, port)
    assert row["tcp-state"] == "time-wait"
    assert (row["seen-reply"], row["assured"], row["confirmed"]) == ("true", "true", "true")


@pytest.mark.parametrize("direction", [[], ["--reverse"]], ids=["upload", "download"])
def test_iperf3(witnessed: Lab, ends: Ends, direction: list[str]):
    lab = witnessed
    with iperf3_server(lab.server, 5201):
        sport, arrived = iperf3(lab.client, ends, 5201, "--bytes", "8M", *direction)
        (line,) = conntrack(lab.router, ends, sport)
    expected = conntrack_count(line)
    assert (expected.repl_bytes if direction else expected.orig_bytes) > arrived > 1 << 20
    row = lab.ctweb.counts(expected, protocol="tcp", src_address=shown(ends, ends.client, sport))
    assert row["tcp-state"] in ("time-wait", "close")


def test_a_closed_port_leaves_no_connection(witnessed: Lab, ends: Ends):
    """A reset before any other answer: forgotten at once, by nf_conntrack as well."""
    lab = witnessed
    with lab.client.socket(ends.family, socket.SOCK_STREAM) as near:
        assert near.connect_ex((ends.server, 9)) == errno.ECONNREFUSED
        sport = near.getsockname()[1]
    assert conntrack(lab.router, ends, sport) == []
    wait_for("forgotten", lambda: not lab.ctweb.rows(protocol="tcp", src_port=str(sport)))
    # What came after it is there: the table has been read since.
    later, _ = udp(ends, lab.client, lab.server, [1], [])
    lab.ctweb.counts(udp_count(ends, [1], []), protocol="udp", src_port=str(later))
    assert lab.ctweb.rows(protocol="tcp", src_port=str(sport)) == []


def test_segmentation_offload_counts_the_packets_on_the_wire(lab: Lab, ends: Ends):
    """The two sockets know how many segments they sent; the payload and each segment's headers make the bytes."""
    machines = (lab.client, lab.router, lab.server)
    for machine in machines:
        machine.offloads("on")
    try:
        with bulk(ends, lab.client, lab.server, 2_000_000) as (near, far):
            source = shown(ends, ends.client, near.getsockname()[1])
            wait_for(
                "the table agrees with the sockets",
                lambda: Count.of(lab.ctweb.row(protocol="tcp", src_address=source)) == on_the_wire(ends, near, far),
            )
    finally:
        for machine in machines:
            machine.offloads("off")
