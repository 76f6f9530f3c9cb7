"""Attacks, each as it would be made, and what becomes of it. docs/security.md lists them by these tests."""

from __future__ import annotations

import base64
import json

import pytest
from running import ADDRESS, PORT, Ctweb
from simple_websocket import Client, ConnectionError

from security.people import COOKIE, IDENTITY, PASSWORDS, TRACKING, Page, head, known, raw, status_of, websocket_cookie

CONNECTIONS = "/rest/ip/firewall/connection"
SET = TRACKING + "/set"
CHANGE = {"udp-timeout": "11m"}

pytestmark = pytest.mark.usefixtures("unmoved")


# -- Other sites


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", f"{ADDRESS}.evil.example", "127.0.0.1:x", "[", ""]
)
def test_dns_rebinding(boss: Page, host):
    """A name of the attacker's that leads to this server, with the victim's cookie."""
    assert boss.status("GET", CONNECTIONS, Host=host) in (400, 421)
    assert boss.status("POST", SET, CHANGE, Host=host) in (400, 421)


@pytest.mark.parametrize("lines", ["", "Host: {0}\r\nHost: {0}\r\n", "Host: {0}\r\nHost: evil.example\r\n"])
def test_no_host_or_two_of_them(boss: Page, lines):
    """What a rebound name could hide behind. HTTP/1.1 takes one."""
    top = f"GET {CONNECTIONS} HTTP/1.1\r\n{lines.format(ADDRESS)}Cookie: {COOKIE}={boss.token}\r\n"
    assert status_of(raw(f"{top}Connection: close\r\n\r\n".encode())) == 400


@pytest.mark.parametrize("target", ["http://evil.example", f"http://evil.example:{PORT}", f"http://{ADDRESS}@evil.example",
                                    "HTTP://EVIL.EXAMPLE", "http://", "https://evil.example", "ftp://evil.example"])
def test_a_whole_url_that_names_another_host(boss: Page, target):
    """As a proxy is asked: the URL's host counts, whatever the header Host says."""
    asked = head("GET", f"{target}{CONNECTIONS}", {"Connection": "close", "Cookie": f"{COOKIE}={boss.token}"})
    assert status_of(raw(asked)) == 421


def test_a_whole_url_that_names_us_is_served(boss: Page):
    asked = head("GET", f"http://{ADDRESS}{IDENTITY}", {"Connection": "close", "Cookie": f"{COOKIE}={boss.token}"})
    assert status_of(raw(asked)) == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", f"http://127.0.0.1:{PORT + 1}", f"http://{ADDRESS}.evil.example"]
)
def test_cross_site_websocket(boss: Page, origin):
    """Another site's page opens /live, and the browser sends the cookie along."""
    with pytest.raises(ConnectionError, match="403"):
        Client.connect(f"ws://{ADDRESS}/live", headers={"Origin": origin, **websocket_cookie(boss)})


@pytest.mark.parametrize("token", ["", "x", "é", "0" * 43])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", SET, CHANGE),
        ("POST", CONNECTIONS + "/remove", {"where": "dport:1"}),
        ("DELETE", CONNECTIONS + "/*1", None),
        ("POST", "/page/settings/check", {}),
        ("POST", "/page/sign-out", None),
    ],
)
def test_cookie_without_csrf_token(boss: Page, method, path, body, token):
    headers = {"X-CSRF-Token": token.encode().decode("latin-1")} if token else {}
    status, _, answer = boss.ask(method, path, body, csrf=False, **headers)
    assert status == 403
    assert "X-CSRF-Token" in json.loads(answer)["detail"]
    assert boss.status("GET", IDENTITY) == 200  # and nobody was signed out


def test_csrf_token_of_another_session(ctweb: Ctweb, page: Page, boss: Page):
    other = Page(ctweb)
    assert other.sign_in("guest") == 200
    boss.csrf = other.csrf
    assert boss.status("POST", SET, CHANGE) == 403


