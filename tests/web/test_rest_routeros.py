"""Every example of RouterOS's REST conventions, asked of a running server over connections made for the test."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from running import Ctweb, until

IPV4, IPV6 = "/rest/ip/firewall/connection", "/rest/ipv6/firewall/connection"
TRACKING = IPV4 + "/tracking"
FLAGS = ("expected", "seen-reply", "assured", "confirmed", "dying", "fasttrack", "hw-offload", "srcnat", "dstnat",
         "uses-helper")  # fmt: skip


class Traffic:
    """Connections on loopback: a TCP one and three UDP ones over each family."""

    def __init__(self) -> None:
        self.held: list[socket.socket] = []
        self.tcp = {4: self._tcp("127.0.0.1", socket.AF_INET), 6: self._tcp("::1", socket.AF_INET6)}
        self.udp = {4: self.unanswered(3), 6: self.unanswered(3, "::1", socket.AF_INET6)}

    def _tcp(self, address: str, family: int) -> tuple[int, int]:
        """The client's port and the server's."""
        server = socket.create_server((address, 0), family=family)
        client = socket.create_connection(server.getsockname()[:2])
        accepted = server.accept()[0]
        client.sendall(b"x" * 1000)
        accepted.recv(1000)
        self.held += [server, client, accepted]
        return client.getsockname()[1], server.getsockname()[1]

    def unanswered(self, n: int, address: str = "127.0.0.1", family: int = socket.AF_INET) -> int:
        """The one port that `n` new UDP connections come from."""
        sender = socket.socket(family, socket.SOCK_DGRAM)
        sender.bind((address, 0))
        self.held.append(sender)
        for port in range(30_000, 30_000 + n):
            sender.sendto(b"y" * 100, (address, port))
        return sender.getsockname()[1]

    def close(self) -> None:
        for each in self.held:
            each.close()


@pytest.fixture(scope="module")
def traffic(ctweb: Ctweb) -> Iterator[Traffic]:
    # Long enough for the whole module, however busy the machine.
    assert ctweb.post(TRACKING + "/set", {"udp-timeout": "1h"}) == (200, [])
    made = Traffic()
    until(lambda: len(rows(ctweb, f"{IPV4}?protocol=udp&src-port={made.udp[4]}")) == 3)
    until(lambda: len(rows(ctweb, f"{IPV6}?protocol=udp&src-port={made.udp[6]}")) == 3)
    until(lambda: len(rows(ctweb, f"{IPV6}?protocol=tcp&src-port={made.tcp[6][0]}&assured=yes")) == 1)
    yield made
    made.close()


def rows(ctweb: Ctweb, path: str) -> list[dict[str, str]]:
    status, answer = ctweb.get(path)
    assert status == 200, answer
    assert isinstance(answer, list)
    return answer


def printed(ctweb: Ctweb, body: object, tree: str = IPV4) -> list[dict[str, str]]:
    status, answer = ctweb.post(tree + "/print", body)
    assert status == 200, answer
    assert isinstance(answer, list)
    return answer


def refused(answer: tuple[int, object], detail: str) -> None:
    assert answer == (400, {"error": 400, "message": "Bad Request", "detail": detail})


NOT_FOUND = (404, {"error": 404, "message": "Not Found"})


class TestGet:
    def test_the_captured_row_has_these_properties_and_every_value_is_a_string(self, ctweb, traffic):
        """The row in the reference; what it lacks (ports, replies) newer manuals have."""
        client, server = traffic.tcp[4]
        (row,) = rows(ctweb, f"{IPV4}?protocol=tcp&src-port={client}&dst-port={server}")
        assert all(isinstance(value, str) for value in row.values())
        assert row | {
            "assured": "true", "confirmed": "true", "dst-address": f"127.0.0.1:{server}", "dstnat": "false",
            "dying": "false", "expected": "false", "fasttrack": "false", "orig-fasttrack-bytes": "0",
            "orig-fasttrack-packets": "0", "protocol": "tcp", "reply-dst-address": f"127.0.0.1:{client}",
            "seen-reply": "true", "srcnat": "false", "tcp-state": "established",
        } == row  # fmt: skip
        assert re.fullmatch(r"\*[0-9A-F]+", row[".id"])
        for name in ("orig-bytes", "orig-packets", "orig-rate", "repl-bytes", "repl-packets", "repl-rate"):
            assert row[name].isdecimal(), name
        assert re.fullmatch(r"1d|23h\d+m\d+s|23h\d+m", row["timeout"])

    def test_properties_that_do_not_apply_are_left_out(self, ctweb, traffic):
        for row in rows(ctweb, IPV4) + rows(ctweb, IPV6):
            assert "" not in row.values()
            assert ("tcp-state" in row) == (row["protocol"] == "tcp")
            assert ("icmp-type" in row) == (row["protocol"] in ("icmp", "icmpv6"))
            assert "connection-mark" not in row
            assert {row[flag] for flag in FLAGS} <= {"true", "false"}

    def test_the_example_filter(self, ctweb, traffic):
        found = rows(ctweb, IPV4 + "?protocol=tcp&tcp-state=established")
        assert {(row["protocol"], row["tcp-state"]) for row in found} == {("tcp", "established")}
        assert str(traffic.tcp[4][0]) in {row["src-port"] for row in found}
        assert rows(ctweb, IPV4 + "?protocol=udp&tcp-state=established") == []

    def test_a_collection_answers_an_array_an_id_an_object_and_a_settings_menu_the_bare_object(self, ctweb, traffic):
        assert rows(ctweb, IPV4 + "?src-address=203.0.113.1") == []
        (row,) = rows(ctweb, f"{IPV4}?protocol=tcp&src-port={traffic.tcp[4][0]}&dst-port={traffic.tcp[4][1]}")
        for written in (row[".id"], quote(row[".id"], safe="")):
            status, same = ctweb.get(f"{IPV4}/{written}")
            assert (status, same[".id"], same["dst-address"]) == (200, row[".id"], row["dst-address"])
        assert ctweb.get(TRACKING)[1]["tcp-established-timeout"] == "1d"

    def test_proplist_picks_and_the_id_always_comes_back(self, ctweb, traffic):
        client, server = traffic.tcp[4]
        ends = f"src-port={client}&dst-port={server}"
        (row,) = rows(ctweb, f"{IPV4}?protocol=tcp&{ends}&.proplist=assured,a,protocol,b")
        assert set(row) == {".id", "assured", "protocol"}

    def test_ipv6_stands_in_its_tree_with_brackets_before_a_port(self, ctweb, traffic):
        client, server = traffic.tcp[6]
        (row,) = rows(ctweb, f"{IPV6}?src-address=[::1]:{client}&protocol=tcp")
        assert row["dst-address"] == f"[::1]:{server}"
        assert rows(ctweb, f"{IPV4}?.id={row['.id']}") == []

    @pytest.mark.parametrize(
        "written",
        ["src-address=127.0.0.1:{0}", "src-address=127.0.0.1&src-port={0}", "src-address=127.0.0.0/8&src-port={0}",
         "reply-dst-address=127.0.0.1:{0}", "reply-dst-port={0}&reply-src-address=127.0.0.1:{1}",
         "src-port={0}&assured=yes", "src-port={0}&assured=true&srcnat=no&dstnat=false"],
    )  # fmt: skip
    def test_the_forms_a_filter_is_written_in(self, ctweb, traffic, written):
        (row,) = rows(ctweb, f"{IPV4}?protocol=tcp&{written.format(*traffic.tcp[4])}")
        assert row["src-port"] == str(traffic.tcp[4][0])

    def test_count_only(self, ctweb, traffic):
        assert ctweb.get(f"{IPV4}?protocol=udp&src-port={traffic.udp[4]}&count-only=") == (200, {"ret": "3"})

    def test_a_property_given_twice_is_refused(self, ctweb):
        refused(ctweb.get(IPV4 + "?protocol=tcp&protocol=udp"), "protocol is given 2 times")


class TestPrint:
    def test_the_example_query_in_both_forms_of_proplist(self, ctweb, traffic):
        for proplist in (["protocol", "assured"], "protocol,assured"):
            found = printed(ctweb, {".proplist": proplist, ".query": ["protocol=tcp", "assured=yes", "#&"]})
            assert found
            assert all(row == {".id": row[".id"], "protocol": "tcp", "assured": "true"} for row in found)

    def test_without_arguments_it_prints_everything(self, ctweb, traffic):
        everything = {row[".id"] for row in printed(ctweb, {})}
        assert {row[".id"] for row in rows(ctweb, f"{IPV4}?src-port={traffic.udp[4]}")} < everything
        status, _, answer = ctweb.ask("POST", IPV4 + "/print")
        assert status == 200
        assert answer.startswith(b"[{")

    @pytest.mark.parametrize(
        ("words", "finds"),
        [
            (["dst-port=30000"], [30000]),
            (["?dst-port=30000"], [30000]),
            (["?=dst-port=30000"], [30000]),
            (["dst-port=30000", "dst-port=30001"], []),
            (["dst-port=30000", "dst-port=30001", "#|"], [30000, 30001]),
            (["dst-port=30000", "dst-port=30001", "#|!"], [30002]),
            (["dst-port=30000", "#!"], [30001, 30002]),
            (["?dst-port=30000", "?dst-port=30001", "?#|"], [30000, 30001]),
            (["<dst-port=30001"], [30000]),
            ([">dst-port=30001"], [30002]),
            (["?>dst-port=30000", "?<timeout=2h"], [30001, 30002]),
            (["tcp-state"], []),
            (["-tcp-state"], [30000, 30001, 30002]),
            (["protocol=udp", "assured=yes", "#&"], []),
            (["protocol=udp", "assured=no", "#&"], [30000, 30001, 30002]),
            ([], [30000, 30001, 30002]),
        ],
    )
    def test_query_words(self, ctweb, traffic, words, finds):
        own = ["protocol=udp", f"src-port={traffic.udp[4]}"]
        found = printed(ctweb, {".query": [*own, "#&", *words]})
        assert sorted(int(row["dst-port"]) for row in found) == finds
        assert ctweb.post(IPV4 + "/print", {".query": [*own, *words], "count-only": ""}) == (
            200, {"ret": str(len(finds))},
        )  # fmt: skip

    def test_count_only_answers_a_string(self, ctweb, traffic):
        query = {".query": ["protocol=udp", f"src-port={traffic.udp[6]}"]}
        for flag in ("", "yes", True):
            assert ctweb.post(IPV6 + "/print", query | {"count-only": flag}) == (200, {"ret": "3"})
        assert len(printed(ctweb, query | {"count-only": "no"}, IPV6)) == 3

    def test_rows_by_id(self, ctweb, traffic):
        ids = [row[".id"] for row in rows(ctweb, f"{IPV4}?protocol=udp&src-port={traffic.udp[4]}")]
        for written in (",".join(ids[:2]), ids[:2]):
            assert {row[".id"] for row in printed(ctweb, {".id": written})} == set(ids[:2])

    def test_what_only_changes_a_terminals_looks_is_taken(self, ctweb, traffic):
        assert printed(ctweb, {"detail": "", "without-paging": "", ".query": ["src-address=203.0.113.1"]}) == []

    @pytest.mark.parametrize(
        ("body", "detail"),
        [
            ({"nonsense": "1"}, "unknown parameter nonsense"),
            ({".query": ["nonsense=1"]}, "unknown parameter nonsense"),
            ({"where": ["a"]}, "where takes a string, not a list"),
            ({"count-only": "perhaps"}, "count-only takes yes or no, not 'perhaps'"),
            ({".query": ["assured=perhaps"]}, "assured takes yes or no, not 'perhaps'"),
            ({".query": ["#&"]}, "query word '#&' needs 2 results before it, and there are 0"),
            ({".id": "7"}, ".id takes ids such as *1F or \"*1F,*20\", not '7'"),
        ],
    )
    def test_what_it_cannot_take_is_refused_by_name(self, ctweb, body, detail):
        refused(ctweb.post(IPV4 + "/print", body), detail)

    def test_a_body_that_is_no_json_object_is_refused(self, ctweb):
        for body in (b"[", b"[]", b"1", b"\xff", b"[" * 60_000, b'{".query":[1]}', b'{"where":{}}'):
            assert ctweb.ask("POST", IPV4 + "/print", body)[0] == 400
        assert ctweb.ask("POST", IPV4 + "/print", b"{}", Content_Type="text/plain")[0] == 415

    def test_a_print_of_one_object_is_an_array_of_it(self, ctweb):
        assert ctweb.post(TRACKING + "/print", {".proplist": "udp-stream-timeout"}) == (
            200, [{"udp-stream-timeout": "3m"}],
        )  # fmt: skip


class TestSet:
    def test_settings_are_written_with_post_and_answer_an_empty_array(self, ctweb):
        assert ctweb.post(TRACKING + "/set", {"icmp-timeout": "00:00:20"}) == (200, [])
        assert ctweb.get(TRACKING)[1]["icmp-timeout"] == "20s"
        assert ctweb.post(TRACKING + "/set", {"icmp-timeout": "10s"}) == (200, [])


class TestRemove:
    """The next packet of a removed connection starts a new one."""

    def ids(self, ctweb: Ctweb, port: int, n: int) -> list[str]:
        until(lambda: len(rows(ctweb, f"{IPV4}?protocol=udp&src-port={port}")) == n)
        return [row[".id"] for row in rows(ctweb, f"{IPV4}?protocol=udp&src-port={port}")]

    @pytest.mark.parametrize("escape", [False, True])
    def test_delete_by_id_is_gone_with_the_answer(self, ctweb, traffic, escape):
        one, two = self.ids(ctweb, traffic.unanswered(2), 2)
        status, _, answer = ctweb.ask("DELETE", f"{IPV4}/{quote(one, safe='') if escape else one}")
        assert (status, answer) == (204, b"")
        assert ctweb.get(f"{IPV4}/{one}") == NOT_FOUND
        assert ctweb.ask("DELETE", f"{IPV4}/{one}")[0] == 404
        assert ctweb.get(f"{IPV4}/{two}")[0] == 200

    @pytest.mark.parametrize("written", [",".join, list])
    def test_post_remove_takes_several_ids(self, ctweb, traffic, written):
        ids = self.ids(ctweb, traffic.unanswered(3), 3)
        assert ctweb.post(IPV4 + "/remove", {".id": written(ids[:2])}) == (200, [])
        assert [ctweb.get(f"{IPV4}/{one}")[0] for one in ids] == [404, 404, 200]

    def test_the_next_packet_starts_a_new_connection(self, ctweb, traffic):
        port = traffic.unanswered(1)
        (old,) = self.ids(ctweb, port, 1)
        assert ctweb.ask("DELETE", f"{IPV4}/{old}")[0] == 204
        traffic.held[-1].sendto(b"again", ("127.0.0.1", 30_000))
        (new,) = self.ids(ctweb, port, 1)
        assert new != old
        assert ctweb.get(f"{IPV4}/{new}")[1]["orig-packets"] == "1"

    def test_an_id_of_the_other_family_or_of_nobody_is_not_found(self, ctweb, traffic):
        (row,) = rows(ctweb, f"{IPV4}?protocol=tcp&src-port={traffic.tcp[4][0]}&dst-port={traffic.tcp[4][1]}")
        assert ctweb.ask("DELETE", f"{IPV6}/{row['.id']}")[0] == 404
        assert ctweb.post(IPV6 + "/remove", {".id": row[".id"]}) == NOT_FOUND
        assert ctweb.post(IPV4 + "/remove", {".id": "*FFFFFFFFFFFFFFFF"}) == NOT_FOUND
        assert ctweb.get(f"{IPV4}/{row['.id']}")[0] == 200

    @pytest.mark.parametrize("question", ["where", "query"])
    def test_a_filter_removes_what_it_means_and_nothing_else(self, ctweb, traffic, question):
        port = traffic.unanswered(4)
        ids = self.ids(ctweb, port, 4)
        body = {
            "where": {"where": f"proto:udp sport:{port} dport<30003"},
            "query": {".query": ["protocol=udp", f"src-port={port}", "<dst-port=30003"]},
        }[question]
        assert ctweb.post(IPV4 + "/remove", body) == (200, {"ret": "3"})
        (left,) = rows(ctweb, f"{IPV4}?protocol=udp&src-port={port}")
        assert left[".id"] in ids
        assert left["dst-port"] == "30003"
        assert ctweb.post(IPV4 + "/remove", body) == (200, {"ret": "0"})

    @pytest.mark.parametrize("body", [{}, {"where": ""}, {"where": "  "}, {".query": []}, {".query": ["#"]},
                                      {"where": "", ".query": []}, {"where": None},
                                      {"where": '""'}, {"where": '"" ("")'}])  # fmt: skip
    def test_no_filter_at_all_is_refused_in_words(self, ctweb, traffic, body):
        before = len(rows(ctweb, IPV4))
        status, answer = ctweb.post(IPV4 + "/remove", body)
        assert status == 400
        assert "nothing was removed" in answer["detail"]
        assert len(rows(ctweb, IPV4)) >= before

    @pytest.mark.parametrize(
        ("body", "word"),
        [({"protocol": "tcp"}, "protocol"), ({".id": ""}, ".id"), ({".id": []}, ".id"), ({".id": "*x"}, ".id"),
         ({".id": "*1,2"}, ".id"), ({".query": ["src-port"], "count-only": ""}, "count-only"),
         ({"where": "nonsense:1"}, "nonsense")],
    )  # fmt: skip
    def test_what_it_cannot_take_is_refused_by_name(self, ctweb, body, word):
        status, answer = ctweb.post(IPV4 + "/remove", body)
        assert (status, answer["error"]) == (400, 400)
        assert word in answer["detail"]

    def test_a_page_of_another_site_removes_nothing(self, ctweb, traffic):
        (row,) = rows(ctweb, f"{IPV4}?protocol=tcp&src-port={traffic.tcp[4][0]}&dst-port={traffic.tcp[4][1]}")
        assert ctweb.ask("DELETE", f"{IPV4}/{row['.id']}", Origin="http://evil.example")[0] == 403
        assert ctweb.get(f"{IPV4}/{row['.id']}")[0] == 200


class TestErrors:
    @pytest.mark.parametrize(
        ("method", "path", "word"),
        [
            ("PUT", IPV4, "add"),
            ("PATCH", IPV4, "set"),
            ("PATCH", IPV4 + "/*1", "set"),
            ("PUT", IPV6, "add"),
            ("PUT", TRACKING, "add"),
            ("POST", IPV4 + "/add", "add"),
            ("POST", IPV4 + "/set", "set"),
            ("POST", IPV6 + "/tracking/set", "tracking"),
            ("POST", TRACKING + "/remove", "remove"),
            ("GET", IPV4 + "/print", "print"),
            ("GET", IPV4 + "/nonsense", "nonsense"),
            ("DELETE", IPV4 + "/nonsense", "nonsense"),
            ("GET", "/rest/system/nonsense", "nonsense"),
            ("GET", "/rest/ip", "ip"),
            ("POST", "/rest/system/reboot", "reboot"),
        ],
    )
    def test_what_there_is_no_command_for(self, ctweb, method, path, word):
        status, _, answer = ctweb.ask(method, path, {})
        assert status == 400
        assert answer.decode().strip() == (
            '{"error":400,"message":"Bad Request","detail":"no such command or directory (' + word + ')"}'
        )

    @pytest.mark.parametrize(("method", "path"), [("DELETE", IPV4), ("PATCH", TRACKING), ("DELETE", TRACKING)])
    def test_a_resource_is_changed_by_its_id(self, ctweb, method, path):
        status, _, answer = ctweb.ask(method, path)
        assert (status, b"missing or invalid resource identifier" in answer) == (400, True)

    def test_an_unknown_id(self, ctweb):
        assert ctweb.get(IPV4 + "/*FFFFFFFFFFFFFFFF") == NOT_FOUND

    def test_an_unknown_argument(self, ctweb):
        refused(ctweb.get(IPV4 + "?nonsense=1"), "unknown parameter nonsense")
        refused(ctweb.get(TRACKING + "?nonsense=1"), "unknown parameter nonsense")
        refused(ctweb.post(TRACKING + "/set", {"nonsense": "1"}), "unknown parameter nonsense")

    def test_a_bad_value_names_the_parameter_and_what_it_takes(self, ctweb):
        refused(ctweb.get(IPV4 + "?assured=perhaps"), "assured takes yes or no, not 'perhaps'")
        status, answer = ctweb.post(TRACKING + "/set", {"udp-timeout": "soon"})
        assert status == 400
        assert re.search(r"udp-timeout takes a time .* not 'soon'", answer["detail"])


class TestSystem:
    def test_resource_tells_of_this_machine_in_strings(self, ctweb):
        status, resource = ctweb.get("/rest/system/resource")
        assert status == 200
        assert all(isinstance(value, str) and value for value in resource.values())
        with open("/proc/meminfo") as meminfo:
            total = int(meminfo.readline().split()[1]) * 1024
        assert int(resource["total-memory"]) == total
        assert 0 < int(resource["free-memory"]) <= total
        assert 0 <= int(resource["cpu-load"]) <= 100
        assert int(resource["cpu-count"]) >= 1
        assert int(resource["free-hdd-space"]) <= int(resource["total-hdd-space"])
        assert re.fullmatch(r"(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?", resource["uptime"])
        assert resource["version"] == ctweb.get("/healthz")[1]["version"]
        assert resource["board-name"]

    def test_identity_is_the_host_name(self, ctweb):
        assert ctweb.get("/rest/system/identity") == (200, {"name": socket.gethostname()})
        assert ctweb.post("/rest/system/identity/print", {}) == (200, [{"name": socket.gethostname()}])

    def test_proplist_picks_here_too(self, ctweb):
        assert list(ctweb.get("/rest/system/resource?.proplist=version,cpu-count")[1]) == ["cpu-count", "version"]
