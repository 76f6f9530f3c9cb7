"""What FastTrack does at the moment, for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FastPath:
    """The rules that fasttrack, and where they can.

    interfaces: names, with the reason why one takes no part ("": it does). refusals: which rules are not in force, and
    why, a line for each. packets, offered: of all packets that were met, those that the XDP program forwarded.
    """

    interfaces: tuple[tuple[str, str], ...]
    refusals: tuple[str, ...]
    packets: int
    offered: int
