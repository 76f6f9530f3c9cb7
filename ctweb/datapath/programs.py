"""The programs of the datapath, each loaded when it is first wanted."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Literal

from ctweb.datapath.image import BuildError, Code, Image, last_words
from ctweb.datapath.libbcc import lib
from ctweb.datapath.map import Map
from ctweb.datapath.threads import wait_until_gone

_KINDS = {"tc": 3, "xdp": 6}  # BPF_PROG_TYPE_SCHED_CLS, _XDP

# Programs that the hooks of a kind call for what most packets do not need, by the map they are called through ...
_ASIDES = {
    "tc": {"tc_asides": "tc_aside", "tc_helpers": "tc_help", "tc_long_way": "tc_long"},
    "xdp": {"xdp_asides": "xdp_aside", "xdp_helpers": "xdp_help", "xdp_long_way": "xdp_long"},
}
# ... and once rules are in force.
_RULES = {"tc": {"tc_rules": "tc_mark"}, "xdp": {"xdp_rules": "xdp_mark"}}

# What an interface gets.
_HOOKS = {"tc": ("tc_ingress", "tc_egress"), "xdp": ("xdp_ingress",)}

# Not wanted any more once packets come: it fills the table of a start that takes another one over.
_BEFORE_PACKETS = frozenset({"put"})

# The kernel's account of why it refuses a program: as long as it may be, and memory only where something is written.
_LOG_SIZE = 64 << 20


class Programs(Mapping[str, int]):
    """Descriptors by name. The first hook of a kind brings along what its hooks call. Any thread may ask.

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
            kind = self._codes[name].kind
            if name.endswith(("_ingress", "_egress", "_l3", "_fasttrack")) and kind not in self._kinds:
                asides = _ASIDES[kind] | (_RULES[kind] if self._rules else {})
                self._load([*asides.values(), *_HOOKS[kind], name])
                self._call(asides)
                self._kinds.add(kind)
            if name not in self._loaded:
                self._load([name])
            return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._codes)

    def __len__(self) -> int:
        return len(self._codes)

    def load_all(self, kinds: Collection[Literal["tc", "xdp"]]) -> None:
        """Load all of these kinds: for a process that will not have the right later on. Raises BuildError, OSError."""
        wanted = [n for n, code in self._codes.items() if code.kind in kinds and n not in _BEFORE_PACKETS]
        with self._lock:
            self._load(wanted)
            for name in wanted:
                self[name]  # a hook that nobody has asked for yet is told what it calls

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

    def _load(self, names: Collection[str]) -> None:
        """Those that are not loaded yet, all at once: the kernel takes tenths of a second of a CPU for a large one."""
        missing = [self._codes[name] for name in dict.fromkeys(names) if name not in self._loaded]
        missing.sort(key=lambda code: -len(code.instructions))
        errors: list[BuildError] = []
        with _quiet(), _threads() as loaders:
            for code, loading in [(code, loaders.submit(self._descriptor, code)) for code in missing]:
                try:
                    self._loaded[code.name] = loading.result()
                except BuildError as error:
                    errors.append(error)
            if errors:
                raise errors[0]

    def _descriptor(self, code: Code) -> int:
        instructions = code.linked({name: each.map_fd for name, each in self._maps.items()})
        with mmap.mmap(-1, _LOG_SIZE) as said:
            log = ctypes.c_char.from_buffer(said)
            descriptor: int = lib().bcc_prog_load(
                _KINDS[code.kind], code.name.encode(), instructions, len(instructions), self._licence, 0, 0,
                ctypes.byref(log), _LOG_SIZE,
            )  # fmt: skip
            reason = os.strerror(ctypes.get_errno())
            del log
            if descriptor < 0:
                written = said[: said.find(b"\0")].decode(errors="replace")
                raise BuildError(f"the kernel does not take {code.name}: {last_words(written, reason)}")
        return descriptor

    def close(self) -> None:
        """Let go of all of them; what is attached stays."""
        with self._lock:
            for descriptor in self._loaded.values():
                os.close(descriptor)
            self._loaded.clear()


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """As many as there are CPUs. Afterwards none of them is there, also to the kernel: the rights it had would stay."""
    threads: list[threading.Thread] = []
    with ThreadPoolExecutor(os.cpu_count(), "load", lambda: threads.append(threading.current_thread())) as loaders:
        yield loaders
    wait_until_gone(threads)


@contextmanager
def _quiet() -> Iterator[None]:
    """BCC writes to descriptor 2 what it gives back as well: keep it from there if a BuildError says it all."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        written.seek(0)
        os.write(2, written.read())
