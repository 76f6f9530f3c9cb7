"""A check's outcome, and the report of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One thing looked at. `ok` is whether ctweb runs as the machine stands; `remedy` is what to do,
    or, where it is ok, what would be better."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def report(checks: Iterable[Check]) -> str:
    """The checks as text: one line each, the remedy below it, the outcome last."""
    lines, problems = [], 0
    for check in checks:
        problems += not check.ok
        mark = "note" if check.remedy else "ok"
        lines.append(f"{mark if check.ok else 'FAIL':4}  {check.name:13} {check.detail}")
        if check.remedy:
            lines.append(f"{'':20}-> {check.remedy}")
    count = "1 thing is" if problems == 1 else f"{problems} things are"
    outcome = f"ctweb cannot run here: {count} in the way, marked FAIL above." if problems else "ctweb can run here."
    lines += ["", outcome]
    return "\n".join(lines)
