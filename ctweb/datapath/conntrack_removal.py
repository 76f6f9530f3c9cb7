"""Deletes connections from nf_conntrack too, where it runs: what is removed here starts anew there as well."""

from __future__ import annotations

import numpy as np

from ctweb.datapath.conntrack_requests import DELETE, ask, follows_any
from ctweb.table.columns import Columns


def delete(columns: Columns) -> int:
    """Delete nf_conntrack's entries of these connections; how many there were. Raises OSError.

    Nothing happens where nf_conntrack is not loaded, or follows nothing.
    """
    return int(np.count_nonzero(ask(columns, DELETE))) if follows_any() else 0
