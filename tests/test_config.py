"""The configuration file: what it takes, and one clear line for what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctweb import config
from ctweb.config import Config, ConfigError, Listen
from ctweb.settings import Tracking, as_text

FULL = b"""
interfaces = ["eth0", "wan.100", "lan-1"]
listen = "[::1]:9000"
state-dir = "/srv/ctweb"
hook = "tc"
max-entries = 65536

[tracking]
enabled = "yes"
loose-tcp-tracking = false
liberal-tcp-tracking = "yes"
udp-timeout = 30
tcp-established-timeout = "2d00:00:00"
"""


def refusal(text: bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "ctweb.toml")
    message = str(caught.value)
    assert message.startswith("ctweb.toml: ")
    assert "\n" not in message
    assert len(message) < 500
    return message


def test_every_key():
    read = config.parse(FULL, "ctweb.toml")
    assert read.interfaces == ("eth0", "wan.100", "lan-1")
    assert read.listen == Listen("::1", 9000)
    assert read.state_dir == Path("/srv/ctweb")
    assert read.hook == "tc"
    assert read.max_entries == 65536
    assert as_text(read.tracking) == as_text(Tracking()) | {
        "enabled": "yes",
        "loose-tcp-tracking": "no",
        "liberal-tcp-tracking": "yes",
        "udp-timeout": "30s",
        "tcp-established-timeout": "2d",
    }


def test_defaults_are_loopback_and_automatic():
    assert config.parse(b"", "ctweb.toml") == Config()
    assert str(Config().listen) == "127.0.0.1:8291"
    assert Config().interfaces == ()
    assert Config().hook == "auto"
    assert Config().max_entries is None
    assert Config().state_dir == Path("/var/lib/ctweb")
    assert Config().tracking == Tracking()


def test_a_named_file_is_read_and_a_missing_one_refused(tmp_path):
    path = tmp_path / "ctweb.toml"
    with pytest.raises(ConfigError, match="there is no such file"):
        config.load(path)
    path.write_bytes(FULL)
    assert config.load(path).max_entries == 65536


def test_the_default_file_need_not_exist(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "DEFAULT", tmp_path / "ctweb.toml")
    assert config.load(None) == Config()
    (tmp_path / "ctweb.toml").write_text('hook = "xdp"')
    assert config.load(None).hook == "xdp"


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config.load(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(Path("a\0b"))
    large = tmp_path / "large"
    large.write_bytes(b"#" * (config.LARGEST_FILE + 1))
    with pytest.raises(ConfigError, match="larger than"):
        config.load(large)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b'listn = "a"', ["unknown key 'listn'", "listen"]),
        (b'[trackin]\nudp-timeout = "1s"', ["unknown key 'trackin'", "tracking"]),
        (b"[tracking]\nudp_timeout = 1", ["[tracking]", "unknown setting 'udp_timeout'", "udp-timeout"]),
        (b'[tracking]\nudp-timeout = "soon"', ["[tracking] udp-timeout takes a time", "'soon'"]),
        (b"[tracking]\nudp-timeout = 0", ["udp-timeout takes a time from 1ms to 7w", "'0'"]),
        (b"[tracking]\nudp-timeout = 1.5", ["udp-timeout", "string", "1.5"]),
        (b"[tracking]\nenabled = 7", ["enabled takes auto, yes or no", "'7'"]),
        (b"[tracking]\nmax-entries = 7", ["max-entries is read-only"]),
        (b"tracking = 5", ["tracking takes a table", "5"]),
        (b'interfaces = "eth0"', ["interfaces takes a list", "'eth0'"]),
        (b'interfaces = ["a/b"]', ["interfaces takes a list", "'a/b'"]),
        (b'interfaces = [".."]', ["interfaces"]),
        (b'interfaces = ["an-interface-too-long"]', ["interfaces"]),
        (b'interfaces = ["eth0\\n"]', ["interfaces"]),
        (b"interfaces = [1]", ["interfaces", "[1]"]),
        (b"listen = 80", ["listen takes HOST:PORT", "80"]),
        (b'listen = "80"', ["listen takes HOST:PORT", "'80'"]),
        (b'listen = "127.0.0.1"', ["listen takes HOST:PORT"]),
        (b'listen = "127.0.0.1:65536"', ["listen takes HOST:PORT"]),
        (b'listen = "127.0.0.1:-1"', ["listen takes HOST:PORT"]),
        (b'listen = "300.0.0.1:80"', ["listen takes HOST:PORT"]),
        (b'listen = "::1:80"', ["listen takes HOST:PORT"]),
        (b'listen = "[127.0.0:80"', ["listen takes HOST:PORT"]),
        (b'listen = "[x]:80"', ["listen takes HOST:PORT"]),
        (b'listen = "a b:80"', ["listen takes HOST:PORT"]),
        (b'state-dir = "var"', ["state-dir takes an absolute path", "'var'"]),
        (b"state-dir = 1", ["state-dir takes an absolute path"]),
        (b'hook = "ebpf"', ["hook takes auto, xdp or tc", "'ebpf'"]),
        (b"preallocate = true", ["preallocate takes auto, yes or no", "True"]),
        (b"max-entries = 0", ["max-entries takes a whole number", "0"]),
        (b"max-entries = 16777217", ["max-entries takes a whole number"]),
        (b"max-entries = true", ["max-entries takes a whole number", "True"]),
        (b'max-entries = "many"', ["max-entries takes a whole number", "'many'"]),
        (b"hook = \nlisten = 1", ["not TOML", "line 1"]),
        (b'hook = "tc"\nhook = "xdp"\n', ["not TOML", "Cannot overwrite a value"]),
        (b'hook = "tc"\n# \xff', ["line 2 is not UTF-8"]),
        (b"a = " + b"[" * 5000 + b"]" * 5000, ["nested too deep"]),
        (b"a = " + b"9" * 5000, ["number too long"]),
        (b'hook = "' + b"x" * 5000 + b'"', ["hook takes auto, xdp or tc", "..."]),
    ],
)
def test_a_bad_file_is_refused_in_one_line_that_names_the_place(text, parts):
    message = refusal(text)
    for part in parts:
        assert part in message


def test_the_whole_file_counts_or_none_of_it():
    assert "udp-timeout" in refusal(b'hook = "tc"\n[tracking]\nicmp-timeout = "1m"\nudp-timeout = "x"')


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:0", "127.0.0.1", 0), ("localhost:8291", "localhost", 8291), ("[::]:443", "::", 443),
     ("0.0.0.0:65535", "0.0.0.0", 65535), ("box-1.example.net:80", "box-1.example.net", 80)],
)
def test_listen(text, host, port):
    assert Listen.parse(text) == Listen(host, port)
    assert str(Listen.parse(text)) == text


@given(st.text(max_size=30) | st.from_regex(r"[\[\]:.0-9a-z-]{0,20}", fullmatch=True))
def test_listen_reads_back_what_it_writes_or_refuses(text):
    try:
        listen = Listen.parse(text)
    except ValueError:
        return
    assert Listen.parse(str(listen)) == listen
    assert 0 <= listen.port <= 65535


@given(st.binary(max_size=200))
def test_any_bytes_are_a_configuration_or_refused(text):
    try:
        assert isinstance(config.parse(text, "ctweb.toml"), Config)
    except ConfigError as error:
        assert str(error).startswith("ctweb.toml: ")  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
