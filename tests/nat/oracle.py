"""What nf_conntrack says of its connections, in the words of the table's rows."""

from __future__ import annotations

import re

from lab.network import Namespace
from lab.tracked import NUMBERS, Row, Tracked

_WORD = re.compile(r"(\w+)=(\S+)")
_WITH_PORTS = ("tcp", "udp")
COMPARED = (
    "protocol", "src-address", "dst-address", "reply-src-address", "reply-dst-address", "srcnat", "dstnat",
    "seen-reply", *NUMBERS,
)  # fmt: skip


def entries(router: Namespace) -> list[Row]:
    """nf_conntrack's entries but those of loopback, as rows with the properties that are COMPARED."""
    text = "".join(router.run("conntrack", "-L", "-o", "extended", "-f", family) for family in ("ipv4", "ipv6"))
    rows = [_row(line) for line in sorted(set(text.splitlines()))]
    return [row for row in rows if not row["src-address"].startswith("127.")]


def _row(line: str) -> Row:
    protocol = line.split()[2]
    original, reply = _directions(_WORD.findall(line))
    source, destination = _ends(protocol, original)
    replier, asker = _ends(protocol, reply)
    return {
        "protocol": protocol,
        "src-address": source,
        "dst-address": destination,
        "reply-src-address": replier,
        "reply-dst-address": asker,
        "srcnat": "true" if asker != source else "false",
        "dstnat": "true" if replier != destination else "false",
        "seen-reply": "false" if "[UNREPLIED]" in line else "true",
        "orig-packets": original["packets"],
        "orig-bytes": original["bytes"],
        "repl-packets": reply["packets"],
        "repl-bytes": reply["bytes"],
    }


def _directions(words: list[tuple[str, str]]) -> list[dict[str, str]]:
    """Each direction begins with its `src`."""
    found: list[dict[str, str]] = []
    for name, value in words:
        if name == "src":
            found.append({})
        found[-1].setdefault(name, value)
    return found


def _ends(protocol: str, words: dict[str, str]) -> tuple[str, str]:
    if protocol not in _WITH_PORTS:
        return words["src"], words["dst"]
    form = "[{}]:{}" if ":" in words["src"] else "{}:{}"
    return form.format(words["src"], words["sport"]), form.format(words["dst"], words["dport"])


def disagreement(ctweb: Tracked, entry: Row) -> str:
    """How the table differs from nf_conntrack on this connection; "" if it has one row, and that says the same."""
    rows = [row for row in ctweb.rows(protocol=entry["protocol"]) if _of(row, entry)]
    if len(rows) != 1:
        return f"{entry}: {len(rows)} rows: {rows}"
    return "; ".join(
        f"{name} {rows[0].get(name)} for {entry[name]}" for name in COMPARED if rows[0].get(name) != entry[name]
    )


def _of(row: Row, entry: Row) -> bool:
    """Whether a row is about this connection, whichever of its tuples it stands under."""
    ends = {entry["src-address"], entry["dst-address"]}, {entry["reply-src-address"], entry["reply-dst-address"]}
    return {row["src-address"], row["dst-address"]} in ends
