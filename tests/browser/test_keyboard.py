"""From signing in to signing out without a mouse, by Tab and keys alone, and always seeing where one is."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from browser.chromium import page_of
from browser.router import PASSWORDS, URL, Server
from browser.rows import expect_in_order, to_port

# Whether the element with the focus shows it: by a ring of its own, or, for the table, by that around its stage.
RING = """() => {
    const at = document.activeElement;
    if (!at.matches(":focus-visible")) return false;
    const ring = (style) => style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
    const around = getComputedStyle(document.querySelector(".stage"), "::after");
    return at.id === "table" ? parseFloat(around.borderTopWidth) >= 1 : ring(getComputedStyle(at));
}"""


def tab_to(page: Page, wanted: Locator) -> None:
    """Tab, forwards, until it has the focus."""
    expect(wanted).to_be_visible()
    for _ in range(120):
        page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            assert page.evaluate(RING), f"the focus is on {wanted}, and nobody sees it"
            return
    raise AssertionError(f"Tab does not lead to {wanted}")


@pytest.fixture
def mouseless(server: Server, browser: Browser) -> Iterator[Page]:
    """A page of somebody who has not signed in."""
    with page_of(
        browser.new_context(base_url=URL, viewport={"width": 1440, "height": 760}, color_scheme="light")
    ) as (page, _):
        yield page
        server.set(icmp_timeout="10s")


def test_all_of_it_goes_by_keyboard(server: Server, mouseless: Page) -> None:
    page, press = mouseless, mouseless.keyboard.press
    with ExitStack() as stack:
        for port, packets in ((5901, 3), (5902, 9), (5903, 6), (5904, 1)):
            sender = stack.enter_context(server.udp(port))
            for _ in range(packets):
                sender.send(b"x" * 72)

        # Sign in.
        page.goto("/")
        expect(page.get_by_label("Name")).to_be_focused()
        page.keyboard.type("full")
        press("Tab")
        page.keyboard.type(PASSWORDS["full"])
        press("Enter")
        expect(page.locator("html")).to_have_attribute("data-role", "full")

        # Filter, with completion; then on to the headings, and sort, both ways.
        press("/")
        page.keyboard.type("dport:5901-5904 pro")
        expect(page.get_by_role("option").first).to_be_visible()
        press("Tab")
        page.keyboard.type("udp ")
        expect(page.locator("#table")).to_have_attribute("aria-rowcount", "5")  # the headings are one
        packets_heading = page.get_by_role("columnheader", name="Packets, original direction")
        tab_to(page, packets_heading.get_by_role("button"))
        press("Enter")
        expect_in_order(page, "orig-packets", ["9", "6", "3", "1"])
        press("Enter")
        expect_in_order(page, "orig-packets", ["1", "3", "6", "9"])

        # Walk the rows, open one's panel, let the panel follow the walk, close it.
        press("j")
        expect(to_port(page, 5904)).to_have_attribute("aria-selected", "true")
        chosen = page.locator("#table").get_attribute("aria-activedescendant")
        assert page.locator(f"#{chosen}").get_attribute("aria-selected") == "true"
        tab_to(page, page.locator("#table"))
        press("Enter")
        panel = page.locator("#detail")
        expect(panel).to_contain_text(":5904")
        press("ArrowDown")
        expect(panel).to_contain_text(":5901")
        expect(panel).to_contain_text("300 B in 3 packets")
        press("k")
        expect(panel).to_contain_text(":5904")

        # Remove it from its panel, with confirmation; then two that are selected.
        tab_to(page, panel.get_by_role("button", name="Remove"))
        press("Enter")
        dialog = page.get_by_role("dialog", name="Remove")
        expect(dialog).to_contain_text(":5904")
        press("Escape")
        expect(dialog).to_be_hidden()
        press("Enter")  # the focus is where it was
        tab_to(page, dialog.get_by_role("button", name="Remove it"))
        press("Enter")
        expect(page.locator("#told")).to_have_text("1 connection removed")
        expect(panel).to_contain_text("has ended")
        press("Escape")
        expect(panel).to_be_hidden()
        expect(page.locator("#table")).to_be_focused()
        # No other row is taken for it once it is gone; the next one stands in its place.
        expect(to_port(page, 5904)).to_have_count(0)
        expect(page.locator(".row.selected")).to_have_count(0)
        press("x")
        expect(dialog).to_be_hidden()
        for _ in range(2):
            press("j")
            press(" ")
        expect(page.locator("#picked-count")).to_have_text("2 selected")
        press("x")
        press("Enter")
        expect(page.locator("#told")).to_have_text("2 connections removed")
        expect_in_order(page, "orig-packets", ["9"])

        # Columns, groups, and back from a group to its rows.
        tab_to(page, page.get_by_role("button", name="Columns and names"))
        press("Enter")
        tab_to(page, page.get_by_role("button", name="Proto: further left"))
        press("Enter")
        press("Escape")
        headings = page.locator("[role=columnheader]:not([data-column='picked'])")
        expect(headings.first).to_have_text("Proto")
        press("g")
        expect(page.get_by_label("Group by")).to_be_focused()
        press("ArrowDown")
        press("ArrowDown")
        press("ArrowDown")
        expect(page.locator("[data-column='group'].cell .value:visible")).to_have_text("udp/5902")
        press("Escape")
        tab_to(page, page.locator("#table"))
        press("j")
        press("Enter")
        expect(to_port(page, 5902)).to_have_count(1)

        # Change a setting.
        press("s")
        settings = page.get_by_role("dialog", name="Settings")
        field = settings.get_by_label("icmp-timeout")
        tab_to(page, field)
        press("Control+A")
        page.keyboard.type("17s")
        press("Enter")
        expect(field.locator("xpath=..").locator(".saved")).to_be_visible()
        assert server.ask("GET", "/rest/ip/firewall/connection/tracking")[1]["icmp-timeout"] == "17s"
        press("Escape")
        expect(settings).to_be_hidden()

        # The theme, pausing, help.
        background = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(background)
        tab_to(page, page.locator("#theme"))
        press("Enter")
        assert page.evaluate(background) != light
        press("p")
        expect(page.locator("#live-label")).to_have_text("Paused")
        press("p")
        expect(page.locator("#live-label")).to_have_text("Live")
        press("?")
        expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
        press("Escape")

        # Export.
        tab_to(page, page.get_by_role("button", name="Export"))
        press("Enter")
        tab_to(page, page.get_by_role("dialog", name="Export").get_by_role("link", name="CSV"))
        with page.expect_download() as download:
            press("Enter")
        rows = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
        assert [row["orig-packets"] for row in rows] == ["9"]

        # Sign out.
        tab_to(page, page.get_by_role("button", name="Sign out full"))
        press("Enter")
        expect(page).to_have_url(re.compile(f"^{URL}/sign-in"))
