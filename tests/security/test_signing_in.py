"""Users, sessions and roles, as those who have them rely on."""

from __future__ import annotations

import json
import os
import stat

import pytest
from running import PORT, Ctweb, command, signed_in, until
from simple_websocket import Client, ConnectionClosed

from ctweb.users import User, Users
from ctweb.web import sessions
from ctweb.web.sessions import Sessions
from security.people import COOKIE, IDENTITY, PASSWORDS, TRACKING, Page, basic, known, set_user, websocket_cookie

LIVE = f"ws://127.0.0.1:{PORT}/live"


def test_basic_is_all_that_rest_needs(ctweb: Ctweb):
    assert ctweb.get(IDENTITY, **known("boss"))[0] == 200
    assert ctweb.post(TRACKING + "/set", {"udp-timeout": "10s"}, **known("boss")) == (200, [])


@pytest.mark.parametrize("path", [IDENTITY, "/metrics", "/rest/nonsense", "/openapi.json"])
def test_who_is_unknown_is_asked_for_basic(ctweb: Ctweb, path):
    status, headers, body = ctweb.ask("GET", path, anonymous=True)
    assert (status, json.loads(body)) == (401, {"error": 401, "message": "Unauthorized"})
    assert headers["WWW-Authenticate"].startswith("Basic realm=")


def test_a_page_is_not_made_to_ask_for_basic(ctweb: Ctweb, page: Page):
    status, headers, _ = page.ask("GET", IDENTITY, Sec_Fetch_Mode="cors", Sec_Fetch_Site="same-origin")
    assert (status, "WWW-Authenticate" in headers) == (401, False)


def test_the_page_leads_to_sign_in_with_what_was_asked_for(page: Page):
    status, headers, _ = page.ask("GET", "/?filter=proto%3Atcp&sort=-bytes")
    assert (status, headers["Location"]) == (303, "/sign-in?filter=proto%3Atcp&sort=-bytes")
    assert page.ask("GET", "/sign-in")[0] == 200


