"""Names instead of numbers: off at first, remembered, looked up by the server; a silent resolver holds nothing up."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest
from dns_server import serving
from lab.network import IPV4, IPV6
from playwright.sync_api import Page, expect

from browser.router import Server
from browser.rows import cell, to_port


@pytest.fixture
def asked(server: Server) -> Iterator[list[str]]:
    """A resolver that knows the client by both its addresses, and is silent about the server's."""
    listening = server.router.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listening.settimeout(None)
    listening.bind(("127.0.0.1", 53))
    with serving(listening, {IPV4.client: b"desk.office.example", IPV6.client: b"desk6.office.example"}) as asked:
        yield asked


def choose(page: Page, *names: str) -> None:
    page.get_by_title("Columns and names").click()
    for name in names:
        page.get_by_role("dialog").get_by_role("checkbox", name=re.compile(f"^{name}")).check()
    page.keyboard.press("Escape")


def test_hosts_and_services_have_names_for_who_wants_them(server: Server, page: Page, asked: list[str]) -> None:
    with server.udp(53) as four, server.client.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six:
        six.connect((IPV6.server, 443))
        four.send(b"1")
        six.send(b"1")
        page.goto("/?filter=dport:53,443&sort=dst-address")
        expect(cell(to_port(page, 53), "src-address")).to_have_text(four.source)
        expect(to_port(page, 443)).to_have_count(1)
        assert asked == []
        choose(page, "Services", "Hosts")
        source, destination = (
            page.locator(f".row:not([hidden]) [data-column='{end}-address']") for end in ("src", "dst")
        )
        own = four.source.split(":")[1]
        expect(source.filter(has_text=f"desk.office.example:{own}")).to_have_count(1)
        expect(source.filter(has_text="desk6.office.example:")).to_have_count(1)
        # The resolver says nothing of the server: its number stays, and all goes on.
        expect(destination.filter(has_text=f"{IPV4.server}:domain")).to_have_count(1)
        expect(destination.filter(has_text=f"[{IPV6.server}]:https")).to_have_count(1)
        packets = page.locator(".row:not([hidden]) [data-column='orig-packets']").first
        four.send(b"2")
        expect(packets).to_have_text("2")
        # The panel and the groups have them too, and a click filters by the number.
        page.locator("#table").focus()
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        expect(page.locator("#detail .way")).to_contain_text(f"{four.source}desk.office.example")
        page.keyboard.press("Escape")
        page.get_by_label("Group by").select_option("Source")
        expect(page.locator(".row:not([hidden]) .name", has_text=re.compile(r"^desk\.office\.example$"))).to_have_count(
            1
        )
        page.get_by_label("Group by").select_option("Service")
        expect(page.locator(".row:not([hidden]) .name", has_text=re.compile("^domain$"))).to_have_count(1)
        # Remembered.
        page.goto("/?filter=dport:53")
        expect(source).to_have_text([f"desk.office.example:{own}"])
        source.locator(".address").click()
        expect(page.get_by_label("Filter connections")).to_have_value(f"dport:53 src:{IPV4.client}")
        answer = server.ask("GET", "/healthz")[1]
        assert answer["status"] == "ok"
