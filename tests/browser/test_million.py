"""A table of a million connections, put into the map as the benchmark does: every row can be reached, and is the right
one. The server is a process of its own, beside the other tests' one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from browser.chromium import page_of
from browser.conftest import Machines

ROWS = 1_000_000
REPOSITORY = Path(__file__).parents[2]
SHARE = "0.01"  # of the connections has some traffic more each second

# Of each row on the page that shows its connection: its rank, and that connection's source.
SHOWN = """() => [...document.querySelectorAll(".row:not([hidden]):not(.waiting)")]
    .map((row) => [Number(row.ariaRowIndex) - 2, row.querySelector("[data-column='src-address']").textContent])"""
# Those that are seen, at least partly: beyond them a few are painted in advance.
SEEN = """() => {
    const head = document.querySelector(".head").getBoundingClientRect().bottom;
    const end = document.querySelector("#table").getBoundingClientRect().bottom;
    return [...document.querySelectorAll(".row:not([hidden])")].filter((row) => {
        const box = row.getBoundingClientRect();
        return box.bottom > head + 1 && box.top < end - 1;
    });
}"""
# All of them show their connections.
FILLED = f"""() => {{
    const seen = ({SEEN})();
    return seen.length > 20 && !seen.some((row) => row.classList.contains("waiting"));
}}"""
# The rank of the first of them.
FIRST = f"() => Math.min(...({SEEN})().map((row) => Number(row.ariaRowIndex) - 2))"
# Where the scroll bar stands, from 0 to 1.
PLACE = """() => {
    const {scrollTop, scrollHeight, clientHeight} = document.querySelector("#table");
    return scrollTop / (scrollHeight - clientHeight);
}"""


def source(rank: int) -> str:
    """Of the connection that has so many before it, by source (bench/sweep.py: sixteen ports of each host)."""
    host, port = divmod(rank, 16)
    return ".".join(str(byte) for byte in (0x0A000000 + host).to_bytes(4, "big")) + f":{1024 + port}"


@pytest.fixture(scope="module")
def million(machines: Machines, browser: Browser) -> Iterator[Page]:
    _, router, _ = machines
    words = (sys.executable, "-m", "bench.table_server", str(ROWS), SHARE)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": None, "text": True}
    process = router.start(*words, cwd=REPOSITORY, **pipes)
    try:
        port, token = process.stdout.readline().split()
        url = f"http://127.0.0.1:{port}"
        context = browser.new_context(base_url=url, viewport={"width": 1440, "height": 900})
        context.add_cookies([{"name": f"ctweb-{port}", "value": token, "url": url}])
        with page_of(context) as (page, _):
            page.goto("/?sort=src-address")
            page.wait_for_function(FILLED)
            yield page
    finally:
        process.terminate()
        process.wait(timeout=30)


def right_rows(page: Page) -> int:
    """All that is seen is filled, by the right connections; the rank of the first row seen."""
    page.wait_for_function(FILLED)
    shown = page.evaluate(SHOWN)
    assert shown == [[rank, source(rank)] for rank, _ in shown]
    assert len(shown) > 20
    return int(page.evaluate(FIRST))


def test_the_scroll_bar_is_true_to_the_whole(million: Page) -> None:
    table = million.locator("#table")
    expect(table).to_have_attribute("aria-rowcount", str(ROWS + 1))  # the headings are one
    for share in (0.5, 0.123, 0.999, 0, 1):
        million.evaluate(
            """(share) => {
                const table = document.querySelector("#table");
                table.scrollTop = share * (table.scrollHeight - table.clientHeight);
            }""",
            share,
        )
        million.wait_for_function(f"(share) => Math.abs(({FIRST})() / {ROWS} - share) < 0.001", arg=share)
        right_rows(million)
        assert abs(million.evaluate(PLACE) - share) < 0.0001
    last = million.locator(f"[aria-rowindex='{ROWS + 1}']")
    expect(last).to_be_in_viewport(ratio=1)
    expect(last.locator("[data-column='src-address']")).to_have_text(source(ROWS - 1))


def test_the_wheel_moves_by_its_own_pixels_and_what_passes_is_right(million: Page) -> None:
    """Where a pixel of the scroll bar is more than a row's height is worth."""
    million.evaluate("() => { document.querySelector('#table').scrollTop = 7_000_000; }")
    million.wait_for_function(f"() => ({FIRST})() > 1000")
    before = right_rows(million)
    million.locator("#table").hover()
    height = million.locator(".row:not([hidden])").first.bounding_box()["height"]
    for _ in range(30):
        million.mouse.wheel(0, 3 * height)
        for rank, text in million.evaluate(SHOWN):  # also while others are on their way
            assert text == source(rank)
    million.wait_for_function(f"(least) => ({FIRST})() >= least", arg=before + 90)
    assert right_rows(million) == before + 90


def test_pages_by_key_leave_no_row_out(million: Page) -> None:
    million.keyboard.press("Home")
    million.wait_for_function(f"() => ({FIRST})() === 0")
    first = right_rows(million)
    table = million.locator("#table").bounding_box()["height"] - million.locator(".head").bounding_box()["height"]
    fit = int(table // million.locator(".row:not([hidden])").first.bounding_box()["height"])
    for _ in range(5):
        million.keyboard.press("PageDown")
        million.wait_for_function(f"(before) => ({FIRST})() > before", arg=first)
        after = right_rows(million)
        assert first < after < first + fit
        first = after
    million.keyboard.press("End")
    expect(million.locator(f"[aria-rowindex='{ROWS + 1}']")).to_be_in_viewport(ratio=1)
    last = right_rows(million)
    million.keyboard.press("PageUp")
    million.wait_for_function(f"(before) => ({FIRST})() < before", arg=last)
    assert last - fit < right_rows(million) < last
    assert million.locator(".row").count() < 60
