"""Connections made by hand, for tests that need no kernel."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from ctweb.table.columns import Columns

SECOND = 1_000_000_000


def make_columns(ids, **given) -> Columns:
    """Columns with these ids, UDP over IPv4, far from expiry, with whatever columns are given instead."""
    n = len(ids)
    made = {f.name: np.zeros((n, *getattr(Columns.empty(), f.name).shape[1:]),
                             getattr(Columns.empty(), f.name).dtype) for f in fields(Columns)}
    made["id"][:] = ids
    made["lo_addr"][:, 0] = 10
    made["lo_addr"][:, 2:4] = (np.arange(n)[:, np.newaxis] >> np.array([8, 0])) & 255
    made["hi_addr"][:, :4] = (192, 0, 2, 1)
    made["lo_port"][:] = 40000
    made["hi_port"][:] = 53
    made["protocol"][:] = 17
    made["family"][:] = 4
    made["created"][:] = SECOND
    made["expires"][:] = 1000 * SECOND
    for name, values in given.items():
        made[name] = np.broadcast_to(np.asarray(values, made[name].dtype), made[name].shape).copy()
    return Columns(**made)
