"""Floods: more than anybody sensible sends. Others are served meanwhile, and all is well after."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections import Counter
from urllib.parse import quote

import pytest
from running import ADDRESS, PORT, Ctweb
from simple_websocket import Client, ConnectionError

from ctweb.web import password_check
from ctweb.web.guard import MAX_BODY
from security.people import IDENTITY, Page, basic, head, known, raw, status_of

CONNECTIONS = "/rest/ip/firewall/connection"

pytestmark = pytest.mark.usefixtures("unmoved")


def test_oversized_bodies_and_filters(boss: Page):
    large = b'{"where":"' + b"x" * MAX_BODY + b'"}'
    assert boss.status("POST", CONNECTIONS + "/print", large) == 413
    assert boss.status("POST", "/page/sign-in", large) == 413
    assert boss.status("POST", CONNECTIONS + "/print", {"where": "x" * 60_000}) == 400
    assert boss.status("POST", CONNECTIONS + "/print", {"where": "(" * 30_000}) == 400
    assert boss.status("POST", CONNECTIONS + "/print", {".query": ["#!"] * 9000}) in (200, 400)
    assert boss.status("GET", f"{CONNECTIONS}?where={quote('!' * 3000)}") == 400
    chunked = head("POST", CONNECTIONS + "/print", known("boss") | {
        "Transfer-Encoding": "chunked", "Content-Type": "application/json", "Connection": "close",
    })  # fmt: skip
    for each in (b"x", b" "):  # cut off, the latter would be an empty body, which asks for everything
        chunks = (b"8000\r\n" + each * 0x8000 + b"\r\n") * 2 + b"2\r\n{}\r\n0\r\n\r\n"
        assert status_of(raw(chunked + chunks)) == 413


def test_ten_thousand_wrong_passwords(ctweb: Ctweb, boss: Page):
    """From one address, as fast as it goes: few are looked at, others are served, and the right password works."""
    before = ctweb.counters()
    attacker = "127.0.9.9"
    statuses: Counter[int] = Counter()
    answered: queue.SimpleQueue[int] = queue.SimpleQueue()  # 500 guesses have been answered each

    def guess(numbers: range) -> None:
        sock = socket.create_connection(("127.0.0.1", PORT), timeout=60, source_address=(attacker, 0))
        stream = sock.makefile("rb")
        for number in numbers:
            sock.sendall(head("GET", IDENTITY, basic("boss", f"guess {number}")))
            statuses[status_of(stream.readline())] += 1
            length = 0
            while (line := stream.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            stream.read(length)
            if number % 500 == 499:
                answered.put(number)
        sock.close()

    threads = [threading.Thread(target=guess, args=[range(n, 10_000, 4)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        answered.get(timeout=120)
        assert boss.status("GET", IDENTITY) == 200  # a session
        assert ctweb.get(IDENTITY, **known("guest"))[0] == 200  # Basic, from another address
    for thread in threads:
        thread.join()
    assert set(statuses) == {401, 429}
    assert sum(statuses.values()) == 10_000
    after = ctweb.counters()
    looked_at = after["sign-ins-failed"] - before["sign-ins-failed"]
    assert looked_at == statuses[401] < 5 * password_check.FREE
    assert after["sign-ins-slowed"] - before["sign-ins-slowed"] == statuses[429]
    fresh = Page(ctweb, "127.0.9.10")  # the very user that is guessed at, never signed in from there
    assert fresh.sign_in("boss") == 200
    refused = Page(ctweb, attacker)
    status, headers, body = refused.ask("GET", IDENTITY, **basic("boss", "one more guess"))
    assert (status, json.loads(body)["error"]) == (429, 429)
    assert 1 <= int(headers["Retry-After"]) <= password_check.LONGEST_WAIT + 1


def test_unknown_names_are_answered_as_wrong_passwords(ctweb: Ctweb):
    answers = [
        Page(ctweb, f"127.0.8.{n}").ask("POST", "/page/sign-in", {"name": name, "password": "wrong"})
        for n, name in ((1, "boss"), (2, "nobody-of-that-name"))
    ]
    assert answers[0][0] == answers[1][0] == 401
    assert answers[0][2] == answers[1][2]


def test_a_flood_of_websockets_of_outsiders_takes_no_place(ctweb: Ctweb):
    for _ in range(100):
        with pytest.raises(ConnectionError, match="401"):
            Client.connect(f"ws://{ADDRESS}/live")
    assert ctweb.counters()["websockets-refused"] == 0
