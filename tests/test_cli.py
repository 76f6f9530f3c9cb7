"""The commands besides run: what they print, where they fail, and that failing is one clear line and exit code 2."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Iterator

import pytest
from running import CTWEB, Ctweb, command, until


@pytest.fixture
def udp_port(ctweb: Ctweb) -> Iterator[int]:
    """The port of a UDP socket that has sent one packet over loopback, which the table shows."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x" * 100, ("127.0.0.1", 9))
        port = sender.getsockname()[1]
        until(lambda: ctweb.get(f"/rest/ip/firewall/connection?protocol=udp&src-port={port}")[1])
        yield port


def failing(*arguments: object) -> str:
    """What a command says that must fail: one line on stderr."""
    done = command(*map(str, arguments))
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def succeeding(*arguments: object) -> str:
    done = command(*map(str, arguments))
    assert done.returncode == 0, done
    return done.stdout


def test_print_as_json_is_one_array_of_both_families(ctweb: Ctweb, udp_port):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("::1", 9))
        port = sender.getsockname()[1]
        until(lambda: ctweb.get(f"/rest/ipv6/firewall/connection?src-port={port}")[1])
    rows = json.loads(succeeding("print", "--json", "--state-dir", ctweb.state_dir))
    assert {f"127.0.0.1:{udp_port}", f"[::1]:{port}"} <= {row["src-address"] for row in rows}
    assert all(isinstance(value, str) for row in rows for value in row.values())


@pytest.mark.parametrize("words", [["protocol:udp sport:{}"], ["protocol:udp", "sport:{}"]])
def test_print_takes_a_filter_in_one_word_or_several(ctweb: Ctweb, udp_port, words):
    words = [word.format(udp_port) for word in words]
    rows = json.loads(succeeding("print", *words, "--json", "--state-dir", ctweb.state_dir))
    assert [row["src-address"] for row in rows] == [f"127.0.0.1:{udp_port}"]


def test_print_shows_columns_under_a_legend(ctweb: Ctweb, udp_port):
    text = succeeding("print", f"sport:{udp_port}", "--state-dir", ctweb.state_dir)
    assert text.startswith("Flags: ")
    assert f"127.0.0.1:{udp_port}" in text.splitlines()[-1]


def test_print_of_nothing_is_an_empty_array(ctweb: Ctweb):
    assert json.loads(succeeding("print", "protocol:ospf", "--json", "--state-dir", ctweb.state_dir)) == []


def test_print_refuses_a_filter_in_its_own_words(ctweb: Ctweb):
    assert "no-such" in failing("print", "no-such:1", "--state-dir", ctweb.state_dir)


def test_print_as_csv_has_a_column_for_every_property(ctweb: Ctweb, udp_port):
    place = ("--state-dir", ctweb.state_dir)
    (line,) = csv.DictReader(io.StringIO(succeeding("print", f"sport:{udp_port}", "--csv", *place)))
    (row,) = json.loads(succeeding("print", f"sport:{udp_port}", "--json", *place))
    assert line["src-address"] == f"127.0.0.1:{udp_port}"
    assert line["orig-bytes"] == row["orig-bytes"]
    assert line["tcp-state"] == ""
    assert row.keys() < line.keys()
    header, *rest = succeeding("print", "protocol:ospf", "--csv", *place).splitlines()
    assert header.startswith(".id,")
    assert rest == []
    assert "--csv" in failing("print", "--csv", "--follow", *place)
    assert "--csv" in failing("print", "--csv", "--json", *place)


def test_print_follows_in_blocks_where_there_is_no_terminal(ctweb: Ctweb, udp_port):
    arguments = [CTWEB, "print", f"sport:{udp_port}", "--follow", "--state-dir", ctweb.state_dir]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        blocks = [list(iter(process.stdout.readline, "\n")) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    for block in blocks:
        assert block[0].startswith("Flags: ")
        assert f"127.0.0.1:{udp_port}" in block[-1]
    assert "\x1b" not in str(blocks)


def test_print_follows_in_place_on_a_terminal(ctweb: Ctweb, udp_port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in range(20000, 20010):
            sender.sendto(b"x", ("127.0.0.1", port))
    until(lambda: len(ctweb.get("/rest/ip/firewall/connection?protocol=udp")[1]) > 10)
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 8, 100, 0, 0))
    arguments = [CTWEB, "print", "protocol:udp", "--follow", "--state-dir", ctweb.state_dir]
    environment = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
    with subprocess.Popen(arguments, stdout=terminal, env=environment) as process:
        os.close(terminal)
        seen = ""
        while seen.count("\x1b[J") < 3:
            seen += os.read(master, 65536).decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    os.close(master)
    assert seen.count("\x1b[2J") == 1  # cleared once, then drawn over
    tables = re.sub(r"\x1b\[(2J|K)", "", seen).split("\x1b[H")[1:4]
    for table in tables:
        lines = table.split("\x1b[J")[0].splitlines()
        assert lines[0].startswith("Flags: ")
        assert len(lines) == 8  # there are more than fit
        assert re.fullmatch(r"\.\.\. and \d+ more", lines[-1])
        assert all(len(line) <= 100 for line in lines)


