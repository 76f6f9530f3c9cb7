"""A snapshot: the whole connection table as it stood at one sweep, for all readers to share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ctweb.table.columns import Columns


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One sweep's result. Never written to after it is published; arrays are parallel to `columns`."""

    seq: int  # grows by one each sweep; 0: nothing has been read yet
    time: float  # Unix seconds of the reading
    now: int  # datapath ns of the reading: timeout left = columns.expires - now
    columns: Columns
    rates: NDArray[np.float32]  # (n, 2) bits per second, original and reply
    dying: NDArray[np.bool_]  # (n,) its timeout has passed, or it has been claimed: about to be removed
    counters: Mapping[str, int] = field(default_factory=dict)  # the kernel's totals since start, by name
    interval: float = 0.0  # seconds of datapath time since the sweep before; 0: there was none
    sweep_seconds: float = 0.0  # wall time it took to make this snapshot

    def __len__(self) -> int:
        return len(self.columns)

    @classmethod
    def empty(cls) -> Snapshot:
        """The table before anything was read: no rows, seq 0."""
        return cls(
            seq=0,
            time=0.0,
            now=0,
            columns=Columns.empty(),
            rates=np.empty((0, 2), np.float32),
            dying=np.empty(0, np.bool_),
        )
