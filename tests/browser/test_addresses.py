"""Long addresses: what tells them apart stays in sight; all of them is in the tooltip, the panel and what is copied."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from lab.network import IPV6
from playwright.sync_api import Page, expect

from browser.router import Server
from browser.rows import cell, to_port

LONG = "fd09:1::a1b2:c3d4:e5f6:7a8b"
WIDTHS = [1440, 1024, 768, 360]


@pytest.fixture(scope="module")
def long_address(server: Server) -> Iterator[None]:
    server.client.ip(f"addr add {LONG}/64 dev eth0 nodad")
    yield
    server.client.ip(f"addr del {LONG}/64 dev eth0")


@pytest.fixture
def sender(server: Server, long_address: None) -> Iterator[socket.socket]:
    """Has sent a datagram from the long address and port 54321 to port 5801."""
    with server.client.socket(socket.AF_INET6, socket.SOCK_DGRAM) as made:
        made.bind((LONG, 54321))
        made.sendto(b"1", (IPV6.server, 5801))
        yield made


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.usefixtures("sender")
def test_the_last_group_and_the_port_stay_in_sight(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 760})
    page.goto("/?filter=dport:5801")
    source = cell(to_port(page, 5801), "src-address")
    expect(source).to_have_text(f"[{LONG}]:54321")
    expect(source).to_be_visible()
    around = source.bounding_box()
    for part, text in ((source.locator(".end"), ":7a8b]"), (source.locator(".port"), ":54321")):
        expect(part).to_have_text(text)
        box = part.bounding_box()
        assert around["x"] < box["x"]
        assert box["x"] + box["width"] <= around["x"] + around["width"] + 1
    if width > 700:  # a phone's card has room for it
        assert source.locator(".begin").evaluate("part => part.scrollWidth > part.clientWidth")


@pytest.mark.usefixtures("sender")
def test_all_of_it_is_in_the_tooltip_the_panel_and_what_is_copied(page: Page) -> None:
    page.goto("/?filter=dport:5801")
    row = to_port(page, 5801)
    source = cell(row, "src-address")
    source.hover()
    expect(source).to_have_attribute("title", f"[{LONG}]:54321\nClick: only these. Shift-click: without these.")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("#detail .way .end").first).to_have_text(f"Source[{LONG}]:54321")
    copied = {source: f"[{LONG}]:54321", row: f"udp\t[{LONG}]:54321\t[{IPV6.server}]:5801"}
    for what, text in copied.items():
        what.evaluate("part => getSelection().selectAllChildren(part)")
        page.keyboard.press("Control+C")
        page.evaluate("getSelection().removeAllRanges()")
        page.get_by_label("Filter connections").fill("")
        page.get_by_label("Filter connections").press("Control+V")
        assert text.replace("\t", " ") in page.get_by_label("Filter connections").input_value().replace("\t", " ")


def test_of_several_rows_each_is_a_line_in_the_order_that_is_seen(page: Page, sender: socket.socket) -> None:
    """Which is not the document's once it has been scrolled."""
    ports = range(5811, 5871)
    for port in ports:
        sender.sendto(b"1", (IPV6.server, port))
    page.goto(f"/?filter=dport:{ports[0]}-{ports[-1]}&sort=dst-address&columns=protocol,dst-address")
    expect(page.locator("#table")).to_have_attribute("aria-rowcount", str(len(ports) + 1))  # the headings are one
    page.evaluate("addEventListener('copy', (event) => { window.copied = event.clipboardData.getData('text/plain'); })")

    def copied() -> list[str]:
        page.evaluate("getSelection().selectAllChildren(document.querySelector('.layer'))")
        page.keyboard.press("Control+C")
        page.evaluate("getSelection().removeAllRanges()")
        return page.evaluate("copied").split("\n")

    page.locator("#table").focus()
    page.keyboard.press("End")
    expect(to_port(page, ports[-1])).to_be_in_viewport(ratio=1)
    expect(page.locator(".row.waiting:visible")).to_have_count(0)
    stand = page.locator(".row:not([hidden])").evaluate_all("rows => rows.map((row) => row.ariaRowIndex - 2)")
    first = min(stand)
    assert first > 0
    assert stand != sorted(stand)
    assert copied() == [f"udp\t[{IPV6.server}]:{port}" for port in ports[first:]]
    page.get_by_label("Filter connections").fill(f"dport:{ports[3]},{ports[5]}")
    expect(page.locator("#table")).to_have_attribute("aria-rowcount", "3")
    expect(page.locator(".row:not([hidden])")).to_have_count(2)
    page.locator("#table").focus()
    assert copied() == [f"udp\t[{IPV6.server}]:{ports[n]}" for n in (3, 5)]


@pytest.mark.usefixtures("sender")
def test_a_double_click_makes_the_column_as_wide_as_it_needs(page: Page) -> None:
    page.goto("/?filter=dport:5801")
    row = to_port(page, 5801)
    begins = cell(row, "src-address").locator(".begin")
    cut = "part => part.scrollWidth > part.clientWidth"
    expect(begins).to_be_visible()
    assert begins.evaluate(cut)
    heading = page.get_by_role("columnheader", name="Source")
    before = heading.bounding_box()["width"]
    heading.locator(".grip").dblclick()
    assert not begins.evaluate(cut)
    page.reload()
    expect(begins).to_be_visible()
    assert not begins.evaluate(cut)
    page.get_by_title("Columns and names").click()
    page.get_by_role("button", name="As it was at first").click()
    page.keyboard.press("Escape")
    assert heading.bounding_box()["width"] == before