def test_signing_in_gives_a_cookie_that_only_this_site_and_no_script_has(page: Page):
    status, headers, body = page.ask("POST", "/page/sign-in", {"name": "boss", "password": PASSWORDS["boss"]})
    assert status == 200
    answer = json.loads(body)
    assert (answer["name"], answer["role"], len(answer["csrf"]) > 30) == ("boss", "full", True)
    cookie, *attributes = headers["Set-Cookie"].split("; ")
    assert cookie.startswith(f"{COOKIE}=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    assert not any(one.startswith("Domain") for one in attributes)


def test_the_page_learns_who_it_is(page: Page):
    assert json.loads(page.ask("GET", "/page/session")[2]) == {"name": "", "role": "none", "csrf": ""}
    page.sign_in("guest")
    assert json.loads(page.ask("GET", "/page/session")[2]) == {"name": "guest", "role": "read", "csrf": page.csrf}
    assert page.status("GET", "/") == 200


def test_the_first_start_says_a_password_once_and_keeps_its_hash(run):
    first = run().ready()
    said = [line for line in first.log.read_text().splitlines() if "with the password" in line]
    assert len(said) == 1
    password = said[0].split()[-1]
    assert first.get(IDENTITY, **basic("admin", password))[0] == 200
    assert first.get(IDENTITY, **basic("admin", "admin"))[0] == 401
    assert f"Another one: ctweb user set admin --state-dir {first.state_dir}\n" in first.log.read_text()
    assert first.end() == 0
    second = run().ready()
    assert "password" not in second.log.read_text()
    assert second.get(IDENTITY, **basic("admin", password))[0] == 200
    for path in first.state_dir.iterdir():
        assert password not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_log_that_is_kept_gets_no_password(run):
    ctweb = run("--log-json").ready()
    text = ctweb.log.read_text()
    assert all(json.loads(line) for line in text.splitlines())
    assert "ctweb user set admin" in text
    assert not (ctweb.state_dir / "users.json").exists()
    status, _, body = ctweb.ask("POST", "/page/sign-in", {"name": "admin", "password": ""}, anonymous=True)
    assert status == 401
    assert "ctweb user set" in json.loads(body)["detail"]
    set_user(ctweb.state_dir, "admin", "at last, one")
    assert ctweb.get(IDENTITY, **basic("admin", "at last, one"))[0] == 200


def test_a_change_of_users_counts_with_the_next_request(ctweb: Ctweb, page: Page):
    def status(password: str) -> int:
        return ctweb.get(IDENTITY, **basic("newcomer", password))[0]

    assert status("first of all") == 401
    set_user(ctweb.state_dir, "newcomer", "first of all")
    assert status("first of all") == 200
    assert page.sign_in("newcomer", "first of all") == 200
    assert page.status("POST", TRACKING + "/set", {"udp-timeout": "10s"}) == 200
    assert command("user", "set", "newcomer", "--role", "read", "--state-dir", ctweb.state_dir).returncode == 0
    assert page.status("GET", IDENTITY) == 200
    assert page.status("POST", TRACKING + "/set", {"udp-timeout": "10s"}) == 403
    set_user(ctweb.state_dir, "newcomer", "second to none")
    assert (status("first of all"), status("second to none")) == (401, 200)
    assert page.status("GET", IDENTITY) == 401
    assert page.sign_in("newcomer", "second to none") == 200
    assert command("user", "remove", "newcomer", "--state-dir", ctweb.state_dir).returncode == 0
    assert status("second to none") == 401
    assert page.status("GET", IDENTITY) == 401


@pytest.mark.parametrize(
    ("way", "by"),
    [("sign out", "cookie"), *((way, by) for way in ("another password", "removed") for by in ("cookie", "basic"))],
)
def test_an_open_websocket_ends_with_what_it_was_opened_by(ctweb: Ctweb, page: Page, way, by):
    set_user(ctweb.state_dir, "watcher", "watching you", "--role", "read")
    assert page.sign_in("watcher", "watching you") == 200
    headers = websocket_cookie(page) if by == "cookie" else basic("watcher", "watching you")
    client = Client.connect(LIVE, headers=headers)
    client.receive(timeout=20)
    if way == "sign out":
        assert page.status("POST", "/page/sign-out") == 204
    elif way == "another password":
        set_user(ctweb.state_dir, "watcher", "watching them")
    else:
        assert command("user", "remove", "watcher", "--state-dir", ctweb.state_dir).returncode == 0
    with pytest.raises(ConnectionClosed) as closed:
        client.receive(timeout=20)
    assert (closed.value.reason, closed.value.message) == (1008, "signed out")


def test_sessions_outlive_a_restart_and_their_tokens_stand_nowhere(run):
    ctweb = run().ready()
    set_user(ctweb.state_dir, "stayer", "here to stay")
    page = Page(ctweb)
    assert page.sign_in("stayer", "here to stay") == 200
    assert ctweb.end() == 0
    for path in ctweb.state_dir.iterdir():
        assert page.token not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    run().ready()
    assert json.loads(page.ask("GET", "/page/session")[2])["csrf"] == page.csrf


def test_a_session_ends_when_it_is_idle_or_old(tmp_path):
    now = [1e9]
    users = Users(tmp_path)
    users.put("one", User("read", "hash"))
    kept = Sessions(tmp_path, users, clock=lambda: now[0])
    idle, _ = kept.begin("one", users.read()["one"])
    used, _ = kept.begin("one", users.read()["one"])
    for _ in range(sessions.LONGEST_SECONDS // sessions.IDLE_SECONDS * 2):
        assert kept.find(used)
        now[0] += sessions.IDLE_SECONDS / 2
    assert kept.find(idle) is None
    assert kept.find(used) is None


def test_sessions_are_bounded_and_the_idlest_gives_way(tmp_path):
    now = [1e9]
    users = Users(tmp_path)
    users.put("one", User("read", "hash"))
    kept = Sessions(tmp_path, users, clock=lambda: now[0])
    tokens = []
    for _ in range(sessions.MOST + 1):
        now[0] += 1
        if tokens:
            assert kept.find(tokens[0])
        tokens.append(kept.begin("one", users.read()["one"])[0])
    assert kept.find(tokens[1]) is None
    assert all(kept.find(token) for token in (tokens[0], *tokens[2:]))


def test_who_signs_in_without_end_signs_out_nobody_else(tmp_path):
    users = Users(tmp_path)
    users.put("one", User("full", "hash"))
    users.put("other", User("read", "hash"))
    now = [1e9]
    kept = Sessions(tmp_path, users, clock=lambda: now[0])
    token, _ = kept.begin("one", users.read()["one"])
    for _ in range(sessions.MOST + 1):
        now[0] += 1
        kept.begin("other", users.read()["other"])
    assert kept.find(token)


@pytest.mark.parametrize("text", ["", "[]", '{"one":1}', '{"one":{"role":"king","hash":""}}', '{"one":' + "[" * 100_000,
                                  '{"one":{"role":"full","hash":"","x":' + "[" * 100_000])  # fmt: skip
def test_files_edited_to_nonsense_are_told_in_one_line(tmp_path, text):
    for name in ("users.json", "sessions.json"):
        (tmp_path / name).write_text(text)
    for words, given in ((("list",), ""), (("set", "two", "--password-stdin"), "long enough"), (("remove", "one"), "")):
        done = command("user", *words, "--state-dir", tmp_path, input=given)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
        assert "mend or remove the file" in done.stderr
    assert (tmp_path / "users.json").read_text() == text
    assert Sessions(tmp_path, Users(tmp_path)).find("x") is None


@pytest.mark.parametrize("name", ["users.json", "tracking.json", "running.json", "sessions.json"])
@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_is_no_file_in_the_state_directory_is_neither_followed_nor_waited_for(tmp_path, name, kind):
    """The directory is the user ctweb's, and root's commands read there."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("{")
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    {"link": lambda path: path.symlink_to(elsewhere), "pipe": os.mkfifo, "directory": os.mkdir}[kind](state / name)
    words = {"users.json": ("user", "list"), "tracking.json": ("settings", "get"), "running.json": ("print",)}
    if name in words:
        done = command(*words[name], "--state-dir", state)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
        assert str(state / name) in done.stderr
    else:
        assert Sessions(state, Users(state)).find("x") is None
    assert elsewhere.read_text() == "{"


@pytest.mark.parametrize("words", [("run",), ("user", "set", "one", "--password-stdin")])
@pytest.mark.parametrize("below", ["", "/deeper"])
@pytest.mark.parametrize(
    ("kind", "says"),
    [("link", "is a link to /nowhere/at/all, which is not there: make that directory, or remove the link"),
     ("file", "is no directory: remove it, or choose another one")],
)  # fmt: skip
def test_what_is_in_the_place_of_the_state_directory_is_told(tmp_path, namespace, words, below, kind, says):
    place = tmp_path / "state"
    {"link": lambda: place.symlink_to("/nowhere/at/all"), "file": lambda: place.write_text("")}[kind]()
    done = command(*words, "--state-dir", f"{place}{below}", input="long enough")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    assert str(place) in done.stderr
    assert says in done.stderr


def test_a_name_that_was_written_by_hand_does_not_move_the_cursor(tmp_path):
    (tmp_path / "users.json").write_text('{"a\\u001b[2J":{"role":"full","hash":""}}')
    assert command("user", "list", "--state-dir", tmp_path).stdout == "'a\\x1b[2J' full\n"


def test_the_command_line_of_this_machine_needs_no_password(ctweb: Ctweb):
    state = ("--state-dir", ctweb.state_dir)
    assert command("print", *state).returncode == 0
    assert command("settings", "set", "udp-timeout=10s", *state).returncode == 0
    assert "udp-timeout: 10s" in command("settings", "get", *state).stdout
    assert command("remove", "dport:1", "--yes", *state).stdout == "removed 0 connections\n"
    token = signed_in(ctweb.state_dir)["Authorization"]
    assert ctweb.get(IDENTITY, Authorization=token[:-1] + ("x" if token[-1] != "x" else "y"))[0] == 401
    assert stat.S_IMODE((ctweb.state_dir / "running.json").stat().st_mode) == 0o600


def test_who_may_not_read_the_state_gets_no_further(ctweb: Ctweb):
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
    done = command("print", "--state-dir", ctweb.state_dir, before=nobody)
    assert done.returncode == 2
    assert "Permission denied" in done.stderr


@pytest.mark.parametrize(
    ("words", "password", "says"),
    [
        (("set", "a:b", "--password-stdin"), "long enough", "is no user name"),
        (("set", "", "--password-stdin"), "long enough", "is no user name"),
        (("set", "empty", "--password-stdin"), "\n", "must not be empty"),
        (("set", "huge", "--password-stdin"), "x" * 1025, "at most 1024"),
        (("set", "terminal"), "long enough", "give --password-stdin"),
        (("remove", "nobody-at-all"), "", "ctweb user list"),
    ],
)
def test_what_is_no_user_is_refused_in_one_line(tmp_path, words, password, says):
    done = command("user", *words, "--state-dir", tmp_path, input=password)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert says in done.stderr
    assert not (tmp_path / "users.json").exists()


def test_users_are_listed_without_their_secrets(ctweb: Ctweb):
    listed = command("user", "list", "--state-dir", ctweb.state_dir).stdout
    assert {"boss full", "guest read"} <= set(listed.splitlines())
    assert "argon2" not in listed


def test_users_belong_to_whom_the_state_directory_belongs(tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, 4321, 4321)
    set_user(state, "owned", "not by root")
    owner = (state / "users.json").stat()
    assert (owner.st_uid, owner.st_gid, stat.S_IMODE(owner.st_mode)) == (4321, 4321, 0o600)


def test_a_file_of_users_that_is_broken_stops_the_start_and_lets_nobody_in(run, tmp_path):
    ctweb = run().ready()
    set_user(ctweb.state_dir, "one", "of a kind")
    (ctweb.state_dir / "users.json").write_text("{")
    assert ctweb.get(IDENTITY, **basic("one", "of a kind"))[0] == 401
    until(lambda: "nobody can sign in" in ctweb.log.read_text())
    assert ctweb.end() == 0
    again = run()
    assert again.process.wait(timeout=60) == 2
    assert "mend or remove the file" in again.log.read_text()


@pytest.mark.parametrize(
    "body",
    [b"", b"[", b"{}", b'{"name":7,"password":"x"}', b"\xff\xfe", b'{"name":"\xff","password":""}', b"[" * 5000],
    ids=lambda body: str(body[:9]),
)
def test_credentials_that_are_none_are_refused(page: Page, body):
    assert page.status("POST", "/page/sign-in", body) == 400
