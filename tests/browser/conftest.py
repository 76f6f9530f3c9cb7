"""A tracking router, and a browser on it that shows its page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab.network import Namespace, client_router_server, network
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from browser.chromium import Complaints, launch, page_of
from browser.router import Server

Machines = tuple[Namespace, Namespace, Namespace]


@pytest.fixture(scope="package")
def machines() -> Iterator[Machines]:
    """Client, router and server."""
    with network() as net:
        yield client_router_server(net)


@pytest.fixture(scope="package")
def playwright(machines: Machines) -> Iterator[Playwright]:
    """One for all tests, since one is all that Playwright allows. What it starts is on the router, as it is itself."""
    _, router, _ = machines
    context = sync_playwright()
    with router.entered():
        started = context.__enter__()
    yield started
    context.__exit__(None, None, None)


@pytest.fixture(scope="package")
def server(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(*machines, tmp_path_factory.mktemp("browser") / "state")
    made.start()
    made.set(udp_timeout="1m")  # what a test has sent stays for as long as the test looks, on a busy machine too
    yield made
    made.stop()


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    browser = launch(playwright)
    yield browser
    browser.close()


@pytest.fixture
def complaints() -> list[Complaints]:
    """One for each page of the test."""
    return []


@pytest.fixture
def page(server: Server, browser: Browser, complaints: list[Complaints]) -> Iterator[Page]:
    """Of somebody who has signed in."""
    with page_of(server.signed_in(browser, viewport={"width": 1440, "height": 760})) as (made, found):
        complaints.append(found)
        yield made
