"""A table of 100,000 under a flood, and what goes on meanwhile: `python -m reliability.flooded SECONDS [tc|xdp]`."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from lab.network import IPV4, Namespace, client_router_server, network, wait_for
from lab.tracked import CONFIG, Tracked
from lab.traffic import Sockets, agree, udp_count

from reliability.flood import NETWORK

MAX_ENTRIES = 100_000
LIMITED = f'max-entries = {MAX_ENTRIES}\n{CONFIG}enabled = "yes"\n'
CONVERSATIONS = 20
TESTS = Path(__file__).parents[1]


@dataclass
class Story:
    """What was seen."""

    sent: int = 0  # by the flood
    early_drops: int = 0
    tries: int = 0  # new connections while it lasted
    came_up: int = 0
    seconds: list[float] = field(default_factory=list)  # that each try took
    asked: list[float] = field(default_factory=list)  # seconds that each question for a row took
    page: list[float] = field(default_factory=list)  # the page
    sweeps: list[float] = field(default_factory=list)  # seconds that sweeps took
    sweep_numbers: list[int] = field(default_factory=list)
    live: list[int] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)  # resident, MiB


def python(machine: Namespace, *words: object, **options: object) -> subprocess.Popen[bytes]:
    """One of our own modules in a namespace."""
    paths = f"PYTHONPATH={TESTS}:{TESTS.parent}"
    return machine.start("env", paths, sys.executable, "-m", *words, **options)


def memory(pid: int) -> int:
    """Resident MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) >> 10


def flooded(hook: str, seconds: float, directory: Path, prefix: str = "re-") -> Story:
    """Runs it all, and checks what does not depend on how fast this machine is."""
    story = Story()
    with ExitStack() as stack:
        net = stack.enter_context(network(prefix))
        client, router, server = client_router_server(net)
        for machine in (client, router, server):
            machine.offloads("off")
        router.run("ethtool", "-K", "lan", "gro", "on")  # frames are taken by NAPI; nothing here can be merged
        router.ip(f"route add blackhole {NETWORK}")
        ctweb = Tracked(router, directory, "--hook", hook, "--interface", "lan", "--interface", "wan", config=LIMITED)
        talks = [stack.enter_context(talk) for pair in conversations(client, server) for talk in pair]
        pairs = list(zip(talks[::2], talks[1::2], strict=True))
        listener = stack.enter_context(server.socket(socket.AF_INET, socket.SOCK_STREAM))
        listener.bind((IPV4.server, 0))
        listener.listen(64)
        near, far = (stack.enter_context(m.socket(socket.AF_INET, socket.SOCK_DGRAM)) for m in (client, server))
        far.bind((IPV4.server, 0))
        near.connect(far.getsockname())
        datagrams, answers = say(near, far)

        def assured() -> bool:
            nonlocal datagrams, answers
            more = say(near, far)
            datagrams, answers = datagrams + more[0], answers + more[1]
            return bool(ctweb.rows(protocol="udp", src_port=str(near.getsockname()[1]), assured="true"))

        wait_for("UDP is assured", assured)
        flood = python(client, "reliability.flood", "eth0", mac_of(router, "lan"), seconds, stdout=subprocess.PIPE)
        end = time.monotonic() + 60 + 10 * seconds
        wait_for("the table is full", lambda: note(ctweb, story)["counters"]["early-drop"] > 0)
        while flood.poll() is None and time.monotonic() < end:
            began = time.monotonic()
            try_one(client, listener, ctweb, story)
            for one, other in pairs:
                exchange(one, other)
            more = say(near, far)
            datagrams, answers = datagrams + more[0], answers + more[1]
            note(ctweb, story)
            time.sleep(max(0.0, 1 - (time.monotonic() - began)))
        said, _ = flood.communicate()
        story.sent = int(said)
        for one, other in pairs:
            agree(ctweb, IPV4, one, other)
        ctweb.counts(
            udp_count(IPV4, [10] * datagrams, [20] * answers), protocol="udp",
            src_address=IPV4.shown(IPV4.client, near.getsockname()[1]),
        )  # fmt: skip
        story.early_drops = note(ctweb, story)["counters"]["early-drop"]
        ctweb.check_conservation()
        assert ctweb.end() == 0, ctweb.log.read_text()
    return story


def mac_of(machine: Namespace, interface: str) -> str:
    return machine.run("ip", "-br", "link", "show", interface).split()[2]


def conversations(client: Namespace, server: Namespace) -> list[Sockets]:
    """Established TCP connections that both sides have sent on."""
    made = []
    client.sysctl(ipv4_tcp_sack=0)  # so that the length of headers is known
    with server.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((IPV4.server, 0))
        listener.listen(CONVERSATIONS)
        for _ in range(CONVERSATIONS):
            near = client.socket(socket.AF_INET, socket.SOCK_STREAM)
            near.connect(listener.getsockname())
            far, _ = listener.accept()
            made.append((near, far))
            exchange(near, far)
    client.sysctl(ipv4_tcp_sack=1)
    return made


def exchange(near: socket.socket, far: socket.socket) -> None:
    for source, sink in ((near, far), (far, near)):
        source.sendall(bytes(100))
        left = 100
        while left:
            left -= len(sink.recv(left))


def say(near: socket.socket, far: socket.socket) -> tuple[int, int]:
    """A datagram and its answer; what a flooded queue drops is no use to know, so they wait for one another."""
    near.send(bytes(10))
    _, peer = far.recvfrom(100)
    far.sendto(bytes(20), peer)
    near.recv(100)
    return 1, 1


def try_one(client: Namespace, listener: socket.socket, ctweb: Tracked, story: Story) -> None:
    """A new connection, until the table shows it as assured."""
    story.tries += 1
    began = time.monotonic()
    with client.socket(socket.AF_INET, socket.SOCK_STREAM) as near:
        near.connect(listener.getsockname())
        far, _ = listener.accept()
        with far:
            exchange(near, far)
            story.seconds.append(time.monotonic() - began)
            port = str(near.getsockname()[1])

            def shown() -> bool:
                asked = time.monotonic()
                rows = ctweb.rows(
                    protocol="tcp", src_port=port, dst_port=str(listener.getsockname()[1]), assured="true"
                )
                story.asked.append(time.monotonic() - asked)
                return len(rows) == 1

            wait_for("the new connection is in the table", shown)
            story.came_up += 1


def note(ctweb: Tracked, story: Story) -> dict:
    """How the instance does."""
    began = time.monotonic()
    health: dict = ctweb.get("/healthz")  # type: ignore[assignment]
    ctweb.get("/page/settings")
    story.page.append(time.monotonic() - began)
    story.sweeps.append(health["sweep-seconds"])
    story.sweep_numbers.append(health["sweep"])
    story.live.append(health["connections"])
    story.memory.append(memory(ctweb.process.pid))
    return health


if __name__ == "__main__":
    for tested in sys.argv[2:] or ("tc", "xdp"):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
            seen = flooded(tested, float(sys.argv[1]), Path(place))
        print(
            f"{tested}: {seen.sent:,} packets in {sys.argv[1]} s, {seen.early_drops:,} early drops; new connections "
            f"{seen.came_up} of {seen.tries}, slowest {max(seen.seconds):.2f} s; a question {max(seen.asked):.2f} s, "
            f"page {max(seen.page):.2f} s, sweep {max(seen.sweeps):.2f} s at most, {seen.sweep_numbers[-1]} sweeps; "
            f"{max(seen.live):,} connections, {max(seen.memory)} MiB at most"
        )
