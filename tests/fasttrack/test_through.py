"""Real connections through the fast path: whole, counted to the packet; nf_conntrack's entries stay alive and true."""

from __future__ import annotations

import re
from contextlib import ExitStack

from lab.network import IPV4, IPV6, Ends, wait_for
from lab.tracked import NUMBERS, Row

from fasttrack.conftest import FORWARDED, MASQUERADED, PLAIN, PORTS, Flow, Lab, fast
from fasttrack.flows import datagrams, transfer
from fasttrack.outlive import listed, shorten_timeouts, watch

LONG = 7.0  # seconds that a connection goes on whose entry is gone after SHORT without packets; by hand: outlive.py


def test_tcp_transfers(lab: Lab, ends: Ends):
    invalid = lab.invalid()
    with ExitStack() as stack:
        flows = {port: stack.enter_context(transfer(lab, ends, port)) for port in PORTS}
        for flow in flows.values():
            lab.wait_until_fast(flow)

            def acknowledged(flow: Flow = flow) -> Row | None:
                row = lab.row(flow)
                return row if row["repl-fasttrack-packets"] != "0" and int(row["orig-rate"]) > 1_000_000 else None

            row = wait_for("acknowledgements go fast too", acknowledged)
            assert (row["tcp-state"], row["confirmed"], row["assured"]) == ("established", "true", "true")
            assert row["timeout"] in ("1d", "23h59m59s", "5m", "4m59s"), row
    for port, flow in flows.items():
        wait_for("its end is seen", lambda flow=flow: lab.row(flow)["tcp-state"] in ("time-wait", "close"))
        row = lab.row(flow)
        for way in ("orig", "repl"):
            for unit in ("packets", "bytes"):
                assert 0 < int(row[f"{way}-fasttrack-{unit}"]) < int(row[f"{way}-{unit}"]), row
        assert (row["srcnat"], row["dstnat"]) == (str(port == MASQUERADED).lower(), str(port == FORWARDED).lower())
        assert "ESTABLISHED" not in listed(lab, flow)
    assert lab.invalid() == invalid


def test_udp_is_counted_to_the_packet(lab: Lab, ends: Ends):
    with ExitStack() as stack:
        flows = [stack.enter_context(datagrams(lab, ends, port)) for port in PORTS]
        for flow in flows:
            lab.wait_until_fast(flow)
        for flow in flows:
            lab.wait_until_fast(flow, more=200)
    each = ends.header + 8 + 4
    for flow in flows:
        sizes = [each + number % 500 for number in range(flow.sent)]
        answers = sizes[::10]
        expected = [str(number) for number in (flow.sent, sum(sizes), len(answers), sum(answers))]

        def missing(flow: Flow = flow, expected: list[str] = expected) -> list[tuple[str, str]]:
            row = lab.row(flow)
            return [(row[name], number) for name, number in zip(NUMBERS, expected, strict=True) if row[name] != number]

        wait_for("table and sockets agree", lambda missing=missing: not missing(), missing)


def test_entries_outlive_their_timeouts_and_the_windows_they_miss(lab: Lab, ends: Ends):
    """Long connections, and short timeouts: what nf_conntrack sees of them keeps its entries."""
    shorten_timeouts(lab)
    invalid = lab.invalid()
    with transfer(lab, ends, MASQUERADED) as tcp, datagrams(lab, ends, FORWARDED) as udp:
        for watched in watch(lab, [tcp, udp], LONG):
            assert watched.wrong == []
            assert watched.looks > 1
        for flow in (tcp, udp):
            row = lab.row(flow)
            assert fast(row) > 0.5 * (int(row["orig-packets"]) + int(row["repl-packets"])), row
    assert lab.invalid() == invalid


def counters(lab: Lab) -> dict[str, int]:
    found: dict[str, int] = lab.health()["counters"]
    return found


def test_totals(lab: Lab):
    """What goes fast is in the totals, to the packet and the byte, as a part of what is met."""
    lab.settle()  # nothing of earlier connections is counted any more
    before = counters(lab)
    with datagrams(lab, IPV4, PLAIN) as flow:
        lab.wait_until_fast(flow, more=200)

    def sides() -> list[tuple[int, int]]:
        """What the row has, and what the totals have in addition."""
        now, row = counters(lab), lab.row(flow)
        return [
            (int(row[f"orig-fasttrack-{unit}"]) + int(row[f"repl-fasttrack-{unit}"]),
             now[f"fasttrack-{unit}"] - before[f"fasttrack-{unit}"])
            for unit in ("packets", "bytes")
        ]  # fmt: skip

    wait_for("row and totals agree", lambda: all(row == total for row, total in sides()), sides)
    now = counters(lab)
    for unit in ("packets", "bytes"):
        assert 0 < now[f"fasttrack-{unit}"] < now[f"offered-{unit}"]
        assert metric(lab, f"ctweb_fasttrack_{unit}_total") >= now[f"fasttrack-{unit}"]
        assert metric(lab, f"ctweb_fasttrack_{unit}_total") < metric(lab, f"ctweb_offered_{unit}_total")
    # What the dashboard draws: of the packets each second those that went fast.
    drawn = lab.ctweb.get("/page/history?since=0")
    packets, quick = (drawn["values"][drawn["series"].index(name)] for name in ("packets", "fasttrack"))
    assert any(0 < of_these <= all_ for of_these, all_ in zip(quick, packets, strict=True))
    assert all(of_these <= all_ for of_these, all_ in zip(quick, packets, strict=True))


def metric(lab: Lab, name: str) -> float:
    status, answer = lab.ctweb.ask("GET", "/metrics")
    assert status == 200
    return float(re.search(rf"^{name} (\S+)$", answer.decode(), re.MULTILINE)[1])


def test_what_has_ended_is_in_the_totals(lab: Lab):
    """Packets and bytes met = those of live connections + of ended ones + of none; also of what went fast."""
    with datagrams(lab, IPV4, PLAIN) as one, datagrams(lab, IPV6, MASQUERADED) as other:
        for flow in (one, other):
            lab.wait_until_fast(flow)
    live = [lab.row(flow) for flow in (one, other)]
    before = counters(lab)
    lab.router.run(*lab.ctweb.cli("remove", "--yes", "fasttrack:yes"))
    gone = sum(int(row[f"{way}-packets"]) for row in live for way in ("orig", "repl"))
    wait_for("they are over", lambda: counters(lab)["ended-packets"] >= before["ended-packets"] + gone)
    wait_for("nothing is missing", lambda: not lab.ctweb.unaccounted(), lab.ctweb.unaccounted)
    now = counters(lab)
    for unit in ("packets", "bytes"):
        assert now[f"fasttrack-{unit}"] >= before[f"fasttrack-{unit}"] > 0
    assert not lab.ctweb.rows(fasttrack="yes")
