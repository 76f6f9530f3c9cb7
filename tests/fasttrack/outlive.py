"""Long fasttracked connections, and short timeouts: `python -m fasttrack.outlive --minutes 10` in tests/.

nf_conntrack sees a packet of them every two seconds or so and forgets after three without one. Each second its entries
must be there and be the same ones, and so must ctweb's connections: fasttracked, established, and counting.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from lab.network import IPV4, IPV6, wait_for

from fasttrack.conftest import FORWARDED, MASQUERADED, Flow, Lab, fast, fasttracking
from fasttrack.flows import Datagrams, Transfer

SHORT = 3  # seconds that nf_conntrack keeps an entry without packets
PAUSE = 0.02  # seconds between chunks, and datagrams: ten minutes of them are no load
TIMEOUTS = (
    "tcp_timeout_established", "tcp_timeout_unacknowledged", "tcp_timeout_max_retrans", "udp_timeout",
    "udp_timeout_stream",
)  # fmt: skip


def shorten_timeouts(lab: Lab) -> None:
    lab.router.sysctl(**{f"netfilter_nf_conntrack_{name}": SHORT for name in TIMEOUTS})


def listed(lab: Lab, flow: Flow) -> str:
    """nf_conntrack's entry of the connection with its id, "" if it has none."""
    family, source, port = "ipv6" if "[" in flow.source else "ipv4", *flow.source.rsplit(":", 1)
    command = f"conntrack -L -o id -f {family} -p {flow.protocol} -s {source.strip('[]')} --orig-port-src {port}"
    return lab.router.run(*command.split())


@dataclass
class Watched:
    """One connection, second by second."""

    flow: Flow
    ids: set[tuple[str, str]] = field(default_factory=set)  # nf_conntrack's and ctweb's, as they were seen together
    looks: int = 0
    left: int = SHORT  # seconds that nf_conntrack's entry had left when it was nearest to its end
    fast: int = 0  # packets by the last look
    wrong: list[str] = field(default_factory=list)

    def look(self, lab: Lab) -> str:
        """What is there, in a line; what should not be so is noted."""
        entry, rows = listed(lab, self.flow), lab.rows(self.flow)
        found = re.match(rf"{self.flow.protocol} +\d+ (\d+) (?:(\w+) )?.*\bid=(\d+)\s*$", entry)
        self.looks += 1
        if not found or len(rows) != 1:
            return self._note(f"entry {entry.strip()!r}, rows {rows}")
        left, state, number = found.groups()
        row = rows[0]
        self.ids.add((number, row[".id"]))
        self.left = min(self.left, int(left))
        before, self.fast = self.fast, fast(row)
        line = f"id {number}, {left} s left, {state or '-'} | {row['.id']} fasttrack={row['fasttrack']} " + (
            f"{row.get('tcp-state', '-')} {row['timeout']}, +{self.fast - before} fast of "
            f"{int(row['orig-packets']) + int(row['repl-packets'])}"
        )
        tcp = self.flow.protocol == "tcp"
        right = (
            len(self.ids) == 1 and row["fasttrack"] == "true" and self.fast > before
            and (not tcp or (state, row["tcp-state"]) == ("ESTABLISHED", "established"))
        )  # fmt: skip
        return line if right else self._note(line)

    def _note(self, line: str) -> str:
        self.wrong.append(f"look {self.looks}: {line}")
        return f"WRONG: {line}"


def watch(lab: Lab, flows: Sequence[Flow], seconds: float, *, tell: bool = False) -> list[Watched]:
    """Looks each second at connections that something else keeps going."""
    for flow in flows:
        lab.wait_until_fast(flow)
    watched = [Watched(flow) for flow in flows]
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        seen = lab.health()["sweep"]
        wait_for("another sweep", lambda seen=seen: lab.health()["sweep"] > seen)
        for one in watched:
            line = one.look(lab)
            if tell:
                print(f"{passed:6.1f} {one.flow.protocol} {one.flow.source}: {line}", flush=True)
    return watched


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place, fasttracking(Path(place)) as lab, ExitStack() as stack:
        shorten_timeouts(lab)
        invalid = lab.invalid()
        flows = [
            kind(lab, ends, port, PAUSE)
            for kind in (Transfer, Datagrams)
            for ends, port in ((IPV4, MASQUERADED), (IPV6, FORWARDED))
        ]
        for flow in flows:
            stack.callback(flow.end)  # whole to the byte, none lost
        watched = watch(lab, flows, options.minutes * 60, tell=True)
        rows = [lab.row(flow) for flow in flows]
        assert lab.invalid() == invalid, f"{lab.invalid() - invalid} packets were invalid to nf_conntrack"
    for one, row in zip(watched, rows, strict=True):
        packets = int(row["orig-packets"]) + int(row["repl-packets"])
        print(
            f"{one.flow.protocol} {one.flow.source}: {one.looks} looks in {options.minutes:g} minutes, "
            f"entries {one.ids}, at least {one.left} s left, {fast(row):,} of {packets:,} packets fast; "
            f"{len(one.wrong)} looks wrong"
        )
    return int(any(one.wrong for one in watched))


if __name__ == "__main__":
    sys.exit(main())
