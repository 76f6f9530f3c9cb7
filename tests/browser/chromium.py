"""The distribution's Chromium: headless as root, and quiet, so that no request is made but the page's."""

from __future__ import annotations

from playwright.sync_api import Browser, Page, Playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)


class Complaints:
    """What the browser complained of: errors, and what the content security policy refused."""

    def __init__(self, page: Page) -> None:
        self.found: list[str] = []
        page.on("pageerror", lambda error: self.found.append(f"uncaught: {error}"))
        page.on("console", lambda message: self.found.append(message.text) if message.type == "error" else None)

    def expect(self, text: str) -> None:
        """Forget those that contain `text`: the test brought them about."""
        self.found = [one for one in self.found if text not in one]
