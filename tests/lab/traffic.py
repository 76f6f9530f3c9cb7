"""Traffic of known size, made by real tools and sockets, and independent counts of what is not known beforehand."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from lab.network import Ends, Namespace, wait_for
from lab.tracked import Count, Tracked

Sockets = tuple[socket.socket, socket.socket]

UDP_HEADER, ICMP_HEADER = 8, 8
_SEGS_OUT, _BYTES_SENT = 136, 200  # offsets in struct tcp_info


def ping(client: Namespace, address: str, count: int, size: int = 56) -> None:
    """`count` echo requests with `size` bytes each, all answered."""
    said = client.run("ping", "-n", "-q", "-c", count, "-i", "0.002", "-s", size, "-W", "5", address)
    assert f"{count} received" in said, said


def ping_count(ends: Ends, count: int, size: int = 56) -> Count:
    each = ends.header + ICMP_HEADER + size
    return Count(count, count * each, count, count * each)


def udp(
    ends: Ends, client: Namespace, server: Namespace, sizes: Sequence[int], answers: Sequence[int]
) -> tuple[int, int]:
    """Datagrams with these payloads to the server and back, all of them received; the ports of both ends."""
    with client.socket(ends.family, socket.SOCK_DGRAM) as near, server.socket(ends.family, socket.SOCK_DGRAM) as far:
        far.bind((ends.server, 0))
        near.connect((ends.server, far.getsockname()[1]))
        for size in sizes:
            near.send(bytes(size))
            data, peer = far.recvfrom(65536)
            assert len(data) == size
        for size in answers:
            far.sendto(bytes(size), peer)
            assert len(near.recv(65536)) == size
        return near.getsockname()[1], far.getsockname()[1]


def udp_count(ends: Ends, sizes: Sequence[int], answers: Sequence[int]) -> Count:
    each = ends.header + UDP_HEADER
    return Count(len(sizes), sum(sizes) + each * len(sizes), len(answers), sum(answers) + each * len(answers))


class _FileServer(ThreadingHTTPServer):
    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's own asks the DNS for its name, and waits


class _FileHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def file_server(machine: Namespace, ends: Ends, directory: Path) -> Iterator[int]:
    """A web server of the files in a directory; its port."""
    with machine.entered():
        family = type("Server", (_FileServer,), {"address_family": ends.family})
        server = family((ends.server, 0), partial(_FileHandler, directory=directory))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def iperf3_server(machine: Namespace, port: int, *arguments: object) -> Iterator[None]:
    process = machine.start("iperf3", "--server", "--port", port, *arguments)
    try:
        wait_for("iperf3 listens", lambda: machine.listening(port))
        yield
    finally:
        process.kill()
        process.wait()


def iperf3(client: Namespace, ends: Ends, port: int, *arguments: object) -> tuple[int, int]:
    """One run; the local port of its data connection, and the bytes that arrived."""
    said = json.loads(client.run("iperf3", "--client", ends.server, "--port", port, "--json", *arguments))
    return said["start"]["connected"][0]["local_port"], said["end"]["sum_received"]["bytes"]


def watch_with_conntrack(router: Namespace) -> None:
    """Let the router's own nf_conntrack count everything too: the independent witness."""
    router.sysctl(netfilter_nf_conntrack_acct=1)
    hooks = ("prerouting", "output")
    chains = (f"chain {hook} {{ type filter hook {hook} priority 0; ct state new accept; }}" for hook in hooks)
    router.run("nft", "-f", "-", input="\n".join(("table inet watch {", *chains, "}")))


def conntrack(router: Namespace, ends: Ends, sport: int) -> list[str]:
    """nf_conntrack's lines of TCP connections from this port of the client."""
    family = "ipv4" if ends.family is socket.AF_INET else "ipv6"
    listed = router.run(
        "conntrack", "-L", "-o", "extended", "-f", family, "-p", "tcp", "-s", ends.client, "--orig-port-src", sport
    )
    return listed.splitlines()


def ended(router: Namespace, ends: Ends, sport: int) -> str:
    """nf_conntrack's line of such a connection once no packet of it is to come; empty: there may be one."""
    (line,) = conntrack(router, ends, sport)
    return line if re.search(r" (TIME_WAIT|CLOSE) ", line) else ""


def conntrack_count(line: str) -> Count:
    packets, sizes = (list(map(int, re.findall(rf"{word}=(\d+)", line))) for word in ("packets", "bytes"))
    return Count(packets[0], sizes[0], packets[1], sizes[1])


@contextmanager
def bulk(ends: Ends, client: Namespace, server: Namespace, size: int) -> Iterator[Sockets]:
    """`size` bytes each way over one TCP connection, still open: its two sockets."""
    with server.socket(ends.family, socket.SOCK_STREAM) as listener:
        listener.bind((ends.server, 0))
        listener.listen()
        near = client.socket(ends.family, socket.SOCK_STREAM)
        client.sysctl(ipv4_tcp_sack=0)  # so that the length of headers is known
        near.connect(listener.getsockname()[:2])
        client.sysctl(ipv4_tcp_sack=1)
        far, _ = listener.accept()
    with near, far:
        for source, sink in ((near, far), (far, near)):
            sender = threading.Thread(target=source.sendall, args=[bytes(size)])
            sender.start()
            left = size
            while left:
                left -= len(sink.recv(1 << 20))
            sender.join()
        yield near, far


def agree(ctweb: Tracked, ends: Ends, near: socket.socket, far: socket.socket) -> None:
    """Wait until the row of a TCP connection counts what its two sockets say that they have sent."""
    source, target = (ends.shown(*one.getsockname()[:2]) for one in (near, far))
    seen: list[Count] = []

    def agreed() -> bool:
        row = ctweb.row(protocol="tcp", src_address=source, dst_address=target)
        seen[:] = [Count.of(row), on_the_wire(ends, near, far)]
        return seen[0] == seen[1]

    wait_for("table and sockets agree", agreed, lambda: seen)


def on_the_wire(ends: Ends, near: socket.socket, far: socket.socket) -> Count:
    """What two connected TCP sockets have sent: they know their segments and bytes whatever the offloads."""

    def sent(of: socket.socket) -> tuple[int, int]:
        info = of.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
        return struct.unpack_from("=I", info, _SEGS_OUT)[0], struct.unpack_from("=Q", info, _BYTES_SENT)[0]

    each = ends.header + 20 + 12  # with the timestamp option
    (orig_segments, orig_bytes), (repl_segments, repl_bytes) = sent(near), sent(far)
    repl_segments += 1  # the SYN-ACK was sent before there was a socket
    orig_bytes += orig_segments * each + 8  # a SYN has 20 bytes of options instead of 12
    repl_bytes += repl_segments * each + 8
    return Count(orig_segments, orig_bytes, repl_segments, repl_bytes)
