"""`make bench`: every figure, printed and written to bench/results.json.

`--quick` measures shorter (the figures are rougher); `--docs` also writes the table in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from bench import (
    capabilities,
    conntrack_table,
    dashboard,
    fasttrack,
    forward,
    iperf,
    memory,
    new_connections,
    packet_cost,
    process,
    random_order,
    reaping,
    rest,
    sweep,
    two_cpus,
)
from bench.figure import Figure, as_json, as_markdown, replace_generated
from bench.machine import machine
from ctweb.datapath.build import BuildError

HERE = Path(__file__).parent


def measured(quick: bool, seconds: float) -> Iterator[Figure]:
    """Every figure, as it is done."""
    yield from packet_cost.figures(runs=200_000 if quick else 10_000_000, rounds=3 if quick else 5)
    yield from random_order.figures(rounds=3 if quick else 7)
    yield from forward.figures(packets=100_000 if quick else 300_000, rounds=3 if quick else 9)
    yield from iperf.figures(gigabytes=1 if quick else 3, rounds=3 if quick else 40)
    yield from new_connections.figures(connections=50_000 if quick else 100_000, rounds=3 if quick else 7)
    yield from two_cpus.figures(packets=60_000 if quick else 200_000, rounds=3 if quick else 9)
    yield from memory.figures(rounds=1 if quick else 3)
    yield from capabilities.figures(runs=100_000 if quick else 2_000_000, rounds=3 if quick else 5)
    yield from fasttrack.figures(packets=300_000 if quick else 3_000_000, rounds=3 if quick else 7)
    listing, _, _ = conntrack_table.listed(sweep.ENTRIES, 1 if quick else 3)
    yield from sweep.figures(rounds=3 if quick else 9, listing=listing)
    yield from reaping.figures(rounds=1 if quick else 3)
    yield from process.figures(seconds=5 if quick else 15, rounds=2 if quick else 5)
    yield from rest.figures(rounds=1 if quick else 5)
    yield from dashboard.figures(seconds=seconds, rounds=2 if quick else 5)


def main() -> int:
    """Measure and report. A missed target is told, and is no failure: machines differ."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--docs", action="store_true", help="write the table in docs/benchmarks.md")
    parser.add_argument("--page-seconds", type=float, help="how long the page is watched; default 60, --quick 15")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: loading BPF programs needs root: start again with sudo (sudo make bench)", file=sys.stderr)
        return 2
    # One CPU: moving between them would show in the figures.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    here = machine()
    print(", ".join(f"{key} {value}" for key, value in here.items()), flush=True)
    figures = []
    try:
        for figure in measured(options.quick, options.page_seconds or (15 if options.quick else 60)):
            print(figure.line(), flush=True)
            figures.append(figure)
    except BuildError as error:
        print(f"bench: {error}; see ctweb doctor", file=sys.stderr)
        return 2
    (HERE / "results.json").write_text(as_json(figures, here))
    print(f"written to {HERE / 'results.json'}")
    if options.docs:
        replace_generated(HERE.parent / "docs" / "benchmarks.md", as_markdown(figures, here))
    return 0


if __name__ == "__main__":
    sys.exit(main())
