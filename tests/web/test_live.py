"""The live table over real websockets, with clients of every temper."""

from __future__ import annotations

import base64
import itertools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from running import ADDRESS, PORT, Ctweb, signed_in, until
from simple_websocket import Client, ConnectionClosed
from wsproto.utilities import LocalProtocolError

from ctweb.web import live, websocket

URL = f"ws://{ADDRESS}/live"
HEADERS: dict[str, str] = {}


@pytest.fixture(autouse=True)
def of_this_machine(request: pytest.FixtureRequest) -> None:
    """Every client signs in as this machine's command line does, with what the running one has written."""
    if "ctweb" in request.fixturenames:
        HEADERS.update(signed_in(request.getfixturevalue("ctweb").state_dir))


@contextmanager
def connected() -> Iterator[Client]:
    client = Client.connect(URL, headers=HEADERS)
    try:
        yield client
    finally:
        if client.connected:
            client.close()


def receive(client: Client, kind: str) -> dict:
    """The next message of this type; everything else is passed over."""
    while True:
        text = client.receive(timeout=20)
        assert text is not None, f"no {kind} message came"
        message = json.loads(text)
        if message["type"] == kind:
            return message
        assert message["type"] != "error", message


def view(client: Client, **changes: object) -> None:
    client.send(json.dumps({"type": "view", "filter": "", "sort": "-orig-bytes", "offset": 0, "limit": 60} | changes))


def handshake_request(path: str = "/live", method: str = "GET", **headers: str) -> bytes:
    """A raw websocket handshake, as a client sends it."""
    head = {
        "Host": ADDRESS,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        **HEADERS,
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items() if value), "", ""]
    return "\r\n".join(lines).encode()


def handshake(path: str = "/live", method: str = "GET", **headers: str) -> tuple[socket.socket, bytes]:
    """A raw websocket handshake: the socket and the head of the answer."""
    sock = socket.create_connection(("127.0.0.1", PORT), timeout=20)
    sock.sendall(handshake_request(path, method, **headers))
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = sock.recv(1)
        if not data:
            break
        answer += data
    return sock, answer


