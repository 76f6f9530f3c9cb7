"""The world changes while it runs: it says so in words, no packet is lost to its accounts, and it needs no restart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from entries import loaded, packet, put, reset
from lab.hooks import hooks
from lab.network import IPV4, Namespace, Network, address, client_router_server, network, wait_for
from lab.tracked import CONFIG, Count, Tracked, refused
from lab.traffic import ping, ping_count
from running import CTWEB

from ctweb.datapath.table_memory import LEFT_FOR_PROCESS
from ctweb.settings import Tracking
from ctweb.tracker import Tracker
from reliability.short_of_memory import MOST

ALWAYS = f'{CONFIG}enabled = "yes"\n'
TRACKING = "/rest/ip/firewall/connection/tracking"
TESTS = Path(__file__).parents[1]
CHANGE = {"udp-timeout": "42s"}


@pytest.fixture
def net() -> Iterator[Network]:
    with network("re-") as made:
        yield made


@pytest.fixture
def machines(net: Network) -> tuple[Namespace, Namespace, Namespace]:
    return client_router_server(net)


def ended_well(ctweb: Tracked) -> str:
    """The accounts are even, and nothing in the log is a traceback; the log."""
    ctweb.check_conservation()
    assert ctweb.end() == 0, ctweb.log.read_text()
    log = ctweb.log.read_text()
    assert "Traceback" not in log
    return log


@contextmanager
def pinging(client: Namespace) -> Iterator[subprocess.Popen[bytes]]:
    """Traffic without end, whatever becomes of its path."""
    process = client.start("ping", "-n", "-q", "-i", "0.01", IPV4.server)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def counted(ctweb: Tracked, client: Namespace, target: str, number: int) -> None:
    """New pings are counted, each."""
    known = {row[".id"] for row in ctweb.rows(protocol="icmp", src_address=IPV4.client)}
    ping(client, target, number)
    expected = ping_count(IPV4, number)

    def new() -> bool:
        rows = [row for row in ctweb.rows(protocol="icmp", src_address=IPV4.client) if row[".id"] not in known]
        return expected in [Count.of(row) for row in rows if row["dst-address"] == target]

    wait_for(f"{number} pings are counted", new)


def test_an_interface_goes_comes_back_and_is_renamed_under_traffic(net, machines, tmp_path):
    client, router, _ = machines
    ctweb = Tracked(router, tmp_path, config=ALWAYS)
    with pinging(client):
        router.ip("link set lan name late")
        wait_for("it is taken under its new name", lambda: hooks(router).get("late"))
        router.ip("link del late")
        wait_for("it is let go", lambda: "late" not in ctweb.get("/healthz")["interfaces"])
        net.join(client, "eth0", router, "late")
        address(client, "eth0", 1, 2)
        address(router, "late", 1, 1)
        client.ip("route add 0.0.0.0/0 via 10.9.1.1")
        wait_for("it is taken again", lambda: "late" in ctweb.get("/healthz")["interfaces"])
        counted(ctweb, client, IPV4.server, 7)
    log = ended_well(ctweb)
    assert "interface late: let go" in log


def test_an_interface_moves_to_another_namespace_and_back_under_traffic(machines, tmp_path):
    client, router, server = machines
    ctweb = Tracked(router, tmp_path, "--interface", "lan", "--interface", "wan", config=ALWAYS)
    with pinging(client):
        router.run("ip", "link", "set", "lan", "netns", server.path)
        wait_for("it is let go", lambda: "lan" not in ctweb.get("/healthz")["interfaces"])
        assert not hooks(server).get("lan")  # nothing of ours went along
        server.run("ip", "link", "set", "lan", "netns", router.path)
        router.ip("link set lan up")
        address(router, "lan", 1, 1)
        wait_for("it is taken again", lambda: "lan" in ctweb.get("/healthz")["interfaces"])
        counted(ctweb, client, IPV4.server, 7)
    assert "interface lan: let go" in ended_well(ctweb)


@pytest.mark.parametrize("hook", ["tc", "xdp"])
def test_the_mtu_changes_under_traffic(machines, tmp_path, hook):
    client, router, _ = machines
    ctweb = Tracked(router, tmp_path, "--hook", hook, "--interface", "lan", "--interface", "wan", config=ALWAYS)
    with pinging(client):
        for size in (1280, 3000, 9000, 1500):
            done = subprocess.run(
                router.command("ip", "link", "set", "lan", "mtu", size), capture_output=True, text=True, check=False
            )
            if done.returncode:  # the driver itself takes no large frames under an XDP program
                assert (hook, size) in {("xdp", 9000)}, done.stderr
            assert set(ctweb.get("/healthz")["interfaces"]) == {"lan", "wan"}
        counted(ctweb, client, IPV4.server, 9)
    ended_well(ctweb)


@contextmanager
def mounted(place: Path, size: str = "50%") -> Iterator[Path]:
    """A file system of its own at `place`, for root alone. size: as tmpfs(5) takes it."""
    place.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "re-state", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_the_state_directory_is_full(machines, tmp_path):
    _, router, _ = machines
    with mounted(tmp_path / "state", size="64k") as state:
        ctweb = Tracked(router, tmp_path, "--interface", "lan", "--interface", "wan", config=ALWAYS)
        before = ctweb.get(TRACKING)
        filler = state / "filler"
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(bytes(1 << 17))
        status, answer = ctweb.ask("POST", TRACKING + "/set", CHANGE)
        assert status >= 400
        assert "No space left on device" in json.loads(answer)["detail"]
        assert ctweb.get(TRACKING) == before
        filler.unlink()
        assert ctweb.ask("POST", TRACKING + "/set", CHANGE)[0] == 200
        assert ctweb.get(TRACKING)["udp-timeout"] == "42s"
        ended_well(ctweb)


def test_the_state_directory_becomes_read_only(machines, tmp_path):
    _, router, _ = machines
    with mounted(tmp_path / "state") as state:
        ctweb = Tracked(router, tmp_path, "--interface", "lan", "--interface", "wan", config=ALWAYS)
        before = ctweb.get(TRACKING)
        subprocess.run(["chattr", "+i", state], check=True)  # a whole file system does not while it is in use
        status, answer = ctweb.ask("POST", TRACKING + "/set", CHANGE)
        assert status >= 400
        assert "nothing was changed. Is the state directory writable" in json.loads(answer)["detail"]
        assert ctweb.get(TRACKING) == before
        subprocess.run(["chattr", "-i", state], check=True)
        assert ctweb.ask("POST", TRACKING + "/set", CHANGE)[0] == 200
        ended_well(ctweb)


def test_a_start_with_a_state_directory_that_is_full_or_read_only_is_refused_in_words(machines, tmp_path):
    _, router, _ = machines
    with mounted(tmp_path / "state", size="64k") as state:
        with pytest.raises(OSError, match="No space"):
            (state / "filler").write_bytes(bytes(1 << 17))
        status, said = refused(router, tmp_path, "--interface", "lan")
        assert (status, said) == (2, f"ctweb: cannot use {state}: No space left on device; make room there\n")
        (state / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,ro", state], check=True)
        status, said = refused(router, tmp_path, "--interface", "lan")
        assert status == 2
        assert f"cannot use {state}: Read-only file system; make it writable, or choose another one" in said
        subprocess.run(["mount", "-o", "remount,rw", state], check=True)
        ended_well(Tracked(router, tmp_path, "--interface", "lan", config=ALWAYS))


def test_without_a_bpf_file_system_it_tracks_and_only_keep_is_refused(machines, tmp_path):
    client, router, _ = machines
    hidden = ("unshare", "--mount", "sh", "-c", 'umount -l /sys/fs/bpf && exec "$@"', "sh")
    words = (CTWEB, "run", "--state-dir", tmp_path / "kept", "--interface", "lan")
    kept = subprocess.run(
        router.command(*hidden, *words, "--keep"), capture_output=True, text=True, timeout=60, check=False
    )
    assert kept.returncode == 2
    assert "mount -t bpf bpf /sys/fs/bpf" in kept.stderr.splitlines()[-1]
    ctweb = Tracked(router, tmp_path, "--interface", "lan", "--interface", "wan", config=ALWAYS, by=hidden)
    counted(ctweb, client, IPV4.server, 5)
    ended_well(ctweb)


def test_the_directory_that_it_is_started_in_may_be_gone(machines, tmp_path):
    client, router, _ = machines
    gone = ("sh", "-c", 'gone=$(mktemp -d) && cd "$gone" && rmdir "$gone" && exec "$@"', "sh")
    ctweb = Tracked(router, tmp_path, "--interface", "lan", "--interface", "wan", config=ALWAYS, by=gone)
    counted(ctweb, client, IPV4.server, 5)
    ended_well(ctweb)


def test_nf_conntrack_appears_and_goes(machines, tmp_path):
    """It comes with the first rule that asks for it; what it translates is known from then on, and it may go again."""
    client, router, _ = machines
    ctweb = Tracked(router, tmp_path, "--interface", "lan", "--interface", "wan", config=ALWAYS)
    counted(ctweb, client, IPV4.server, 5)
    router.run("nft", "add table ip re; add chain ip re post { type nat hook postrouting priority srcnat; };"
               "add rule ip re post oifname wan masquerade")  # fmt: skip
    wait_for(
        "a connection is translated",
        lambda: ping(client, IPV4.server, 1) or ctweb.rows(protocol="icmp", src_address=IPV4.client, srcnat="true"),
    )
    router.run("nft", "delete table ip re")
    router.run("conntrack", "-F")
    counted(ctweb, client, IPV4.server, 8)
    ended_well(ctweb)


@contextmanager
def memory_group(name: str) -> Iterator[tuple[Path, Path, Path]]:
    """A new memory control group, of either version: where its members, its limit and its usage stand."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        (root / "cgroup.subtree_control").write_text("+memory")
        group, limit, usage = root / name, "memory.max", "memory.current"
    else:
        group, limit, usage = root / "memory" / name, "memory.limit_in_bytes", "memory.usage_in_bytes"
    group.mkdir()
    try:
        yield group / "cgroup.procs", group / limit, group / usage
    finally:
        group.rmdir()


