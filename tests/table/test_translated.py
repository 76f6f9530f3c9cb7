"""NAT in rows, filters and order: what replies carry, for the connections that are translated and for no others."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import naive
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ctweb.table.facts import facts_of
from ctweb.table.filter_language import parse
from ctweb.table.match import mask
from ctweb.table.rows import page_rows, rest_rows
from ctweb.table.translated import Translated

PORTS = st.sampled_from([0, 53, 443, 61_000])
translations = st.fixed_dictionaries(
    {"lo": naive.IPV4, "hi": naive.IPV4, "lo6": naive.IPV6, "hi6": naive.IPV6, "lo_port": PORTS, "hi_port": PORTS,
     "flip": st.booleans()}
)  # fmt: skip


@st.composite
def tables(draw):
    """A snapshot some of whose connections are translated, and by row number what each translation says."""
    snapshot = draw(naive.tables)
    chosen = [i for i in range(len(snapshot)) if draw(st.booleans())]
    given = {i: draw(translations) for i in chosen}
    order = draw(st.permutations(chosen))

    def address(i: int, end: str) -> list[int]:
        packed = ipaddress.ip_address(given[i][end if snapshot.columns.family[i] == 4 else end + "6"]).packed
        return list(packed.ljust(16, b"\0"))

    translated = Translated(
        id=np.array([snapshot.columns.id[i] for i in order], np.uint64),
        lo_addr=np.array([address(i, "lo") for i in order], np.uint8).reshape(-1, 16),
        hi_addr=np.array([address(i, "hi") for i in order], np.uint8).reshape(-1, 16),
        lo_port=np.array([given[i]["lo_port"] for i in order], np.uint16),
        hi_port=np.array([given[i]["hi_port"] for i in order], np.uint16),
        flip=np.array([given[i]["flip"] for i in order], np.bool_),
    )
    translation = translated.rows_of(snapshot.columns.id)
    return replace(snapshot, translated=translated, translation=translation), given


def expected(snapshot, given, i: int) -> dict[str, str]:
    row = naive.row(snapshot, i)
    if i in given:
        its = given[i]
        six = "6" if snapshot.columns.family[i] == 6 else ""
        low, high = (its["lo" + six], its["lo_port"]), (its["hi" + six], its["hi_port"])
        # Whoever sends in the original direction is whom replies go to.
        from_high = bool(snapshot.columns.status[i] & 1) != its["flip"]
        goes_to, comes_from = (high, low) if from_high else (low, high)
        for name, (host, port) in {"reply-src": comes_from, "reply-dst": goes_to}.items():
            text = str(ipaddress.ip_address(host))
            if f"{name}-port" in row:
                row[f"{name}-port"] = str(port)
                text = f"[{text}]:{port}" if six else f"{text}:{port}"
            row[f"{name}-address"] = text
    return row


@given(tables())
def test_rows(table):
    snapshot, given = table
    wanted = [expected(snapshot, given, i) for i in range(len(snapshot))]
    facts = facts_of(snapshot)
    assert rest_rows(facts) == wanted
    last_first = np.arange(len(snapshot))[::-1]
    assert rest_rows(facts, last_first) == wanted[::-1]
    assert page_rows(facts, last_first)


@given(tables(), st.sampled_from(["reply-src", "reply-dst"]), st.data())
def test_filters(table, name, data):
    snapshot, given = table
    wanted = [expected(snapshot, given, i) for i in range(len(snapshot))]
    value = data.draw(st.sampled_from([row[f"{name}-address"] for row in wanted] or ["10.0.0.1"]))
    found = mask(facts_of(snapshot), parse(f"{name}-address:{value}"))
    host = [_host(row[f"{name}-address"]) for row in wanted]
    port = [row.get(f"{name}-port") for row in wanted]
    asked_port = value.rpartition(":")[2] if _host(value) != value else None
    assert found.tolist() == [
        h == _host(value) and (asked_port is None or p == asked_port) for h, p in zip(host, port, strict=True)
    ]


@given(tables())
def test_a_word_is_found_in_what_replies_carry(table):
    snapshot, given = table
    facts = facts_of(snapshot)
    for i in given:
        row = expected(snapshot, given, i)
        for name in ("reply-src-address", "reply-dst-address"):
            assert mask(facts, parse(f'"{row[name]}"'))[i], row[name]


def test_removed_rows_take_their_translations_along():
    made = naive.snapshot_of([naive_row(i) for i in range(3)])
    translated = Translated(
        id=made.columns.id[[2]], lo_addr=np.full((1, 16), 9, np.uint8), hi_addr=np.full((1, 16), 8, np.uint8),
        lo_port=np.array([7], np.uint16), hi_port=np.array([6], np.uint16), flip=np.array([False]),
    )  # fmt: skip
    snapshot = replace(made, translated=translated, translation=translated.rows_of(made.columns.id))
    rows = rest_rows(facts_of(snapshot.without(made.columns.id[:1])))
    assert [row["reply-dst-address"] == row["src-address"] for row in rows] == [True, False]


def naive_row(i: int) -> dict[str, object]:
    return {
        "lo": f"10.0.0.{i + 1}", "hi": "192.0.2.44", "lo6": "::1", "hi6": "::", "family": 4, "lo_port": 22,
        "hi_port": 53, "protocol": 17, "status": 0, "tcp_state": 0, "mark": 0, "expires": naive.NOW + 1,
        "packets": (0, 0), "bytes": (0, 0), "fasttrack_packets": (0, 0), "fasttrack_bytes": (0, 0), "rates": (0.0, 0.0),
    }  # fmt: skip


def _host(text: str) -> str:
    """Without a port: `[2001:db8::1]:443` and `10.0.0.1:443` have one."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
