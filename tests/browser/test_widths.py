"""Whatever the screen's width: nothing of a row is cut that fits, the ends line up, the filter has room."""

from __future__ import annotations

import re

import pytest
from lab.network import IPV6
from playwright.sync_api import Locator, Page, expect

from browser.router import Server
from browser.rows import cell, to_port


def is_cut(cell: Locator) -> bool:
    return cell.evaluate("(cell) => cell.scrollWidth > cell.clientWidth")


@pytest.mark.parametrize(("width", "port"), [(1440, 5171), (1024, 5172)])
def test_timeouts_and_states_are_not_cut(server: Server, page: Page, width: int, port: int) -> None:
    page.set_viewport_size({"width": width, "height": 760})
    server.client.run("ping", "-c", "1", "-e", "65535", IPV6.server)
    with server.tcp(port):
        page.goto(f"/?filter=dport:{port} or (icmpv6 icmp-id:65535)&sort=protocol")
        row = to_port(page, port)
        expect(cell(row, "timeout")).to_have_text("23h59m59s")
        assert not is_cut(cell(row, "timeout"))
        assert not is_cut(cell(row, "tcp-state"))
        asked = page.locator(".row", has_text="type 128 id 65535")
        expect(asked).to_have_count(1)
        assert not is_cut(cell(asked, "tcp-state"))


def test_a_desk_shows_all_columns_at_once(page: Page) -> None:
    page.goto("/")
    table = page.locator("#table")
    expect(page.get_by_role("columnheader", name="Packets, reply direction")).to_be_in_viewport(ratio=1)
    assert not is_cut(table)


@pytest.mark.parametrize("width", [721, 768, 960, 961, 1024, 1100, 1280])
def test_the_filter_has_room(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 760})
    page.goto("/?group=src-address")  # says more of what is shown
    expect(page.locator("#shown")).to_have_text(re.compile("source"))
    field = page.get_by_label("Filter connections")
    assert field.bounding_box()["width"] >= 250
    # A million of them, in words.
    page.evaluate("document.querySelector('#total').textContent = '1,048,576 of 1,048,576'")
    assert field.bounding_box()["width"] >= 250
    expect(page.locator(".group-by > span")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    expect(page.get_by_role("button", name="Sign out")).to_be_in_viewport(ratio=1)


def test_on_a_phone_both_ends_stand_below_one_another_and_boxes_within_the_card(server: Server, page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    with server.udp(5173) as sender:
        sender.send(b"1")
        page.goto("/?filter=dport:5173")
        row = to_port(page, 5173)
        expect(row).to_have_count(1)
        starts = {cell(row, f"{end}-address").locator(".address").bounding_box()["x"] for end in ("src", "dst")}
        assert len(starts) == 1
        page.keyboard.press("j")
        page.keyboard.press("Space")
        box = row.locator(".box").bounding_box()
        card = row.bounding_box()
        assert box["x"] - card["x"] >= 8
        assert box["x"] + box["width"] < cell(row, "protocol").bounding_box()["x"]
