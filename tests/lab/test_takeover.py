"""A kept run that ends, however it does, and the one after it: no packet, no connection and no name is lost."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import CTWEB

from lab.hooks import hooks
from lab.network import IPV4, Namespace, client_router_server, network, wait_for
from lab.tracked import CONFIG, Count, Tracked

BPFFS = Path("/sys/fs/bpf")
PAYLOAD = 72
BYTES = PAYLOAD + 28

MARKS = """
[[rule]]
action = "mark-connection"
new-connection-mark = "{mark}"
protocol = "udp"
dst-port = {port}
"""


@pytest.fixture
def machines(bpffs: Path) -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    with network() as net:
        machines = client_router_server(net)
        yield machines
        router = machines[1]
        subprocess.run(["rm", "-rf", pins(router)], check=True)


def pins(router: Namespace) -> Path:
    return BPFFS / "ctweb" / str(router.inode)


class Talk:
    """A UDP conversation through the router: each packet is answered before the next one goes."""

    def __init__(self, client: Namespace, server: Namespace, port: int = 4000) -> None:
        self._near = client.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._far = server.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._near.bind((IPV4.client, 0))
        self._far.bind((IPV4.server, port))
        self.port = self._near.getsockname()[1]
        self._to = (IPV4.server, port)
        self.rounds = 0

    def go_on(self, rounds: int) -> None:
        for _ in range(rounds):
            self._near.sendto(bytes(PAYLOAD), self._to)
            self._far.sendto(bytes(PAYLOAD), self._far.recvfrom(2000)[1])
            self._near.recv(2000)
            self.rounds += 1

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Packets all the while."""
        stop = threading.Event()

        def talk() -> None:
            while not stop.is_set():
                self.go_on(1)

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def check(self, ctweb: Tracked) -> dict[str, str]:
        """Its one row counts every packet there was."""
        each = self.rounds
        return ctweb.counts(Count(each, each * BYTES, each, each * BYTES), src_address=f"{IPV4.client}:{self.port}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_new_process_goes_on_with_the_same_connections(machines, hook, number, tmp_path):
    client, router, server = machines
    ctweb = Tracked(router, tmp_path, "--hook", hook, "--keep")
    talk, other = Talk(client, server), Talk(client, server, 4001)
    talk.go_on(10)
    other.go_on(3)
    before = talk.check(ctweb)
    with talk.going_on():
        for _ in range(2):
            assert ctweb.end(number) in (0, -number)
            rounds = talk.rounds
            wait_for("packets go through meanwhile", lambda rounds=rounds: talk.rounds > rounds + 10)
            ctweb = Tracked(router, tmp_path, "--hook", hook, "--keep")
    after = talk.check(ctweb)
    assert after[".id"] == before[".id"]
    assert after["seen-reply"] == after["assured"] == "true"
    other.check(ctweb)
    assert "took over the connections of an earlier run" in ctweb.log.read_text()
    ctweb.check_conservation()


def test_what_begins_while_no_process_is_there_is_tracked_and_marked(machines, hook, tmp_path):
    """The programs that the hooks call for the rare cases stay with them: fragments and rules."""
    client, router, server = machines
    config = CONFIG + MARKS.format(mark="first", port=5000)
    Tracked(router, tmp_path, "--hook", hook, "--keep", config=config).end(signal.SIGKILL)
    talk = Talk(client, server, 5000)
    talk.go_on(2)
    client.run("ping", "-n", "-q", "-c", 2, "-i", "0.01", "-s", 4000, IPV4.server)
    # Another rule comes first now: numbers of marks are given out in the order of the rules.
    config = CONFIG + MARKS.format(mark="second", port=5001) + MARKS.format(mark="first", port=5000)
    ctweb = Tracked(router, tmp_path, "--hook", hook, "--keep", config=config)
    assert talk.check(ctweb)["connection-mark"] == "first"
    later = Talk(client, server, 5001)
    later.go_on(2)
    assert later.check(ctweb)["connection-mark"] == "second"
    ping = ctweb.row(protocol="icmp")
    assert ping["orig-packets"] == ping["repl-packets"] == str(2 * 3)
    ctweb.check_conservation()


NAT = """
table ip cwme {{
    chain postrouting {{
        type nat hook postrouting priority srcnat
        ip saddr {client} masquerade
    }}
}}
"""


def test_translated_connections_stay_what_they_are(machines, hook, tmp_path):
    """Replies come under the tuple behind NAT, also while no process is there that could learn it again."""
    client, router, server = machines
    router.run("nft", "-f", "-", input=NAT.format(client=IPV4.client))
    ctweb = Tracked(router, tmp_path, "--hook", hook, "--keep")
    talk = Talk(client, server)
    talk.go_on(5)
    before = talk.check(ctweb)
    assert before["srcnat"] == "true"
    with talk.going_on():
        ctweb.end(signal.SIGKILL)
        rounds = talk.rounds
        wait_for("packets go through meanwhile", lambda: talk.rounds > rounds + 10)
        assert (pins(router) / "maps/translations").exists()
        ctweb = Tracked(router, tmp_path, "--hook", hook, "--keep")
    after = talk.check(ctweb)
    ends = (".id", "reply-dst-address", "reply-src-address", "srcnat")
    assert [after[name] for name in ends] == [before[name] for name in ends]
    assert "took over the connections of an earlier run" in ctweb.log.read_text()
    assert ctweb.get("/healthz")["counters"]["merged"] == 0
    ctweb.check_conservation()


def test_a_table_of_another_size_is_carried_over(machines, hook, tmp_path):
    client, router, server = machines
    config = "max-entries = {}\n" + CONFIG
    ctweb = Tracked(router, tmp_path, "--hook", hook, "--keep", config=config.format(5000))
    talks = [Talk(client, server, 4000 + number) for number in range(5)]
    for talk in talks:
        talk.go_on(3)
    before = [talk.check(ctweb) for talk in talks]
    ctweb.end(signal.SIGKILL)
    ctweb = Tracked(router, tmp_path, "--hook", hook, "--keep", config=config.format(1000))
    for talk, row in zip(talks, before, strict=True):
        talk.go_on(2)
        assert talk.check(ctweb)[".id"] == row[".id"]
    assert "carried over, but not expected connections" in ctweb.log.read_text()
    newer = Talk(client, server, 6000)
    newer.go_on(1)
    assert newer.check(ctweb)[".id"] not in {row[".id"] for row in before}
    ctweb.check_conservation()


def test_a_smaller_table_keeps_the_assured_connections_and_says_what_is_lost(machines, tmp_path):
    client, router, server = machines
    config = "max-entries = {}\n" + CONFIG
    ctweb = Tracked(router, tmp_path, "--keep", config=config.format(5000))
    with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for port in range(7000, 7150):
            sock.sendto(b"", (IPV4.server, port))
    talk = Talk(client, server)
    talk.go_on(5)
    wait_for("all are there", lambda: len(ctweb.rows(protocol="udp")) == 151)
    wait_for("two seconds later it is assured", lambda: talk.go_on(1) or talk.check(ctweb)["assured"] == "true")
    ctweb.end(signal.SIGKILL)
    ctweb = Tracked(router, tmp_path, "--keep", config=config.format(100))
    talk.check(ctweb)
    assert re.search(r"\d+ of \d+ connections: the table is smaller now", ctweb.log.read_text())
    assert len(ctweb.rows(protocol="udp")) <= 100
    ctweb.check_conservation()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_without_keep_takes_over_and_then_leaves_nothing(machines, number, tmp_path):
    client, router, server = machines
    ctweb = Tracked(router, tmp_path, "--keep")
    talk = Talk(client, server)
    talk.go_on(3)
    talk.check(ctweb)
    ctweb.end(number)
    assert pins(router).exists()
    ctweb = Tracked(router, tmp_path)
    talk.check(ctweb)
    assert not pins(router).exists()
    ctweb.end(number)
    wait_for("nothing is attached", lambda: hooks(router) == {})


def test_detach_removes_everything(machines, tmp_path):
    _, router, _ = machines
    ctweb = Tracked(router, tmp_path, "--keep")
    ctweb.end(signal.SIGKILL)
    assert hooks(router)
    said = router.run(CTWEB, "detach", *ctweb.options)
    assert "the table" in said
    assert hooks(router) == {}
    assert not pins(router).exists()


def test_what_was_pinned_in_a_namespace_that_is_gone_is_not_taken_for_ours(machines, tmp_path):
    """The number of a namespace may be given again; the table of the earlier one is not."""
    client, router, server = machines
    ctweb = Tracked(router, tmp_path, "--keep")
    talk = Talk(client, server)
    talk.go_on(3)
    talk.check(ctweb)
    ctweb.end(signal.SIGKILL)
    # As if that number were the client's.
    pins(router).rename(pins(client))
    other = Tracked(client, tmp_path / "client", "--keep")
    assert "took over" not in other.log.read_text()
    assert not other.rows(src_address=f"{IPV4.client}:{talk.port}")
    assert client.run(CTWEB, "detach", *other.options) if other.end() == 0 else False
