"""Prepares nf_conntrack for connections of which it will see a packet every few seconds only.

The sequence numbers that it misses would put the next packet outside of the window that it remembers, and the entry
would neither be refreshed nor follow the connection to its end. So it is told, for these entries alone, to take
packets whatever the window says (IP_CT_TCP_FLAG_BE_LIBERAL), as the kernel does for connections in its own flow table.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ctweb.datapath.conntrack_requests import CHANGE, ask, attribute, nested
from ctweb.table.columns import Columns
from ctweb.table.names import TCP

_PROTOINFO, _PROTOINFO_TCP, _FLAGS_ORIGINAL, _FLAGS_REPLY = 4, 1, 4, 5
_BE_LIBERAL = 0x08
_FLAGS = bytes((_BE_LIBERAL, _BE_LIBERAL))  # values, and which of them are meant

_LIBERAL = nested(
    _PROTOINFO, nested(_PROTOINFO_TCP, attribute(_FLAGS_ORIGINAL, _FLAGS) + attribute(_FLAGS_REPLY, _FLAGS))
)


def make_liberal(columns: Columns) -> NDArray[np.bool_]:
    """Tell nf_conntrack about these connections; which of them it has. (n,) Raises OSError."""
    return ask(columns, CHANGE, [_LIBERAL if protocol == TCP else b"" for protocol in columns.protocol])
