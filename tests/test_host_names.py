"""Names of hosts, with a real resolver in a namespace of its own: found, remembered, bounded, and never waited for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from dns_server import serving
from running import until

from ctweb.host_names import KEPT, THREADS, WAITING, HostNames
from ctweb.table.services import MOST, parsed, services

RESOLVER = 'mount --bind "$1/resolv.conf" /etc/resolv.conf && mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf'
NAMES = {
    "10.1.2.3": b"desk.example",
    "2001:db8::7": b"six.example",
    "10.1.2.4": None,
    "10.1.2.5": b"<b>bold</b>.example",
}


def alone(part: str, folder: Path) -> None:
    """Run a part of this file in namespaces where the resolver is the one on loopback."""
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:30 attempts:1\n")
    (folder / "nsswitch.conf").write_text("hosts: files dns\n")
    script = f'{RESOLVER} && ip link set lo up && exec "$2" "$3" "$4"'
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", script, "sh", folder, sys.executable, __file__, part],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def listening() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 53))
    return made


def found_and_remembered() -> None:
    with serving(listening(), NAMES) as asked:
        names = HostNames()
        assert names.of(NAMES) == {}  # nothing is waited for
        until(lambda: names.counters["names-known"] == 4)
        # Only what can be the name of a host is taken for one.
        assert names.of(NAMES) == {"10.1.2.3": "desk.example", "2001:db8::7": "six.example"}
        assert names.counters == {"names-asked": 4, "names-known": 4, "names-waiting": 0, "names-refused": 0}
        assert len(asked) == 4


def silent() -> None:
    with serving(listening(), {}):
        names = HostNames()
        many = [f"10.{i >> 8}.{i & 255}.1" for i in range(WAITING + 500)]
        names.of(many[:THREADS])
        until(lambda: names.counters["names-asked"] == THREADS)
        # Neither the asker nor any other thread waits for a resolver that hangs.
        assert names.of(many) == {}
        assert names.of(["10.1.2.3"]) == {}
        counters = names.counters
        assert counters["names-waiting"] == THREADS + WAITING
        assert counters["names-refused"] == 500 - THREADS + 1
        assert counters["names-known"] == 0


def bounded() -> None:
    """/etc/hosts answers for loopback, and the resolver's port is closed: all is known at once."""
    names = HostNames()
    for start in range(0, KEPT + 1000, 500):
        names.of([f"127.{i >> 8 & 255}.{i & 255}.9" for i in range(start, start + 500)])
        until(lambda: names.counters["names-waiting"] == 0)
    assert names.counters["names-known"] == KEPT
    assert names.counters["names-asked"] >= KEPT + 1000


def test_names_are_found_for_the_next_time_and_remembered(tmp_path):
    alone("found_and_remembered", tmp_path)


def test_a_resolver_that_hangs_holds_a_few_threads_and_a_bounded_queue(tmp_path):
    alone("silent", tmp_path)


def test_so_many_are_kept_and_no_more(tmp_path):
    alone("bounded", tmp_path)


def test_services_are_those_of_the_machine():
    assert services()["tcp/443"] == "https"
    assert services()["udp/53"] == "domain"


def test_a_list_of_services_is_read_as_far_as_it_makes_sense():
    text = "# no\nhttps\t443/tcp  www # and more\nother 443/tcp\nhttp/3 443/udp\nx 70000/tcp\nno port\n ssh 22/tcp\n"
    assert parsed(text) == {"tcp/443": "https", "udp/443": "http/3"}
    assert len(parsed("\n".join(f"s{port} {port}/tcp" for port in range(MOST + 5)))) == MOST


if __name__ == "__main__":
    globals()[sys.argv[1]]()
