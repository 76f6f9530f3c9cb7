"""The live table, on real traffic through a tracking router."""

from __future__ import annotations

import re
import socket

import pytest
from lab.network import IPV4
from playwright.sync_api import Locator, Page, expect

from browser.chromium import Complaints
from browser.router import Server
from browser.rows import cell, expect_in_order, to_port

UDP_HEADERS = 20 + 8


def search(page: Page) -> Locator:
    return page.get_by_label("Filter connections")


def test_a_connection_appears_counts_and_goes(server: Server, page: Page) -> None:
    server.set(udp_timeout="4s")
    page.goto("/")
    with server.udp(5001) as sender:
        sender.send(b"x" * 100)
        shown = to_port(page, 5001)
        expect(shown).to_have_count(1)
        expect(cell(shown, "protocol")).to_have_text("udp")
        expect(cell(shown, "src-address")).to_have_text(sender.source)
        expect(cell(shown, "dst-address")).to_have_text(f"{IPV4.server}:5001")
        expect(cell(shown, "orig-packets")).to_have_text("1")
        expect(cell(shown, "orig-bytes")).to_have_text(str(UDP_HEADERS + 100))
        for _ in range(4):
            sender.send(b"x" * 1000)
        expect(cell(shown, "orig-packets")).to_have_text("5")
        expect(cell(shown, "orig-bytes")).to_have_text("4\u202f240")
        # Silent from here on: it counts down, stays greyed for a moment, and goes.
        expect(cell(shown, "timeout")).to_have_text(re.compile(r"^[0-2]s$"))
        expect(shown).to_have_class(re.compile(r"\bended\b"))
        expect(shown).to_have_count(0)
    server.set(udp_timeout="1m")


def test_a_tcp_connection_shows_its_state_and_both_directions(server: Server, page: Page) -> None:
    page.goto("/?filter=dport:5002")
    with server.tcp(5002) as (client, accepted):
        accepted.sendall(b"y" * 5000)
        shown = to_port(page, 5002)
        expect(cell(shown, "tcp-state")).to_have_text("established")
        expect(cell(shown, "flags")).to_have_text("SAC")
        cell(shown, "flags").hover()
        expect(cell(shown, "flags")).to_have_attribute("title", re.compile("assured: stays when the table is full"))
        page.mouse.move(0, 0)
        expect(cell(shown, "timeout")).to_have_text(re.compile(r"^23h59m\d+s$"))
        expect(cell(shown, "repl-bytes")).to_have_text(re.compile(r"^5\u202f\d{3}$"))
        # Read to the end: closing with data unread would be a reset.
        assert len(client.recv(5000, socket.MSG_WAITALL)) == 5000
        accepted.close()
        client.close()
        expect(cell(shown, "tcp-state")).to_have_text("time-wait")


def test_a_heading_sorts_and_turns_round(server: Server, page: Page) -> None:
    senders = []
    for port, packets in ((5011, 3), (5012, 9), (5013, 6)):
        sender = server.udp(port)
        senders.append(sender)
        for _ in range(packets):
            sender.send(b"z")
    page.goto("/?filter=dport:5011-5013")
    packets = page.get_by_role("columnheader", name="Packets, original direction")
    counts = page.locator(".row:not([hidden]) [data-column='orig-packets']")
    expect(counts).to_have_count(3)
    packets.get_by_role("button").click()
    expect(packets).to_have_attribute("aria-sort", "descending")
    expect_in_order(page, "orig-packets", ["9", "6", "3"])
    packets.get_by_role("button").click()
    expect(packets).to_have_attribute("aria-sort", "ascending")
    expect_in_order(page, "orig-packets", ["3", "6", "9"])
    assert "sort=orig-packets" in page.url
    for sender in senders:
        sender.socket.close()


def test_the_search_box_filters_and_says_what_is_wrong(server: Server, page: Page) -> None:
    with server.udp(5021) as one, server.udp(5022) as other:
        page.goto("/")
        one.send(b"1")
        other.send(b"2")
        expect(to_port(page, 5021)).to_have_count(1)
        expect(to_port(page, 5022)).to_have_count(1)
        page.keyboard.press("/")
        expect(search(page)).to_be_focused()
        page.keyboard.type("dport:5022")
        expect(to_port(page, 5021)).to_have_count(0)
        expect(to_port(page, 5022)).to_have_count(1)
        expect(page.locator("#shown")).to_have_text("1 of ")
        assert page.url.endswith("/?filter=dport:5022")

        search(page).fill("no-such-field=1")
        expect(page.get_by_role("alert")).to_contain_text("no-such-field")
        expect(search(page)).to_have_attribute("aria-invalid", "true")
        # The view before stays, and goes on.
        expect(to_port(page, 5022)).to_have_count(1)
        other.send(b"3")
        expect(cell(to_port(page, 5022), "orig-packets")).to_have_text("2")

        search(page).fill("nothing-is-called-this")
        expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
        expect(page.get_by_role("alert")).to_be_hidden()
        page.get_by_role("button", name="Clear the filter").last.click()
        expect(to_port(page, 5021)).to_have_count(1)


