"""`make screenshots`: the page as it looks on real traffic, into docs/."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from lab.network import Namespace, client_router_server, network, wait_for
from playwright.sync_api import Browser, Page, sync_playwright

from browser import office
from browser.chromium import launch
from browser.router import URL, Server

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"


def work(machine: Namespace, role: str) -> None:
    machine.start(sys.executable, "-m", "browser.office", role, cwd=TESTS, env=os.environ)


def open_page(server: Server, browser: Browser, width: int, height: int, scheme: str, path: str = "/") -> Page:
    narrow = width < 500
    context = server.signed_in(
        browser,
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        device_scale_factor=2 if narrow else 1,
    )
    page = context.new_page()
    page.goto(path)
    page.locator(".row:not([hidden])").first.wait_for()
    page.wait_for_timeout(3000)
    return page


def take(page: Page, name: str) -> None:
    page.screenshot(path=DOCS / f"{name}.png")
    page.context.close()


def pictures(server: Server, browser: Browser) -> None:
    for scheme in ("dark", "light"):
        stranger = browser.new_context(base_url=URL, viewport={"width": 720, "height": 400}, color_scheme=scheme)
        page = stranger.new_page()
        page.goto("/sign-in")
        page.get_by_label("Name").fill("admin")
        take(page, f"sign-in-{scheme}")
        page = open_page(server, browser, 1440, 800, scheme)
        page.keyboard.press("c")
        page.wait_for_timeout(2000)
        take(page, f"page-{scheme}")
        take(open_page(server, browser, 1440, 800, scheme, "/?group=src-address"), f"groups-{scheme}")
        page = open_page(server, browser, 1440, 800, scheme)
        for key in ("j", " ", "j", "j", " ", "x"):
            page.keyboard.press(key)
        page.wait_for_timeout(500)
        take(page, f"remove-{scheme}")
        page = open_page(server, browser, 1440, 800, scheme)
        page.keyboard.press("s")
        page.wait_for_timeout(1000)
        take(page, f"settings-{scheme}")
        take(open_page(server, browser, 360, 740, scheme), f"page-phone-{scheme}")
        take(open_page(server, browser, 768, 1024, scheme), f"page-tablet-{scheme}")
        page = open_page(server, browser, 1440, 800, scheme)
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_timeout(20_000)
        take(page, f"panel-{scheme}")


def main() -> None:
    with network() as net, tempfile.TemporaryDirectory() as state:
        client, router, server = client_router_server(net)
        office.settle(client, router, server)
        ctweb = Server(client, router, server, Path(state) / "state")
        ctweb.start()
        work(server, "internet")
        wait_for("the internet listens", lambda: all(server.listening(port) for port in office.PORTS))
        work(client, "desks")
        wait_for("the office is at work", lambda: ctweb.ask("GET", "/healthz")[1]["connections"] >= office.CALLS)
        with router.entered(), sync_playwright() as playwright:
            browser = launch(playwright)
            browser.new_page().wait_for_timeout(15_000)
            pictures(ctweb, browser)
            browser.close()
        ctweb.stop()


if __name__ == "__main__":
    main()
