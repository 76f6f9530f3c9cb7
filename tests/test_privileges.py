"""What `ctweb run` may do once its programs are attached, and that everything still works with so little."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab.hooks import hooks
from lab.network import Namespace
from pyroute2 import IPRoute
from running import ADDRESS, CTWEB, Ctweb, command, new_namespace, runner, signed_in, until

from ctweb import privileges

ROOT = Path(__file__).parents[1]
CONFIG = 'auto-timeout = "1s"\n'
RULE = '[[rule]]\naction = "mark-connection"\nnew-connection-mark = "voip"\nprotocol = "udp"\ndst-port = 7400\n'
FOLLOWED = """
table inet t {
    chain c {
        type filter hook input priority 0
        ct state new accept
    }
}
"""
TRACKING = "/rest/ip/firewall/connection/tracking"
KEPT = 1 << 12 | 1 << 39  # CAP_NET_ADMIN, CAP_BPF
CAPABILITIES = {"CapInh": 0, "CapPrm": KEPT, "CapEff": KEPT, "CapBnd": 0, "CapAmb": 0}


def sh(*words: object, **options: object) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done
    return done.stdout


def threads(ctweb: Ctweb) -> list[dict[str, str]]:
    """What the kernel says of each thread."""
    found = []
    for task in Path(f"/proc/{ctweb.process.pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        found.append({name: value.strip() for name, _, value in (line.partition(":") for line in lines)})
    return found


def check_rights(ctweb: Ctweb, *, uid: int, gid: int) -> None:
    """Every thread is of this user and group, of no other group, and has two capabilities."""
    seen = threads(ctweb)
    assert len(seen) > 5
    for status in seen:
        assert status["Uid"].split() == [str(uid)] * 4, status
        assert status["Gid"].split() == [str(gid)] * 4, status
        if uid:
            assert status["Groups"] == "", status
        assert {name: int(status[name], 16) for name in CAPABILITIES} == CAPABILITIES, status
        assert status["NoNewPrivs"] == "1", status


def udp(port: int) -> int:
    """One datagram to that port of this machine; the port that it comes from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", port))
        return sender.getsockname()[1]


def rows(ctweb: Ctweb, **properties: str) -> list[dict[str, str]]:
    query = "&".join(f"{name.replace('_', '-')}={value}" for name, value in properties.items())
    return ctweb.get(f"/rest/ip/firewall/connection?{query}")[1]


def says(ctweb: Ctweb, what: str, do: Callable[[], object]) -> None:
    """Wait until this is logged because of what is done."""
    before = ctweb.log.stat().st_size
    do()
    until(lambda: what in ctweb.log.read_bytes()[before:].decode())


@pytest.fixture(scope="module")
def user() -> pwd.struct_passwd:
    """As setup.sh makes it."""
    return pwd.getpwnam(privileges.USER)