# Whether the arrow's tip is within the character that it is about, and the error below it.
ARROW = """(position) => {
    const [box, problem] = document.querySelectorAll("#search input, #filter-error");
    const around = problem.getBoundingClientRect();
    const style = getComputedStyle(problem, "::before");
    const tip = around.left + problem.clientLeft + parseFloat(style.left) + parseFloat(style.width) / 2;
    const {fontSize, fontFamily, paddingLeft} = getComputedStyle(box);
    const context = document.createElement("canvas").getContext("2d");
    context.font = `${fontSize} ${fontFamily}`;
    const {width} = context.measureText("0");
    const outer = box.getBoundingClientRect();
    const begins = outer.left + box.clientLeft + parseFloat(paddingLeft) - box.scrollLeft + position * width;
    const right = tip > begins && tip < begins + width && around.top >= outer.bottom;
    return {right, scrolled: box.scrollLeft > 0};
}"""


@pytest.mark.parametrize(("width", "before"), [(1440, "proto:tcp "), (360, "proto:tcp "), (360, "dport:443 " * 6)])
def test_an_error_stands_under_its_place(server: Server, page: Page, width: int, before: str) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    page.goto("/")
    search(page).press_sequentially(f"{before}no-such:1")
    expect(page.get_by_role("alert")).to_contain_text("no-such")
    page.wait_for_function(f"(position) => ({ARROW})(position).right", arg=len(before))
    assert page.evaluate(ARROW, len(before))["scrolled"] == (len(before) > 40)


def test_on_a_phone_the_completion_is_in_sight(server: Server, page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto("/")
    search(page).press_sequentially("proto:tcp sta")
    offered = page.get_by_role("listbox", name="What can stand here")
    expect(offered.get_by_role("option").first).to_be_in_viewport(ratio=1)


def test_the_table_with_the_focus_has_a_whole_ring(page: Page) -> None:
    page.goto("/")
    page.locator("#table").focus()
    ring = """() => {
        const ring = getComputedStyle(document.querySelector(".stage"), "::after");
        const {clientWidth, clientHeight} = document.querySelector(".stage");
        return [ring.borderTopWidth, parseFloat(ring.width) === clientWidth, parseFloat(ring.height) === clientHeight];
    }"""
    assert page.evaluate(ring) == ["2px", True, True]


def test_pause_keeps_what_is_shown(server: Server, page: Page) -> None:
    with server.udp(5031) as sender:
        page.goto("/?filter=dport:5031")
        sender.send(b"1")
        packets = cell(to_port(page, 5031), "orig-packets")
        expect(packets).to_have_text("1")
        page.locator("#table").focus()
        page.keyboard.press("p")
        expect(page.locator("#live-label")).to_have_text("Paused")
        sender.send(b"2")
        swept = page.locator("#newest").text_content()
        expect(page.locator("#newest")).not_to_have_text(swept or "")
        expect(packets).to_have_text("1")
        page.keyboard.press("p")
        expect(packets).to_have_text("2")


def test_pointing_at_a_row_holds_the_order_but_not_the_counters(server: Server, page: Page) -> None:
    with server.udp(5041) as first, server.udp(5042) as second:
        first.send(b"1")
        first.send(b"1")
        second.send(b"1")
        page.goto("/?filter=dport:5041,5042&sort=-orig-packets")
        expect_in_order(page, "orig-packets", ["2", "1"])
        to_port(page, 5041).hover()
        expect(page.locator("#live-label")).to_have_text("Order held")
        for _ in range(4):
            second.send(b"1")
        expect_in_order(page, "orig-packets", ["2", "5"])
        page.get_by_label("Filter connections").hover()
        expect_in_order(page, "orig-packets", ["5", "2"])


def test_it_comes_back_after_the_server_was_away(server: Server, page: Page, complaints: list[Complaints]) -> None:
    page.goto("/")
    expect(page.locator("#live-label")).to_have_text("Live")
    server.stop()
    expect(page.locator("#live-label")).to_have_text("Stale")
    expect(page.get_by_text("Connection lost: what you see is from")).to_be_visible()
    server.start()
    expect(page.locator("#live-label")).to_have_text("Live")
    expect(page.locator("#stale")).to_be_hidden()
    with server.udp(5051) as sender:
        sender.send(b"1")
        expect(to_port(page, 5051)).to_have_count(1)
    complaints[0].expect("WebSocket connection to")
    complaints[0].expect("net::ERR_CONNECTION_REFUSED")  # it asks whether it is still signed in


def test_the_view_lives_in_the_address(server: Server, page: Page) -> None:
    page.goto("/?filter=udp&sort=dst-address&columns=dst-address,timeout")
    expect(search(page)).to_have_value("udp")
    headings = page.locator("[role=columnheader]:not([data-column='picked'])")
    expect(headings).to_have_text(["Destination", "Timeout"])
    expect(headings.first).to_have_attribute("aria-sort", "ascending")


@pytest.mark.parametrize("width", [360, 1440])
def test_the_page_never_scrolls_sideways(server: Server, page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    page.goto("/")
    with server.udp() as sender:
        sender.send(b"1")
        expect(to_port(page, sender.port)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == width
        row_box = to_port(page, sender.port).bounding_box()
        assert row_box is not None
        assert row_box["width"] <= width
