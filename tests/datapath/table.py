"""The datapath in a test: frames go in, entries and counters come out."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bcc.libbcc import lib

from ctweb.datapath.bpf import SkBuff, TestRun, TestRunner
from ctweb.datapath.build import Datapath

SECOND = 1_000_000_000
PASS_ON = 0xFFFFFFFF  # TC_ACT_UNSPEC
XDP_PASS = 2


@dataclass
class Table:
    """Runs programs over frames on a clock of its own (a replay build), and reads what became of them."""

    datapath: Datapath
    now: int = 1_000_000 * SECOND
    _runners: dict[str, TestRunner] = field(default_factory=dict)
    _before: dict[str, int] = field(default_factory=dict)

    def see(self, frame: bytes, program: str = "tc_ingress", **context: int) -> TestRun:
        """One frame through a program; it must go on its way unchanged. `context`: fields of the skb."""
        runner = self._runners.setdefault(program, TestRunner(self.datapath.programs[program]))
        if program.startswith("xdp"):
            done = runner.run(frame)
            assert done.retval == XDP_PASS
        else:
            done = runner.run(frame, SkBuff(tstamp=self.now, **context))
            assert done.retval == PASS_ON
        assert done.data == frame
        return done

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)

    def entries(self) -> list[tuple[np.void, np.void]]:
        """Key and value of every entry, also of those that are over."""
        table = self.datapath.connections
        return [
            (np.frombuffer(key, self.datapath.key_dtype)[0], np.frombuffer(leaf, self.datapath.leaf_dtype)[0])
            for key, leaf in table.items()
        ]

    def live(self) -> list[tuple[np.void, np.void]]:
        return [(key, conn) for key, conn in self.entries() if conn["expires"] > self.now]

    def only(self) -> np.void:
        """The value of the one live connection."""
        (entry,) = self.live()
        return entry[1]

    def key(self) -> np.void:
        (entry,) = self.live()
        return entry[0]

    def state(self) -> str:
        """TCP state of the one live connection, or "gone"."""
        names = {value: name.removeprefix("TCP_") for name, value in self.datapath.enums["tcp_state"].items()}
        live = self.live()
        return names[int(live[0][1]["tcp_state"])] if live else "gone"

    def flags(self) -> set[str]:
        """Names of the status bits of the one live connection, SWAPPED aside."""
        status = int(self.only()["status"])
        bits = self.datapath.enums["status"]
        return {name.removeprefix("STATUS_") for name, bit in bits.items() if status & bit} - {"SWAPPED"}

    def timeout(self) -> float:
        """Seconds that the one live connection has left."""
        return (int(self.only()["expires"]) - self.now) / SECOND

    def counted(self) -> dict[str, int]:
        """What the kernel's counters have grown by since the table was emptied, COUNT_ left out and zeros left out."""
        grown = {
            name.removeprefix("COUNT_"): value - self._before.get(name, 0)
            for name, value in self.datapath.read_counters().items()
        }
        return {name: value for name, value in grown.items() if value}

    def untracked(self) -> dict[str, int]:
        """Packets of no connection, by reason."""
        values = self.datapath.enums["counter"]
        first = values["COUNT_UNTRACKED"]
        return {name: n for name, n in self.counted().items() if values[f"COUNT_{name}"] >= first}

    def check_conservation(self) -> None:
        """Offered = live + ended + untracked, in packets and in bytes."""
        counted = self.counted()
        entries = self.entries()
        for unit, untracked in (
            ("packets", sum(self.untracked().values())),
            ("bytes", counted.get("UNTRACKED_BYTES", 0)),
        ):
            live = sum(int(conn[unit].sum()) for _, conn in entries)
            ended = counted.get(f"ENDED_{unit.upper()}", 0)
            assert counted.get(f"OFFERED_{unit.upper()}", 0) == live + ended + untracked, (unit, counted)

    def clear(self) -> None:
        """Empty the table, let the counters start from here."""
        self.datapath.connections.clear()
        empty(self.datapath.datagrams)
        empty(self.datapath.translations)
        shared = self.datapath.shared  # how many connections there are, and the ring of new ones
        seed = shared[0].seed
        shared[0] = shared.Leaf(seed=seed)
        self._before = self.datapath.read_counters()


def empty(table: Any) -> None:
    """Delete every entry of a hash map."""
    keys = [bytes(key) for key in table]
    if keys:
        count = ctypes.c_uint32(len(keys))
        packed = b"".join(keys)
        assert lib.bpf_delete_batch(table.map_fd, packed, ctypes.byref(count)) == 0
