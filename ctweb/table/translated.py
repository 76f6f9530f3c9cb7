"""NAT beside the columns: what the replies of translated connections carry.

A table without NAT has none of it, and nothing here costs anything then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctweb.table.columns import U8, U16, U64
from ctweb.table.rates import Rows


@dataclass(frozen=True, eq=False)
class Translated:
    """m translations, in no order; of several with one id the last one counts. Never written to once published.

    The normalised tuple of a connection as it is on the other side of the translation, in the form of `Columns`.
    `flip`: what goes from its `hi` end goes from the connection's `lo` end.
    """

    id: U64  # (m,) of the connection; 0: none is known
    lo_addr: U8  # (m, 16)
    hi_addr: U8  # (m, 16)
    lo_port: U16  # (m,) host order
    hi_port: U16  # (m,)
    flip: NDArray[np.bool_]  # (m,)

    def __len__(self) -> int:
        return len(self.id)

    @classmethod
    def empty(cls) -> Translated:
        """None at all."""
        address, port = np.empty((0, 16), np.uint8), np.empty(0, np.uint16)
        return cls(np.empty(0, np.uint64), address, address, port, port, np.empty(0, np.bool_))

    def rows_of(self, ids: U64) -> NDArray[np.int32] | None:
        """The row here of each connection id, -1: it has none. (n,) None: no connection has one."""
        return Rows(self.id).find(ids) if len(self) else None
