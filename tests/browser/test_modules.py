"""The page's modules on their own, in the browser, without a server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route

from ctweb.table.fields import FIELDS
from ctweb.table.filter_language import Term, parse
from ctweb.table.names import FLAGS
from ctweb.table.properties import PROPERTIES, Kind

HERE = Path(__file__).parent
STATIC = HERE.parents[1] / "static"
ORIGIN = "http://ctweb.test"


def serve(route: Route) -> None:
    """The files of static/ under /static, and an empty page for all else."""
    path = route.request.url.removeprefix(ORIGIN).split("?")[0]
    if path.startswith("/static/"):
        route.fulfill(path=STATIC / path.removeprefix("/static/"))
    else:
        route.fulfill(body="<!doctype html><title>Modules</title>", content_type="text/html")


@pytest.fixture(scope="module")
def blank(browser: Browser) -> Iterator[Page]:
    """An empty page whose origin is where the modules are."""
    page = browser.new_page()
    page.route("**", serve)
    page.goto(ORIGIN)
    yield page
    page.close()


def run(page: Page, module: str, body: str, *arguments: object) -> object:
    """Run `body` with the module as `m` and the arguments as `a`; what it returns."""
    script = f"async (a) => {{ const m = await import('/static/js/{module}.js'); {body} }}"
    return page.evaluate(script, list(arguments))


def test_types_hold() -> None:
    tsc = HERE / "node_modules" / ".bin" / "tsc"
    assert tsc.exists(), "TypeScript is missing: run ./setup.sh test (or npm ci in tests/browser)"
    checked = subprocess.run(
        [tsc, "-p", HERE / "jsconfig.json"], capture_output=True, text=True, timeout=120, check=False
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1000, "1 000"), (47603, "47 603"), (1234567, "1 234 567"), (10**12, "1 000 000 000 000")],
)
def test_thousands_are_grouped(blank: Page, value: int, text: str) -> None:
    assert run(blank, "format", "return m.grouped(a[0]);", value) == text.replace(" ", "\u202f")


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (0, "0 bps"), (999, "999 bps"), (1000, "1.0 kbps"), (6400, "6.4 kbps"), (999_949, "999.9 kbps"),
        (999_950, "1.0 Mbps"), (12_345_678, "12.3 Mbps"), (10**10, "10.0 Gbps"), (5 * 10**15, "5000.0 Tbps"),
    ],
)  # fmt: skip
def test_rates_have_their_unit(blank: Page, bits: int, text: str) -> None:
    assert run(blank, "format", "return m.rate(a[0]).join(' ');", bits) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (-3, "0s"), (9.9, "9s"), (60, "1m"), (86392, "23h59m52s"), (86400, "1d"), (788645, "1w2d3h4m5s")],
)
def test_times_are_routeros_times(blank: Page, seconds: float, text: str) -> None:
    assert run(blank, "format", "return m.duration(a[0]);", seconds) == text


@pytest.mark.parametrize(
    ("endpoint", "parts"),
    [
        ("10.0.0.1:443", ["10.0.0.1", "443"]),
        ("10.0.0.1", ["10.0.0.1", ""]),
        ("[2001:db8::1]:443", ["2001:db8::1", "443"]),
        ("2001:db8::1", ["2001:db8::1", ""]),
        ("::", ["::", ""]),
    ],
)
def test_endpoints_come_apart(blank: Page, endpoint: str, parts: list[str]) -> None:
    assert run(blank, "format", "return m.splitEndpoint(a[0]);", endpoint) == parts


def test_a_timeout_counts_down_between_sweeps(blank: Page) -> None:
    shown = run(
        blank, "cells",
        """const cell = document.createElement("div");
        const paint = m.timeout(cell);
        return a.map((age) => { paint({timeout: 10}, age); return cell.textContent; });""",
        0, 0.3, 1, 2.5, 9.1, 12,
    )  # fmt: skip
    assert shown == ["10s", "10s", "9s", "8s", "1s", "0s"]


@pytest.mark.parametrize("rows", [10, 100_000, 1_000_000, 50_000_000])
def test_the_scroll_bar_reaches_every_row(blank: Page, rows: int) -> None:
    found = run(
        blank, "scale",
        """const scale = new m.Scale();
        Object.assign(scale, {rows: a[0], rowHeight: 28, view: 700});
        scale.follow(0);
        const start = scale.first;
        scale.follow(scale.bodyHeight - scale.view);
        const end = Math.min(a[0], scale.first + scale.seen);
        const bodyHeight = scale.bodyHeight;
        // The wheel moves by its own pixels however coarse the scroll bar is.
        scale.moveTo(1e6);
        const before = scale.top;
        scale.moveTo(scale.top + 28);
        scale.follow(scale.scrollTop);
        return [start, end, bodyHeight, scale.factor === 1 || scale.top === before + 28];""",
        rows,
    )  # fmt: skip
    assert isinstance(found, list)
    start, end, height, fine = found
    assert (start, end) == (0, rows)
    assert height <= 15_000_000
    assert fine


def row(number: int, flags: str = "SC") -> dict[str, object]:
    return {".id": f"*{number}", "flags": flags, "protocol": "udp", "timeout": 5}


def message(*rows: dict[str, object], **rest: object) -> dict[str, object]:
    view = {"offset": 0, "matched": len(rows), "total": len(rows), "filter": "", "sort": ""}
    return {"type": "rows", "rows": list(rows)} | view | rest


SHOWN = """const shown = () => Array.from({length: display.count}, (_, index) => {
    const one = display.at(index);
    return one && one.row[".id"] + (one.ended ? "-" : "") + one.row.flags;
});"""


def test_what_ended_stays_in_its_place_for_a_while(blank: Page) -> None:
    shown = run(
        blank, "display",
        f"""const display = new m.Display(); {SHOWN}
        display.accept(a[0]); display.accept(a[1]);
        const there = shown();
        display.accept(a[2]);
        return [there, shown()];""",
        message(row(1), row(2, "CD"), row(3)), message(row(1), row(3)), message(row(4), row(1), row(3)),
    )  # fmt: skip
    assert shown == [["*1SC", "*2-CD", "*3SC"], ["*4SC", "*2-CD", "*1SC", "*3SC"]]


def test_rows_that_end_together_at_the_end_of_the_table_all_stay(blank: Page) -> None:
    shown = run(
        blank, "display",
        f"""const clock = performance.now;
        let now = 0;
        performance.now = () => now;
        const display = new m.Display(); {SHOWN}
        const all = a.map(([time, one]) => {{ now = time; display.accept(one); return shown(); }});
        performance.now = clock;
        return all;""",
        [0, message(row(1), row(2, "D"), row(3), row(4, "D"))],
        [1000, message(row(1), row(3, "D"))],
        [4900, message(row(1))],
        [5100, message(row(1))],
        [9000, message(row(1))],
    )  # fmt: skip
    assert shown == [
        ["*1SC", "*2D", "*3SC", "*4D"],
        ["*1SC", "*2-D", "*3D", "*4-D"],
        ["*1SC", "*2-D", "*3-D", "*4-D"],
        ["*1SC", "*3-D"],
        ["*1SC"],
    ]


def test_another_filter_forgets_what_ended(blank: Page) -> None:
    shown = run(
        blank, "display",
        f"""const display = new m.Display(); {SHOWN}
        a.forEach((one) => display.accept(one));
        return shown();""",
        message(row(1), row(2, "CD")), message(row(1)), message(row(3), filter="x"),
    )  # fmt: skip
    assert shown == ["*3SC"]


def test_a_held_order_keeps_its_rows_and_learns_what_became_of_them(blank: Page) -> None:
    shown = run(
        blank, "display",
        f"""const display = new m.Display(); {SHOWN}
        display.accept(a[0]);
        display.hold();
        const ids = display.heldIds;
        display.accept(a[1]);
        const held = shown();
        display.release();
        return [ids, held, shown()];""",
        message(row(1), row(2), row(3)),
        message(row(3, "A"), row(5), watched={"*1": row(1, "F"), "*2": None, "*3": row(3, "A")}),
    )  # fmt: skip
    assert shown == [["*1", "*2", "*3"], ["*1F", "*2-SC", "*3A"], ["*3A", "*2-SC", "*5SC"]]


def completed(page: Page, text: str) -> list[str]:
    """The filters that the options lead to, the caret at |."""
    caret = text.index("|")
    return run(
        page, "completion",
        """const {from, to, options} = m.complete(a[0], a[1]);
        return options.map(({insert}) => a[0].slice(0, from) + insert + a[0].slice(to));""",
        text.replace("|", ""), caret,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("sta|", ["state:"]),
        ("proto:u|", ["proto:udp", "proto:udp-lite"]),
        ("(state:established,ti|)", ["(state:established,time-wait)"]),
        ("!flag:|", ["!flag:" + letter for letter in "ESACDFHsdh"]),
        ("rat| proto:tcp", ["rate> proto:tcp"]),
        ("assured:y|", ["assured:yes"]),
        ("src:10.0|", []),
        ("|", []),
        ('"sta|', []),
        ("10.0.0.5|", []),
    ],
)
def test_a_filter_is_completed(blank: Page, text: str, filters: list[str]) -> None:
    assert completed(blank, text) == filters


def test_the_server_knows_all_that_is_offered(blank: Page) -> None:
    offered = run(blank, "completion", "return m.FIELDS;")
    assert isinstance(offered, list)
    for field in offered:
        known = FIELDS[field["name"]]
        assert field["sign"] in (":", *known.operators), field
        for value, _ in field.get("values") or []:
            known.read(value)


def test_every_property_can_be_a_column(blank: Page) -> None:
    """Ports stand with their addresses, flags are letters in one column."""
    names = run(blank, "columns", "return [...m.COLUMN.keys()];")
    assert isinstance(names, list)
    letters = run(blank, "flags", "return [...m.FLAGS.keys()];")
    wanted = {name for name, one in PROPERTIES.items() if one.kind not in (Kind.FLAG, Kind.PORT)}
    assert set(names) == wanted | {"flags"}
    assert letters == [flag.letter for flag in FLAGS]


@pytest.mark.parametrize(
    ("filter", "term", "narrowed"),
    [
        ("", "proto:tcp", "proto:tcp"),
        ("dport:443", "proto:tcp", "dport:443 proto:tcp"),
        ("proto:tcp dport:443", "proto:tcp", "proto:tcp dport:443"),
        ("a or b", "!proto:tcp", "(a or b) !proto:tcp"),
    ],
)
def test_a_term_narrows_a_filter(blank: Page, filter: str, term: str, narrowed: str) -> None:
    assert run(blank, "terms", "return m.narrowed(a[0], a[1]);", filter, term) == narrowed


@pytest.mark.parametrize("mark", ["voip", "two words", 'a"b\\c', "x,y"])
def test_a_term_is_read_as_it_was_meant(blank: Page, mark: str) -> None:
    written = run(blank, "terms", "return m.term('mark', a[0]);", mark)
    assert isinstance(written, str)
    read = parse(written)
    assert isinstance(read, Term)
    assert (read.name, read.values) == ("mark", (mark,))
