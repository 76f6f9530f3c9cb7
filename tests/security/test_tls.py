"""HTTPS and wss: served, renewed, refused in words, and with the same deadlines."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running import PORT, Ctweb, command, exchange, new_namespace, runner, signed_in, until
from simple_websocket import Client

from ctweb.instance import InstanceError, find
from security.people import IDENTITY, PASSWORDS, TRACKING, basic, head, settle

TRUSTING = ssl.create_default_context()
TRUSTING.check_hostname = False
TRUSTING.verify_mode = ssl.CERT_NONE


def make_certificate(directory: Path, name: str, *key: str) -> None:
    """name.pem and name.key, for the host of this name."""
    subprocess.run(
        ["openssl", "req", "-x509", *(key or ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")), "-noenc",
         "-keyout", directory / f"{name}.key", "-out", directory / f"{name}.pem", "-days", "2", "-subj", f"/CN={name}"],
        check=True, capture_output=True,
    )  # fmt: skip


def configuration(directory: Path, certificate: str, key: str | None = None) -> str:
    path = directory / "ctweb.toml"
    files = f'certificate = "{directory}/{certificate}.pem"\nkey = "{directory}/{key or certificate}.key"\n'
    path.write_text("[tls]\n" + files)
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    for name in ("first", "second"):
        make_certificate(directory, name)
    return directory


@pytest.fixture(scope="module")
def secure(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ctweb]:
    """A `ctweb run` over HTTPS."""
    state_dir = tmp_path_factory.mktemp("secure") / "state"
    settle(state_dir)
    with new_namespace(), runner(state_dir) as start:
        yield answering(start("--config", configuration(files, "first")))


def answering(ctweb: Ctweb) -> Ctweb:
    """Once it answers."""

    def answers() -> bool:
        assert ctweb.process.poll() is None, ctweb.log.read_text()
        try:
            return ask(ctweb, "/healthz")[0] == 200
        except (OSError, InstanceError):
            return False

    until(answers)
    return ctweb


def ask(ctweb: Ctweb, path: str, method: str = "GET", body: object = None, **headers: str):
    connection = http.client.HTTPSConnection("127.0.0.1", PORT, timeout=30, context=TRUSTING)
    return exchange(connection, method, path, body, signed_in(ctweb.state_dir) | headers)


def subject() -> bytes:
    """The certificate that a new connection is shown."""
    with socket.create_connection(("127.0.0.1", PORT), timeout=30) as plain, TRUSTING.wrap_socket(plain) as sock:
        return sock.getpeercert(binary_form=True)


def connected() -> ssl.SSLSocket:
    return TRUSTING.wrap_socket(socket.create_connection(("127.0.0.1", PORT), timeout=60))


def test_rest_and_the_command_line_over_https(secure: Ctweb):
    assert ask(secure, IDENTITY, **basic("boss", PASSWORDS["boss"]))[0] == 200
    assert find(secure.state_dir).url == f"https://127.0.0.1:{PORT}/"
    assert f"open https://127.0.0.1:{PORT}/" in secure.log.read_text()
    printed = command("print", "--json", "--state-dir", secure.state_dir)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert isinstance(json.loads(printed.stdout), list)


def test_the_cookie_is_for_https_alone(secure: Ctweb):
    status, headers, _ = ask(secure, "/page/sign-in", "POST", {"name": "boss", "password": PASSWORDS["boss"]})
    assert status == 200
    cookie, *attributes = headers["Set-Cookie"].split("; ")
    assert cookie.startswith(f"__Host-ctweb-{PORT}=")
    assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    connection = http.client.HTTPSConnection("127.0.0.1", PORT, timeout=30, context=TRUSTING)
    assert exchange(connection, "GET", IDENTITY, None, {"Cookie": cookie})[0] == 200


def test_a_page_of_plain_http_is_another_origin(secure: Ctweb):
    path = TRACKING + "/set"
    assert ask(secure, path, "POST", {"udp-timeout": "10s"}, Origin=f"http://127.0.0.1:{PORT}")[0] == 403
    assert ask(secure, path, "POST", {"udp-timeout": "10s"}, Origin=f"https://127.0.0.1:{PORT}")[0] == 200


def test_many_requests_on_one_connection_and_many_rows(secure: Ctweb):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in range(20_000, 22_000):
            sender.sendto(b"", ("127.0.0.1", port))
    connection = http.client.HTTPSConnection("127.0.0.1", PORT, timeout=30, context=TRUSTING)
    count = 0
    while count < 2000:
        connection.request("GET", "/rest/ip/firewall/connection", headers=signed_in(secure.state_dir))
        count = len(json.loads(connection.getresponse().read()))
    connection.close()


def test_the_websocket_over_tls(secure: Ctweb):
    clients = [
        Client.connect(f"wss://127.0.0.1:{PORT}/live", headers=signed_in(secure.state_dir), ssl_context=TRUSTING)
        for _ in range(10)
    ]
    for client in clients:
        assert json.loads(client.receive(timeout=20))["type"] == "hello"
        for limit in (0, 500, 60):
            client.send(json.dumps({"type": "view", "limit": limit}))
    for client in clients:
        numbers = [json.loads(client.receive(timeout=20))["seq"] for _ in range(8)]
        assert numbers == sorted(numbers)
        client.send("x" * 15_000)
        while json.loads(client.receive(timeout=20))["type"] != "error":
            pass
        client.close()


def test_plain_http_is_told_to_come_back_over_https(secure: Ctweb):
    with socket.create_connection(("127.0.0.1", PORT), timeout=30) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"https://" in sock.recv(4096)


def no_handshake() -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", PORT), timeout=60)
    sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    return sock


def half_a_head() -> socket.socket:
    sock = connected()
    sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
    return sock


@pytest.mark.parametrize("stall", [no_handshake, half_a_head])
def test_who_stalls_is_let_go(secure: Ctweb, stall: Callable[[], socket.socket]):
    """In the handshake, or within a request."""
    sock = stall()
    try:
        while sock.recv(4096):
            pass
    except OSError as error:
        assert not isinstance(error, TimeoutError)  # noqa: PT017
    finally:
        sock.close()
    assert ask(secure, IDENTITY)[0] == 200


def test_a_websocket_that_never_reads_is_let_go(secure: Ctweb):
    sock = connected()
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(head("GET", "/live", signed_in(secure.state_dir) | {
        "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key,
    }))  # fmt: skip
    assert sock.recv(12) == b"HTTP/1.1 101"
    view = json.dumps({"type": "view", "limit": 500}).encode()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    sock.sendall(b"\x81" + bytes([0x80 | len(view)]) + b"\0\0\0\0" + view)

    def websockets() -> int:
        return json.loads(ask(secure, "/healthz")[2])["counters"]["websockets"]

    until(lambda: websockets() == 1)
    until(lambda: websockets() == 0)
    sock.close()


@pytest.fixture
def readable() -> Iterator[Path]:
    """A directory whose files ctweb can read when it is no longer root."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="ctweb-tls-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_sighup_reloads_the_rest_where_only_root_reads_the_key(run, tmp_path):
    make_certificate(tmp_path, "first")
    ctweb = answering(run("--config", configuration(tmp_path, "first")))
    shown = subject()
    ctweb.process.send_signal(signal.SIGHUP)
    until(lambda: "reloaded: " in ctweb.log.read_text())
    assert "not reloaded" not in ctweb.log.read_text()
    assert subject() == shown


