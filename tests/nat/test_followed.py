"""nf_conntrack is followed whatever happens: lost events, many at once, connections that were there before."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab.network import IPV4, Namespace, client_router_server, network, wait_for
from lab.tracked import CONFIG, Tracked
from lab.traffic import bulk

from ctweb.datapath.build import BuildOptions, Datapath, compile_datapath
from ctweb.datapath.conntrack import Conntrack
from ctweb.datapath.ctnetlink import DELETE, GROUPS, NETLINK_NETFILTER, NEW
from ctweb.datapath.follow import Interfaces
from ctweb.settings import Tracking
from ctweb.table.facts import facts_of
from ctweb.table.rows import rest_rows
from ctweb.tracker import Tracker
from nat.conftest import NOWHERE, RULES
from nat.oracle import entries


@pytest.fixture
def machines() -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    with network() as net:
        client, router, server = client_router_server(net)
        for machine in (client, router, server):
            machine.offloads("off")
        router.sysctl(netfilter_nf_conntrack_acct=1)
        router.ip(f"route add {NOWHERE[4]} via 10.9.2.2")
        yield client, router, server


@pytest.fixture(scope="module")
def datapath() -> Iterator[Datapath]:
    made = compile_datapath(BuildOptions(max_entries=100_000))
    yield made
    made.close()


@contextmanager
def following(datapath: Datapath, router: Namespace, directory: Path, **options: int) -> Iterator[Tracker]:
    """The parts of `ctweb run` that see packets, in this process; the caller sweeps."""
    with router.entered():
        tracker = Tracker(datapath, Tracking(), directory)
        conntrack = Conntrack(datapath, tracker.marks, {}, **options)
        interfaces = Interfaces(datapath.programs, datapath.interfaces, hook="tc")
        conntrack.start()
        tracker.follow(conntrack)
        interfaces.start()
    try:
        yield tracker
    finally:
        with router.entered():
            interfaces.stop()
        conntrack.stop()


def datagrams(machine: Namespace, target: str, ports: range) -> None:
    """One from each local port."""
    with machine.entered():
        for port in ports:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.bind(("", port))
                one.sendto(b"x", (target, 9))


def translated(tracker: Tracker, destination: str) -> int:
    """Rows with this destination that are shown as translated, with a translated reply."""
    rows = rest_rows(facts_of(tracker.sweep()))
    return sum(
        row["dst-address"].startswith(destination)
        and "true" in (row["srcnat"], row["dstnat"])
        and (row["reply-src-address"], row["reply-dst-address"]) != (row["dst-address"], row["src-address"])
        for row in rows
    )


def test_lost_events_lose_nothing_for_good(machines, datapath, tmp_path):
    """The router's own translated datagrams can only be told by nf_conntrack. Its socket holds a few events."""
    _, router, _ = machines
    router.run("nft", "-f", "-", input=RULES)
    with following(datapath, router, tmp_path, receive_buffer=2048) as tracker:
        datagrams(router, NOWHERE[4], range(20_000, 25_000))
        wait_for("all are translated", lambda: translated(tracker, NOWHERE[4]) == 5_000)
        counters = tracker.snapshot.counters
        assert counters["conntrack-overruns"] > 0
        assert counters["conntrack-dumps"] > 1


def test_many_new_connections_are_kept_up_with(machines, datapath, tmp_path):
    """Whether in time depends on the machine: that it is told, and all of it right in the end, does not."""
    client, router, _ = machines
    router.run("nft", "-f", "-", input=RULES)
    with following(datapath, router, tmp_path) as tracker:
        datagrams(client, IPV4.server, range(20_000, 40_000))
        wait_for("all are translated", lambda: translated(tracker, IPV4.server) == 20_000)
        wait_for("no lag is left", lambda: tracker.sweep().counters["conntrack-lag-ms"] == 0)
        assert tracker.snapshot.counters["conntrack-malformed"] == 0
        assert tracker.snapshot.counters["conntrack-failures"] == 0


def event_sockets() -> list[int]:
    """Netlink addresses of the sockets that listen to nf_conntrack's events in this namespace."""
    lines = [line.split() for line in Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]]
    return [int(words[2]) for words in lines if int(words[1]) == NETLINK_NETFILTER and int(words[3], 16) == GROUPS]


