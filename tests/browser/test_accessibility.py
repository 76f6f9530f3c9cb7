"""axe-core finds nothing to complain of, in both themes, on a desk and on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from browser.router import URL, Server
from browser.rows import to_port

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"


def complaints(page: Page) -> list[str]:
    assert AXE.exists(), "axe-core is missing: run ./setup.sh test (or npm ci in tests/browser)"
    page.evaluate(AXE.read_text())
    violations = page.evaluate("async () => (await axe.run()).violations")
    return [f"{v['impact']} {v['id']}: {v['nodes'][0]['html'][:200]}" for v in violations]


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("width", [1440, 360])
def test_nothing_stands_in_anybodys_way(server: Server, page: Page, theme: str, width: int) -> None:
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 740})
    page.goto("/")
    with server.udp() as sender:
        sender.send(b"1")
        expect(to_port(page, sender.port)).to_be_visible()
        assert complaints(page) == []
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        expect(page.locator("#detail")).to_be_visible()
        assert complaints(page) == []
        page.keyboard.press("x")
        expect(page.get_by_role("dialog", name="Remove")).to_be_visible()
        assert complaints(page) == []
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        page.keyboard.press(" ")
        expect(page.get_by_role("region", name="Selected connections")).to_be_visible()
        assert complaints(page) == []
        page.keyboard.press("Escape")
    page.get_by_role("button", name="Charts of the last hour").click()
    expect(page.locator(".chart canvas")).to_have_count(5)
    assert complaints(page) == []
    page.get_by_role("button", name="Charts of the last hour").click()
    page.get_by_label("Group by").select_option("Source")
    expect(page.get_by_role("grid", name="Connections by source").locator(".row:not([hidden])").first).to_be_visible()
    assert complaints(page) == []
    page.get_by_label("Group by").select_option("nothing")
    page.get_by_label("Filter connections").fill("nosuch:1")
    expect(page.get_by_role("alert")).to_be_visible()
    assert complaints(page) == []
    page.get_by_label("Filter connections").fill("no-row-has-this")
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    assert complaints(page) == []
    page.get_by_label("Filter connections").fill("udp")
    page.get_by_role("button", name="Remove all that match").click()
    expect(page.locator("#remove .question")).to_contain_text("that match")
    assert complaints(page) == []
    page.keyboard.press("Escape")
    for opener in ("Keys and flags", "All counters", "Settings (s)", "Export", "Columns"):
        page.get_by_title(opener).click()
        expect(page.get_by_role("dialog")).to_be_visible()
        if opener.startswith("Settings"):
            expect(page.get_by_label("icmp-timeout")).to_be_attached()
        assert complaints(page) == []
        page.keyboard.press("Escape")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_nor_in_a_readers(browser: Browser, server: Server, theme: str) -> None:
    context = server.signed_in(browser, "read", color_scheme=theme)
    page = context.new_page()
    page.goto("/")
    expect(page.locator("html")).to_have_attribute("data-role", "read")
    assert complaints(page) == []
    page.keyboard.press("s")
    expect(page.get_by_label("icmp-timeout")).to_be_attached()
    assert complaints(page) == []
    context.close()


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("width", [1440, 360])
def test_nor_on_the_sign_in_page(browser: Browser, server: Server, theme: str, width: int) -> None:
    context = browser.new_context(base_url=URL, color_scheme=theme, viewport={"width": width, "height": 740})
    page = context.new_page()
    page.goto("/sign-in")
    expect(page.get_by_label("Name")).to_be_visible()
    assert complaints(page) == []
    page.get_by_label("Name").fill("nobody")
    page.get_by_label("Password").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).not_to_be_empty()
    assert complaints(page) == []
    context.close()
