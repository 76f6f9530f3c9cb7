"""Real tools on real hosts: through the router both ways, to it and from it."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab.network import IPV4, Ends, Namespace
from lab.traffic import file_server, iperf3_server

from parity.conftest import Paths
from parity.machines import Parity

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("files")
    (directory / "file").write_bytes(bytes(1_000_000))
    return directory


def backwards(path: Ends) -> Ends:
    return Ends(path.family, path.server, path.client, path.router)


def ping(machine: Namespace, path: Ends, count: int, size: int) -> None:
    said = machine.run(
        "ping", "-n", "-q", "-c", count, "-i", "0.002", "-s", size, "-W", "5", "-I", path.client, path.server
    )
    assert f"{count} received" in said, said


@contextmanager
def connected(
    path: Ends, client: Namespace, server: Namespace, port: int = 0
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection between real hosts."""
    with server.socket(path.family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((path.server, port))
        listener.listen()
        near = client.socket(path.family, socket.SOCK_STREAM)
        near.bind((path.client, 0))
        near.connect(listener.getsockname()[:2])
        far, _ = listener.accept()
    with near, far:
        yield near, far


def answer(near: socket.socket, far: socket.socket, size: int) -> None:
    """`size` bytes there and back."""
    for source, target in ((near, far), (far, near)):
        sender = threading.Thread(target=source.sendall, args=[bytes(size)])
        sender.start()
        left = size
        while left:
            left -= len(target.recv(1 << 20))
        sender.join()


def test_curl(lab: Parity, hosts: Paths, files: Path):
    for path in hosts:
        with file_server(lab.server, path, files) as port:
            size = lab.client.run(
                "curl", "-sS", "-o", "/dev/null", "-w", "%{size_download}", "--interface", path.client,
                path.url(port) + "/file",
            )  # fmt: skip
        assert int(size) == 1_000_000
    agreed = lab.agree(*hosts)
    assert [(c.state, c.assured) for c in agreed] == [("time-wait", True)] * 2
    assert all(c.bytes[1] > 1_000_000 for c in agreed)


@pytest.mark.parametrize("arguments", [(), ("--reverse",), ("--parallel", "4")], ids=["up", "down", "four at once"])
def test_iperf3_tcp(lab: Parity, hosts: Paths, arguments: tuple[str, ...]):
    for path in hosts:  # a server each, for one that has just served may say that it is busy
        with iperf3_server(lab.server, 5201, "--bind", path.server):
            lab.client.run("iperf3", "-c", path.server, "-B", path.client, "--bytes", "4M", *arguments)
    agreed = lab.agree(*hosts)
    assert len(agreed) == (10 if "4" in arguments else 4)
    # iperf3 may end with data unsent: what counts is what the kernel counted, above.
    assert sum(sum(c.bytes) for c in agreed) > 2 * 2_000_000


def test_iperf3_udp(lab: Parity, hosts: Paths):
    for path in hosts:
        with iperf3_server(lab.server, 5202, "--bind", path.server):
            run = ("iperf3", "-c", path.server, "-p", "5202", "-B", path.client, "-u", "-b", "20M", "--bytes", "1M")
            lab.client.run(*run)
    agreed = lab.agree(*hosts)
    assert sorted(c.protocol for c in agreed) == [TCP, TCP, UDP, UDP]


def test_ping(lab: Parity, hosts: Paths):
    for path in hosts:
        for count, size in ((1, 0), (20, 56), (30, 1400)):
            ping(lab.client, path, count, size)
    agreed = lab.agree(*hosts)
    assert sorted(c.packets for c in agreed) == [(1, 1)] * 2 + [(20, 20)] * 2 + [(30, 30)] * 2


def test_from_the_servers_side(lab: Parity, hosts: Paths):
    for path in map(backwards, hosts):
        ping(lab.server, path, 5, 100)
        with connected(path, lab.server, lab.client) as (near, far):
            answer(near, far, 50_000)
    agreed = lab.agree(*hosts)
    assert sorted(c.protocol for c in agreed) == [ICMP, TCP, TCP, ICMPV6]
    assert {c.original[0] for c in agreed} == {p.server for p in hosts}


def test_to_the_router(lab: Parity, hosts: Paths):
    for path in hosts:
        to = Ends(path.family, path.client, path.router, path.router)
        ping(lab.client, to, 10, 200)
        with connected(to, lab.client, lab.router) as (near, far):
            answer(near, far, 100_000)
    agreed = lab.agree(*hosts)
    assert sorted(c.protocol for c in agreed) == [ICMP, TCP, TCP, ICMPV6]
    assert {c.original[1] for c in agreed} == {p.router for p in hosts}


def test_from_the_router(lab: Parity, hosts: Paths):
    for path in hosts:
        origin = Ends(path.family, path.host(2, 1), path.server, path.router)
        ping(lab.router, origin, 10, 200)
        with connected(origin, lab.router, lab.server) as (near, far):
            answer(near, far, 100_000)
    agreed = lab.agree(*hosts)
    assert sorted(c.protocol for c in agreed) == [ICMP, TCP, TCP, ICMPV6]
    assert {c.original[1] for c in agreed} == {p.server for p in hosts}


def test_refused(lab: Parity, hosts: Paths):
    for path in hosts:
        with lab.client.socket(path.family, socket.SOCK_STREAM) as near:
            near.bind((path.client, 0))
            assert near.connect_ex((path.server, 9)) == errno.ECONNREFUSED
    assert lab.agree(*hosts) == []


def test_a_datagram_that_is_refused(lab: Parity, hosts: Paths):
    """The server's kernel says that nobody listens there: an error is no answer."""
    for path in hosts:
        with lab.client.socket(path.family, socket.SOCK_DGRAM) as near:
            near.bind((path.client, 0))
            near.connect((path.server, 9))
            near.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                near.recv(100)
    assert [(c.packets, c.seen_reply) for c in lab.agree(*hosts)] == [((1, 0), False)] * 2


def test_reset_in_the_middle(lab: Parity, hosts: Paths):
    """A close with data unread, which is a reset."""
    for path in hosts:
        with connected(path, lab.client, lab.server) as (near, far):
            answer(near, far, 10_000)
            far.sendall(bytes(5000))
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            near.close()
    assert [c.state for c in lab.agree(*hosts)] == ["close"] * 2


def test_half_closed(lab: Parity, hosts: Paths):
    for path in hosts:
        with connected(path, lab.client, lab.server) as (near, far):
            near.shutdown(socket.SHUT_WR)
            assert far.recv(1) == b""
            far.sendall(bytes(20_000))
            left = 20_000
            while left:
                left -= len(near.recv(1 << 16))
            assert [c.state for c in lab.agree(path)] == ["close-wait"]
    assert [c.state for c in lab.agree(*hosts)] == ["time-wait"] * 2


def test_a_port_of_udp_is_used_again(lab: Parity, hosts: Paths):
    """Another socket on the same ports goes on with the same connection."""
    for path in hosts:
        with lab.server.socket(path.family, socket.SOCK_DGRAM) as far:
            far.bind((path.server, 5000))
            for size in (10, 20, 30):
                with lab.client.socket(path.family, socket.SOCK_DGRAM) as near:
                    near.bind((path.client, 4000))
                    near.sendto(bytes(size), (path.server, 5000))
                    data, peer = far.recvfrom(100)
                    far.sendto(data, peer)
                    assert len(near.recv(100)) == size
    assert [c.packets for c in lab.agree(*hosts)] == [(3, 3)] * 2


def test_udp_lite(lab: Parity, hosts: Paths):
    for path in hosts:
        with lab.server.entered():
            far = socket.socket(path.family, socket.SOCK_DGRAM, 136)
        with lab.client.entered():
            near = socket.socket(path.family, socket.SOCK_DGRAM, 136)
        with near, far:
            far.bind((path.server, 5000))
            near.bind((path.client, 0))
            near.sendto(b"hello", (path.server, 5000))
            data, peer = far.recvfrom(100)
            far.sendto(data, peer)
            near.recv(100)
    assert [(c.protocol, c.packets) for c in lab.agree(*hosts)] == [(136, (1, 1))] * 2


def test_large_datagrams_of_the_routers_own(lab: Parity, hosts: Paths):
    """As many bytes as fit into one packet."""
    path = hosts[0]
    with (
        lab.server.socket(path.family, socket.SOCK_DGRAM) as far,
        lab.router.socket(path.family, socket.SOCK_DGRAM) as near,
    ):
        far.bind((path.server, 5000))
        near.sendto(bytes(1472), (path.server, 5000))
        assert len(far.recv(2000)) == 1472
    assert [c.bytes for c in lab.agree(path)] == [(1500, 0)]


def test_traceroute(lab: Parity, hosts: Paths):
    """The router itself says that the time is exceeded: its error belongs to the datagram's connection, which does not
    get beyond it."""
    path = hosts[0]
    assert path.family is IPV4.family
    with lab.client.socket(path.family, socket.SOCK_DGRAM) as near:
        near.bind((path.client, 4000))
        near.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        near.sendto(b"where", (path.server, 33434))
        near.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 2)
        near.sendto(b"where", (path.server, 33435))
    kernel, ours = lab.tables(path)
    assert [c.original[3] for c in kernel] == ["33435"]
    assert sorted(c.original[3] for c in ours) == ["33434", "33435"]
