"""The programs of the datapath, each loaded when it is first wanted."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Literal

from ctweb.datapath.image import BuildError, Code, Image, last_words
from ctweb.datapath.libbcc import lib
from ctweb.datapath.map import Map

_KINDS = {"tc": 3, "xdp": 6}  # BPF_PROG_TYPE_SCHED_CLS, _XDP

# Programs that the hooks of a kind call for what most packets do not need, by the map they are called through ...
_ASIDES = {
    "tc": {"tc_asides": "tc_aside", "tc_helpers": "tc_help", "tc_long_way": "tc_long"},
    "xdp": {"xdp_asides": "xdp_aside", "xdp_helpers": "xdp_help", "xdp_long_way": "xdp_long"},
}
# ... and once rules are in force.
_RULES = {"tc": {"tc_rules": "tc_mark"}, "xdp": {"xdp_rules": "xdp_mark"}}

# Not wanted any more once packets come: it fills the table of a start that takes another one over.
_BEFORE_PACKETS = frozenset({"put"})


class Programs(Mapping[str, int]):
    """Descriptors by name. The first of a kind brings along what its hooks call. Any thread may ask.

    A program that the kernel does not take raises BuildError.
    """

    def __init__(self, image: Image, maps: dict[str, Map]) -> None:
        self._codes = {code.name: code for code in image.programs}
        self._licence = image.licence.encode()
        self._maps = maps
        self._loaded: dict[str, int] = {}
        self._kinds: set[Literal["tc", "xdp"]] = set()
        self._rules = False
        self._lock = threading.RLock()

    def __getitem__(self, name: str) -> int:
        with self._lock:
            if name not in self._loaded:
                code = self._codes[name]
                if name.endswith(("_ingress", "_egress", "_l3", "_fasttrack")) and code.kind not in self._kinds:
                    self._call(_ASIDES[code.kind])
                    if self._rules:
                        self._call(_RULES[code.kind])
                    self._kinds.add(code.kind)
                self._loaded[name] = self._load(code)
            return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._codes)

    def __len__(self) -> int:
        return len(self._codes)

    def load_all(self, kinds: Collection[Literal["tc", "xdp"]]) -> None:
        """Load all of these kinds: for a process that will not have the right later on. Raises BuildError, OSError."""
        for name, code in self._codes.items():
            if code.kind in kinds and name not in _BEFORE_PACKETS:
                self[name]

    def ask_rules(self, ask: bool) -> None:
        """Whether the hooks ask the rules about new connections. Raises BuildError, OSError."""
        with self._lock:
            self._rules = ask
            for kind in self._kinds:
                if ask:
                    self._call(_RULES[kind])
                    continue
                for name in _RULES[kind]:
                    calls = self._maps[name]
                    with suppress(KeyError):
                        del calls[calls.Key(0)]  # as if there never had been any

    def _call(self, programs: dict[str, str]) -> None:
        for name, program in programs.items():
            calls = self._maps[name]
            calls[calls.Key(0)] = calls.Leaf(self[program])

    def _load(self, code: Code) -> int:
        instructions = code.linked({name: each.map_fd for name, each in self._maps.items()})
        with _captured_stderr() as said:
            descriptor: int = lib().bcc_prog_load(
                _KINDS[code.kind], code.name.encode(), instructions, len(instructions), self._licence, 0, 0, None, 0
            )
            if descriptor < 0:
                reason = os.strerror(ctypes.get_errno())
                raise BuildError(f"the kernel does not take {code.name}: {last_words(said(), reason)}")
        return descriptor

    def close(self) -> None:
        """Let go of all of them; what is attached stays."""
        with self._lock:
            for descriptor in self._loaded.values():
                os.close(descriptor)
            self._loaded.clear()


@contextmanager
def _captured_stderr() -> Iterator[Callable[[], str]]:
    """BCC writes its messages to descriptor 2: take them from there. Gives a function that reads what came so far."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield lambda: _tail(sink.fileno())
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _tail(descriptor: int, size: int = 1 << 20) -> str:
    return os.pread(descriptor, size, max(0, os.fstat(descriptor).st_size - size)).decode(errors="replace")
