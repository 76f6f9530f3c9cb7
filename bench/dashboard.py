"""What the page costs: the server for each tick, the browser for each tick and to keep, and fifty pages at once.

The server is a process of its own (table_server.py), the browser is Chromium without a screen. Beside each figure
stands `conntrack -L` of a table of the same size, which is what one looks at connections with otherwise.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession, sync_playwright
from simple_websocket import Client

from bench import conntrack_table
from bench.figure import Figure, Samples

LARGE, MANY = 1_000_000, 100_000
CHANGING = 0.01  # of the connections, each second
CLIENTS, VIEWS = 50, 10
CHROMIUM = Path(sys.executable).with_name("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
# In the locale C some builds call their language en-US@posix, which is none to Intl.
ENVIRONMENT: dict[str, str | float | bool] = {**os.environ, "LC_ALL": "en_US.UTF-8"}
WARM_SECONDS = 15
VIEW = "filter=proto:tcp%20dport:443%20src:10.0.0.0/17&sort=-orig-rate"


class Server:
    """A table of so many connections, and the page over it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        port, self.session = self._line().split()
        self.port = int(port)

    def costs(self) -> list[dict[str, float]]:
        """Of each snapshot since the last question: seconds of CPU of the `sweep`, and for `clients`."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: list[dict[str, float]] = json.loads(self._line())
        return found

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def serving(entries: int) -> Iterator[Server]:
    command = [sys.executable, "-m", "bench.table_server", str(entries), str(CHANGING)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Server(process)
        finally:
            process.terminate()


@contextmanager
def all_processors() -> Iterator[None]:
    """Server and browser each have their own, as they would."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def metrics(session: CDPSession) -> dict[str, float]:
    return {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}


def heap(session: CDPSession) -> float:
    """Megabytes that the page's scripts hold, without what may be thrown away."""
    session.send("HeapProfiler.collectGarbage")
    return metrics(session)["JSHeapUsedSize"] / 1e6


def one_page(seconds: float) -> tuple[Samples, Samples, Samples, Samples]:
    """Of a page on a million connections: milliseconds of the server's CPU for it, of the sweep's, and of the browser's
    scripts, for each tick; megabytes of heap at the beginning and at the end."""
    with serving(LARGE) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, env=ENVIRONMENT)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        ticks = 0

        def tick(_: Any) -> None:
            nonlocal ticks
            ticks += 1

        page.on("websocket", lambda socket: socket.on("framereceived", tick))
        url = f"http://127.0.0.1:{server.port}/"
        page.context.add_cookies([{"name": f"ctweb-{server.port}", "value": server.session, "url": url}])
        page.goto(f"{url}?{VIEW}")
        page.locator(".row:not([hidden]):not(.waiting)").first.wait_for()
        page.wait_for_timeout(WARM_SECONDS * 1000)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        at_first = heap(session)
        server.costs()
        scripts = []
        deadline = time.monotonic() + seconds
        seen, spent = ticks, metrics(session)["ScriptDuration"]
        while time.monotonic() < deadline:
            page.wait_for_timeout(1000)
            now = metrics(session)["ScriptDuration"]
            if ticks > seen:
                scripts.append((now - spent) * 1000 / (ticks - seen))
                seen, spent = ticks, now
        costs = server.costs()
        at_last = heap(session)
        browser.close()
    work, sweep = ([cost[kind] * 1000 for cost in costs] for kind in ("clients", "sweep"))
    return Samples.of(work), Samples.of(sweep), Samples.of(scripts), Samples((at_first, at_last))


SORTS = ("-orig-rate", "-repl-rate", "src-address", "-orig-bytes", "timeout")


def views() -> list[str]:
    """Ten that differ: half of them with a filter, two of them of groups."""
    asked: list[dict[str, Any]] = [{"sort": sort} for sort in SORTS[:4]]
    asked += [{"sort": sort, "filter": "src:10.0.0.0/20 dport:443"} for sort in SORTS[:4]]
    asked += [{"group": "src-address", "sort": "-rate"}, {"group": "service", "filter": "443", "sort": "-bytes"}]
    return [json.dumps({"type": "view", "limit": 100, **view}) for view in asked]


def many_pages(ticks: int) -> Samples:
    """Fifty clients on ten views: for each, the greatest age (seconds) in which a tick reached it."""
    ages: list[list[float]] = [[] for _ in range(CLIENTS)]
    asked = views()
    with serving(MANY) as server:

        def watch(number: int) -> None:
            client = Client(f"ws://127.0.0.1:{server.port}/live", headers={"Cookie": f"ctweb={server.session}"})
            try:
                client.send(asked[number % VIEWS])
                while len(ages[number]) <= ticks:
                    message = json.loads(client.receive(timeout=30))
                    if message["type"] == "rows":
                        ages[number].append(time.time() - message["time"] / 1000)
            finally:
                client.close()

        threads = [threading.Thread(target=watch, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if any(len(each) <= ticks for each in ages):
        raise RuntimeError("a client was left without its ticks")
    # The first answer is to the view, whatever the age of the snapshot.
    return Samples.of([max(each[1:]) for each in ages])


def figures(seconds: float, rounds: int) -> Iterator[Figure]:
    """`seconds`: for how long the page is watched. `rounds` of conntrack -L."""
    with all_processors():
        work, sweep, scripts, heap = one_page(seconds)
        cpu, _, size = conntrack_table.listed(LARGE, rounds)
        beside = f"`conntrack -L` of {LARGE:,}"
        listing = Samples.of([value * 1000 for value in cpu.values])
        what = f"{LARGE:,} connections, {CHANGING:.0%} changing each second, a page sorted by rate with a filter"
        last, first = Samples((heap.values[1],)), Samples((heap.values[0],))
        minutes = f"{seconds / 60:g} min"
        ms = "ms of CPU"
        yield Figure.compare(f"{what}: the server's work for it, a tick", ms, work, beside, listing, most_value=150)
        yield Figure.compare(f"{what}: the sweep, a tick", ms, sweep, beside, listing)
        yield Figure.compare(f"{what}: scripts in the browser, a tick", "ms", scripts, beside, listing, most_value=16)
        printed = Samples((size,))
        yield Figure.compare(f"its heap after {minutes}", "MB", last, f"what {beside} prints", printed, most_value=60)
        yield Figure.compare(f"its heap after {minutes}, again", "MB", last, "at the beginning", first, most_ratio=1.1)
        ages = many_pages(ticks=20)
        _, wall, _ = conntrack_table.listed(MANY, rounds)
        worst = Samples((max(ages.values),))
        yield Figure.compare(
            f"{CLIENTS} pages on {VIEWS} views of {MANY:,} connections: the latest that a tick reached one of them",
            "s", worst, f"one `conntrack -L` of {MANY:,}", wall, most_value=2,
        )  # fmt: skip
