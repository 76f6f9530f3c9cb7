"""What systemd hears from `ctweb run`, on a socket as systemd makes it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest
from running import until

from ctweb.service import Watchdog


class Systemd:
    """The end of NOTIFY_SOCKET that listens."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(60)

    def hears(self) -> str:
        """The next message, heartbeats left out."""
        while (message := self.socket.recv(4096).decode()) == "WATCHDOG=1":
            pass
        return message

    def waits_for(self, wanted: str) -> None:
        while self.socket.recv(4096).decode() != wanted:
            pass


@pytest.fixture(params=["file", "abstract"])
def systemd(request, namespace, tmp_path, monkeypatch) -> Iterator[Systemd]:
    # In the namespace: an abstract socket belongs to one.
    name = f"ctweb-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    listening = Systemd("\0" + name if request.param == "abstract" else name)
    monkeypatch.setenv("NOTIFY_SOCKET", "@" + name if request.param == "abstract" else name)
    with listening.socket:
        yield listening


def test_systemd_hears_of_the_whole_life(systemd, run, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    ctweb = run()
    assert systemd.hears() == "READY=1"
    assert ctweb.get("/healthz")[0] == 200  # it answers by then, from a table that was read
    for _ in range(3):
        systemd.waits_for("WATCHDOG=1")
    ctweb.process.send_signal(signal.SIGHUP)
    assert systemd.hears().startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert systemd.hears() == "READY=1"
    assert ctweb.end() == 0
    assert systemd.hears() == "STOPPING=1"


def test_the_watchdog_does_not_hear_of_a_table_that_stands_still(systemd, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    sweeps = [1, 1, 2]
    watchdog = Watchdog(lambda: sweeps.pop(0))
    while sweeps:
        watchdog.beat()
    systemd.socket.setblocking(False)
    heard = [systemd.socket.recv(100) for _ in range(2)]
    assert heard == [b"WATCHDOG=1"] * 2
    with pytest.raises(BlockingIOError):
        systemd.socket.recv(100)


def test_a_socket_that_is_gone_stops_nothing(run, monkeypatch, tmp_path):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    ctweb = run().ready()
    until(lambda: "cannot tell systemd READY=1" in ctweb.log.read_text())
    assert ctweb.end() == 0
