"""The table one row at a time, in plain Python: slow, obvious, and what the columns must agree with.

`tables` makes small snapshots for hypothesis: few distinct values, so that filters meet something.
"""

from __future__ import annotations

import ipaddress

import numpy as np
from by_hand import SECOND, make_columns
from hypothesis import strategies as st

from ctweb.settings import format_time
from ctweb.table.snapshot import Snapshot

NOW = 5_000 * SECOND
STATES = ["none", "syn-sent", "syn-received", "established", "fin-wait", "close-wait", "last-ack", "time-wait",
          "close", "listen"]  # fmt: skip
PROTOCOLS = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6", 47: "gre", 132: "sctp", 33: "dccp", 136: "udp-lite",
             50: "ipsec-esp", 200: "200"}  # fmt: skip
WITH_PORTS = (6, 17, 33, 132, 136)

IPV4 = st.sampled_from(["10.0.0.1", "10.0.0.12", "10.1.0.1", "192.0.2.44", "0.0.0.0", "255.255.255.255"])
IPV6 = st.sampled_from(["2001:db8::1", "2001:db8:0:1::", "fe80::1:0:0:1", "::", "::1", "::ffff:c000:22c",
                        "2001:db8:1:2:3:4:5:6", "1:0:2:0:3:0:4:0"])  # fmt: skip
MARKS = ("", "voip", 'quo"te')
COUNTS = st.sampled_from([0, 1, 60, 999, 1_000_000, 2**32, 2**40 + 1])

connections = st.fixed_dictionaries(
    {
        "lo": IPV4, "hi": IPV4, "lo6": IPV6, "hi6": IPV6,
        "family": st.sampled_from([4, 4, 6]),
        "lo_port": st.sampled_from([0, 22, 53, 443, 4430, 65535]),
        "hi_port": st.sampled_from([8 << 8, 80, 443, 44312, 13 << 8 | 1]),
        "protocol": st.sampled_from(sorted(PROTOCOLS)),
        "status": st.integers(0, 63),
        "tcp_state": st.integers(0, 9),
        "mark": st.sampled_from([0, 0, 1, 2]),
        "expires": st.sampled_from([0, NOW, NOW + 1, NOW + SECOND, NOW + 10 * SECOND, NOW + 86_400 * SECOND,
                                    NOW + 777_600 * SECOND + 5]),
        "packets": st.tuples(COUNTS, COUNTS), "bytes": st.tuples(COUNTS, COUNTS),
        "fasttrack_packets": st.tuples(COUNTS, COUNTS), "fasttrack_bytes": st.tuples(COUNTS, COUNTS),
        "rates": st.tuples(st.sampled_from([0.0, 0.4, 1760.0, 6.4e6]), st.sampled_from([0.0, 6400.0, 1e9])),
    }
)  # fmt: skip


def snapshot_of(rows) -> Snapshot:
    """A snapshot of these connections (dictionaries as `connections` makes), their ids not in order."""
    given = {
        name: [row[name] for row in rows]
        for name in ("family", "lo_port", "hi_port", "protocol", "status", "tcp_state", "expires", "packets",
                     "bytes", "fasttrack_packets", "fasttrack_bytes")
    }  # fmt: skip
    for end in ("lo", "hi"):
        packed = [ipaddress.ip_address(r[end] if r["family"] == 4 else r[end + "6"]).packed for r in rows]
        given[end + "_addr"] = [list(p.ljust(16, b"\0")) for p in packed]
    given["mark"] = [row.get("mark", 0) for row in rows]
    columns = make_columns([(i * 7919) % 10_007 + 1 for i in range(len(rows))],
                           **{n: v for n, v in given.items() if rows})  # fmt: skip
    return Snapshot(
        seq=1,
        time=0.0,
        now=NOW,
        until=NOW,
        columns=columns.freeze(),
        rates=np.array([row["rates"] for row in rows], np.float32).reshape(-1, 2),
        dying=columns.expires <= NOW,
        mark_names=MARKS,
    )


tables = st.lists(connections, max_size=12).map(snapshot_of)


def row(snapshot: Snapshot, i: int) -> dict[str, str]:
    """Row i in RouterOS's REST form."""
    c = snapshot.columns
    swapped = bool(c.status[i] & 1)
    lo, hi = ((_address(c.family[i], a[i]), int(p[i])) for a, p in ((c.lo_addr, c.lo_port), (c.hi_addr, c.hi_port)))
    source, destination = (hi, lo) if swapped else (lo, hi)
    protocol = int(c.protocol[i])
    ports = protocol in WITH_PORTS
    left = max(0, int(c.expires[i]) - snapshot.now) // SECOND
    shown = {
        ".id": f"*{int(c.id[i]):X}",
        "protocol": PROTOCOLS[protocol],
        "timeout": format_time(left * 1000),
        "orig-rate": str(round(float(snapshot.rates[i, 0]))),
        "repl-rate": str(round(float(snapshot.rates[i, 1]))),
    }
    for name, end in {"src": source, "dst": destination, "reply-src": destination, "reply-dst": source}.items():
        shown[f"{name}-address"] = _with_port(*end) if ports else end[0]
        if ports:
            shown[f"{name}-port"] = str(end[1])
    for name in ("packets", "bytes"):
        for way, side in enumerate(("orig", "repl")):
            shown[f"{side}-{name}"] = str(getattr(c, name)[i, way])
            shown[f"{side}-fasttrack-{name}"] = str(getattr(c, f"fasttrack_{name}")[i, way])
    for name, bit in {"seen-reply": 2, "assured": 4, "confirmed": 8, "expected": 16, "fasttrack": 32}.items():
        shown[name] = "true" if c.status[i] & bit else "false"
    shown |= dict.fromkeys(("srcnat", "dstnat", "hw-offload", "uses-helper"), "false")
    shown["dying"] = "true" if snapshot.dying[i] else "false"
    if protocol == 47:
        shown |= {"gre-version": "0", "gre-protocol": "other"}
    if protocol in (1, 58):
        asked = int(c.hi_port[i])
        shown |= {"icmp-type": str(asked >> 8), "icmp-code": str(asked & 255), "icmp-id": str(c.lo_port[i])}
    if c.mark[i]:
        shown["connection-mark"] = MARKS[c.mark[i]]
    if protocol == 6:
        shown["tcp-state"] = STATES[c.tcp_state[i]]
    return shown


def letters(shown: dict[str, str]) -> str:
    """The flags of a row."""
    names = {"E": "expected", "S": "seen-reply", "A": "assured", "C": "confirmed", "D": "dying", "F": "fasttrack",
             "H": "hw-offload", "s": "srcnat", "d": "dstnat", "h": "uses-helper"}  # fmt: skip
    return "".join(letter for letter, name in names.items() if shown[name] == "true")


def _address(family, octets) -> str:
    if family == 4:
        return str(ipaddress.IPv4Address(octets[:4].tobytes()))
    text = str(ipaddress.IPv6Address(octets.tobytes()))
    return "::ffff:c000:22c" if text == "::ffff:192.0.2.44" else text  # Python 3.13's way


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
