"""The charts: opened and closed, fed by the server's memory, so that a reload shows what was there before."""

from __future__ import annotations

import re

from lab.network import wait_for
from playwright.sync_api import Page, expect

from browser.router import Server

SHOWN = """() => [...document.querySelectorAll(".chart canvas")].map((canvas) => {
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
})"""


def test_the_last_hour_is_there_again_after_a_reload(server: Server, page: Page) -> None:
    with server.udp(5501) as sender:
        sender.send(b"1")
        wait_for("samples", lambda: len(server.ask("GET", "/page/history")[1]["time"]) >= 3)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto("/")
        panel = page.get_by_role("region", name="The last hour")
        expect(panel).to_be_hidden()
        page.keyboard.press("c")
        expect(panel.locator("canvas")).to_have_count(5)
        expect(panel.locator(".chart", has_text="Connections by state")).to_contain_text(re.compile(r"other [1-9]"))
        expect(panel.locator(".chart", has_text="early drops")).to_contain_text(" of 1\u202f048\u202f576")
        assert all(colours > 5 for colours in page.evaluate(SHOWN))  # there is more than an empty canvas
        # On from there, only what is new is asked for.
        with page.expect_request(re.compile(r"since=1\d{9}")):
            pass
        page.reload()
        expect(panel.locator("canvas")).to_have_count(5)
        page.get_by_role("button", name="Charts of the last hour").click()
        expect(panel).to_be_hidden()
        assert {url.split("/")[2] for url in asked} == {page.url.split("/")[2]}


def test_what_was_counted_is_in_the_history(server: Server) -> None:
    def created() -> float:
        answer = server.ask("GET", "/page/history")[1]
        return sum(answer["values"][answer["series"].index("created")])

    before = created()
    with server.udp() as one, server.udp() as other:
        one.send(b"1")
        other.send(b"1")
        wait_for("both are counted", lambda: created() >= before + 1.5)  # by the second, and sweeps are not exact
    assert server.ask("GET", "/page/history?since=soon")[0] == 400
    assert server.ask("GET", "/page/history?since=9999999999")[1]["time"] == []


def test_a_burst_that_was_over_before_the_sweep_is_in_the_total_rate(server: Server) -> None:
    def sent() -> float:
        """Bytes, by the chart of the rate."""
        answer = server.ask("GET", "/page/history")[1]
        return sum(answer["values"][answer["series"].index("orig-rate")]) / 8

    before = sent()
    with server.udp(5502) as sender:
        for _ in range(200):
            sender.send(bytes(972))
        wait_for("they have come", lambda: server.removed("dport:5502"))
        wait_for("they are in the chart", lambda: sent() >= before + 0.9 * 200_000)  # by the second, roughly