def test_no_memory_for_new_connections_refuses_them_and_keeps_the_others(tmp_path):
    """What the kernel takes for the table is charged to the group of the process. When that is full a table that grows
    grows no more; the connections that are there go on, and with room again new ones come."""
    with memory_group(f"re-{tmp_path.parent.name}-{tmp_path.name}") as (members, limit, usage):
        enter = ["sh", "-c", f'echo $$ > {members} && exec "$@"', "sh", sys.executable, "-m"]
        log = tmp_path / "log"
        with log.open("wb") as said, subprocess.Popen(
            [*enter, "reliability.short_of_memory"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said,
            text=True, cwd=TESTS, env=os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"},
        ) as process:  # fmt: skip

            def begin(number: int) -> dict[str, int]:
                process.stdin.write(f"{number}\n")
                process.stdin.flush()
                return json.loads(process.stdout.readline())

            assert begin(1000)["COUNT_CREATED"] == 1000
            limit.write_text(str(int(usage.read_text()) + LEFT_FOR_PROCESS + (16 << 20)))
            short = begin(MOST - 2000)
            assert short["COUNT_REFUSED"] > 0
            assert 65_000 < short["COUNT_CREATED"] == MOST - 1000 - short["COUNT_REFUSED"]
            limit.write_text("1000000000")

            def come_up() -> bool:
                before = short["COUNT_REFUSED"]
                short.update(begin(10))
                return short["COUNT_REFUSED"] == before

            wait_for("new connections come up", come_up)
            process.stdin.close()
            assert process.wait(timeout=30) == 0
        told = "there is no memory for more connections: Cannot allocate memory; look at the limits of the service"
        assert told in log.read_text()


def test_the_process_stands_still_for_a_while(machines, tmp_path):
    """As in a freezer: the kernel counts on, and all is shown when it goes on."""
    client, router, _ = machines
    ctweb = Tracked(router, tmp_path, "--interface", "lan", "--interface", "wan", config=ALWAYS)
    counted(ctweb, client, IPV4.server, 5)
    ctweb.process.send_signal(signal.SIGSTOP)
    try:
        ping(client, IPV4.server, 20)
        time.sleep(2)  # so long that it misses a sweep
    finally:
        ctweb.process.send_signal(signal.SIGCONT)
    expected = ping_count(IPV4, 20)
    wait_for("they are counted", lambda: expected in [Count.of(row) for row in ctweb.rows(protocol="icmp")])
    counted(ctweb, client, IPV4.server, 7)
    assert len(ctweb.rows(protocol="icmp", src_address=IPV4.client)) == 3
    ended_well(ctweb)


def test_the_wall_clock_may_jump(tmp_path, monkeypatch):
    """Timeouts and rates are measured in the kernel's ticks; only the date that is shown follows the wall clock."""
    with loaded() as datapath:
        reset(datapath)
        tracker = Tracker(datapath, Tracking(), tmp_path / "state")
        put(datapath, 100)
        packet(datapath, 1)
        before = tracker.sweep()
        now = time.time()
        for jump in (-365 * 86_400, 365 * 86_400, -3600):
            monkeypatch.setattr(time, "time", lambda jump=jump: now + jump)
            packet(datapath, 1, repeat=10)
            after = tracker.sweep()
            assert len(after) == len(before)
            assert not after.dying.any()
            assert 0 <= after.interval < 3600
            assert np.isfinite(after.rates).all()
            assert after.time == now + jump
