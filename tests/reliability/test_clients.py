"""Two hundred clients of bad manners: whoever was watching goes on watching, and when they leave all is as before."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from running import ADDRESS, PORT, Ctweb, signed_in, until
from simple_websocket import Client, ConnectionClosed

from ctweb.web.live import CLIENTS
from ctweb.web.server import THREADS
from reliability.flooded import memory

TESTS = Path(__file__).parents[1]
CROWD, SECONDS, HONEST = 200, 10, 5
OTHER_THREADS = 20  # the named ones (docs/architecture.md), and numpy's
MEMORY = 300  # MiB


class Honest:
    """Somebody who watches; the sweeps he was shown."""

    def __init__(self, ctweb: Ctweb) -> None:
        self.client = Client.connect(f"ws://{ADDRESS}/live", headers=signed_in(ctweb.state_dir))
        self.client.send(json.dumps({"type": "view", "limit": 60, "sort": "-bytes"}))
        self.sweeps: list[int] = []
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self) -> None:
        try:
            while True:
                message = json.loads(self.client.receive())
                if message["type"] == "rows":
                    self.sweeps.append(message["seq"])
        except ConnectionClosed:
            pass

    def leave(self) -> None:
        self.client.close()
        self.thread.join()


def used(ctweb: Ctweb) -> tuple[int, int, int]:
    """Threads, descriptors and resident MiB."""
    process = f"/proc/{ctweb.process.pid}"
    return len(os.listdir(f"{process}/task")), len(os.listdir(f"{process}/fd")), memory(ctweb.process.pid)


def test_honest_clients_keep_their_tick_and_all_is_as_before_when_the_others_have_left(run):
    ctweb = run().ready()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for host, port in itertools.product(range(2, 22), range(30_000, 31_000)):
            sender.sendto(b"", (f"127.0.0.{host}", port))
    with ExitStack() as stack:
        honest = [Honest(ctweb) for _ in range(HONEST)]
        for one in honest:
            stack.callback(one.leave)
        until(lambda: all(len(one.sweeps) > 2 for one in honest))
        before = used(ctweb)
        arguments = [sys.executable, "-m", "reliability.crowd", str(PORT), str(SECONDS), str(CROWD), ctweb.state_dir]
        paths = {"PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
        crowd = subprocess.Popen(arguments, env=os.environ | paths, stdout=subprocess.PIPE)
        stack.callback(crowd.kill)
        until(lambda: ctweb.counters()["websockets"] == CLIENTS)
        most = (0, 0, 0)
        while crowd.poll() is None:
            most = tuple(map(max, used(ctweb), most))
            assert ctweb.get("/healthz")[0] == 200
        entered = json.loads(crowd.stdout.read())
        assert set(entered) == {"stall", "garbage", "come and go", "heavy"}, entered
        assert most[0] <= 2 * THREADS + OTHER_THREADS
        assert most[2] < MEMORY
        until(lambda: ctweb.counters()["websockets"] == HONEST)  # within 30 s
        last = ctweb.get("/healthz")[1]["sweep"]
        until(lambda: all(one.sweeps[-1] > last for one in honest))
        for one in honest:
            assert max(b - a for a, b in itertools.pairwise(one.sweeps)) <= 2
        until(lambda: used(ctweb)[1] <= before[1] + 2)
        until(lambda: used(ctweb)[0] <= THREADS + OTHER_THREADS)  # those that received for the clients are gone
        assert used(ctweb)[2] < MEMORY
    until(lambda: ctweb.counters()["websockets"] == 0)
    assert b"Traceback" not in ctweb.log.read_bytes()
