"""What the page does beyond the table: panel, columns, filtering by click, keys, counters, theme."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack

import pytest
from lab.network import IPV4
from playwright.sync_api import Page, expect
from running import until

from browser.router import Server
from browser.rows import cell, to_port

HEADINGS = "[role=columnheader]:not([data-column='picked'])"


def test_a_click_on_a_value_filters_and_back_undoes_it(server: Server, page: Page) -> None:
    with server.udp(5101) as one, server.udp(5102) as other:
        one.send(b"1")
        other.send(b"2")
        page.goto("/?filter=dport:5101,5102")
        expect(to_port(page, 5101)).to_have_count(1)
        expect(to_port(page, 5102)).to_have_count(1)
        cell(to_port(page, 5101), "dst-address").locator(".port").click()
        expect(to_port(page, 5102)).to_have_count(0)
        expect(page.get_by_label("Filter connections")).to_have_value("dport:5101,5102 dport:5101")
        page.go_back()
        expect(to_port(page, 5102)).to_have_count(1)
        expect(page.get_by_label("Filter connections")).to_have_value("dport:5101,5102")
        cell(to_port(page, 5101), "src-address").locator(".port").click(modifiers=["Shift"])
        expect(to_port(page, 5101)).to_have_count(0)
        expect(to_port(page, 5102)).to_have_count(1)


def test_the_filter_is_completed_by_key(server: Server, page: Page) -> None:
    with server.udp(5106) as sender:
        sender.send(b"1")
        page.goto("/")
        page.keyboard.press("/")
        page.keyboard.type("dport:5106 pro")
        box = page.get_by_label("Filter connections")
        options = page.get_by_role("listbox", name="What can stand here").get_by_role("option")
        expect(options).to_have_text([re.compile("^proto:"), re.compile("^protocol:")])
        page.keyboard.press("Tab")
        expect(box).to_have_value("dport:5106 proto:")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(box).to_have_value("dport:5106 proto:udp ")
        expect(page.get_by_role("listbox", name="What can stand here")).to_be_hidden()
        expect(to_port(page, 5106)).to_have_count(1)
        # Esc closes the list first, then empties the box.
        page.keyboard.type("st")
        page.keyboard.press("Escape")
        expect(box).to_have_value("dport:5106 proto:udp st")
        page.keyboard.press("Escape")
        expect(box).to_have_value("")


def test_the_panel_follows_its_connection_to_the_end(server: Server, page: Page) -> None:
    server.set(udp_timeout="3s")
    with server.udp(5111) as sender:
        sender.send(b"x" * 72)
        page.goto("/?filter=dport:5111")
        expect(to_port(page, 5111)).to_have_count(1)
        page.locator("#table").focus()
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        panel = page.locator("#detail")
        expect(panel.get_by_role("heading", level=2)).to_have_text("UDP")
        expect(panel).to_contain_text(sender.source)
        expect(panel).to_contain_text(f"{IPV4.server}:5111")
        expect(panel).to_contain_text("100 B in 1 packet")
        sender.send(b"x" * 72)
        expect(panel).to_contain_text("200 B in 2 packets")
        # It is followed although the table shows other rows, and says so when it is over.
        page.get_by_label("Filter connections").fill("no-row-has-this")
        expect(panel).to_contain_text("has ended")
        expect(panel).to_contain_text("200 B in 2 packets")
    page.locator("#table").focus()
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    server.set(udp_timeout="1m")


def test_keys_walk_the_rows(server: Server, page: Page) -> None:
    with server.udp(5121) as one, server.udp(5122) as other:
        one.send(b"1")
        other.send(b"2")
        page.goto("/?filter=dport:5121,5122&sort=dst-address")
        expect(to_port(page, 5122)).to_have_count(1)
        page.keyboard.press("j")
        expect(to_port(page, 5121)).to_have_attribute("aria-selected", "true")
        page.keyboard.press("j")
        page.keyboard.press("j")
        expect(to_port(page, 5122)).to_have_attribute("aria-selected", "true")
        page.keyboard.press("k")
        expect(to_port(page, 5121)).to_have_attribute("aria-selected", "true")
        page.keyboard.press("Escape")
        expect(page.locator(".row.selected")).to_have_count(0)
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_contain_text("seen-reply")


def test_columns_are_chosen_moved_and_kept(server: Server, page: Page) -> None:
    page.goto("/")
    headings = page.locator(HEADINGS)
    expect(headings).to_have_count(12)
    page.get_by_title("Columns").click()
    chooser = page.get_by_role("dialog")
    chooser.get_by_role("checkbox", name="connection-mark").check()
    chooser.get_by_role("checkbox", name="orig-packets").uncheck()
    chooser.get_by_role("button", name="Flags: further right").click()
    page.keyboard.press("Escape")
    expect(headings).to_have_count(12)
    expect(headings.nth(0)).to_have_text("Proto")
    expect(headings.nth(1)).to_have_text("Flags")
    expect(headings.last).to_have_text("Mark")
    assert re.search(r"columns=protocol,flags,.*,connection-mark$", page.url)
    # Kept for the next visit, and a link overrules it.
    page.goto("/")
    expect(headings.last).to_have_text("Mark")
    page.goto("/?columns=timeout")
    expect(headings).to_have_text(["Timeout"])


def test_a_heading_is_dragged_to_another_place(server: Server, page: Page) -> None:
    page.goto("/")
    headings = page.locator(HEADINGS)
    page.get_by_role("columnheader", name="State").drag_to(headings.nth(0), target_position={"x": 3, "y": 10})
    expect(headings.nth(0)).to_have_text("State")
    expect(headings.nth(1)).to_have_text("Flags")
    # It was carried, not clicked.
    assert "sort=" not in page.url
    assert "columns=tcp-state,flags," in page.url
    page.get_by_role("columnheader", name="State").get_by_role("button").click()
    expect(headings.nth(0)).to_have_attribute("aria-sort", "ascending")


def test_the_width_of_a_column_is_dragged_and_kept(server: Server, page: Page) -> None:
    page.goto("/")
    heading = page.get_by_role("columnheader", name="State")
    expect(heading).to_be_visible()
    before = until(heading.bounding_box)  # none while it is painted anew
    edge, middle = before["x"] + before["width"], before["y"] + before["height"] / 2
    page.mouse.move(edge, middle)
    page.mouse.down()
    page.mouse.move(edge + 40, middle, steps=4)
    page.mouse.up()

    def width() -> float | None:
        box = heading.bounding_box()
        return box and box["width"]

    until(lambda: width() == before["width"] + 40)
    page.reload()
    until(lambda: width() == before["width"] + 40)


def test_all_counters_are_explained(server: Server, page: Page) -> None:
    page.goto("/")
    page.get_by_title("All counters").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("IP packets met, each once")
    offered = dialog.locator("dt", has_text="offered packets").locator("+ dd")
    before = offered.inner_text()
    with server.udp(5131) as sender:
        sender.send(b"1")
        expect(offered).not_to_have_text(before)
    # What the datapath counts is known here by name: the rest is the web server's own.
    datapath = server.ask("GET", "/healthz")[1]["counters"]
    other = dialog.locator("section", has=page.get_by_role("heading", name="Server")).locator("dt").all_inner_texts()
    known = {"failed sweeps", "websockets", "websockets refused"}
    assert set(other) <= known, datapath


def test_the_theme_is_kept(server: Server, page: Page) -> None:
    page.emulate_media(color_scheme="light")
    page.goto("/")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_title("Switch to dark").click()
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    assert page.evaluate(background) == dark
    page.get_by_title("Switch to light").click()
    assert page.evaluate(background) == light
    # Back to what the system has: it is followed again.
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(background) == dark


def test_the_panel_draws_the_way_through_nat_and_tells_the_states_seen(server: Server, page: Page) -> None:
    server.router.run("nft", "add table ip panel")
    chain = "{ type nat hook postrouting priority 100; }"
    server.router.run("nft", f"add chain ip panel out {chain}")
    server.router.run("nft", "add rule ip panel out oifname wan masquerade")
    try:
        page.goto("/?filter=dport:5141")
        with server.tcp(5141) as (client, accepted):
            translated, port = accepted.getpeername()
            assert translated != IPV4.client
            cell(to_port(page, 5141), "timeout").click()
            panel = page.locator("#detail")
            ends = panel.locator(".way .end, .way .nat")
            source = ":".join(map(str, client.getsockname()))
            expect(ends).to_have_text(
                [f"Source{source}", f"seen by the destination as{translated}:{port}", f"Destination{IPV4.server}:5141"]
            )
            expect(panel).to_contain_text("its source address is translated")
            expect(panel).to_contain_text(re.compile(r"23h59m\d+s left unless a packet comes"))
            client.sendall(b"x" * 100_000)
            assert len(accepted.recv(100_000, socket.MSG_WAITALL)) == 100_000
            expect(panel.locator(".peak")).to_have_text(re.compile(r"peak [1-9][\d.]* [kMG]bps"))
            accepted.close()
            assert client.recv(1) == b""
            client.close()
            states = panel.locator(".states b")
            expect(states.last).to_have_text("time-wait")
            expect(states.first).to_have_text("established")
            expect(panel.locator(".states li").first).to_have_text(re.compile(r"^\d\d:\d\d:\d\destablished open"))
    finally:
        server.router.run("nft", "delete table ip panel")


def test_on_a_phone_what_a_card_shows_is_chosen_too(server: Server, page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    with server.udp(5145) as sender:
        sender.send(b"1" * 72)
        page.goto("/?filter=dport:5145")
        row = to_port(page, 5145)
        expect(row).to_have_count(1)
        before = row.bounding_box()
        page.get_by_title("Columns and names").click()
        chooser = page.get_by_role("dialog")
        chooser.get_by_role("checkbox", name="orig-bytes").check()
        chooser.get_by_role("checkbox", name="tcp-state").uncheck()
        page.keyboard.press("Escape")
        expect(cell(row, "orig-bytes")).to_have_text("100")
        expect(cell(row, "tcp-state")).to_have_count(0)
        assert row.bounding_box()["height"] == before["height"] + 20
        page.reload()
        expect(cell(row, "orig-bytes")).to_be_visible()
        # It is a choice for phones: the address has nothing of it, and the table on a desk is another one.
        assert "columns=" not in page.url
        page.set_viewport_size({"width": 1440, "height": 740})
        expect(page.locator(HEADINGS)).to_have_count(12)


def test_on_a_middling_screen_the_rates_are_in_sight(server: Server, page: Page) -> None:
    page.set_viewport_size({"width": 768, "height": 740})
    page.goto("/")
    rate = page.get_by_role("columnheader", name="Rate, reply direction")
    expect(rate).to_be_in_viewport(ratio=1)
    # What was chosen stays as it was chosen.
    page.goto("/?columns=flags,protocol,timeout")
    expect(page.locator(HEADINGS)).to_have_text(["Flags", "Proto", "Timeout"])


def test_on_a_tablet_the_panel_lies_below_the_table(server: Server, page: Page) -> None:
    page.set_viewport_size({"width": 768, "height": 1024})
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(server.udp(5151)).send(b"1")
        page.goto("/?filter=dport:5151&sort=src-address")
        expect(page.locator("#table")).to_have_attribute("aria-rowcount", "41")
        width = page.locator("#table").bounding_box()["width"]
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        panel = page.locator("#detail")
        expect(panel.get_by_role("button", name="Remove")).to_be_in_viewport(ratio=1)
        table, below = page.locator("#table").bounding_box(), panel.bounding_box()
        assert (table["width"], below["width"]) == (width, width)
        assert table["y"] + table["height"] <= below["y"]
        assert table["height"] > below["height"]
        # Walking on, the chosen row never goes below it.
        for _ in range(39):
            page.keyboard.press("j")
        chosen = page.locator(".row.selected")
        expect(chosen).to_have_attribute("aria-rowindex", "41")
        box = chosen.bounding_box()
        assert box["y"] + box["height"] <= below["y"] + 1


@pytest.mark.parametrize(("width", "port"), [(1440, 5161), (360, 5163)])
def test_the_panel_says_when_it_began_and_leads_to_its_like(server: Server, page: Page, width: int, port: int) -> None:
    both = f"dport:{port},{port + 1}"
    page.set_viewport_size({"width": width, "height": 760})
    with server.udp(port) as one, server.udp(port + 1) as other:
        one.send(b"1")
        other.send(b"1")
        page.goto(f"/?filter={both}&sort=dst-address")
        expect(to_port(page, port + 1)).to_have_count(1)
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        panel = page.locator("#detail")
        expect(panel.locator(".began")).to_have_text(re.compile(r"^began \d\d:\d\d:\d\d, (\d+m)?\d+s ago$"))
        panel.get_by_role("button", name=f"udp/{port}").click(modifiers=["Shift"])
        expect(to_port(page, port)).to_have_count(0)
        expect(page.get_by_label("Filter connections")).to_have_value(f"{both} !(proto:udp dport:{port})")
        expect(panel).to_be_visible(visible=width > 720)  # on a phone it would cover what was asked for
        page.go_back()
        expect(to_port(page, port)).to_have_count(1)
        if width <= 720:
            page.keyboard.press("j")
            page.keyboard.press("Enter")
        panel.get_by_role("button", name=f"udp/{port}").focus()
        page.keyboard.press("Enter")
        expect(to_port(page, port + 1)).to_have_count(0)
        expect(to_port(page, port)).to_have_count(1)
