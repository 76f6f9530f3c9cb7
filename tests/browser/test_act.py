"""Removing connections: one, those that are picked, all that match; by mouse and by key; never without being asked."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from lab.network import IPV6
from playwright.sync_api import Browser, Locator, Page, expect

from browser.chromium import Complaints
from browser.router import Sender, Server
from browser.rows import cell, to_port

# A change asked for by the page's own session, and what the server says.
CHANGE = """async ([method, path, body]) => {
    const {csrf} = await (await fetch("/page/session")).json();
    const headers = {"X-CSRF-Token": csrf, "Content-Type": "application/json"};
    const answer = await fetch(path, {method, headers, ...(body && {body: JSON.stringify(body)})});
    return [answer.status, (await answer.json()).detail];
}"""


def opened(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator("html")).to_have_attribute("data-role", "full")


def several(server: Server, stack: ExitStack, port: int, number: int) -> list[Sender]:
    """So many connections to a port."""
    senders = [stack.enter_context(server.udp(port)) for _ in range(number)]
    for sender in senders:
        sender.send(b"1")
    return senders


def there(server: Server, where: str) -> int:
    found = 0
    for tree in ("ip", "ipv6"):
        status, rows = server.ask("POST", f"/rest/{tree}/firewall/connection/print", {"where": where})
        assert status == 200
        found += len(rows)
    return found


def box(row: Locator) -> Locator:
    return cell(row, "picked")


def test_one_is_removed_by_key_and_one_from_its_panel(server: Server, page: Page) -> None:
    with ExitStack() as stack:
        several(server, stack, 5601, 1)
        several(server, stack, 5602, 1)
        opened(page, "/?filter=dport:5601,5602&sort=dst-address")
        expect(to_port(page, 5602)).to_have_count(1)
        page.keyboard.press("j")
        page.keyboard.press("x")
        dialog = page.get_by_role("dialog", name="Remove")
        expect(dialog).to_contain_text("1 connection")
        expect(dialog).to_contain_text(":5601")
        # Nothing has happened yet, and nothing does.
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        assert there(server, "dport:5601") == 1
        page.keyboard.press("x")
        page.keyboard.press("Enter")
        expect(to_port(page, 5601)).to_have_count(0)
        expect(page.locator("#told")).to_have_text("1 connection removed")
        assert (there(server, "dport:5601"), there(server, "dport:5602")) == (0, 1)

        cell(to_port(page, 5602), "timeout").click()
        page.locator("#detail").get_by_role("button", name="Remove").click()
        dialog.get_by_role("button", name="Remove it").click()
        expect(page.locator("#detail")).to_contain_text("has ended")
        assert there(server, "dport:5602") == 0


def test_those_that_are_picked_are_removed_and_no_other(server: Server, page: Page) -> None:
    with ExitStack() as stack:
        for port in range(5611, 5617):
            several(server, stack, port, 1)
        six = stack.enter_context(server.client.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        six.sendto(b"1", (IPV6.server, 5617))
        opened(page, "/?filter=dport:5611-5617&sort=dst-address")
        expect(page.locator(".row:not([hidden])")).to_have_count(7)
        # By key: the first one. By mouse: the third, and with Shift all up to the fifth; the IPv6 one.
        page.keyboard.press("j")
        page.keyboard.press(" ")
        box(to_port(page, 5613)).click()
        box(to_port(page, 5615)).click(modifiers=["Shift"])
        box(to_port(page, 5617)).click()
        expect(page.locator("#picked-count")).to_have_text("5 selected")
        box(to_port(page, 5614)).click()
        expect(box(to_port(page, 5614))).to_have_attribute("aria-selected", "false")
        expect(page.locator("#picked-count")).to_have_text("4 selected")
        page.keyboard.press("x")
        dialog = page.get_by_role("dialog", name="Remove")
        expect(dialog.locator(".to-remove li")).to_have_count(4)
        dialog.get_by_role("button", name="Remove 4").click()
        expect(page.locator("#told")).to_have_text("4 connections removed")
        expect(page.locator("#picked")).to_be_hidden()
        expect(page.locator(".row:not([hidden]):not(.ended)")).to_have_count(3)
        assert [there(server, f"dport:{port}") for port in range(5611, 5618)] == [0, 1, 0, 1, 0, 1, 0]


def test_what_is_picked_and_ends_is_let_go(server: Server, page: Page) -> None:
    with ExitStack() as stack:
        several(server, stack, 5618, 2)
        opened(page, "/?filter=dport:5618")
        expect(to_port(page, 5618)).to_have_count(2)
        for row in (0, 1):
            box(to_port(page, 5618).nth(row)).click()
        expect(page.locator("#picked-count")).to_have_text("2 selected")
        server.removed("dport:5618")
        expect(page.locator("#picked")).to_be_hidden()
        # Esc lets go.
        several(server, stack, 5618, 1)
        live = page.locator(".row:not([hidden]):not(.ended)")
        expect(live).to_have_count(1)
        box(live).click()
        expect(page.locator("#picked-count")).to_have_text("1 selected")
        page.keyboard.press("Escape")
        expect(page.locator("#picked")).to_be_hidden()


def test_all_that_match_are_removed_once_their_number_is_typed(server: Server, page: Page) -> None:
    with ExitStack() as stack:
        several(server, stack, 5621, 101)
        several(server, stack, 5622, 1)
        opened(page, "/")
        remove = page.get_by_role("button", name="Remove all that match")
        expect(page.locator("#live")).to_have_attribute("data-mode", "live")
        expect(remove).to_be_disabled()  # never without a filter
        page.get_by_label("Filter connections").fill("dport:5621")
        expect(page.locator("#shown")).to_have_text("101 of ")
        remove.click()
        dialog = page.get_by_role("dialog", name="Remove")
        expect(dialog).to_contain_text("101 connections that match “dport:5621”")
        button = dialog.get_by_role("button", name="Remove 101")
        expect(button).to_be_disabled()
        typed = dialog.get_by_role("textbox")
        typed.fill("10")
        expect(button).to_be_disabled()
        typed.press("Enter")
        assert there(server, "dport:5621") == 101
        typed.fill("101")
        typed.press("Enter")
        expect(page.locator("#told")).to_have_text("101 connections removed")
        assert (there(server, "dport:5621"), there(server, "dport:5622")) == (0, 1)


def test_few_that_match_need_no_typing_but_more_that_came_meanwhile_do(server: Server, page: Page) -> None:
    with ExitStack() as stack:
        several(server, stack, 5631, 100)
        opened(page, "/?filter=dport:5631")
        expect(page.locator("#table")).to_have_attribute("aria-rowcount", "101")  # the headings are one
        page.get_by_role("button", name="Remove all that match").click()
        dialog = page.get_by_role("dialog", name="Remove")
        button = dialog.get_by_role("button", name="Remove 100")
        expect(button).to_be_enabled()
        expect(dialog.get_by_role("textbox")).to_be_hidden()
        several(server, stack, 5631, 1)
        expect(page.locator("#table")).to_have_attribute("aria-rowcount", "102")
        button.click()
        expect(dialog.get_by_role("alert")).to_have_text("There are more of them now.")
        expect(dialog.get_by_role("button", name="Remove 101")).to_be_disabled()
        assert there(server, "dport:5631") == 101
        dialog.get_by_role("textbox").fill("101")
        dialog.get_by_role("button", name="Remove 101").click()
        expect(page.locator("#told")).to_have_text("101 connections removed")
        assert there(server, "dport:5631") == 0


def test_who_may_only_look_sees_none_of_it_and_is_refused(server: Server, browser: Browser) -> None:
    with ExitStack() as stack:
        context = server.signed_in(browser, "read")
        stack.callback(context.close)
        page = context.new_page()
        complaints = Complaints(page)
        several(server, stack, 5641, 1)
        page.goto("/?filter=dport:5641")
        expect(page.locator("html")).to_have_attribute("data-role", "read")
        expect(to_port(page, 5641)).to_have_count(1)
        expect(page.locator("[data-column='picked']")).to_have_count(0)
        page.keyboard.press("j")
        page.keyboard.press(" ")
        page.keyboard.press("Enter")
        expect(page.locator("#detail")).to_be_visible()
        page.keyboard.press("x")
        expect(page.get_by_role("button", name="Remove", exact=False)).to_have_count(0)
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.keyboard.press("?")
        expect(page.get_by_role("dialog").get_by_text("selected ones")).to_be_hidden()
        page.keyboard.press("Escape")
        # Settings may be looked at.
        page.keyboard.press("s")
        settings = page.get_by_role("dialog", name="Settings")
        expect(settings.get_by_label("icmp-timeout")).to_have_text("10s")
        expect(settings).to_contain_text("changing them takes a user of the full role")
        expect(settings.locator("input, select, .reset:enabled")).to_have_count(0)
        assert complaints.found == []
        # Asked all the same, with all that the page has, the server refuses.
        _, rows = server.ask("POST", "/rest/ip/firewall/connection/print", {"where": "dport:5641"})
        connection, tracking = "/rest/ip/firewall/connection", "/rest/ip/firewall/connection/tracking"
        asked = [
            ("POST", f"{connection}/remove", {".id": rows[0][".id"]}),
            ("POST", f"{connection}/remove", {"where": "dport:5641"}),
            ("DELETE", f"{connection}/{rows[0]['.id']}", None),
            ("POST", f"{tracking}/set", {"icmp-timeout": "11s"}),
        ]
        for method, path, body in asked:
            status, detail = page.evaluate(CHANGE, [method, path, body])
            assert (status, "full" in detail) == (403, True), (path, status, detail)
        assert there(server, "dport:5641") == 1
        assert server.ask("GET", tracking)[1]["icmp-timeout"] == "10s"


def test_a_key_that_comes_after_the_dialog_was_left_removes_nothing(server: Server, page: Page) -> None:
    """A slow browser leaves the focus on the button for a moment."""
    with ExitStack() as stack:
        several(server, stack, 5651, 1)
        several(server, stack, 5652, 1)
        opened(page, "/?filter=dport:5651,5652&sort=dst-address")
        expect(to_port(page, 5652)).to_have_count(1)
        page.keyboard.press("j")
        page.keyboard.press("x")
        expect(page.get_by_role("dialog", name="Remove")).to_be_visible()
        page.evaluate(
            """() => {
                const dialog = document.querySelector("#remove");
                dialog.close();
                dialog.querySelector("button.danger").click();
            }"""
        )
        page.keyboard.press("j")
        page.keyboard.press("x")
        page.keyboard.press("Enter")
        expect(page.locator("#told")).to_have_text("1 connection removed")
        assert (there(server, "dport:5651"), there(server, "dport:5652")) == (1, 0)


def test_several_are_selected_with_a_finger(server: Server, browser: Browser) -> None:
    with ExitStack() as stack:
        for port in (5661, 5662, 5663):
            several(server, stack, port, 1)
        size = {"width": 360, "height": 740}
        context = server.signed_in(browser, viewport=size, has_touch=True, is_mobile=True)
        stack.callback(context.close)
        page = context.new_page()
        opened(page, "/?filter=dport:5661-5663&sort=dst-address")
        expect(to_port(page, 5663)).to_have_count(1)
        expect(box(to_port(page, 5661))).to_be_hidden()
        first = to_port(page, 5661)
        assert first.bounding_box()["x"] + 10 == cell(first, "protocol").locator("> *").bounding_box()["x"]
        finger = context.new_cdp_session(page)
        place = to_port(page, 5661).bounding_box()
        assert place is not None
        point = {"x": place["x"] + 150, "y": place["y"] + 30}
        finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
        expect(page.locator("#picked-count")).to_have_text("1 selected")
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        # From here on a tap selects; it does not open the panel.
        to_port(page, 5663).tap()
        expect(page.locator("#picked-count")).to_have_text("2 selected")
        expect(box(to_port(page, 5663))).to_have_attribute("aria-selected", "true")
        expect(box(to_port(page, 5662))).to_be_visible()
        other = to_port(page, 5662)
        left, address = box(other).bounding_box(), cell(other, "src-address").bounding_box()
        assert left["x"] >= 0
        assert left["x"] + left["width"] <= address["x"]
        expect(page.locator("#detail")).to_be_hidden()
        page.get_by_role("button", name="Remove…").tap()
        page.get_by_role("button", name="Remove 2").tap()
        expect(page.locator("#told")).to_have_text("2 connections removed")
        assert [there(server, f"dport:{port}") for port in (5661, 5662, 5663)] == [0, 1, 0]
        # Nothing is selected any more: a tap opens the panel again.
        to_port(page, 5662).tap()
        expect(page.locator("#detail")).to_be_visible()