def test_messages_that_do_not_parse_are_counted_and_skipped(machines, datapath, tmp_path):
    """Sent to the socket on which events come: cut short, with lengths that lie, saying too little."""
    client, router, _ = machines
    router.run("nft", "-f", "-", input=RULES)
    body = struct.pack("=BBH", socket.AF_INET, 0, 0)
    bad = [
        b"\1" * 15,  # not even a header
        struct.pack("=IHHII", 100, NEW, 0x600, 0, 0) + body,  # longer than it is
        struct.pack("=IHHII", 18, NEW, 0x600, 0, 0) + body,  # ends within its own header
        struct.pack("=IHHII", 20, NEW, 0x600, 0, 0) + body,  # tells of no tuple
        struct.pack("=IHHIIBBHHH", 24, NEW, 0x600, 0, 0, socket.AF_INET, 0, 0, 200, 1),  # attribute too long
        struct.pack("=IHHIIBBHHHI", 28, DELETE, 0, 0, 0, socket.AF_INET, 0, 0, 3, 3, 0),  # attribute too short
    ]
    with following(datapath, router, tmp_path) as tracker:
        wait_for("it has read the table", lambda: tracker.sweep().counters["conntrack-dumps"])
        with router.entered(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as sender:
            (there,) = event_sockets()
            for message in bad:
                sender.sendto(message, (there, 0))
        datagrams(client, IPV4.server, range(20_000, 20_010))
        wait_for("all that came then is translated", lambda: translated(tracker, IPV4.server) == 10)
        wait_for("all are counted", lambda: tracker.sweep().counters["conntrack-malformed"] == len(bad))
        counters = tracker.snapshot.counters
        assert (counters["conntrack-failures"], counters["conntrack-overruns"]) == (0, 0)


def test_translations_go_with_their_connections(machines, datapath, tmp_path):
    client, router, _ = machines
    router.run("nft", "-f", "-", input=RULES)
    with following(datapath, router, tmp_path) as tracker:
        datagrams(client, IPV4.server, range(20_000, 20_500))
        wait_for("all are translated", lambda: translated(tracker, IPV4.server) == 500)
        router.run("conntrack", "-F")
        # What nf_conntrack has forgotten is shown for as long as the connection is here.
        assert translated(tracker, IPV4.server) == 500
        tracker.remove(tracker.snapshot.columns.id.tolist())
        wait_for("no translation is left", lambda: not len(tracker.sweep().translated))


@pytest.mark.parametrize("hook", ["tc", "xdp"])
def test_a_connection_that_was_there_before(machines, hook, tmp_path):
    """The first packet seen of it is a reply, and yet there is one row, as nf_conntrack has it."""
    client, router, server = machines
    router.run("nft", "-f", "-", input=RULES)
    with bulk(IPV4, client, server, 1000) as (near, far):
        ctweb = Tracked(router, tmp_path, "--hook", hook, config=CONFIG)
        wait_for("all is read", lambda: ctweb.get("/healthz")["counters"]["conntrack-dumps"])
        source = IPV4.shown(IPV4.client, near.getsockname()[1])
        for sender, receiver in ((far, near), (near, far)):
            sender.sendall(b"x" * 100)
            assert len(receiver.recv(100, socket.MSG_WAITALL)) == 100
        entry = next(e for e in entries(router) if e["src-address"] == source)

        def one_row() -> bool:
            rows = [r for r in ctweb.rows(protocol="tcp") if "127.0.0.1" not in r["src-address"]]
            assert len(rows) <= 1, rows
            ends = {"src-address", "dst-address", "reply-src-address", "reply-dst-address"}
            return rows != [] and {rows[0][e] for e in ends} == {entry[e] for e in ends}

        wait_for("one row", one_row, lambda: (ctweb.rows(protocol="tcp"), entry))
        ctweb.end()


def test_it_does_not_turn_nf_conntrack_on(machines, tmp_path):
    """Without a rule that needs it there are no entries, and no translations, and nothing fails."""
    client, router, server = machines
    ctweb = Tracked(router, tmp_path, config=CONFIG)
    with bulk(IPV4, client, server, 1000) as (near, _):
        row = ctweb.row(src_address=IPV4.shown(IPV4.client, near.getsockname()[1]))
    assert (row["srcnat"], row["dstnat"], row["uses-helper"]) == ("false", "false", "false")
    with router.entered():
        assert Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text().strip() == "0"
    counters = ctweb.get("/healthz")["counters"]
    assert [counters[f"conntrack-{n}"] for n in ("events", "failures", "malformed")] == [0, 0, 0]
    assert counters["nat-learned"] == 0
    assert ctweb.end() == 0
