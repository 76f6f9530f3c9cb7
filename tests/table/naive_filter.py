"""The filter language on one row at a time: what `match.py` must agree with. And filters for hypothesis."""

from __future__ import annotations

import ipaddress
import operator
import re

from hypothesis import strategies as st
from naive import letters

from ctweb.settings import parse_time
from ctweb.table.filter_language import And, Not, Or, Term, Word, all_of, any_of, term

SHORT = {
    "id": ".id", "proto": "protocol", "src": "src-address", "dst": "dst-address", "sport": "src-port",
    "dport": "dst-port", "state": "tcp-state", "mark": "connection-mark", "type": "connection-type",
}  # fmt: skip
EITHER = {"addr": ("src-address", "dst-address"), "port": ("src-port", "dst-port")}
SUMS = {n: (f"orig-{n}", f"repl-{n}") for n in ("bytes", "packets", "rate")}
COMPARE = {"=": operator.eq, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}
UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "ki": 2**10, "Mi": 2**20, "Gi": 2**30}
ALIASES = {"syn-recv": "syn-received", "esp": "ipsec-esp", "6": "tcp", "58": "icmpv6", "ipv6-icmp": "icmpv6",
           "udplite": "udp-lite"}  # fmt: skip


def shows(row, word) -> bool:
    """Free text: the word stands in what is shown of the addresses, the protocol or the state."""
    shown = (row["src-address"], row["dst-address"], row["protocol"], row.get("tcp-state", ""))
    return any(word.lower() in text for text in shown)


def holds(row, node) -> bool:
    match node:
        case Word(text):
            return shows(row, text)
        case Not(inner):
            return not holds(row, inner)
        case And(nodes):
            return all(holds(row, n) for n in nodes)
        case Or(nodes):
            return any(holds(row, n) for n in nodes)
        case Term(name, op, values):
            if op == "!=":
                return not any(one(row, name, "=", v) for v in values)
            return any(one(row, name, op, v) for v in values)


def one(row, name, op, value) -> bool:
    if name == "flag":
        return set(value) <= set(letters(row))
    if name in SUMS:
        return COMPARE[op](sum(int(row[n]) for n in SUMS[name]), number(value))
    names = EITHER.get(name, (SHORT.get(name, name),))
    return any(n in row and prop(row[n], n, op, value) for n in names)


def prop(shown, name, op, value) -> bool:
    if name == "connection-mark":
        return shown == value
    if name.endswith("-address"):
        return inside(shown, value)
    if name.endswith("-port") and "-" in value:
        first, last = value.split("-")
        return int(first) <= int(shown) <= int(last)
    if name == "timeout":
        return COMPARE[op](parse_time(shown), parse_time(value))
    if shown in ("true", "false"):
        return (shown == "true") == (value in ("yes", "true"))
    if shown.isdigit() and name != "protocol":
        return COMPARE[op](int(shown), number(value))
    if name == ".id":
        return shown.strip("*") == value.strip("*").upper()
    return shown == ALIASES.get(value.lower(), value.lower())


def number(text) -> int:
    digits, unit = re.fullmatch(r"([\d.]+)(\w*?)(?:bps)?", text).groups()
    return round(float(digits) * UNITS.get(unit, 1))


def inside(shown, value) -> bool:
    address, port = cut(shown)
    network, wanted = cut(value)
    net = ipaddress.ip_network(network, strict=False)
    ip = ipaddress.ip_address(address)
    return ip.version == net.version and ip in net and wanted in (None, port)


def cut(text):
    """Address and port."""
    if text.startswith("["):
        address, _, port = text[1:].partition("]:")
        return address, port
    address, colon, port = text.partition(":")
    return (address, port) if "." in address and colon else (text, None)


