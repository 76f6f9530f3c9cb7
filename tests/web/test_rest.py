"""REST as RouterOS's clients know it, on connections made for the test."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from running import Ctweb, until

IPV4, IPV6 = "/rest/ip/firewall/connection", "/rest/ipv6/firewall/connection"
TRACKING = IPV4 + "/tracking"


@pytest.fixture(scope="module")
def traffic(ctweb: Ctweb) -> Iterator[dict[str, int]]:
    """An established TCP connection and an unanswered UDP one, over IPv4 and over IPv6; their client ports."""
    ports = {}
    held = []
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        version = 4 if family == socket.AF_INET else 6
        server = socket.create_server((address, 0), family=family)
        client = socket.create_connection(server.getsockname()[:2])
        accepted = server.accept()[0]
        client.sendall(b"x" * 1000)
        accepted.recv(1000)
        held += [server, client, accepted]
        ports[f"tcp{version}"] = client.getsockname()[1]
        ports[f"tcp{version}-server"] = server.getsockname()[1]
        receiver = socket.socket(family, socket.SOCK_DGRAM)
        receiver.bind((address, 0))
        sender = socket.socket(family, socket.SOCK_DGRAM)
        sender.connect(receiver.getsockname()[:2])
        sender.send(b"y" * 100)
        held += [receiver, sender]
        ports[f"udp{version}"] = sender.getsockname()[1]
    yield ports
    for each in held:
        each.close()


def rows(ctweb: Ctweb, path: str) -> list[dict[str, str]]:
    status, answer = ctweb.get(path)
    assert status == 200, answer
    assert isinstance(answer, list)
    return answer


def one(ctweb: Ctweb, path: str) -> dict[str, str]:
    """The one row that `path` answers, once it is there."""
    until(lambda: len(rows(ctweb, path)) == 1)
    return rows(ctweb, path)[0]


def test_a_tcp_connection_is_a_row_of_strings(ctweb: Ctweb, traffic):
    row = one(ctweb, f"{IPV4}?protocol=tcp&src-port={traffic['tcp4']}")
    assert all(isinstance(value, str) and value for value in row.values())
    assert re.fullmatch(r"\*[0-9A-F]+", row[".id"])
    expected = {
        "protocol": "tcp",
        "src-address": f"127.0.0.1:{traffic['tcp4']}",
        "dst-address": f"127.0.0.1:{traffic['tcp4-server']}",
        "reply-src-address": f"127.0.0.1:{traffic['tcp4-server']}",
        "reply-dst-address": f"127.0.0.1:{traffic['tcp4']}",
        "src-port": str(traffic["tcp4"]),
        "tcp-state": "established",
        "seen-reply": "true",
        "assured": "true",
        "confirmed": "true",
        "dying": "false",
        "srcnat": "false",
    }
    assert {name: row.get(name) for name in expected} == expected
    assert int(row["orig-bytes"]) > 1000
    assert int(row["orig-packets"]) >= 3
    assert re.fullmatch(r"(1d|23h59m\d+s)", row["timeout"])
    assert "icmp-type" not in row
    assert "connection-mark" not in row


def test_an_ipv6_connection_stands_in_its_own_tree(ctweb: Ctweb, traffic):
    row = one(ctweb, f"{IPV6}?protocol=tcp&src-port={traffic['tcp6']}")
    assert row["src-address"] == f"[::1]:{traffic['tcp6']}"
    assert rows(ctweb, f"{IPV4}?src-port={traffic['tcp6']}&protocol=tcp") == []
    assert all(r["src-address"].startswith("[") or ":" in r["src-address"] for r in rows(ctweb, IPV6))


def test_equality_filters_must_all_hold(ctweb: Ctweb, traffic):
    udp = one(ctweb, f"{IPV4}?protocol=udp&src-address=127.0.0.1:{traffic['udp4']}")
    assert udp["orig-bytes"] == "128"
    assert udp["orig-packets"] == "1"
    assert udp["repl-packets"] == "0"
    assert rows(ctweb, f"{IPV4}?protocol=udp&src-port={traffic['udp4']}&seen-reply=yes") == []
    assert len(rows(ctweb, f"{IPV4}?protocol=udp&src-port={traffic['udp4']}&seen-reply=no")) == 1


def test_a_row_can_be_asked_for_by_its_id(ctweb: Ctweb, traffic):
    row = one(ctweb, f"{IPV4}?protocol=tcp&src-port={traffic['tcp4']}")
    for written in (row[".id"], quote(row[".id"], safe="")):
        status, same = ctweb.get(f"{IPV4}/{written}")
        assert status == 200
        assert (same[".id"], same["src-address"]) == (row[".id"], row["src-address"])
    assert ctweb.get(f"{IPV6}/{row['.id']}")[0] == 404
    status, picked = ctweb.get(f"{IPV4}/{row['.id']}?.proplist=protocol")
    assert picked == {".id": row[".id"], "protocol": "tcp"}


def test_proplist_picks_and_unknown_names_are_ignored(ctweb: Ctweb, traffic):
    path = f"{IPV4}?protocol=tcp&src-port={traffic['tcp4']}&.proplist=tcp-state,nonsense,protocol,icmp-type"
    row = one(ctweb, path)
    assert row.keys() == {".id", "protocol", "tcp-state"}


def test_an_id_that_is_not_there_is_not_found(ctweb: Ctweb):
    for identity in ("*0", "*FFFFFFFFFFFFFFFF", "*123456789ABCDEF01234", "*nothex", "%2A1"):
        status, answer = ctweb.get(f"{IPV4}/{identity}")
        assert (status, answer) == (404, {"error": 404, "message": "Not Found"})


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/rest/ip/nonsense", "no such command or directory (nonsense)"),
        ("/rest/nonsense/firewall", "no such command or directory (nonsense)"),
        (IPV4 + "/nonsense", "no such command or directory (nonsense)"),
        (IPV6 + "/tracking", "no such command or directory (tracking)"),
        (IPV4 + "?nonsense=1", "unknown parameter nonsense"),
    ],
)
def test_what_does_not_exist_is_refused_in_routeros_words(ctweb: Ctweb, path, detail):
    assert ctweb.get(path) == (400, {"error": 400, "message": "Bad Request", "detail": detail})


def test_nothing_is_added_here(ctweb: Ctweb):
    status, _, _ = ctweb.ask("PUT", IPV4, {"protocol": "tcp"})
    assert status == 400


def test_paths_outside_are_not_found(ctweb: Ctweb):
    for path in ("/nonsense", "/static/../ctweb/cli.py", "/static/%2e%2e/pyproject.toml", "/static//etc/passwd"):
        status, answer = ctweb.get(path)
        assert status == 404, path
        assert answer["error"] == 404


def test_tracking_shows_the_settings_and_what_they_lead_to(ctweb: Ctweb):
    status, settings = ctweb.get(TRACKING)
    assert status == 200
    assert all(isinstance(value, str) for value in settings.values())
    assert settings["tcp-established-timeout"] == "1d"
    assert settings["udp-timeout"] == "10s"
    assert settings["loose-tcp-tracking"] == "true"
    assert int(settings["max-entries"]) >= 16_384
    assert int(settings["total-entries"]) == int(settings["total-ip4-entries"]) + int(settings["total-ip6-entries"])


def test_settings_are_changed_at_once(ctweb: Ctweb, traffic):
    assert ctweb.post(TRACKING + "/set", {"udp-timeout": "00:10:00"}) == (200, [])
    assert ctweb.get(TRACKING)[1]["udp-timeout"] == "10m"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"z", ("127.0.0.1", 9))
        port = sender.getsockname()[1]
        assert one(ctweb, f"{IPV4}?protocol=udp&src-port={port}")["timeout"] in ("9m58s", "9m59s", "10m")


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"udp-timeout": "soon"}, "udp-timeout"),
        ({"udp-timeout": "0s"}, "udp-timeout"),
        ({"udp-timeout": "99999999999w"}, "udp-timeout"),
        ({"enabled": "maybe"}, "auto, yes or no"),
        ({"loose-tcp-tracking": ""}, "yes or no"),
        ({"max-entries": "5"}, "read-only"),
        ({"nonsense": "5"}, "unknown parameter nonsense"),
        ({"icmp-timeout": "1m", "udp-timeout": "x" * 5000}, "udp-timeout"),
    ],
)
def test_a_bad_setting_is_refused_with_its_name_and_what_it_takes(ctweb: Ctweb, change, detail):
    before = ctweb.get(TRACKING)[1]
    status, answer = ctweb.post(TRACKING + "/set", change)
    assert status == 400
    assert answer["error"] == 400
    assert detail in answer["detail"]
    assert len(answer["detail"]) < 500
    after = ctweb.get(TRACKING)[1]
    assert {n: after[n] for n in after if "timeout" in n} == {n: before[n] for n in before if "timeout" in n}


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b"7", b'{"udp-timeout":[]}', b"\xff\xfe", b"[" * 60_000])
def test_a_body_that_is_no_settings_is_refused(ctweb: Ctweb, body):
    status, _, answer = ctweb.ask("POST", TRACKING + "/set", body)
    assert status == 400, answer
    assert b"Traceback" not in answer


def test_a_body_that_is_too_big_is_refused(ctweb: Ctweb):
    assert ctweb.post(TRACKING + "/set", {"udp-timeout": "x" * 100_000})[0] == 413


def test_numbers_and_booleans_are_taken_as_their_text(ctweb: Ctweb):
    assert ctweb.post(TRACKING + "/set", {"icmp-timeout": 20, "loose-tcp-tracking": False})[0] == 200
    settings = ctweb.get(TRACKING)[1]
    assert (settings["icmp-timeout"], settings["loose-tcp-tracking"]) == ("20s", "false")
    assert ctweb.post(TRACKING + "/set", {"icmp-timeout": "10s", "loose-tcp-tracking": "yes"})[0] == 200


def test_where_takes_the_filter_of_the_page(ctweb: Ctweb, traffic):
    found = one(ctweb, f"{IPV4}?where={quote('protocol=tcp src-port=' + str(traffic['tcp4']))}")
    assert found["tcp-state"] == "established"
    status, answer = ctweb.get(f"{IPV4}?where={quote('no-such=1')}")
    assert status == 400
    assert "no-such" in answer["detail"]


def test_a_table_of_thousands_arrives_whole(ctweb: Ctweb):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        port = sender.getsockname()[1]
        for other in range(20_000, 23_000):
            sender.sendto(b"", ("127.0.0.1", other))
    until(lambda: len(rows(ctweb, f"{IPV4}?protocol=udp&src-port={port}")) == 3000)
    found = rows(ctweb, f"{IPV4}?protocol=udp&src-port={port}")
    assert {row["dst-port"] for row in found} == {str(other) for other in range(20_000, 23_000)}
    assert len({row[".id"] for row in found}) == 3000


def test_healthz_tells_what_is_attached_and_swept(ctweb: Ctweb):
    status, health = ctweb.get("/healthz")
    assert status == 200
    assert health["status"] == "ok"
    assert health["attached"] == 1
    assert health["interfaces"] == {"lo": "tc"}
    until(lambda: ctweb.get("/healthz")[1]["sweep"] > health["sweep"])
