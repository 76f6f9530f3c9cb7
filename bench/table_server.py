"""The server of bench/dashboard.py and tests/browser/test_million.py, a process of its own: a table that changes each
second, and the page over it.

`python -m bench.table_server ENTRIES SHARE`: prints its port and the token of a session; for each line on stdin it
answers with what each snapshot since the last one has cost, as a JSON list of {"sweep": seconds of CPU, "clients":
seconds of CPU}.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from bench.sweep import connections, filled, put
from ctweb.datapath.build import Datapath
from ctweb.enabled import Enabled
from ctweb.settings import Tracking
from ctweb.tracker import Tracker
from ctweb.users import User, Users
from ctweb.web import server
from ctweb.web.app import create_app
from ctweb.web.auth import Auth
from ctweb.web.live import Live
from ctweb.web.sessions import Sessions

CLIENT_THREADS = ("http", "live", "MainThread")


def change(datapath: Datapath, entries: int, share: float, stop: threading.Event) -> None:
    """Each second this share of the connections, others each time, has had some traffic more."""
    random = np.random.default_rng(7)
    grown = np.zeros((entries, 2), np.uint64)
    began, due = datapath.clock.now(), time.monotonic()
    while not stop.wait(max(0.0, due - time.monotonic())):
        due += 1
        chosen = random.choice(entries, int(entries * share), replace=False).astype(np.uint32)
        grown[chosen] += random.integers(100, 1_000_000, (len(chosen), 2), dtype=np.uint64)
        keys, leaves = connections(datapath, chosen)
        leaves["created"] = began  # before this sweep: they are no new ones
        leaves["bytes"] += grown[chosen]
        leaves["packets"] += grown[chosen] // np.uint64(1000)
        put(datapath, keys, leaves)


class Cpu:
    """Seconds of CPU so far: of the sweep, and of what is done for clients; of threads too that have ended."""

    def __init__(self) -> None:
        self._threads: dict[tuple[str, int | None], float] = {}

    def spent(self) -> dict[str, float]:
        for thread in threading.enumerate():
            kind = "sweep" if thread.name == "sweep" else "clients" if thread.name.startswith(CLIENT_THREADS) else None
            if kind is not None:
                with suppress(OSError):  # it has ended since
                    schedule = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text()
                    self._threads[kind, thread.native_id] = int(schedule.split()[0]) / 1e9
        found = {"sweep": 0.0, "clients": 0.0}
        for (kind, _), seconds in self._threads.items():
            found[kind] += seconds
        return found


def account(tracker: Tracker) -> None:
    """Answer each line on stdin with the costs since the one before, snapshot by snapshot."""
    costs: list[dict[str, float]] = []
    wanted = threading.Event()

    def listen() -> None:
        for _ in sys.stdin:
            wanted.set()

    threading.Thread(target=listen, name="stdin", daemon=True).start()
    cpu = Cpu()
    seq, before = tracker.snapshot.seq, cpu.spent()
    while True:
        newest = tracker.wait(seq, 5.0).seq
        # Just before this snapshot's work for clients begins, all of the one before is done.
        now = cpu.spent()
        if newest != seq:
            costs.append({kind: now[kind] - before[kind] for kind in now})
        seq, before = newest, now
        if wanted.is_set():
            wanted.clear()
            print(json.dumps(costs), flush=True)
            costs = []


def main() -> None:
    logging.disable()  # what is in the map past the programs is in no account: that would be told each second
    entries, share = int(sys.argv[1]), float(sys.argv[2])
    stop = threading.Event()
    with filled(entries) as datapath, tempfile.TemporaryDirectory() as state:
        tracker = Tracker(datapath, Tracking(), Path(state))
        enabled = Enabled(setting=lambda: "yes", rules=lambda: 0, auto_timeout=lambda: 900)
        live = Live(tracker, enabled)
        tracker.start()
        live.start()
        listener = server.listen("127.0.0.1", 0)
        users = Users(Path(state))
        users.put("bench", User("read", "no hash: nobody signs in with a password"))
        sessions = Sessions(Path(state), users)
        token, _ = sessions.begin("bench", users.read()["bench"])
        app = create_app(tracker, live, Auth(users, sessions, ""), hosts=("127.0.0.1",), hooks=dict)
        changing = threading.Thread(target=change, args=(datapath, entries, share, stop), name="change")
        changing.start()
        threading.Thread(target=account, args=(tracker,), name="account", daemon=True).start()
        print(listener.getsockname()[1], token, flush=True)
        server.serve(app, listener, ready=lambda: None, alive=lambda: None, closing=live.stop)
        stop.set()
        changing.join()
        tracker.stop()


if __name__ == "__main__":
    main()