NUMBERS = st.sampled_from(["0", "60", "1M", "1000k", "1.5M", "4Gi", "999", "2T", "1000060"])
PORTS = st.sampled_from(["443", "22", "0", "65535", "80", "53"])
PORT_RANGES = st.sampled_from(["22-443", "0-65535", "443-443"])
ADDRESSES = st.sampled_from(
    ["10.0.0.1", "10.0.0.0/8", "10.0.0.77/24", "0.0.0.0/0", "10.0.0.1:443", "192.0.2.44:80", "2001:db8::1", "::/0",
     "2001:db8::/32", "[2001:db8::1]:443", "fe80::/10", "2001:db8:0:1::/63", "::1/127", "::ffff:192.0.2.44", "::"]
)  # fmt: skip
CHOICES = {
    "proto": ["tcp", "udp", "ICMP", "icmpv6", "gre", "esp", "6", "58", "200", "ipv6-icmp", "udplite"],
    "state": ["established", "syn-recv", "syn-received", "none", "listen", "time-wait"],
    "flag": ["S", "SA", "AS", "E", "D", "h", "C"],
    ".id": ["*1", "*1EF0", "1ef0", "*FFFFFFFFFFFFFFFF"],
    "mark": ["voip", "a b", 'quo"te', "back\\slash", "com,ma"],
    "assured": ["yes", "no", "true", "false"], "dying": ["yes", "no"], "srcnat": ["yes", "no"],
}  # fmt: skip
CHOICES |= {"protocol": CHOICES["proto"], "tcp-state": CHOICES["state"], "id": CHOICES[".id"],
            "connection-mark": CHOICES["mark"]}  # fmt: skip
COMPARABLE = {
    **dict.fromkeys(("bytes", "packets", "orig-bytes", "repl-packets", "icmp-type", "icmp-id"), NUMBERS),
    **dict.fromkeys(("rate", "orig-rate", "repl-rate"), NUMBERS | st.sampled_from(["6400bps", "6.4kbps", "1Gbps"])),
    **dict.fromkeys(("port", "sport", "dport", "src-port", "reply-src-port"), PORTS),
    "timeout": st.sampled_from(["0s", "10s", "500ms", "1d", "00:00:10", "1w2d", "10"]),
}

terms = (
    st.sampled_from(sorted(CHOICES)).flatmap(
        lambda n: st.builds(
            term,
            st.just(n),
            st.sampled_from(["=", "!="]),
            st.lists(st.sampled_from(CHOICES[n]), min_size=1, max_size=3),
        )
    )
    | st.builds(
        term,
        st.sampled_from(["src", "dst", "addr", "src-address", "reply-dst-address"]),
        st.sampled_from(["=", "!="]),
        st.lists(ADDRESSES, min_size=1, max_size=3),
    )
    | st.builds(
        term,
        st.sampled_from(["port", "sport", "dst-port"]),
        st.sampled_from(["=", "!="]),
        st.lists(PORTS | PORT_RANGES, min_size=1, max_size=3),
    )
    | st.sampled_from(sorted(COMPARABLE)).flatmap(
        lambda n: st.builds(
            term, st.just(n), st.sampled_from(["=", "!=", "<", ">", "<=", ">="]), COMPARABLE[n].map(lambda v: [v])
        )
    )
)

# Pieces of what is shown, and what is nearly that.
words = st.builds(
    Word,
    st.sampled_from(
        ["10", "0.0", "10.0.0.1", "1:4", "443", "TCP", "ud", "icmp", "est", "syn-", "db8", "2001:db8::1", "::", ":1",
         "[", "]:4", "[fe80::1:0:0:1]", "::1]", ".", ":", "0:1::", "8::", "1::", "0.1:44", "200", "dead", "", "x",
         "or", "not", "AND", "!", "!a", 'a"b', "a b", "(", "\\", "port:", "a:b", "src", "fe:", "10.0.0.1:", "44]"]
    ),
)  # fmt: skip

filters = st.recursive(
    terms | words,
    lambda inner: st.builds(Not, inner)
    | st.lists(inner, min_size=2, max_size=3).map(all_of)
    | st.lists(inner, min_size=2, max_size=3).map(any_of),
    max_leaves=6,
)