def test_sighup_takes_a_renewed_certificate_and_a_bad_one_changes_nothing(run, readable):
    tmp_path = readable
    for name in ("first", "second"):
        make_certificate(tmp_path, name)
        (tmp_path / f"{name}.key").chmod(0o644)
    ctweb = answering(run("--config", configuration(tmp_path, "first")))
    shown = subject()
    watching = Client.connect(f"wss://127.0.0.1:{PORT}/live", headers=signed_in(ctweb.state_dir), ssl_context=TRUSTING)
    for kind in ("pem", "key"):
        (tmp_path / f"second.{kind}").rename(tmp_path / f"first.{kind}")
    ctweb.process.send_signal(signal.SIGHUP)
    until(lambda: "another certificate" in ctweb.log.read_text())
    renewed = subject()
    assert renewed != shown
    (tmp_path / "first.key").write_text("nonsense")
    ctweb.process.send_signal(signal.SIGHUP)
    until(lambda: "not reloaded" in ctweb.log.read_text())
    assert "there is no private key in it" in ctweb.log.read_text()
    assert subject() == renewed
    watching.send(json.dumps({"type": "view", "limit": 0}))
    assert json.loads(watching.receive(timeout=20))["type"] == "hello"
    watching.close()


def spoil(directory: Path, how: str) -> str:
    if how == "short":
        make_certificate(directory, "short", "-newkey", "rsa:512")
    elif how == "encrypted":
        make_certificate(directory, "encrypted")
        subprocess.run(
            ["openssl", "pkcs8", "-topk8", "-in", directory / "encrypted.key", "-out", directory / "locked.key",
             "-passout", "pass:secret"], check=True, capture_output=True,
        )  # fmt: skip
        return configuration(directory, "encrypted", "locked")
    elif how == "other":
        return configuration(directory, "first", "second")
    elif how == "empty":
        (directory / "empty.pem").write_text("")
        return configuration(directory, "empty", "first")
    elif how == "swapped":
        (directory / "swapped.pem").write_text((directory / "first.key").read_text())
        (directory / "swapped.key").write_text((directory / "first.pem").read_text())
    elif how == "broken":
        text = (directory / "first.pem").read_text()
        (directory / "broken.pem").write_text(text[:100] + "!!!!" + text[104:])
        return configuration(directory, "broken", "first")
    return configuration(directory, how)


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("missing", "No such file"),
        ("short", "too short|cannot be used"),
        ("encrypted", "encrypted"),
        ("other", "the key is not the certificate's"),
        ("empty", "no certificate in it"),
        ("swapped", "no certificate in it"),
        ("broken", "cannot be used"),
    ],
)
def test_a_certificate_or_key_that_is_no_good_is_told_in_one_line(files: Path, tmp_path: Path, how, says):
    config = spoil(files, how)
    for words in (("run", "--check-config"), ("run", "--interface", "lo")):
        done = command(*words, "--config", config, "--state-dir", tmp_path / "state", stdin=subprocess.DEVNULL)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert any(part in done.stderr for part in says.split("|")), done.stderr


@pytest.mark.parametrize("text", ['certificate = "/a.pem"', 'key = "/a.key"', 'certificate = "a"\nkey = "a"'])
def test_half_a_configuration_is_none(tmp_path: Path, text):
    (tmp_path / "ctweb.toml").write_text(f"[tls]\n{text}\n")
    done = command("run", "--check-config", "--config", tmp_path / "ctweb.toml")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "tls" in done.stderr


def test_beyond_loopback_without_tls_is_warned_about(run, files: Path):
    ctweb = run("--listen", f"0.0.0.0:{PORT}").ready()
    assert "passwords and connections cross the network in the clear" in ctweb.log.read_text()
    assert ctweb.end() == 0
    secure = answering(run("--listen", f"0.0.0.0:{PORT}", "--config", configuration(files, "first")))
    assert "in the clear" not in secure.log.read_text()