class TestARunThatHasGivenUpRoot:
    """One run for all of these, its state and its configuration below a directory that only root may enter."""

    @pytest.fixture(scope="class")
    def directory(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        made = tmp_path_factory.mktemp("privileges")
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        (made / "ctweb.toml").write_text(CONFIG)
        return made

    @pytest.fixture(scope="class")
    def router(self) -> Iterator[Namespace]:
        with new_namespace() as name:
            yield Namespace("", name)

    @pytest.fixture(scope="class")
    def ctweb(self, router: Namespace, directory: Path) -> Iterator[Ctweb]:
        sh("nft", "-f", "-", input=FOLLOWED)
        with runner(directory / "state") as start:
            ctweb = start("--config", str(directory / "ctweb.toml"), interfaces=()).ready()
            yield ctweb
            assert ctweb.end() == 0
            assert hooks(router) == {}
            assert [path.name for path in (directory / "state").glob("running*")] == []
            assert "Traceback" not in ctweb.log.read_text()

    def test_every_thread_has_two_capabilities(self, ctweb, user):
        check_rights(ctweb, uid=user.pw_uid, gid=user.pw_gid)
        assert "running as user ctweb with CAP_NET_ADMIN and CAP_BPF alone" in ctweb.log.read_text()

    def test_interfaces_that_come_get_their_programs(self, ctweb, router):
        sh("ip", "tuntap", "add", "tun0", "mode", "tun")
        with IPRoute() as netlink:
            netlink.link("add", ifname="pv-a", kind="veth", peer={"ifname": "pv-b"})
            netlink.link("set", index=netlink.link_lookup(ifname="tun0")[0], state="up")
            until(lambda: {"pv-a", "pv-b", "tun0"} <= hooks(router).keys())
            assert hooks(router)["tun0"] == {"tcx ingress", "tcx egress"}  # by programs without Ethernet headers
            netlink.link("del", index=netlink.link_lookup(ifname="pv-a")[0])
            netlink.link("del", index=netlink.link_lookup(ifname="tun0")[0])
        until(lambda: hooks(router).keys() == {"lo"})

    def test_settings_are_saved(self, ctweb, directory, user):
        assert ctweb.post(f"{TRACKING}/set", {"udp-timeout": "17s"})[0] == 200
        saved = directory / "state/tracking.json"
        assert json.loads(saved.read_bytes()) == {"udp-timeout": "17s"}
        assert (saved.stat().st_uid, stat.S_IMODE(saved.stat().st_mode)) == (user.pw_uid, 0o600)

    def test_what_cannot_be_saved_is_said_by_its_name(self, ctweb, directory):
        state = directory / "state"
        sh("chattr", "+i", state)
        try:
            status, answer = ctweb.post(f"{TRACKING}/set", {"udp-timeout": "18s"})
        finally:
            sh("chattr", "-i", state)
        assert status >= 500
        assert str(state / "tracking.json") in answer["detail"]
        assert ctweb.get(TRACKING)[1]["udp-timeout"] == "17s"

    def test_commands_of_root_find_it(self, ctweb, directory):
        found = command("settings", "get", "udp-timeout", "--state-dir", directory / "state")
        assert found.stdout == "udp-timeout: 17s\n", found

    def test_removing_works_in_nf_conntrack_too(self, ctweb):
        port = udp(7401)
        until(lambda: rows(ctweb, src_port=str(port)))
        listing = ("conntrack", "-L", "-p", "udp", "--sport", port)
        assert f"sport={port}" in sh(*listing)
        (row,) = rows(ctweb, src_port=str(port))
        assert ctweb.ask("DELETE", f"/rest/ip/firewall/connection/{row['.id']}")[0] == 204
        assert rows(ctweb, src_port=str(port)) == []
        assert f"sport={port}" not in sh(*listing)

    def test_nf_conntrack_is_followed(self, ctweb):
        before = ctweb.counters()
        assert before["conntrack-dumps"] > 0
        assert before["conntrack-failures"] == 0

    def test_the_first_rules_come_with_a_reload(self, ctweb, directory):
        file = directory / "ctweb.toml"
        file.write_text(CONFIG + RULE)
        says(ctweb, "reloaded: rules, 1 instead of 0", lambda: ctweb.process.send_signal(signal.SIGHUP))
        port = udp(7400)
        until(lambda: rows(ctweb, src_port=str(port)))
        assert rows(ctweb, src_port=str(port))[0]["connection-mark"] == "voip"
        file.write_text(CONFIG)
        says(ctweb, "reloaded: rules, 0 instead of 1", lambda: ctweb.process.send_signal(signal.SIGHUP))

    def test_a_configuration_out_of_its_reach_is_no_reload(self, ctweb, directory):
        """Put in the place of the one that is still open, where only root may look."""
        (directory / "new.toml").write_text(CONFIG + RULE)
        (directory / "new.toml").replace(directory / "ctweb.toml")
        says(ctweb, "not reloaded: ", lambda: ctweb.process.send_signal(signal.SIGHUP))
        last = ctweb.log.read_text().splitlines()[-1]
        assert str(directory / "ctweb.toml") in last
        assert "group ctweb" in last

    @pytest.mark.parametrize("program", ["iptables-legacy", "ip6tables-legacy", "nft"])
    def test_the_firewall_is_seen(self, ctweb, router, program):
        """By enabled=auto: the programs come with a firewall rule, and go with it."""
        sh("nft", "flush", "ruleset")
        until(lambda: ctweb.get(TRACKING)[1]["active"] != "true" and hooks(router) == {})
        if program == "nft":
            sh("nft", "-f", "-", input="table inet t {\nchain c {\naccept\n}\n}")
            until(lambda: "nftables" in ctweb.get(TRACKING)[1]["reason"])
            until(lambda: "lo" in hooks(router))
            return
        sh(program, "-t", "mangle", "-A", "PREROUTING", "-j", "ACCEPT")
        sh("nft", "add", "table", "inet", "bell")  # it looks when nftables change, and every 5 s
        until(lambda: "iptables rule in table mangle" in ctweb.get(TRACKING)[1]["reason"])
        until(lambda: "lo" in hooks(router))
        sh(program, "-t", "mangle", "-F")

    def test_page_metrics_and_export_are_served(self, ctweb):
        for path in ("/", "/static/js/main.js", "/metrics", "/openapi.json"):
            status, _, body = ctweb.ask("GET", path)
            assert (status, bool(body)) == (200, True), path

    def test_its_rights_are_the_same_after_all_this(self, ctweb, user):
        check_rights(ctweb, uid=user.pw_uid, gid=user.pw_gid)


def test_state_is_the_users_alone_whoever_left_it(run, tmp_path, user):
    """The files of an earlier version, which were root's, and things that the user may have put there."""
    state, secret = tmp_path / "state", tmp_path / "secret"
    state.mkdir(mode=0o755)
    secret.write_text("root's")
    (state / "tracking.json").write_text('{"udp-timeout":"19s"}')
    (state / "linked").symlink_to(secret)
    os.link(secret, state / "hard")
    ctweb = run().ready()
    assert ctweb.get(TRACKING)[1]["udp-timeout"] == "19s"
    assert (state.stat().st_uid, stat.S_IMODE(state.stat().st_mode)) == (user.pw_uid, 0o700)
    for name in ("tracking.json", "lock", "running.json"):
        found = (state / name).stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (user.pw_uid, user.pw_gid, 0o600), name
    assert (secret.stat().st_uid, stat.S_IMODE(secret.stat().st_mode)) == (0, 0o644)


@pytest.mark.parametrize(
    ("mode", "owner", "inside", "says"),
    [
        (0o777, 0, (), "is not root's or ctweb's alone"),
        (0o700, 65534, (), "is not root's or ctweb's alone"),
        (0o755, 0, ("cron.d",), "has a directory 'cron.d' in it"),
    ],
)
def test_a_directory_of_other_use_is_left_alone(run, tmp_path, mode, owner, inside, says):
    """Such as --state-dir /tmp or /etc: it must not become another user's."""
    directory = tmp_path / "etc"
    directory.mkdir()
    for name in inside:
        (directory / name).mkdir()
    (directory / "passwd").write_text("")
    os.chown(directory, owner, 0)
    directory.chmod(mode)
    ctweb = run(state_dir=directory)
    assert ctweb.process.wait(timeout=60) == 2
    assert says in ctweb.log.read_text()
    assert str(directory) in ctweb.log.read_text()
    assert (directory.stat().st_uid, stat.S_IMODE(directory.stat().st_mode)) == (owner, mode)
    assert (directory / "passwd").stat().st_uid == 0


def test_a_port_that_only_root_may_listen_on(run):
    ctweb = run("--listen", "127.0.0.1:443")
    until(lambda: "open http://127.0.0.1:443/" in ctweb.log.read_text() or ctweb.process.poll() is not None)
    connection = http.client.HTTPConnection("127.0.0.1", 443, timeout=30)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status in (200, 503)
    connection.close()
    assert ctweb.end() == 0


def test_kept_programs_are_pinned_and_let_go_where_only_root_may_enter(namespace, tmp_path):
    """systemd mounts the BPF file system so that only root may enter it."""
    router = Namespace("", namespace)
    private = ["unshare", "--mount", "sh", "-ec", 'mount -t bpf -o mode=700 bpf /sys/fs/bpf; exec "$@"', "sh"]
    with runner(tmp_path / "state") as start, IPRoute() as netlink:
        ctweb = start("--keep", interfaces=(), by=private).ready()
        enter = ["nsenter", f"--mount=/proc/{ctweb.process.pid}/ns/mnt", f"--root=/proc/{ctweb.process.pid}/root"]
        pins = f"/sys/fs/bpf/ctweb/{os.stat('/proc/thread-self/ns/net').st_ino}"
        held = subprocess.Popen([*enter, "sleep", "infinity"])  # the mount namespace, for the commands after the end
        try:
            netlink.link("add", ifname="pv-a", kind="veth", peer={"ifname": "pv-b"})
            netlink.link("add", ifname="pv-c", kind="veth", peer={"ifname": "pv-d"})
            until(lambda: {"pv-a", "pv-b", "pv-c", "pv-d"} <= hooks(router).keys())
            gone = netlink.link_lookup(ifname="pv-c")[0]
            until(lambda: any(name.startswith(f"{gone}-") for name in sh(*enter, "ls", pins).split()))
            netlink.link("del", index=gone)
            until(lambda: not any(name.startswith(f"{gone}-") for name in sh(*enter, "ls", pins).split()))
            assert ctweb.end() == 0, ctweb.log.read_text()
            assert {"lo", "pv-a", "pv-b"} <= hooks(router).keys()
            inside = ["nsenter", f"--mount=/proc/{held.pid}/ns/mnt", f"--root=/proc/{held.pid}/root", "--wd=/"]
            again = start("--keep", interfaces=(), by=inside).ready()
            assert again.end() == 0, again.log.read_text()
            assert {"lo", "pv-a", "pv-b"} <= hooks(router).keys()
            removed = sh(*inside, CTWEB, "detach", "--state-dir", tmp_path / "state")
            assert f"removed link {pins}/" in removed
            assert hooks(router) == {}
        finally:
            held.kill()
            held.wait()


def test_without_its_user_it_stays_root_with_two_capabilities_and_says_so(run, tmp_path):
    users = Path("/etc/passwd").read_text()
    (tmp_path / "passwd").write_text(re.sub("^ctweb:.*\n", "", users, flags=re.M))
    hidden = ["unshare", "--mount", "sh", "-ec", f'mount --bind {tmp_path}/passwd /etc/passwd; exec "$@"', "sh"]
    ctweb = run(by=hidden).ready()
    check_rights(ctweb, uid=0, gid=0)
    warnings = [line for line in ctweb.log.read_text().splitlines() if " warning: " in line]
    assert len(warnings) == 1
    assert "no user ctweb" in warnings[0]
    assert "useradd --system" in warnings[0]
    assert ctweb.post(f"{TRACKING}/set", {"udp-timeout": "17s"})[0] == 200
    assert ctweb.end() == 0


@pytest.mark.parametrize("readable", [True, False], ids=["in a directory of root's", "closed itself"])
def test_a_clone_that_its_user_does_not_get_to(namespace, tmp_path, readable):
    """Such as one in /root: what is above it does not matter, what is closed itself is said, and it stays root."""
    for name in ("clone", "upper", "work"):
        (tmp_path / name).mkdir()
    assert stat.S_IMODE(tmp_path.parents[1].stat().st_mode) == 0o700
    script = f"""
        cd {tmp_path}
        mount -t overlay -o lowerdir={ROOT},upperdir=upper,workdir=work overlay clone
        chmod {"755" if readable else "700"} clone
        cd clone
        exec .venv/bin/python3 -c 'from ctweb.cli import main; main()' run --interface lo --state-dir {tmp_path}/state
    """
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(["unshare", "--mount", "sh", "-ec", script], stderr=stderr)
    try:
        until(lambda: "open http://" in log.read_text() or process.poll() is not None)
        assert (f"may not read {tmp_path}/clone" in log.read_text()) is not readable
        uid = pwd.getpwnam("ctweb").pw_uid if readable else 0
        assert re.search(rf"^Uid:\t{uid}\s.*^CapEff:\t0000008000001000$",
                         Path(f"/proc/{process.pid}/status").read_text(), re.M | re.S)
        for path in ("/", "/static/js/main.js", "/openapi.json"):
            connection = http.client.HTTPConnection(ADDRESS, timeout=30)
            connection.request("GET", path, headers=signed_in(tmp_path / "state"))
            assert connection.getresponse().status == 200, path
            connection.close()
        process.terminate()
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()


def test_where_root_may_not_become_another_user_is_one_clear_line(run):
    ctweb = run(by=["setpriv", "--bounding-set=-setuid", "--inh-caps=-all"])
    assert ctweb.process.wait(timeout=60) == 2
    last = ctweb.log.read_text().splitlines()[-1]
    assert last.startswith("ctweb: cannot give up root: Operation not permitted; it takes CAP_SETUID")
