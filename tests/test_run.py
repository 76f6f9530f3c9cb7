"""The life of `ctweb run`: what it attaches, what stops it, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Callable

import pytest
from lab.hooks import hooks
from lab.network import Namespace
from pyroute2 import IPRoute
from running import PORT, command, new_namespace, runner, until


@pytest.fixture
def attached(namespace: str) -> Callable[[], dict[str, set[str]]]:
    """Tells the hooks in use in the namespace, by interface."""
    return lambda: hooks(Namespace("", namespace))


def one_line(ctweb) -> str:
    """What it said, which must be one line."""
    lines = ctweb.log.read_text().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_it_says_what_is_attached_and_what_to_open(run, attached):
    ctweb = run().ready()
    text = ctweb.log.read_text()
    assert "interface lo: tc" in text
    assert f"http://127.0.0.1:{PORT}/" in text
    assert attached()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_nothing(run, tmp_path, number, attached):
    ctweb = run().ready()
    assert attached()
    assert ctweb.end(number) == 0
    assert attached() == {}
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["lock", "users.json"]
    assert "Traceback" not in ctweb.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_starts_leaves_nothing(run, number, attached):
    ctweb = run()
    until(lambda: ctweb.log.read_text() or ctweb.process.poll() is not None or attached())
    assert ctweb.end(number) in (0, -number), ctweb.log.read_text()
    assert attached() == {}
    assert "Traceback" not in ctweb.log.read_text()


def test_being_killed_leaves_nothing_attached(run, attached):
    ctweb = run().ready()
    assert attached()
    ctweb.end(signal.SIGKILL)
    until(lambda: attached() == {})


def test_it_starts_again_after_being_killed(run):
    run().ready().end(signal.SIGKILL)
    again = run().ready()
    assert again.end() == 0


def test_a_second_instance_on_the_state_directory_is_refused(run):
    first = run().ready()
    second = run("--listen", "127.0.0.1:8292")
    assert second.process.wait(timeout=60) == 2
    assert str(first.process.pid) in one_line(second)
    assert "already running" in one_line(second)
    assert first.get("/healthz")[0] == 200


def test_a_second_instance_in_the_network_namespace_is_refused(run, tmp_path):
    first = run().ready()
    second = run("--listen", "127.0.0.1:8292", state_dir=tmp_path / "other")
    assert second.process.wait(timeout=60) == 2
    assert "already running in this network namespace" in one_line(second)
    assert first.get("/healthz")[0] == 200


def test_another_network_namespace_has_room_for_another(run, tmp_path):
    first = run().ready()
    with new_namespace(), runner(tmp_path / "other") as start:
        second = start().ready()
        assert second.end() == 0
    assert first.end() == 0


@pytest.mark.parametrize(
    "listen", ["localhost:0", "0.0.0.0:8291", "[::]:8291", "[::1]:8291", "127.0.0.2:8291"]
)
def test_commands_find_it_wherever_it_listens(run, listen):
    ctweb = run("--listen", listen)
    until(lambda: "open http://" in ctweb.log.read_text() or ctweb.process.poll() is not None)
    found = command("settings", "get", "max-entries", "--state-dir", ctweb.state_dir)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("max-entries: ")


def test_a_port_in_use_is_found_before_anything_is_attached(run, attached):
    with socket.create_server(("127.0.0.1", PORT)):
        ctweb = run()
        assert ctweb.process.wait(timeout=60) == 2
    assert f"127.0.0.1:{PORT}" in one_line(ctweb)
    assert "Address already in use; choose" in one_line(ctweb)
    assert attached() == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--interface", "nosuch0"], "nosuch0"),
        (["--listen", "127.0.0.1"], "--listen"),
        (["--listen", "127.0.0.1:99999"], "--listen"),
        (["--listen", "192.0.2.1:8291"], "192.0.2.1:8291"),
        (["--listen", "no-such-host.invalid:8291"], "no-such-host.invalid"),
        (["--config", "/nonexistent/ctweb.toml"], "/nonexistent/ctweb.toml"),
        (["--config", "/dev/null/x"], "/dev/null/x"),
    ],
)
def test_what_cannot_be_is_one_clear_line(run, arguments, says, attached):
    ctweb = run(*arguments)
    assert ctweb.process.wait(timeout=60) == 2
    assert says in one_line(ctweb)
    assert attached() == {}


def test_a_bad_configuration_is_one_clear_line(run, tmp_path, attached):
    for text, says in {
        "[tracking": "ctweb.toml",
        "nonsense = 1": "nonsense",
        '[tracking]\nudp-timeout = "soon"': "udp-timeout",
        'listen = "here"': "listen",
    }.items():
        (tmp_path / "ctweb.toml").write_text(text)
        ctweb = run("--config", str(tmp_path / "ctweb.toml"))
        assert ctweb.process.wait(timeout=60) == 2
        assert says in one_line(ctweb)
    assert attached() == {}


def test_a_state_directory_that_cannot_be_is_one_clear_line(run, tmp_path):
    (tmp_path / "file").write_text("")
    ctweb = run(state_dir=tmp_path / "file")
    assert ctweb.process.wait(timeout=60) == 2
    assert str(tmp_path / "file") in one_line(ctweb)


def test_state_is_not_for_others(run, tmp_path):
    old = os.umask(0)
    try:
        run().ready()
    finally:
        os.umask(old)
    state = tmp_path / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for path in state.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_kept_programs_stay_until_detach(run, attached, bpffs):
    ctweb = run("--keep").ready()
    arguments = ["detach", "--state-dir", ctweb.state_dir]
    refused = command(*arguments)
    assert refused.returncode == 2
    assert "running" in refused.stderr
    assert ctweb.end() == 0
    assert attached()
    removed = command(*arguments)
    assert removed.returncode == 0, removed.stderr
    assert attached() == {}
    assert removed.stdout


def test_a_run_takes_over_what_a_kept_run_left(run, attached, bpffs):
    run("--keep").ready().end()
    assert attached()
    ctweb = run().ready()
    assert ctweb.end() == 0
    assert attached() == {}


def test_interfaces_are_found_when_none_is_named(run):
    ctweb = run("--config", "/dev/null", interfaces=()).ready()
    with IPRoute() as netlink:
        netlink.link("add", ifname="web-a", kind="veth", peer={"ifname": "web-b"})
        until(lambda: {"web-a", "web-b"} & ctweb.get("/healthz")[1]["interfaces"].keys())
        netlink.link("del", index=netlink.link_lookup(ifname="web-a")[0])
    until(lambda: ctweb.get("/healthz")[1]["interfaces"].keys() == {"lo"})
