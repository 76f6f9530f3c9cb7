"""Signing in and out in the browser, by keyboard, in both themes and on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from browser.chromium import Complaints, page_of
from browser.router import PASSWORDS, URL, Server


@pytest.fixture
def stranger(server: Server, browser: Browser, complaints: list[Complaints]) -> Iterator[Page]:
    """A page that has not signed in."""
    with page_of(browser.new_context(base_url=URL, viewport={"width": 1000, "height": 700})) as (page, found):
        complaints.append(found)
        yield page


def sign_in(page: Page, name: str = "full") -> None:
    """By keyboard alone: the first field has the focus."""
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORDS[name])
    page.keyboard.press("Enter")


def test_one_signs_in_to_where_one_wanted_to_go_and_out_again(stranger: Page) -> None:
    stranger.goto("/?filter=proto%3Audp")
    expect(stranger).to_have_url(re.compile(r"/sign-in\?filter=proto%3Audp$"))
    sign_in(stranger)
    expect(stranger).to_have_url(re.compile(rf"^{URL}/\?filter=proto(%3A|:)udp"))
    expect(stranger.locator("#live")).to_have_attribute("data-mode", "live")
    expect(stranger.locator("#account")).to_contain_text("full")
    stranger.get_by_role("button", name="Sign out full").click()
    expect(stranger).to_have_url(f"{URL}/sign-in")
    stranger.goto("/")
    expect(stranger.get_by_label("Password")).to_be_visible()


def test_a_wrong_password_is_told_and_may_be_typed_again(stranger: Page, complaints: list[Complaints]) -> None:
    stranger.goto("/sign-in")
    stranger.get_by_label("Name").fill("full")
    stranger.get_by_label("Password").fill("wrong")
    stranger.keyboard.press("Enter")
    expect(stranger.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    expect(stranger.get_by_label("Password")).to_be_focused()
    stranger.keyboard.type(PASSWORDS["full"])
    stranger.keyboard.press("Enter")
    expect(stranger.locator("#live")).to_have_attribute("data-mode", "live")
    complaints[0].expect("401 (UNAUTHORIZED)")


def test_who_is_signed_in_passes_the_sign_in_page(page: Page) -> None:
    """As who comes by a link on another site: its first request goes without the cookie."""
    page.goto("/sign-in?filter=dport:53")
    expect(page).to_have_url(re.compile(rf"^{URL}/\?filter=dport"))


def test_an_open_page_leads_to_sign_in_when_its_session_ends(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#live")).to_have_attribute("data-mode", "live")
    csrf = page.request.get("/page/session").json()["csrf"]
    assert page.request.post("/page/sign-out", headers={"X-CSRF-Token": csrf}).ok
    expect(page.get_by_label("Password")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_it_fits_every_screen_and_theme(browser: Browser, server: Server, scheme: str, width: int) -> None:
    context = browser.new_context(base_url=URL, viewport={"width": width, "height": 640}, color_scheme=scheme)
    page = context.new_page()
    page.goto("/sign-in")
    for field in (page.get_by_label("Name"), page.get_by_label("Password"), page.get_by_role("button", name="Sign in")):
        box = field.bounding_box()
        assert box["x"] >= 12
        assert box["x"] + box["width"] <= width - 12
        assert box["height"] >= 40
    assert page.evaluate("document.documentElement.scrollWidth") == width
    background, text = (
        page.evaluate("name => getComputedStyle(document.body)[name]", name) for name in ("backgroundColor", "color")
    )
    light, dark = sorted((background, text), key=lambda colour: -sum(map(int, re.findall(r"\d+", colour))))
    assert (background, text) == ((light, dark) if scheme == "light" else (dark, light))
    context.close()


def test_the_readers_page_offers_no_change(server: Server, browser: Browser) -> None:
    context = server.signed_in(browser, "read")
    page = context.new_page()
    page.goto("/")
    expect(page.locator("#live")).to_have_attribute("data-mode", "live")
    expect(page.locator("#account")).to_have_attribute("title", re.compile("change nothing"))
    context.close()


def test_who_has_to_wait_is_signed_in_when_the_time_has_come(
    server: Server, stranger: Page, complaints: list[Complaints]
) -> None:
    """The password was not looked at: the page shows it again by itself."""
    server.stop()  # it knows passwords that were right again, and takes them at any time
    server.start()
    stranger.goto("/sign-in")
    stranger.get_by_label("Name").fill("full")
    stranger.get_by_label("Password").fill(PASSWORDS["full"])
    wrong = {"name": "full", "password": "wrong"}
    while int((answer := stranger.request.post("/page/sign-in", data=wrong)).headers.get("retry-after", "0")) < 4:
        stranger.wait_for_timeout(1000 if answer.status == 429 else 0)
    stranger.keyboard.press("Enter")
    expect(stranger.get_by_role("alert")).to_have_text(re.compile(r"Yours is tried in \d+ s\."))
    stranger.keyboard.press("x")
    expect(stranger.get_by_role("alert")).to_be_empty()  # another password is not sent before it is complete
    stranger.keyboard.press("Backspace")
    stranger.keyboard.press("Enter")
    expect(stranger.locator("#live")).to_have_attribute("data-mode", "live")
    complaints[0].expect("429 (TOO MANY REQUESTS)")
