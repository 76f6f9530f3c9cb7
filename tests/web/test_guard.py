"""Who may ask what: other sites' pages may not, and every answer carries the headers that keep it so."""

from __future__ import annotations

import socket

import pytest
from running import ADDRESS, PORT, Ctweb, signed_in

from ctweb.web.guard import host_is_ours

SET = "/rest/ip/firewall/connection/tracking/set"


@pytest.mark.parametrize(
    ("name", "listen", "ours"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("::1", "::1", True),
        ("192.0.2.7", "192.0.2.7", True),
        ("router.example", "router.example", True),
        ("192.0.2.7", "0.0.0.0", True),
        ("2001:db8::7", "::", True),
        ("evil.example", "0.0.0.0", False),
        ("evil.example", "::", False),
        ("evil.example", "127.0.0.1", False),
        ("192.0.2.7", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        ("", "0.0.0.0", False),
    ],
)
def test_the_hosts_that_are_ours(name, listen, ours):
    assert host_is_ours(name, [listen]) is ours


@pytest.mark.parametrize(
    "host", ["evil.example", f"{ADDRESS}.evil.example", "evil.example:8291", "[::2]:8291", "a b", "["]
)
@pytest.mark.parametrize("path", ["/", "/healthz", "/rest/ip/firewall/connection", "/static/icon.svg", "/nonsense"])
def test_another_name_is_refused_everywhere(ctweb: Ctweb, host, path):
    assert ctweb.ask("GET", path, Host=host)[0] in (400, 421)


@pytest.mark.parametrize("host", [ADDRESS, "localhost:8291", "LOCALHOST:8291", "[::1]:8291", "127.0.0.1"])
def test_our_own_names_are_served(ctweb: Ctweb, host):
    assert ctweb.ask("GET", "/", Host=host)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:80"},
        {"Origin": f"ftp://{ADDRESS}"},
        {"Origin": "http://["},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": f"http://{ADDRESS}", "Sec_Fetch_Site": "cross-site"},
    ],
)
def test_a_page_of_another_origin_changes_nothing(ctweb: Ctweb, headers):
    status, answer = ctweb.post(SET, {"udp-timeout": "1m"}, **headers)
    assert status == 403
    assert answer["error"] == 403
    assert ctweb.get("/rest/ip/firewall/connection/tracking")[1]["udp-timeout"] == "10s"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_of_another_page_could_send_is_refused(ctweb: Ctweb, content_type):
    status, _, _ = ctweb.ask("POST", SET, b'{"udp-timeout":"1m"}', Content_Type=content_type)
    assert status == 415
    assert ctweb.get("/rest/ip/firewall/connection/tracking")[1]["udp-timeout"] == "10s"


def test_our_own_page_may_change_settings(ctweb: Ctweb):
    headers = {"Origin": f"http://{ADDRESS}", "Sec_Fetch_Site": "same-origin"}
    assert ctweb.post(SET, {"udp-timeout": "10s"}, **headers) == (200, [])


@pytest.mark.parametrize("path", ["/", "/healthz", "/static/icon.svg", "/nonsense", "/rest/nonsense"])
def test_every_answer_has_the_headers(ctweb: Ctweb, path):
    _, headers, _ = ctweb.ask("GET", path)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/static/icon.svg", "image/svg+xml"),
        ("/static/js/main.js", "text/javascript"),
        ("/static/css/theme.css", "text/css"),
    ],
)
def test_the_pages_files_are_asked_for_again_but_sent_once(ctweb: Ctweb, path, kind):
    status, headers, _ = ctweb.ask("GET", path)
    assert status == 200
    assert headers["Content-Type"].split(";")[0] == kind
    assert headers["Cache-Control"] == "no-cache"
    status, _, body = ctweb.ask("GET", path, If_None_Match=headers["ETag"])
    assert (status, body) == (304, b"")


def test_answers_with_data_are_not_kept(ctweb: Ctweb):
    for path in ("/healthz", "/rest/ip/firewall/connection"):
        assert ctweb.ask("GET", path)[1]["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/rest/ip/firewall/connection", "/metrics", "/export/connections.csv"])
def test_an_address_that_is_not_utf8_is_refused(ctweb: Ctweb, path):
    with socket.create_connection(("127.0.0.1", PORT), timeout=30) as raw:
        head = f"GET {path}?where=\xf9 HTTP/1.1\r\nHost: {ADDRESS}\r\nConnection: close\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in signed_in(ctweb.state_dir).items()) + "\r\n"
        raw.sendall(head.encode("latin-1"))
        assert raw.recv(100).startswith(b"HTTP/1.1 400 ")
    assert b"Traceback" not in ctweb.log.read_bytes()
