"""How the tests find rows on the page."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page


def to_port(page: Page, port: int) -> Locator:
    """The rows of connections to a destination port."""
    cell = page.locator("[data-column='dst-address']", has_text=re.compile(f":{port}$"))
    return page.locator(".row:not([hidden])").filter(has=cell)


def cell(of: Locator, column: str) -> Locator:
    return of.locator(f"[data-column='{column}']")


def expect_in_order(page: Page, column: str, texts: list[str]) -> None:
    """The column's cells from top to bottom; row elements are used in turn and stand in any order in the document."""
    page.wait_for_function(
        """([column, texts]) => {
            const rows = [...document.querySelectorAll(".row:not([hidden])")];
            rows.sort((a, b) => a.ariaRowIndex - b.ariaRowIndex);
            const found = rows.map((row) => row.querySelector(`[data-column="${column}"]`).textContent);
            return found.join() === texts.join();
        }""",
        arg=[column, texts],
    )
