from __future__ import annotations

import socket

import numpy as np
import pytest
from crafted import CLIENT, SERVER, udp_frame
from table import Table

from ctweb.datapath.build import BuildOptions, compile_datapath
from ctweb.settings import Tracking


@pytest.fixture(scope="session")
def replaying():
    """The programs on the clock of their frames, with a table made whole, compiled once."""
    made = compile_datapath(BuildOptions(max_entries=10_000, replay=True, preallocate=True))
    yield made
    made.close()


@pytest.fixture
def table(replaying) -> Table:
    """An empty table on a clock of its own, with the default settings."""
    replaying.apply(Tracking())
    made = Table(replaying)
    made.clear()
    return made


@pytest.fixture
def masqueraded(table):
    """One connection, from CLIENT:1000 to SERVER:53; the address as which its source is seen from outside."""
    table.see(udp_frame(CLIENT, 1000, SERVER, 53))
    alias = np.array([table.key()], table.datapath.key_dtype)
    translations = table.datapath.translations
    leaf = translations.Leaf()
    leaf.tuple = type(leaf.tuple).from_buffer_copy(alias.tobytes())
    leaf.standing = 1
    alias["hi_addr"][0, 0] = np.frombuffer(socket.inet_aton("10.0.0.9"), np.uint32)[0]
    translations[translations.Key.from_buffer_copy(alias.tobytes())] = leaf
    table.datapath.expect_nat(True)
    yield "10.0.0.9"
    table.datapath.expect_nat(False)
