"""Groups: who talks most, and from a group back to its connections, by mouse and by key."""

from __future__ import annotations

import re

from lab.network import IPV4
from playwright.sync_api import Locator, Page, expect

from browser.router import Server
from browser.rows import cell, expect_in_order, to_port


def group(page: Page, name: str) -> Locator:
    return page.locator(".row:not([hidden])").filter(
        has=page.locator("[data-column='group']", has_text=re.compile(f"^{re.escape(name)}$"))
    )


def test_services_are_summed_and_a_click_leads_to_their_connections(server: Server, page: Page) -> None:
    with server.udp(5301) as one, server.udp(5301) as other, server.udp(5302) as third:
        one.send(b"x" * 72)
        other.send(b"x" * 72)
        third.send(b"x" * 1000)
        page.goto("/?filter=dport:5301,5302")
        expect(to_port(page, 5301)).to_have_count(2)
        page.get_by_label("Group by").select_option("Service")
        expect(page).to_have_url(re.compile("group=service"))
        expect(cell(group(page, "udp/5301"), "connections")).to_have_text("2")
        expect(cell(group(page, "udp/5301"), "orig-bytes")).to_have_text("200")
        expect(cell(group(page, "udp/5302"), "bytes")).to_have_text("1\u202f028")
        expect(page.locator(".count")).to_contain_text("2 services · 3 ")
        page.get_by_role("columnheader", name="Connections").get_by_role("button").click()
        expect_in_order(page, "group", ["udp/5301", "udp/5302"])
        group(page, "udp/5301").locator(".value").click()
        expect(to_port(page, 5301)).to_have_count(2)
        expect(to_port(page, 5302)).to_have_count(0)
        expect(page.get_by_label("Filter connections")).to_have_value("dport:5301,5302 proto:udp dport:5301")
        page.go_back()
        expect(group(page, "udp/5302")).to_have_count(1)
        group(page, "udp/5301").locator(".value").click(modifiers=["Shift"])
        expect(page.get_by_label("Filter connections")).to_have_value("dport:5301,5302 !(proto:udp dport:5301)")
        expect(group(page, "udp/5301")).to_have_count(0)
        expect(group(page, "udp/5302")).to_have_count(1)


def test_groups_by_key_alone(server: Server, page: Page) -> None:
    with server.udp(5303) as sender:
        sender.send(b"1")
        page.goto("/?filter=dport:5303")
        expect(to_port(page, 5303)).to_have_count(1)
        page.keyboard.press("g")
        page.keyboard.type("Source")
        expect(group(page, IPV4.client)).to_have_count(1)
        page.locator("#table").focus()
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        expect(to_port(page, 5303)).to_have_count(1)
        expect(page.get_by_label("Filter connections")).to_have_value(f"dport:5303 src:{IPV4.client}")
        expect(page.get_by_label("Group by")).to_have_value("")
        expect(page.locator("#detail")).to_be_hidden()


def test_a_link_to_groups_shows_them_in_their_order(server: Server, page: Page) -> None:
    with server.udp(5304) as one, server.udp(5305) as other:
        one.send(b"x" * 500)
        other.send(b"x" * 50)
        page.goto("/?filter=dport:5304,5305&group=service&sort=bytes")
        expect_in_order(page, "group", ["udp/5305", "udp/5304"])
        expect(page.get_by_role("columnheader", name="Bytes", exact=True)).to_have_attribute("aria-sort", "ascending")
        # An order that groups do not have is none.
        page.goto("/?filter=dport:5304&group=tcp-state&sort=timeout")
        expect(group(page, "not TCP")).to_have_count(1)
