"""Export: the links of the dialog download what is filtered, in the order and with the columns of the table."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from lab.network import IPV4
from playwright.sync_api import Page, expect

from browser.router import Server
from browser.rows import to_port


def download(page: Page, name: str) -> str:
    with page.expect_download() as started:
        page.get_by_role("link", name=name).click()
    return Path(started.value.path()).read_text()


def test_what_is_filtered_is_downloaded(server: Server, page: Page) -> None:
    with server.udp(5401) as one, server.udp(5402) as other, server.udp(5403) as outside:
        one.send(b"x" * 10)
        other.send(b"x" * 20)
        outside.send(b"x")
        page.goto("/?filter=dport:5401,5402&sort=-orig-bytes&columns=dst-address,orig-bytes,flags")
        expect(to_port(page, 5402)).to_have_count(1)
        expect(to_port(page, 5401)).to_have_count(1)
        page.get_by_title("Export").click()
        dialog = page.get_by_role("dialog", name="Export")
        expect(dialog).to_contain_text("The 2 connections that match “dport:5401,5402”")
        text = download(page, "CSV")
        assert list(csv.reader(text.splitlines())) == [
            ["dst-address", "orig-bytes", "flags"],
            [f"{IPV4.server}:5402", "48", ""],
            [f"{IPV4.server}:5401", "38", ""],
        ]
        expect(dialog).to_be_hidden()
        page.get_by_title("Export").click()
        dialog.get_by_label("every property").check()
        rows = json.loads(download(page, "JSON"))
        assert [(row["dst-address"], row["orig-bytes"]) for row in rows] == [
            (f"{IPV4.server}:5402", 48),
            (f"{IPV4.server}:5401", 38),
        ]
        assert {".id", "protocol", "timeout", "src-address"} <= rows[0].keys()


def test_what_cannot_be_exported_is_refused_in_words(server: Server) -> None:
    for query, word in (("where=colour:red", "colour"), ("columns=colour", "colour"), ("sort=colour", "colour")):
        status, answer = server.ask("GET", f"/export/connections.csv?{query}")
        assert status == 400
        assert word in answer["detail"]
    assert server.ask("GET", "/export/connections.xls")[0] == 404
