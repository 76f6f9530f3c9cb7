"""Real connections through the fast path: whole, and accounted to the packet; nf_conntrack's entries stay alive and true."""

from __future__ import annotations

import os
import time

from lab.network import Ends, wait_for

from fasttrack.conftest import FORWARDED, MASQUERADED, Lab
from fasttrack.flows import datagrams, transfer

SHORT = 3  # seconds that nf_conntrack keeps an entry without packets
LONG = float(os.environ.get("FASTTRACK_SECONDS", "8"))  # that a connection goes on then; once by hand: 600


def listed(lab: Lab, protocol: str, sport: int) -> str:
    """nf_conntrack's entry of the connection from this port, "" if it has none."""
    family = ("-f", "ipv4"), ("-f", "ipv6")
    return "".join(lab.router.run("conntrack", "-L", *f, "-p", protocol, "--orig-port-src", sport) for f in family)


def test_a_tcp_transfer(lab: Lab, ends: Ends, port: int):
    invalid = lab.invalid()
    with transfer(lab, ends, port) as going:
        lab.wait_until_fast("tcp", going.sport)
        row = wait_for(
            "acknowledgements go fast too",
            lambda: (row := lab.row("tcp", going.sport))["repl-fasttrack-packets"] != "0" and row,
        )
        assert (row["tcp-state"], row["confirmed"], row["assured"]) == ("established", "true", "true")
        assert int(row["orig-rate"]) > 1_000_000
    row = wait_for(
        "its end is seen", lambda: (row := lab.row("tcp", going.sport))["tcp-state"] in ("time-wait", "close") and row
    )
    for way in ("orig", "repl"):
        for unit in ("packets", "bytes"):
            assert 0 < int(row[f"{way}-fasttrack-{unit}"]) < int(row[f"{way}-{unit}"]), row
    assert row.get("dstnat") == ("true" if port == FORWARDED else "false")
    assert "TIME_WAIT" in (entry := listed(lab, "tcp", going.sport)) or "CLOSE" in entry
    assert lab.invalid() == invalid


def test_udp_is_counted_to_the_packet(lab: Lab, ends: Ends, port: int):
    with datagrams(lab, ends, port) as going:
        lab.wait_until_fast("udp", going.sport)
        fast = lab.fast(lab.row("udp", going.sport))
        wait_for("hundreds go fast", lambda: lab.fast(lab.row("udp", going.sport)) > fast + 300)
    each = ends.header + 8 + 4
    sizes = [each + number % 500 for number in range(going.sent)]
    answers = [sizes[number] for number in range(0, going.sent, 10)]
    expected = tuple(map(str, (going.sent, sum(sizes), len(answers), sum(answers))))
    names = ("orig-packets", "orig-bytes", "repl-packets", "repl-bytes")
    found: list[tuple[str, ...]] = []

    def agrees() -> bool:
        row = lab.row("udp", going.sport)
        found[:] = [tuple(row[name] for name in names)]
        return found[0] == expected

    wait_for("table and sockets agree", agrees, lambda: (found, expected))


def test_entries_outlive_their_timeouts_and_the_windows_they_miss(lab: Lab, ends: Ends):
    """Long connections, with less time than they take: what nf_conntrack sees of them keeps its entries."""
    lab.router.sysctl(
        netfilter_nf_conntrack_tcp_timeout_established=SHORT,
        netfilter_nf_conntrack_tcp_timeout_unacknowledged=SHORT,
        netfilter_nf_conntrack_udp_timeout_stream=SHORT,
        netfilter_nf_conntrack_udp_timeout=SHORT,
    )
    invalid = lab.invalid()
    with transfer(lab, ends, MASQUERADED) as tcp, datagrams(lab, ends, FORWARDED) as udp:
        lab.wait_until_fast("tcp", tcp.sport)
        lab.wait_until_fast("udp", udp.sport)
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            time.sleep(0.5)
            assert "ESTABLISHED" in listed(lab, "tcp", tcp.sport)
            assert "udp" in listed(lab, "udp", udp.sport)
        for row in (lab.row("tcp", tcp.sport), lab.row("udp", udp.sport)):
            assert lab.fast(row) > 0.5 * (int(row["orig-packets"]) + int(row["repl-packets"])), row
    assert lab.invalid() == invalid


def test_totals(lab: Lab):
    counters = lab.ctweb.get("/healthz")["counters"]
    assert 0 < counters["fasttrack-packets"] < counters["offered-packets"]
    assert 0 < counters["fasttrack-bytes"] < counters["offered-bytes"]
    assert lab.ctweb.rows(fasttrack="yes")
