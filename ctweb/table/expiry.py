"""Which connections have run out of time. Verdicts only: the kernel decides last, entry by entry.

Nothing revives an entry once `expires` has passed (docs/architecture.md, "Life of an entry"): a packet that
meets it starts a new connection with a new id. So an entry that had expired by the sweep before was shown
as dying then, and it is the same connection still: no memory of the sweep before is needed but its time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ctweb.table.columns import Columns


def dying(columns: Columns, now: int) -> NDArray[np.bool_]:
    """Who has expired at `now` (datapath ns). (n,)

    The kernel takes an entry for alive while `expires` is ahead of its clock, so equal is expired.
    """
    return columns.expires <= np.uint64(now)


def due(columns: Columns, before: int) -> NDArray[np.bool_]:
    """Who goes to the reaper and is shown no more. (n,) `before`: when the sweep before began (0: there was none).

    That is who had expired by then.
    """
    return columns.expires <= np.uint64(before)