def test_signing_a_victim_in_from_another_site(page: Page):
    """Login CSRF: a form of another site cannot send JSON, and what can says where it comes from."""
    credentials = {"name": "guest", "password": PASSWORDS["guest"]}
    assert page.status("POST", "/page/sign-in", credentials, Origin="http://evil.example") == 403
    assert page.status("POST", "/page/sign-in", credentials, Sec_Fetch_Site="cross-site") == 403
    form = json.dumps(credentials).encode()
    assert page.status("POST", "/page/sign-in", form, Content_Type="text/plain") == 415


# -- Outsiders


@pytest.mark.parametrize(
    "path",
    [
        "/static/../ctweb/users.py", "/static/..%2f..%2fetc%2fpasswd", "/static/%2e%2e/%2e%2e/etc/passwd",
        "/static//etc/passwd", "/static/js/../../../../etc/passwd", "/static/..\\..\\etc\\passwd", "/static/%00",
        "/export/../../etc/passwd", "/export/connections.csv/../../etc/passwd", "/export/connections.%2e%2e%2fjson",
        "/export/connections.csv%00.json", "//evil.example/", "/%2e%2e/etc/passwd", "/sign-in/../rest/system/identity",
        "/healthz/../rest/system/identity", "/static/js/sign-in.js/../main.js",
        "/static/css/theme.css%2f..%2f..%2fjs%2fmain.js",
        "/sign-in;/rest/system/identity", "http://127.0.0.1/rest/system/identity", "/REST/system/identity",
        "*", "?/healthz", "/rest/system/identity?/healthz", "/rest/system/identity#/healthz",
    ],
)  # fmt: skip
def test_path_tricks(boss: Page, path):
    """Neither an outsider nor somebody signed in gets a file that is none of the page's."""
    outside = raw(head("GET", path, {"Connection": "close"}))
    assert status_of(outside) in ((303,) if path.startswith("?") else (400, 401, 404)), outside
    inside = raw(head("GET", path, {"Connection": "close", "Cookie": f"{COOKIE}={boss.token}"}))
    assert b"root:" not in inside + outside
    assert b"import annotations" not in inside + outside


@pytest.mark.parametrize(
    "path",
    [CONNECTIONS, "/export/connections.csv", "/page/history", "/page/settings", "/metrics", "/static/js/main.js"],
)
def test_outsiders_get_nothing(ctweb: Ctweb, path):
    status, _, body = ctweb.ask("GET", path, anonymous=True)
    assert (status, json.loads(body)) == (401, {"error": 401, "message": "Unauthorized"})
    assert ctweb.get("/healthz", anonymous=True) == (200, {"status": "ok"})


def test_outsiders_get_no_websocket(ctweb: Ctweb):
    with pytest.raises(ConnectionError, match="401"):
        Client.connect(f"ws://{ADDRESS}/live")


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"])
def test_method_override(guest: Page, name):
    """A reader's GET or print that says it is something else stays what it is."""
    for method in ("DELETE", "POST"):
        assert guest.status("GET", f"{CONNECTIONS}?{name}={method}", **{name: method}) in (200, 400)
    assert guest.status("POST", TRACKING + "/print", {}, **{name: "DELETE"}) == 200


@pytest.mark.parametrize(
    "header",
    [
        {"X-Forwarded-For": "127.0.0.1"}, {"X-Forwarded-User": "boss"}, {"Remote-User": "boss"},
        {"X-Original-URL": "/healthz"},
        {"X-Rewrite-URL": "/healthz"}, {"Authorization": ""}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "},
        {"Authorization": "Basic"}, {"Authorization": "Basic ="}, {"Authorization": "Digest username=boss"},
        {"Cookie": f"{COOKIE}="}, {"Cookie": f"{COOKIE}={'0' * 43}"}, {"Cookie": "=;=;;"},
        {"Cookie": f'{COOKIE}="\\377"'},
    ],
    ids=str,
)  # fmt: skip
def test_forged_identity(page: Page, header):
    assert status_of(raw(head("GET", IDENTITY, header | {"Connection": "close"}))) == 401


@pytest.mark.parametrize("data", [b"\xff\xfe:\xff", b"boss:\xff", b"boss", b":", b"", b"\0:\0", b"boss:" + b"x" * 5000])
def test_basic_that_is_no_text(page: Page, data):
    value = base64.b64encode(data).decode()
    assert page.status("GET", IDENTITY, Authorization=f"Basic {value}") == 401


