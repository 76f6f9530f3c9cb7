"""The settings dialog: it shows what the server has, checks what is typed, changes it, and sees what others change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from browser.router import Server
from ctweb.settings import SETTINGS

TRACKING = "/rest/ip/firewall/connection/tracking"


@pytest.fixture
def defaults(server: Server) -> Iterator[None]:
    """What a test has set goes back."""
    yield
    server.set(tcp_established_timeout="1d", icmp_timeout="10s", enabled="auto", loose_tcp_tracking="yes")


def in_force(server: Server, name: str) -> str:
    status, answer = server.ask("GET", TRACKING)
    assert status == 200
    return answer[name]


def opened(page: Page) -> Locator:
    page.goto("/")
    expect(page.locator("#live")).to_have_attribute("data-mode", "live")
    page.keyboard.press("s")
    dialog = page.get_by_role("dialog", name="Settings")
    expect(dialog).to_be_visible()
    return dialog


def around(field: Locator) -> Locator:
    """The setting that the field is of."""
    return field.locator("xpath=..")


@pytest.mark.usefixtures("defaults")
def test_every_setting_is_there_with_its_meaning_and_default(server: Server, page: Page) -> None:
    server.set(tcp_established_timeout="1h")
    dialog = opened(page)
    for setting in SETTINGS.values():
        field = dialog.locator(".setting").filter(has=page.locator(f"#setting-{setting.name}"))
        expect(field.get_by_label(setting.name, exact=True)).to_be_visible()
        expect(field).to_contain_text(setting.doc)
        expect(field).to_contain_text(f"Default: {setting.default}")
    expect(dialog.get_by_label("tcp-established-timeout")).to_have_value("1h")
    expect(dialog.locator(".state")).to_contain_text("Tracking")
    expect(dialog.locator(".state")).to_contain_text("auto: ")
    expect(dialog.locator(".interfaces li")).to_have_text(["lan tc"])
    most = int(in_force(server, "max-entries"))
    expect(dialog.locator(".state")).to_contain_text(f" of {most:_}".replace("_", "\u202f"))


@pytest.mark.usefixtures("defaults")
def test_a_timeout_is_checked_as_typed_and_set_by_enter(server: Server, page: Page) -> None:
    field = opened(page).get_by_label("icmp-timeout")
    field.fill("10 parsecs")
    problem = page.locator("#setting-icmp-timeout-problem")
    expect(problem).to_contain_text("icmp-timeout takes a time from 1ms to 7w")
    expect(problem).to_contain_text("10 parsecs")
    expect(field).to_have_attribute("aria-invalid", "true")
    assert in_force(server, "icmp-timeout") == "10s"
    field.fill("00:01:30")
    expect(problem).to_be_hidden()
    assert in_force(server, "icmp-timeout") == "10s"
    field.press("Enter")
    expect(around(field).locator(".saved")).to_be_visible()
    expect(field).to_have_value("1m30s")
    assert in_force(server, "icmp-timeout") == "1m30s"
    around(field).get_by_role("button", name="Default: 10s").click()
    expect(field).to_have_value("10s")
    expect(around(field).get_by_role("button")).to_be_disabled()
    assert in_force(server, "icmp-timeout") == "10s"


@pytest.mark.usefixtures("defaults")
def test_what_is_refused_when_set_says_why_under_its_field(server: Server, page: Page, complaints: list) -> None:
    field = opened(page).get_by_label("icmp-timeout")
    field.fill("8w")
    field.press("Enter")
    expect(page.locator("#setting-icmp-timeout-problem")).to_contain_text("not '8w'")
    assert in_force(server, "icmp-timeout") == "10s"
    # Esc takes back what was typed; the dialog stays.
    field.press("Escape")
    expect(field).to_have_value("10s")
    expect(page.locator("#setting-icmp-timeout-problem")).to_be_hidden()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    complaints[0].expect("400 (BAD REQUEST)")


@pytest.mark.usefixtures("defaults")
def test_another_open_page_sees_a_change_but_keeps_what_is_typed(server: Server, page: Page, browser: Browser) -> None:
    dialog = opened(page)
    context = server.signed_in(browser)
    other = opened(context.new_page())
    other.get_by_label("icmp-timeout").press_sequentially("7")
    dialog.get_by_label("loose-tcp-tracking").select_option("no")
    dialog.get_by_label("tcp-established-timeout").fill("2h")
    dialog.get_by_label("tcp-established-timeout").press("Enter")
    expect(other.get_by_label("loose-tcp-tracking")).to_have_value("no")
    expect(other.get_by_label("tcp-established-timeout")).to_have_value("2h")
    expect(other.get_by_label("icmp-timeout")).to_have_value("710s")
    assert in_force(server, "loose-tcp-tracking") == "false"
    context.close()


@pytest.mark.usefixtures("defaults")
def test_tracking_is_switched_off_and_the_page_says_so(page: Page) -> None:
    dialog = opened(page)
    dialog.get_by_label("enabled").select_option("no")
    expect(dialog.locator(".state")).to_contain_text("Not tracking")
    expect(dialog.locator(".state")).to_contain_text("enabled=no")
    expect(dialog.locator(".state")).to_contain_text("No program is attached")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="not tracking").click()
    dialog.get_by_label("enabled").select_option("auto")
    expect(dialog.locator(".interfaces")).to_contain_text("lan")
    expect(page.locator("#not-tracking")).to_be_hidden()


def test_where_fasttrack_takes_part_and_why_not(server: Server, page: Page) -> None:
    """Here packets are met at tc: the rule is not in force, and the dialog says why."""
    server.stop()
    server.start('[[rule]]\naction = "fasttrack-connection"\nconnection-state = "established,related"\n')
    try:
        tile = opened(page).locator(".fasttrack")
        expect(tile).to_contain_text("0.0 % of all packets so far")
        expect(tile).to_contain_text("No interface takes part")
        expect(tile).to_contain_text("lan takes the normal way: packets are met at tc there, not at XDP")
        expect(tile).to_contain_text("Not in force: rule 1: action: no interface takes part in FastTrack")
    finally:
        page.goto("about:blank")
        server.stop()
        server.start()
    expect(opened(page).locator(".fasttrack")).to_have_count(0)
