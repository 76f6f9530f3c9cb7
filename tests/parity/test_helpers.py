"""FTP and TFTP with real clients and servers, and nf_conntrack's helpers: what they expect is `expected` here too."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab.network import Ends, wait_for

from parity.conftest import Paths
from parity.machines import Parity

SIZE = 20_000
_HELPERS = """
table inet helpers {
    ct helper ftp-control { type "ftp" protocol tcp; }
    ct helper tftp-control { type "tftp" protocol udp; }
    chain watch {
        type filter hook prerouting priority 0
        tcp dport 21 ct helper set "ftp-control"
        udp dport 69 ct helper set "tftp-control"
    }
    chain after { type nat hook postrouting priority srcnat; }
}
"""


@pytest.fixture(scope="module", autouse=True)
def helpers(lab: Parity) -> Iterator[None]:
    lab.router.run("nft", "-f", "-", input=_HELPERS)
    yield
    lab.router.run("nft", "delete table inet helpers")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ftp")
    (directory / "file").write_bytes(bytes(SIZE))
    return directory


@contextmanager
def ftp_server(lab: Parity, path: Ends, directory: Path) -> Iterator[None]:
    process = lab.server.start(
        sys.executable, "-m", "pyftpdlib", "-i", path.server, "-p", "21", "-d", directory, "--write"
    )
    try:
        wait_for("the FTP server listens", lambda: lab.server.listening(21))
        yield
    finally:
        process.kill()
        process.wait()


WAYS = {
    "EPSV": ("--ftp-pasv",),
    "PASV": ("--ftp-pasv", "--disable-epsv"),
    "EPRT": ("--ftp-port", "{client}"),
    "PORT": ("--ftp-port", "{client}", "--disable-eprt"),
}


WAYS_THROUGH = ("PASV", "PORT")


@pytest.mark.parametrize("way", WAYS)
def test_ftp(lab: Parity, hosts: Paths, files: Path, way: str):
    """Who opens the data connection is told on the control connection."""
    paths = hosts if way.startswith("E") else hosts[:1]  # PORT and PASV have no words for IPv6
    for path in paths:
        options = [option.format(client=path.client) for option in WAYS[way]]
        url = path.url(21).replace("http", "ftp") + "/file"
        with ftp_server(lab, path, files):
            size = lab.client.run(
                "curl", "-sS", "-o", "/dev/null", "-w", "%{size_download}", "--interface", path.client, *options, url
            )
        assert int(size) == SIZE
    agreed = lab.agree(*paths)
    assert [c.state for c in agreed] == ["time-wait"] * 2 * len(paths)
    assert [c.helper for c in agreed].count(True) == len(paths)
    for path in paths:
        kernel, ours = lab.expected(path)
        assert len(kernel) == 1
        assert ours == kernel
        assert {origin[0] == path.server for origin, _ in ours} == {way in ("EPRT", "PORT")}


@pytest.mark.parametrize("way", WAYS_THROUGH)
def test_ftp_through_a_translation(lab: Parity, hosts: Paths, files: Path, way: str):
    """In PORT nf_conntrack's helper writes a longer address: from there on the two ends count differently."""
    path = hosts[0]
    public = path.host(2, 238 + WAYS_THROUGH.index(way))
    lab.router.ip(f"addr add {public}/32 dev wan")
    lab.router.run("nft", f"add rule inet helpers after ip saddr {path.client} snat ip to {public}")
    options = [option.format(client=path.client) for option in WAYS[way]]
    url = path.url(21).replace("http", "ftp")
    with ftp_server(lab, path, files):
        size = lab.client.run(
            "curl", "-sS", "-o", "/dev/null", "-w", "%{size_download}", "--interface", path.client, *options,
            f"{url}/file", "-o", "/dev/null", f"{url}/file",
        )  # fmt: skip
    assert size == str(SIZE) * 2
    agreed = lab.agree(path)
    assert [c.state for c in agreed] == ["time-wait"] * 3
    assert all(c.srcnat or c.dstnat for c in agreed)
    kernel, ours = lab.expected(path)
    assert len(kernel) == 2
    assert ours == kernel


def serve_tftp(request: socket.socket, answer: socket.socket, count: int) -> None:
    """`count` blocks, all but the last of 512 bytes, from a port of its own."""
    _, client = request.recvfrom(600)
    for block in range(1, count + 1):
        answer.sendto(struct.pack("!HH", 3, block) + bytes(512 if block < count else 10), client)
        assert answer.recv(100) == struct.pack("!HH", 4, block)


def test_tftp(lab: Parity, hosts: Paths):
    """The server answers from another port: a connection of its own, expected."""
    for path in hosts:
        kind = path.family, socket.SOCK_DGRAM
        with lab.server.socket(*kind) as request, lab.server.socket(*kind) as answer:
            request.bind((path.server, 69))
            answer.bind((path.server, 0))
            serving = threading.Thread(target=serve_tftp, args=[request, answer, 3])
            serving.start()
            url = path.url(69).replace("http", "tftp") + "/file"
            size = lab.client.run(
                "curl", "-sS", "--tftp-no-options", "-o", "/dev/null", "-w", "%{size_download}", "--interface",
                path.client, url,
            )  # fmt: skip
            serving.join()
        assert int(size) == 2 * 512 + 10
    agreed = lab.agree(*hosts)
    assert sorted(c.packets for c in agreed) == [(1, 0), (1, 0), (3, 3), (3, 3)]
    for path in hosts:
        kernel, ours = lab.expected(path)
        assert [origin[0] for origin, _ in kernel] == [path.server]
        assert ours == kernel
