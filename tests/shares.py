"""What tests a worker takes at a time, and which first.

A share is a file, for what is started once for a file. Where all files of a folder share what was started, it is half
of the folder: all tests of one hook, or half of the files. So it is started twice, not in each file anew.
"""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling

_BY_HOOK = {"tests/lab", "tests/nat", "tests/parity"}
_BY_NAME = {"tests/browser"}
_APART = {  # files of these folders that start all they need themselves, or look at more than they have sent
    "tests/lab/test_detach.py",
    "tests/lab/test_rules.py",
    "tests/lab/test_takeover.py",
    "tests/nat/test_followed.py",
    "tests/nat/test_removed.py",
}
_HOOK = re.compile(r"[\[-](tc|xdp)[\]-]")

# What takes half a minute or so, the longest first: no worker is still at one of them when the others have ended.
# A share that is missing here, or has become quicker, costs some seconds at the end.
_LONG = (
    "tests/lab/test_takeover.py",
    "tests/parity tc",
    "tests/parity xdp",
    "tests/browser a-g",
    "tests/browser h-z",
    "tests/security/test_floods.py",
    "tests/test_run.py",
    "tests/reliability/test_world.py",
    "tests/lab tc",
    "tests/lab xdp",
    "tests/fasttrack/test_changes.py",
    "tests/security/test_signing_in.py",
    "tests/lab/test_detach.py",
    "tests/fasttrack/test_ways.py",
    "tests/fasttrack/test_through.py",
    "tests/security/test_tls.py",
    "tests/nat/test_followed.py",
    "tests/lab/test_enabled.py",
    "tests/lab/test_rules.py",
    "tests/test_privileges.py",
    "tests/setup/test_install.py",
    "tests/fasttrack/test_refused.py",
    "tests/reliability/test_soak.py",
    "tests/web/test_openapi.py",
    "tests/reliability/test_flood.py",
    "tests/fasttrack/test_no_way.py",
    "tests/nat xdp",
    "tests/nat tc",
    "tests/web/test_live.py",
    "tests/bench/test_figures.py",
    "tests/test_cli.py",
    "tests/test_service.py",
    "tests/web/test_server.py",
    "tests/security/test_slow_clients.py",
    "tests/reliability/test_parsers.py",
    "tests/fasttrack/test_wire.py",
    "tests/fasttrack/test_iperf3.py",
    "tests/fasttrack/test_back_to_stack.py",
    "tests/reliability/test_clients.py",
    "tests/nat/test_removed.py",
)
_PLACES = {share: place for place, share in enumerate(_LONG)}


def share_of(test: str) -> str:
    """The name of the share that the test with this node id belongs to."""
    file, _, name = test.partition("::")
    folder, _, base = file.rpartition("/")
    if file in _APART:
        return file
    if folder in _BY_HOOK and (hook := _HOOK.search(name)):
        return f"{folder} {hook[1]}"
    if folder in _BY_NAME:
        return f"{folder} {'a-g' if base < 'test_h' else 'h-z'}"
    return file


def place(test: str) -> int:
    """What to sort node ids by."""
    return _PLACES.get(share_of(test), len(_LONG))


class Shares(LoadScopeScheduling):
    """Gives the workers of pytest-xdist one share after the other, in the order of the tests."""

    def __init__(self, config, log) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # not by the number of their tests

    def _split_scope(self, nodeid: str) -> str:
        return share_of(nodeid)