def test_print_follows_until_it_is_interrupted(ctweb: Ctweb):
    arguments = [CTWEB, "print", "--json", "--follow", "--state-dir", ctweb.state_dir]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert isinstance(json.loads(process.stdout.readline()), list)
        assert isinstance(json.loads(process.stdout.readline()), list)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == b""


def test_print_ends_quietly_when_nobody_reads_on(ctweb: Ctweb):
    arguments = [CTWEB, "print", "--json", "--follow", "--state-dir", ctweb.state_dir]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        process.wait(timeout=30)
        assert process.stderr.read() == b""


@pytest.mark.parametrize("arguments", [["print"], ["print", "--json"], ["settings", "set", "udp-timeout=10s"]])
def test_without_an_instance_it_says_so(tmp_path, arguments):
    said = failing(*arguments, "--state-dir", tmp_path)
    assert "not running" in said
    assert str(tmp_path) in said


def test_after_a_crash_it_says_that_nothing_runs(run):
    ctweb = run().ready()
    ctweb.end(signal.SIGKILL)
    assert "not running" in failing("print", "--state-dir", ctweb.state_dir)


def senders(ctweb: Ctweb, n: int) -> str:
    """`n` UDP connections over each family from one port, which stay for an hour; a filter that means them."""
    tracking = "/rest/ip/firewall/connection/tracking/set"
    assert ctweb.post(tracking, {"udp-timeout": "1h"})[0] == 200
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        sender.bind(("::", 0))
        port = sender.getsockname()[1]
        for other in range(20_000, 20_000 + n):
            sender.sendto(b"x", ("::1", other))
            sender.sendto(b"x", ("::ffff:127.0.0.1", other))
    where = f"proto:udp sport:{port}"
    assert ctweb.post(tracking, {"udp-timeout": "10s"})[0] == 200
    until(lambda: len(shown(ctweb, where)) == 2 * n)
    return where


def shown(ctweb: Ctweb, where: str) -> list[dict[str, str]]:
    return json.loads(succeeding("print", where, "--json", "--state-dir", ctweb.state_dir))


def test_remove_asks_with_the_count_and_takes_no_for_an_answer(ctweb: Ctweb):
    where = senders(ctweb, 3)
    for answer in ("n\n", "", "\n"):
        done = command("remove", where, "--state-dir", ctweb.state_dir, input=answer)
        assert "Remove 6 connections? [y/N]:" in done.stdout
        assert done.returncode == 1
        assert len(shown(ctweb, where)) == 6
    done = command("remove", where, "dport:20001", "--state-dir", ctweb.state_dir, input="y\n")
    assert done.returncode == 0, done
    assert done.stdout.endswith("removed 2 connections\n")
    assert sorted(row["dst-port"] for row in shown(ctweb, where)) == ["20000", "20000", "20002", "20002"]


def test_remove_with_yes_does_not_ask(ctweb: Ctweb):
    where = senders(ctweb, 1)
    assert succeeding("remove", where, "--yes", "--state-dir", ctweb.state_dir) == "removed 2 connections\n"
    assert shown(ctweb, where) == []
    assert succeeding("remove", where, "--yes", "--state-dir", ctweb.state_dir) == "removed 0 connections\n"


@pytest.mark.parametrize("words", [[], [""], ["  "], ['""']])
def test_remove_without_a_filter_is_refused(ctweb: Ctweb, udp_port, words):
    assert "remove takes a FILTER" in failing("remove", *words, "--yes", "--state-dir", ctweb.state_dir)
    assert shown(ctweb, f"sport:{udp_port}")


