"""A table of 100,000 real connections. The last file of the folder: they stay for minutes."""

from __future__ import annotations

import socket
import time

from lab.network import IPV4
from playwright.sync_api import Page

from browser.router import Server


def test_a_large_table_takes_no_more_of_the_browser(server: Server, page: Page) -> None:
    server.set(udp_timeout="5m")
    flood(server, 100_000)
    page.goto("/?sort=src-address")
    page.wait_for_function("() => Number(document.querySelector('#total').textContent.replace(/\\D/g, '')) >= 100000")
    rows = page.locator(".row")
    assert rows.count() < 60
    # The scroll bar is true to the whole: half way down is the middle row, the end is the last one.
    height = page.evaluate("document.querySelector('#table').scrollHeight")
    page.evaluate("(top) => { document.querySelector('#table').scrollTop = top; }", height / 2)
    middle = first_row(page)
    assert abs(middle - 50_000) < 100, middle
    page.evaluate("(top) => { document.querySelector('#table').scrollTop = top; }", height)
    page.wait_for_function(
        """() => [...document.querySelectorAll(".row:not([hidden]):not(.waiting)")]
            .some((row) => row.ariaRowIndex === document.querySelector("#table").ariaRowCount)"""
    )
    assert rows.count() < 60


def first_row(page: Page) -> int:
    """The number of the first row in view, once it shows its connection."""
    return page.wait_for_function(
        """() => {
            const top = document.querySelector(".head").getBoundingClientRect().bottom;
            const rows = [...document.querySelectorAll(".row:not([hidden]):not(.waiting)")];
            const seen = rows.filter((row) => row.getBoundingClientRect().bottom > top);
            return seen.length ? Math.min(...seen.map((row) => Number(row.ariaRowIndex) - 1)) : 0;
        }"""
    ).json_value()


def flood(server: Server, number: int) -> None:
    """One UDP packet of each of `number` connections, sent from the client."""
    with server.client.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:
        packet = bytearray.fromhex("4500001c00004000401100000a0901020a0901010000000000080000")
        for connection in range(number):
            packet[20:22] = (1024 + connection % 50_000).to_bytes(2, "big")
            packet[22:24] = (20_000 + connection // 50_000).to_bytes(2, "big")
            raw.sendto(packet, (IPV4.router, 0))
            if connection % 1000 == 0:
                time.sleep(0.001)  # the receiver's backlog holds a thousand packets