@pytest.fixture
def udp_pair() -> Iterator[tuple[socket.socket, int]]:
    """A UDP socket connected over loopback, and its port: what it sends is a connection of its own."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        yield client, client.getsockname()[1]


def test_hello_comes_first(ctweb: Ctweb):
    with connected() as client:
        hello = json.loads(client.receive(timeout=20))
    assert hello["type"] == "hello"
    assert hello["version"] == ctweb.get("/healthz")[1]["version"]
    assert hello["interval"] == 1.0


def test_a_view_is_answered_and_then_followed(ctweb: Ctweb, udp_pair):
    sender, port = udp_pair
    sender.send(b"x" * 100)
    with connected() as client:
        view(client, filter="protocol=udp", sort="src-port", limit=10)
        seen = []
        while not seen or seen[-1].get("orig-packets", 0) < 3:
            message = receive(client, "rows")
            assert message["filter"] == "protocol=udp"
            assert message["sort"] == "src-port"
            assert message["matched"] <= message["total"]
            rows = [row for row in message["rows"] if row["src-address"] == f"127.0.0.1:{port}"]
            if rows:
                seen += rows
                sender.send(b"x" * 100)
    last = seen[-1]
    assert last["protocol"] == "udp"
    assert last["orig-bytes"] == last["orig-packets"] * 128  # IP and UDP headers included
    assert isinstance(last["timeout"], int | float)
    assert last["flags"] == "C"
    assert {row[".id"] for row in seen} == {last[".id"]}


def test_watched_connections_are_told_of_wherever_they_stand(ctweb: Ctweb, udp_pair):
    sender, port = udp_pair
    sender.send(b"x")
    with connected() as client:
        view(client, filter=f"src-port={port}")
        while not (rows := receive(client, "rows")["rows"]):
            pass
        number = rows[0][".id"]
        view(client, filter="src-port=1", limit=0, watch=[number, "*DEAD00000000BEEF"])
        message = receive(client, "rows")
        while "watched" not in message:
            message = receive(client, "rows")
    assert message["rows"] == []
    assert message["watched"][number]["src-address"] == f"127.0.0.1:{port}"
    assert message["watched"][number]["orig-packets"] == 1
    assert 0 <= message["watched"][number]["age"] < 60
    assert message["watched"]["*DEAD00000000BEEF"] is None


def test_a_mistake_in_a_filter_has_its_place(ctweb: Ctweb):
    with connected() as client:
        view(client, filter="dport:443 nosuch:1")
        error = receive(client, "error")
    assert (error["field"], error["filter"], error["position"]) == ("filter", "dport:443 nosuch:1", 10)


def test_every_sweep_brings_one_message(ctweb: Ctweb):
    with connected() as client:
        view(client)
        numbers = [receive(client, "rows")["seq"] for _ in range(4)]
    assert numbers == list(range(numbers[0], numbers[0] + 4))


def test_a_new_view_is_answered_before_the_next_sweep(ctweb: Ctweb):
    with connected() as client:
        view(client)
        receive(client, "rows")
        receive(client, "rows")  # the start of an interval
        for offset in (1, 2, 3):
            view(client, offset=offset)
            assert receive(client, "rows")["offset"] == offset


def test_the_same_view_again_is_answered_again(ctweb: Ctweb):
    with connected() as client:
        view(client)
        receive(client, "rows")
        view(client)
        again = receive(client, "rows")
        assert again["offset"] == 0


def test_counters_tell_of_the_websockets(ctweb: Ctweb):
    with connected() as one, connected():
        view(one)
        until(lambda: receive(one, "rows")["counters"]["websockets"] == 2)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", None),
        ("[", None),
        ("null", None),
        ('"view"', None),
        ("[" * 4000, None),
        ('{"type":"view","sort":' + "[" * 3000 + "}", "sort"),
        ('{"type":"nonsense"}', "type"),
        ('{"type":"view","filter":7}', "filter"),
        ('{"type":"view","limit":501}', "limit"),
        ('{"type":"view","limit":1e999}', "limit"),
        ('{"type":"view","offset":-1}', "offset"),
        ('{"type":"view","offset":99999999999999999999999}', "offset"),
        ('{"type":"view","sort":"no-such-property"}', "sort"),
        ('{"type":"view","filter":"no-such-property=1"}', "filter"),
        ('{"type":"view","colour":"red"}', None),
        (b"\x00\xff\xfe", None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_view_is_answered_with_an_error_and_the_view_before_stays(ctweb: Ctweb, text, field):
    with connected() as client:
        view(client, offset=5)
        receive(client, "rows")
        client.send(text)
        error = receive(client, "error")
        assert error["message"]
        assert "Traceback" not in error["message"]
        assert error.get("field") == field
        assert receive(client, "rows")["offset"] == 5


def test_a_message_that_is_too_big_ends_the_socket(ctweb: Ctweb):
    with connected() as client:
        client.send("x" * (websocket.MAX_MESSAGE + 1))
        with pytest.raises(ConnectionClosed) as closed:
            receive(client, "never")
    assert closed.value.reason == 1009


def test_a_flood_of_views_ends_the_socket_and_nothing_else(ctweb: Ctweb):
    def flood(client: Client) -> None:
        for number in range(100_000):
            view(client, offset=number)

    with connected() as calm, connected() as wild:
        view(calm)
        with pytest.raises((ConnectionClosed, OSError, LocalProtocolError)):  # as it finds out
            flood(wild)
        first = receive(calm, "rows")["seq"]
        assert receive(calm, "rows")["seq"] == first + 1


def test_compression_is_declined(ctweb: Ctweb):
    sock, answer = handshake(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits")
    with sock:
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"permessage-deflate" not in answer


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_WebSocket_Key": ""},
        {"Sec_WebSocket_Key": "short"},
    ],
)
def test_what_is_no_handshake_is_refused(ctweb: Ctweb, headers):
    sock, answer = handshake(**headers)
    with sock:
        assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("headers", [{"Sec_WebSocket_Version": "8"}, {"Sec_WebSocket_Version": "x"}, {"Upgrade": ""}])
def test_who_asks_for_no_websocket_is_told_what_it_is(ctweb: Ctweb, headers):
    sock, answer = handshake(**headers)
    with sock:
        assert answer.startswith(b"HTTP/1.1 426 ")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_plain_request_is_told_that_it_is_a_websocket(ctweb: Ctweb, method):
    status, headers, body = ctweb.ask(method, "/live")
    assert status == 426
    assert (headers["Upgrade"], headers["Connection"]) == ("websocket", "upgrade")
    if method == "GET":
        assert "/rest/ip/firewall/connection" in json.loads(body)["detail"]


def test_no_method_but_get_opens_one(ctweb: Ctweb):
    sock, answer = handshake(method="HEAD")
    with sock:
        assert answer.startswith(b"HTTP/1.1 426 ")


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "https://evil.example:8291", "null", "http://127.0.0.1:8292", f"http://{ADDRESS}.evil.example"],
)
def test_a_page_of_another_origin_gets_no_websocket(ctweb: Ctweb, origin):
    sock, answer = handshake(Origin=origin)
    with sock:
        assert answer.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("origin", [f"http://{ADDRESS}", ""])
def test_our_own_page_and_no_page_get_one(ctweb: Ctweb, origin):
    sock, answer = handshake(Origin=origin)
    with sock:
        assert answer.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8291", "127.0.0.1.evil.example", "10.0.0.1", ""])
def test_another_host_name_gets_no_websocket(ctweb: Ctweb, host):
    sock, answer = handshake(Host=host)
    with sock:
        assert answer.split()[1] in (b"421", b"400")


def test_a_client_that_never_reads_frees_its_thread_and_slows_nobody(ctweb: Ctweb):
    """Two kinds: one whose small messages fit into the kernel's buffers for long, and one whose messages do not."""
    with ExitStack() as stack:
        sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        for port in range(30_000, 30_500):
            sender.sendto(b"", ("127.0.0.1", port))
        for limit in (0, 500):
            sock, answer = handshake()
            stack.enter_context(sock)
            assert answer.startswith(b"HTTP/1.1 101 ")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            sock.sendall(masked(json.dumps({"type": "view", "limit": limit}).encode()))
        reader = stack.enter_context(connected())
        view(reader)
        numbers, counts = [], []
        while 3 not in counts or counts[-1] != 1:
            message = receive(reader, "rows")
            numbers.append(message["seq"])
            counts.append(message["counters"]["websockets"])
        assert max(b - a for a, b in itertools.pairwise(numbers)) <= 2  # this client was not slowed
        assert numbers[-1] - numbers[0] <= 10  # sweeps, of a second each