def test_header_injection(boss: Page):
    """A line break in what the server writes into its own headers: the redirect, the names of files."""
    for path in ("/?filter=a%0d%0aSet-Cookie:%20x=y", "/?a\rb", "/export/connections.csv?where=%0d%0aX-Evil:1"):
        answer = raw(head("GET", path, {"Connection": "close"}))
        top = answer.partition(b"\r\n\r\n")[0].lower()
        assert b"\r\nset-cookie" not in top
        assert b"\r\nx-evil" not in top
    answer = raw(head("GET", "/?q=\x01\xe9\xff", {"Connection": "close"}))
    assert status_of(answer) in (303, 400)


@pytest.mark.parametrize("size", [4000, 8000, 9000, 100_000])
def test_huge_cookies(boss: Page, size):
    """They may shut out whoever sends them, and nobody else."""
    answer = raw(head("GET", IDENTITY, {"Connection": "close", "Cookie": f"{COOKIE}={'x' * size}"}))
    assert not answer or status_of(answer) in (400, 401, 431)
    assert boss.status("GET", IDENTITY) == 200


# -- Readers


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", SET, CHANGE),
        ("PATCH", TRACKING, CHANGE),
        ("PUT", TRACKING, CHANGE),
        ("POST", CONNECTIONS + "/remove", {"where": "proto:tcp"}),
        ("POST", "/rest/ipv6/firewall/connection/remove", {".id": "*1"}),
        ("DELETE", CONNECTIONS + "/*1", None),
        ("DELETE", CONNECTIONS + "/%2A1", None),
        ("POST", SET + "/print", CHANGE),
        ("POST", "/page/anything-else", {}),
        ("POST", SET + "?x=/print", CHANGE),
        ("POST", "/rest/../page/settings/check/../../rest/ip/firewall/connection/tracking/set", CHANGE),
    ],
)
@pytest.mark.parametrize("by", ["cookie", "basic"])
def test_reader_tries_to_write(guest: Page, method, path, body, by):
    headers = known("guest") if by == "basic" else {}
    status = guest.status(method, path, body, **headers)
    assert status == (400 if path.endswith("set/print") else 403)


def test_reader_tries_to_write_by_the_websocket(ctweb: Ctweb, guest: Page):
    """It only takes views: there is nothing to write with."""
    client = Client.connect(f"ws://{ADDRESS}/live", headers=known("guest"))
    client.receive(timeout=20)
    tried = ({"type": "set", **CHANGE}, {"type": "remove", "where": "proto:tcp"}, {"type": "view", "remove": ["*1"]})
    for message in tried:
        client.send(json.dumps(message))
        assert json.loads(client.receive(timeout=20))["type"] == "error"
    client.close()


def test_reader_may_look_at_everything(guest: Page):
    for path in (CONNECTIONS, TRACKING, "/export/connections.csv", "/page/history", "/page/settings", "/metrics", "/"):
        assert guest.status("GET", path) == 200, path
    assert guest.status("POST", CONNECTIONS + "/print", {".query": ["protocol=tcp"]}) == 200
    assert guest.status("POST", "/page/settings/check", CHANGE) == 200


# -- Sessions


def test_session_fixation(ctweb: Ctweb, page: Page):
    """A cookie that an attacker has planted is not the session that the victim gets."""
    for planted in ("planted", ""):
        page.token = planted
        assert page.sign_in("boss") == 200
        assert page.token not in ("planted", "")
    attacker = Page(ctweb)
    assert attacker.sign_in("guest") == 200
    victim = Page(ctweb, token=attacker.token)
    assert victim.sign_in("boss") == 200
    assert victim.token != attacker.token
    assert attacker.status("GET", IDENTITY) == 401  # the session that came along is over


def test_replayed_cookie_of_who_has_signed_out(boss: Page):
    Client.connect(f"ws://{ADDRESS}/live", headers=websocket_cookie(boss)).close()
    assert boss.status("POST", "/page/sign-out") == 204
    assert boss.status("GET", IDENTITY) == 401
    assert boss.status("POST", SET, CHANGE) == 401
    with pytest.raises(ConnectionError, match="401"):
        Client.connect(f"ws://{ADDRESS}/live", headers=websocket_cookie(boss))
