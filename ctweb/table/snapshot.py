"""A snapshot: the whole connection table as it stood at one sweep, for all readers to share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ctweb.table.columns import Columns, all_but
from ctweb.table.expiry import dying
from ctweb.table.rates import rates
from ctweb.table.translated import Translated

NOTHING_TRANSLATED = Translated.empty()


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One sweep's result. Never written to after it is published; arrays are parallel to `columns`."""

    seq: int  # grows by one each sweep and each removal; 0: nothing has been read yet
    time: float  # Unix seconds of the reading
    now: int  # datapath ns when the reading began: timeout left = columns.expires - now
    until: int  # datapath ns when the reading ended
    columns: Columns
    rates: NDArray[np.float32]  # (n, 2) bits per second, original and reply
    dying: NDArray[np.bool_]  # (n,) its timeout has passed, or it has been claimed: about to be removed
    counters: Mapping[str, int] = field(default_factory=dict)  # the kernel's totals since start, by name
    mark_names: tuple[str, ...] = ("",)  # of columns.mark, by number
    translated: Translated = NOTHING_TRANSLATED
    translation: NDArray[np.int32] | None = None  # (n,) row in `translated`, -1: not translated; None: nothing is
    grown: tuple[int, int] = (0, 0)  # bytes that came since the sweep before on `columns`, original and reply
    interval: float = 0.0  # seconds of datapath time since the sweep before; 0: there was none
    sweep_seconds: float = 0.0  # wall time it took to make this snapshot

    def __len__(self) -> int:
        return len(self.columns)

    def without(self, ids: NDArray[np.uint64]) -> Snapshot:
        """The same table without the connections of these ids: itself, if it has none of them."""
        gone = np.flatnonzero(np.isin(self.columns.id, ids))
        if not len(gone):
            return self
        return replace(
            self,
            columns=self.columns.without(gone).freeze(),
            rates=all_but(self.rates, gone),
            dying=all_but(self.dying, gone),
            translation=None if self.translation is None else all_but(self.translation, gone),
        )

    @classmethod
    def empty(cls) -> Snapshot:
        """The table before anything was read: no rows, seq 0."""
        return cls(
            seq=0,
            time=0.0,
            now=0,
            until=0,
            columns=Columns.empty(),
            rates=np.empty((0, 2), np.float32),
            dying=np.empty(0, np.bool_),
        )


def advance(
    before: Snapshot,
    columns: Columns,
    *,
    time: float,
    now: int,
    until: int,
    counters: Mapping[str, int],
    mark_names: tuple[str, ...] = ("",),
    translated: Translated = NOTHING_TRANSLATED,
) -> Snapshot:
    """The snapshot after `before`: `columns` read between `now` and `until` (datapath ns) at Unix `time`.

    The columns are frozen: they are everybody's from here on.
    """
    bits, grown = rates(columns, (now, until), before.columns, (before.now, before.until))
    return Snapshot(
        seq=before.seq + 1,
        time=time,
        now=now,
        until=until,
        columns=columns.freeze(),
        rates=bits,
        grown=(int(grown[0]), int(grown[1])),
        dying=dying(columns, now),
        counters=counters,
        mark_names=mark_names,
        translated=translated,
        translation=translated.rows_of(columns.id),
        interval=(now - before.now) / 1e9 if before.seq else 0.0,
    )