def test_remove_refuses_a_filter_in_its_own_words(ctweb: Ctweb):
    assert "there is no field 'sorce'" in failing("remove", "sorce:1", "--yes", "--state-dir", ctweb.state_dir)


def test_settings_are_shown_as_routeros_writes_them(ctweb: Ctweb):
    lines = succeeding("settings", "get", "--state-dir", ctweb.state_dir).splitlines()
    assert "tcp-established-timeout: 1d" in lines
    assert "loose-tcp-tracking: yes" in lines
    assert any(line.startswith("max-entries: ") for line in lines)
    asked = succeeding("settings", "get", "udp-timeout", "enabled", "--state-dir", ctweb.state_dir)
    assert asked.splitlines() == ["enabled: auto", "udp-timeout: 10s"]
    answer = json.loads(succeeding("settings", "get", "icmp-timeout", "--json", "--state-dir", ctweb.state_dir))
    assert answer == {"icmp-timeout": "10s"}


def test_settings_are_changed_together_or_not_at_all(ctweb: Ctweb):
    place = ("--state-dir", ctweb.state_dir)
    assert succeeding("settings", "set", "icmp-timeout=20s", "liberal-tcp-tracking=yes", *place) == ""
    assert succeeding("settings", "get", "icmp-timeout", "liberal-tcp-tracking", *place).splitlines() == [
        "liberal-tcp-tracking: yes",
        "icmp-timeout: 20s",
    ]
    said = failing("settings", "set", "icmp-timeout=30s", "udp-timeout=soon", *place)
    assert "udp-timeout" in said
    assert "10s" in said  # what it takes
    assert "unknown" in failing("settings", "set", "nonsense=1", *place)
    assert "NAME=VALUE" in failing("settings", "set", "udp-timeout", *place)
    assert "unknown setting 'nonsense'" in failing("settings", "get", "nonsense", *place)
    assert succeeding("settings", "get", "icmp-timeout", *place) == "icmp-timeout: 20s\n"


def test_settings_survive_a_restart_and_are_known_without_an_instance(run, tmp_path):
    (tmp_path / "ctweb.toml").write_text('[tracking]\nudp-timeout = "15s"\ngeneric-timeout = "7m"\n')
    place = ("--config", tmp_path / "ctweb.toml", "--state-dir", tmp_path / "state")
    asked = ("settings", "get", "udp-timeout", "generic-timeout", *place)
    first = run("--config", str(tmp_path / "ctweb.toml")).ready()
    assert succeeding(*asked).splitlines() == ["udp-timeout: 15s", "generic-timeout: 7m"]
    succeeding("settings", "set", "udp-timeout=42s", *place)
    assert first.end() == 0
    assert succeeding(*asked).splitlines() == ["udp-timeout: 42s", "generic-timeout: 7m"]
    run("--config", str(tmp_path / "ctweb.toml")).ready()
    assert succeeding(*asked).splitlines() == ["udp-timeout: 42s", "generic-timeout: 7m"]


def test_a_configuration_is_checked_without_running(tmp_path):
    file = tmp_path / "ctweb.toml"
    file.write_text('[tracking]\nudp-timeout = "15s"\n')
    assert succeeding("run", "--check-config", "--config", file) == "OK\n"
    file.write_text('[tracking]\nudp-timeout = "soon"\n')
    said = failing("run", "--check-config", "--config", file)
    assert str(file) in said
    assert "udp-timeout" in said


def test_what_is_no_capture_is_one_clear_line(tmp_path):
    (tmp_path / "x.pcap").write_bytes(b"this is no capture at all")
    for file in (tmp_path / "x.pcap", tmp_path / "missing.pcap", tmp_path):
        assert str(file) in failing("replay", file, "--state-dir", tmp_path / "state")


@pytest.mark.parametrize("name", ["run", "print", "settings get", "settings set", "doctor", "detach", "replay",
                                  "remove"])  # fmt: skip
def test_every_command_takes_config_and_state_dir(tmp_path, name):
    (tmp_path / "ctweb.toml").write_text("nonsense = 1")
    more = {"settings set": ["a=b"], "replay": ["x.pcap"]}.get(name, [])
    said = failing(*name.split(), *more, "--config", tmp_path / "ctweb.toml", "--state-dir", tmp_path)
    assert "nonsense" in said


def test_doctor_finds_this_machine_fit():
    done = command("doctor")
    assert done.returncode == 0, done.stdout
    assert "BCC" in done.stdout
