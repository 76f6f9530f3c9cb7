"""Mixed traffic, thousands of new connections a second, clients that come and go: `make soak ARGS="--minutes 60"`.

Every half a minute, when the clients have left, what the program holds is noted. After the first rounds it must not
grow, and at the end every packet must be accounted for.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from lab.network import IPV4, IPV6, Ends, Namespace, client_router_server, network, wait_for
from lab.tracked import Tracked
from running import PORT

from reliability.flood import NETWORK
from reliability.flooded import exchange, mac_of, memory, python

RATE = 3000  # connections a second that nobody answers
CROWD = 60
ROUND = 30  # seconds; the crowd stays for half of it
CONFIG = 'max-entries = 131072\n[tracking]\nenabled = "yes"\n'
MEMORY, DESCRIPTORS, THREADS = 16, 3, 2  # what may be more at the end than after the first rounds: MiB, number, number


@dataclass
class Sample:
    """What it held when all clients had left."""

    seconds: float
    memory: int
    descriptors: int
    threads: int
    connections: int
    created: int


@dataclass
class Soak:
    samples: list[Sample] = field(default_factory=list)
    real: int = 0  # connections with answers
    rounds: int = 0
    entered: int = 0  # websockets of the crowd that were let in

    def grown(self) -> dict[str, int]:
        """By how much the last third holds more than what came after the first rounds, in the middle of each."""
        settled = self.samples[len(self.samples) // 4 :]
        third = max(1, len(settled) // 3)

        def middle(samples: list[Sample], name: str) -> int:
            return int(statistics.median(getattr(sample, name) for sample in samples))

        names = ("memory", "descriptors", "threads")
        return {name: middle(settled[-third:], name) - middle(settled[:third], name) for name in names}


class Talkers(threading.Thread):
    """Real connections, one after another: TCP that ends in order or by a reset, and UDP with answers."""

    def __init__(self, client: Namespace, server: Namespace, ends: Ends) -> None:
        super().__init__()
        self.number = 0
        self.stop = threading.Event()
        self._near, self._far, self._ends = client, server, ends
        self._listener = server.socket(ends.family, socket.SOCK_STREAM)
        self._listener.bind((ends.server, 0))
        self._listener.listen()
        self._datagrams = server.socket(ends.family, socket.SOCK_DGRAM)
        self._datagrams.bind((ends.server, 0))

    def run(self) -> None:
        while not self.stop.is_set():
            with self._near.socket(self._ends.family, socket.SOCK_STREAM) as near:
                near.connect(self._listener.getsockname()[:2])
                far, _ = self._listener.accept()
                with far:
                    for _ in range(5):
                        exchange(near, far)
                    if self.number % 3 == 0:
                        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            with self._near.socket(self._ends.family, socket.SOCK_DGRAM) as near:
                near.sendto(b"question", self._datagrams.getsockname()[:2])
                _, peer = self._datagrams.recvfrom(100)
                self._datagrams.sendto(b"answer", peer)
                near.recv(100)
            self.number += 2
            time.sleep(0.02)

    def close(self) -> None:
        self.stop.set()
        self.join()
        self._listener.close()
        self._datagrams.close()


def held(ctweb: Tracked, began: float) -> Sample:
    process = f"/proc/{ctweb.process.pid}"
    health: dict = ctweb.get("/healthz")  # type: ignore[assignment]
    return Sample(
        round(time.monotonic() - began, 1), memory(ctweb.process.pid), len(os.listdir(f"{process}/fd")),
        len(os.listdir(f"{process}/task")), health["connections"], health["counters"]["created"],
    )  # fmt: skip


def soak(seconds: float, directory: Path, round_seconds: float = ROUND, *, tell: bool = False) -> Soak:
    """Runs for so long; what was seen. Fails if the accounts are not even at the end."""
    story = Soak()
    with ExitStack() as stack:
        client, router, server = client_router_server(stack.enter_context(network("re-")))
        for machine in (client, router, server):
            machine.offloads("off")
        router.run("ethtool", "-K", "lan", "gro", "on")
        router.ip(f"route add blackhole {NETWORK}")
        ctweb = Tracked(router, directory, "--interface", "lan", "--interface", "wan", config=CONFIG)
        talkers = [Talkers(client, server, ends) for ends in (IPV4, IPV6)]
        for one in talkers:
            stack.callback(one.close)
            one.start()
        began = time.monotonic()
        flood = python(client, "reliability.flood", "eth0", mac_of(router, "lan"), seconds, RATE)
        while (passed := time.monotonic() - began) < seconds:
            stay = min(round_seconds / 2, seconds - passed)
            crowd = python(router, "reliability.crowd", PORT, stay, CROWD, ctweb.options[-1], stdout=subprocess.PIPE)
            while crowd.poll() is None:
                ctweb.get("/healthz")
                ctweb.rows(src_port=str(crowd.pid % 60_000))
                time.sleep(0.5)
            router.processes.remove(crowd)
            story.rounds += 1
            story.entered += sum(json.loads(crowd.communicate()[0]).values())
            wait_for("the crowd has left", lambda: ctweb.get("/healthz")["counters"]["websockets"] == 0)  # type: ignore[index]
            story.samples.append(held(ctweb, began))
            if tell:
                print(story.samples[-1], flush=True)
            time.sleep(max(0.0, round_seconds * story.rounds - (time.monotonic() - began)))
        flood.wait()
        assert all(one.is_alive() for one in talkers), "a real connection did not come up"
        for one in talkers:
            one.stop.set()
            one.join()
        story.real = sum(one.number for one in talkers)
        ctweb.check_conservation()
        assert ctweb.end() == 0, ctweb.log.read_text()
        assert "Traceback" not in ctweb.log.read_text()
    return story


def check(story: Soak, memory: int = MEMORY, others: int = 0) -> list[str]:
    """What grew that should not have. memory: MiB more that are allowed; others: descriptors and threads more."""
    allowed = {"memory": memory, "descriptors": DESCRIPTORS + others, "threads": THREADS + others}
    return [f"{name} grew by {n}" for name, n in story.grown().items() if n > allowed[name]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        story = soak(options.minutes * 60, Path(place), tell=True)
    last = story.samples[-1]
    wrong = check(story)
    print(
        f"{options.minutes:g} minutes: {last.created:,} connections, {story.real:,} of them with answers, "
        f"{story.rounds} times {CROWD} clients, let in {story.entered:,} times; "
        f"growth after the first rounds {story.grown()}; the accounts are even; {'; '.join(wrong) or 'nothing grew'}"
    )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