def masked(payload: bytes) -> bytes:
    """A text frame as a client sends it."""
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return b"\x81" + length + b"\0\0\0\0" + payload


def test_clients_beyond_the_cap_are_refused_with_a_reason_and_requests_still_answered(ctweb: Ctweb):
    before = ctweb.counters()["websockets-refused"]
    clients = [Client.connect(URL, headers=HEADERS) for _ in range(live.CLIENTS)]
    try:
        for client in clients:
            receive(client, "hello")
        # By hand: the library's client takes it for a loss if the reason comes at once with the handshake's answer.
        late, answer = handshake()
        with late:
            assert answer.startswith(b"HTTP/1.1 101 ")
            frame = late.recv(2, socket.MSG_WAITALL)
            assert frame[0] == 0x88  # close, the whole of it
            reason = late.recv(frame[1], socket.MSG_WAITALL)
            assert int.from_bytes(reason[:2], "big") == 1013
            assert str(live.CLIENTS) in reason[2:].decode()
        counters = ctweb.counters()
        assert counters["websockets"] == live.CLIENTS
        assert counters["websockets-refused"] == before + 1
    finally:
        for client in clients:
            client.close()
    until(lambda: ctweb.counters()["websockets"] == 0)
    with connected() as client:
        assert receive(client, "hello")


def test_everybody_is_sent_away_when_it_ends(run):
    ctweb = run().ready()
    clients = [Client.connect(URL, headers=signed_in(ctweb.state_dir)) for _ in range(5)]
    endings = []

    def wait(client: Client) -> None:
        try:
            receive(client, "never")
        except ConnectionClosed as closed:
            endings.append(closed.reason)

    threads = [threading.Thread(target=wait, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    assert ctweb.end() == 0
    for thread in threads:
        thread.join()
    assert endings == [1001] * 5


def test_whose_handshake_ends_while_the_server_does_is_sent_away_too(run):
    ctweb = run().ready()
    HEADERS.update(signed_in(ctweb.state_dir))
    sock = socket.create_connection(("127.0.0.1", PORT), timeout=20)
    request = handshake_request()
    with sock:
        sock.sendall(request[:-2])  # but for the line that ends it
        until(lambda: ctweb.counters()["offered-packets"])  # it has been read by now
        ctweb.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        sock.sendall(request[-2:])
        answer = b""
        while data := sock.recv(4096):
            answer += data
    assert ctweb.process.wait(timeout=30) == 0
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert answer.endswith(b"\x88\x18\x03\xe9the server is stopping")  # RFC 6455, 5.5.1: a close frame with 1001
