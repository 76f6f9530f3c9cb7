"""Conservation: what was offered is on live connections, on ended ones, or belongs to none, in packets and in bytes.

A sweep is no instant: packets come while it reads. So the kernel's totals are read before the table and after it, and
nothing is missing, or counted twice, as long as

    offered before <= live + ended after + untracked after,     what was there before the reading is in the sum,
    live + ended before + untracked before <= offered after.    what is in the sum had come by its end.

Where nothing comes meanwhile, both together say that the two sides are equal.
"""

from __future__ import annotations

from collections.abc import Mapping

from ctweb.table.columns import Columns
from ctweb.table.names import UNTRACKED_REASONS

UNITS = ("packets", "bytes")


def live(columns: Columns) -> dict[str, int]:
    """Packets and bytes on these connections."""
    return {"packets": int(columns.packets.sum()), "bytes": int(columns.bytes.sum())}


def untracked(counters: Mapping[str, int]) -> dict[str, int]:
    """Packets and bytes that belong to no connection; `counters` as in Snapshot.counters."""
    packets = sum(counters.get(reason, 0) for reason in UNTRACKED_REASONS)
    return {"packets": packets, "bytes": counters.get("untracked-bytes", 0)}


def gap(
    unit: str, before: Mapping[str, int], read: Mapping[str, int], kept: Mapping[str, int], after: Mapping[str, int]
) -> int:
    """How many of `unit` (UNITS) are missing from the sum; less than 0: are in it twice; 0: the accounts are right.

    `before`, `after`: the counters before the table was read and after the reaper has run. `read`: live() of all that
    was read, `kept`: of what was left of it.
    """
    offered, ended = f"offered-{unit}", f"ended-{unit}"
    missing = before[offered] - kept[unit] - after[ended] - untracked(after)[unit]
    # Fragments that came before their first one are taken back from the untracked when it comes.
    least_untracked = min(untracked(before)[unit], untracked(after)[unit])
    twice = read[unit] + before[ended] + least_untracked - after[offered]
    return missing if missing > 0 else -max(twice, 0)


def lasting(before: int, now: int) -> int:
    """What of a gap was there a sweep ago as well: a packet that was on its way just then is no gap."""
    if (before > 0) != (now > 0):
        return 0
    return min(before, now, key=abs)
