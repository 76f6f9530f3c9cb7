"""The Chromium that setup.sh has chosen: headless as root, and quiet, so that no request is made but the page's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.network import DEADLINE
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect

CHROMIUM = Path(sys.executable).with_name("chromium")
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
    # In the locale C some builds call their language en-US@posix, which is none to Intl.
    return playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, env=os.environ | {"LC_ALL": "en_US.UTF-8"})


class Complaints:
    """What the browser complained of: errors, and what the content security policy refused."""

    def __init__(self, page: Page) -> None:
        self.found: list[str] = []
        page.on("pageerror", lambda error: self.found.append(f"uncaught: {error}"))
        page.on("console", lambda message: self.found.append(message.text) if message.type == "error" else None)

    def expect(self, text: str) -> None:
        """Forget those that contain `text`: the test brought them about."""
        self.found = [one for one in self.found if text not in one]


@contextmanager
def page_of(context: BrowserContext) -> Iterator[tuple[Page, Complaints]]:
    """A page that has not been opened yet; nothing it does may make the browser complain. Closes the context."""
    context.set_default_timeout(DEADLINE * 1000)
    expect.set_options(timeout=DEADLINE * 1000)
    page = context.new_page()
    complaints = Complaints(page)
    yield page, complaints
    context.close()
    assert not complaints.found, complaints.found
