"""Compile and load the datapath with BCC."""

from __future__ import annotations

import logging
import mmap
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctweb.datapath.bpf import TestRunner
from ctweb.datapath.clock import Clock, tick_nanoseconds
from ctweb.datapath.footprint import give_back_compiler
from ctweb.settings import Tracking

log = logging.getLogger(__name__)

SOURCE = Path(__file__).resolve().parents[2] / "ebpf"

ENDED_BYTES = 8 << 20  # the ring buffer `ended` of a replay; a power of two

_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)
_ENUM = re.compile(r"\benum\b\s*(?:(\w+)\s*)?\{([^}]*)\}")
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
# Programs that the hooks call for what is rare, with the map they are called through.
_ASIDES = {
    "tc_aside": b"tc_asides", "xdp_aside": b"xdp_asides", "tc_help": b"tc_helpers", "xdp_help": b"xdp_helpers",
}  # fmt: skip
_PROGRAMS = (
    "tc_ingress", "tc_egress", "tc_ingress_l3", "tc_egress_l3", "xdp_ingress", "reap", "translate", "read_clock",
    *_ASIDES,
)  # fmt: skip
# Programs that the hooks call once rules are in force, with the map they are called through.
_RULE_PROGRAMS = {"tc_mark": b"tc_rules", "xdp_mark": b"xdp_rules"}
_REAP_REQUEST = np.dtype([("when", "u8"), ("now", "u8"), ("mode", "u4"), ("keys", "u4")])


GRAVES = 4096  # entries of connections that gave way, kept until nobody can be counting on them any more
SMALL_TABLE = 1 << 17


class BuildError(Exception):
    """The datapath cannot be compiled or loaded; the message says what is missing and what to do."""


@dataclass(frozen=True)
class BuildOptions:
    """What the datapath is compiled for.

    max_entries: connections the table holds. replay: the clock is each frame's own time stamp. ingress_only: of
    the hooks just tc_ingress, which compiles several times faster.
    """

    max_entries: int
    replay: bool = False
    ingress_only: bool = False


def read_source() -> str:
    """The datapath's source as one text: BCC rewrites map accesses only in the file that it is given."""

    def expand(path: Path) -> str:
        text = _INCLUDE.sub(lambda found: expand(SOURCE / found[1]), path.read_text())
        return f'#line 1 "{path.name}"\n{text}'

    return expand(SOURCE / "ctweb.bpf.c")


def read_enums(text: str) -> dict[str, dict[str, int]]:
    """Every enum of a C text by its name, each a mapping of constant to value. Enums without a name share ''.

    Values may be left out or be integers, other constants, and shifts of them. Raises ValueError for others.
    """
    enums: dict[str, dict[str, int]] = {}
    known: dict[str, int] = {}

    def value_of(expression: str) -> int:
        left, _, right = expression.partition("<<")
        if right:
            return value_of(left) << value_of(right)
        word = expression.strip()
        return known[word] if word in known else int(word, 0)

    for found in _ENUM.finditer(_COMMENT.sub(" ", text)):
        value = -1
        for entry in found[2].split(","):
            if not entry.strip():
                continue
            name, _, expression = entry.partition("=")
            value = value_of(expression) if expression else value + 1
            known[name.strip()] = value
            enums.setdefault(found[1] or "", {})[name.strip()] = value
    return enums


class Datapath:
    """The loaded programs and their maps. Made by compile_datapath(), and gone with close().

    programs: descriptors by name. connections, settings, interfaces, translations, datagrams, counters: BCC tables.
    ended: descriptor of the ring buffer of connections that ended (of a replay only).
    key_dtype, leaf_dtype: layouts of `struct tuple` and `struct conn`. enums: constants of the C source by enum.
    """

    def __init__(self, options: BuildOptions, module: Any, programs: dict[str, int], text: str) -> None:
        self.options = options
        self.programs: Mapping[str, int] = programs
        self.enums = read_enums(text)
        self._module = module
        self._rule_programs: dict[str, int] = {}
        self.connections = module.get_table(b"connections")
        self.settings = module.get_table(b"settings")
        self.interfaces = module.get_table(b"interfaces")
        self.shared = module.get_table(b"shared")
        self.translations = module.get_table(b"translations")
        self.datagrams = module.get_table(b"datagrams")
        self.counters = module.get_table(b"per_cpu")
        self.key_dtype = np.dtype(self.connections.Key)
        self.leaf_dtype = np.dtype(self.connections.Leaf)
        self._settings_lock = threading.Lock()  # one writer at a time: each keeps what it does not change
        self._rules = module.get_table(b"rules")
        self.rule_dtype: np.dtype[np.void] = np.dtype(self._rules.Leaf)["rule"].base
        self._reaper = TestRunner(programs["reap"])
        self.ended: int | None = module.get_table(b"ended").map_fd if options.replay else None
        self.clock = Clock.measure(programs["read_clock"])

    def apply(self, tracking: Tracking) -> None:
        """Put settings into force, from the next packet on. Raises OSError."""
        millisecond = 1_000_000
        settings = self.settings.Leaf()
        states = self.enums["tcp_state"]
        times = self.enums["timeout"]
        for index, milliseconds in {
            states["TCP_SYN_SENT"]: tracking.tcp_syn_sent_timeout,
            states["TCP_SYN_RECEIVED"]: tracking.tcp_syn_received_timeout,
            states["TCP_ESTABLISHED"]: tracking.tcp_established_timeout,
            states["TCP_FIN_WAIT"]: tracking.tcp_fin_wait_timeout,
            states["TCP_CLOSE_WAIT"]: tracking.tcp_close_wait_timeout,
            states["TCP_LAST_ACK"]: tracking.tcp_last_ack_timeout,
            states["TCP_TIME_WAIT"]: tracking.tcp_time_wait_timeout,
            states["TCP_CLOSE"]: tracking.tcp_close_timeout,
            states["TCP_LISTEN"]: tracking.tcp_syn_sent_timeout,
            times["TIMEOUT_TCP_RETRANS"]: tracking.tcp_max_retrans_timeout,
            times["TIMEOUT_TCP_UNACKED"]: tracking.tcp_unacked_timeout,
            times["TIMEOUT_UDP"]: tracking.udp_timeout,
            times["TIMEOUT_UDP_STREAM"]: tracking.udp_stream_timeout,
            times["TIMEOUT_ICMP"]: tracking.icmp_timeout,
            times["TIMEOUT_GENERIC"]: tracking.generic_timeout,
        }.items():
            settings.timeout[index] = milliseconds * millisecond
        settings.tcp_loose = tracking.loose_tcp_tracking
        settings.tcp_liberal = tracking.liberal_tcp_tracking
        with self._settings_lock:
            settings.nat = self.settings[self.settings.Key(0)].nat
            self.settings[self.settings.Key(0)] = settings

    def expect_nat(self, expected: bool) -> None:
        """Whether packets may be translated on their way through: to look for it has a cost. Raises OSError."""
        with self._settings_lock:
            settings = self.settings[self.settings.Key(0)]
            settings.nat = expected
            self.settings[self.settings.Key(0)] = settings

    def set_rules(self, packed: np.ndarray[Any, np.dtype[np.void]]) -> None:
        """Put these rules (rule_dtype, at most RULES_MAX) into force, from the next connection on.

        The programs that ask them are loaded with the first rules. Not for several threads at once.
        Raises BuildError if the kernel does not take the programs, OSError.
        """
        if len(packed) and not self._rule_programs:
            self._load_rule_programs()
        in_force = self._module.get_table(b"rules_in_force")
        spare = 1 - in_force[in_force.Key(0)].value
        leaf = np.zeros((), np.dtype(self._rules.Leaf))
        leaf["count"] = len(packed)
        leaf["rule"][: len(packed)] = packed
        self._rules[self._rules.Key(spare)] = self._rules.Leaf.from_buffer_copy(leaf.tobytes())
        in_force[in_force.Key(0)] = in_force.Leaf(spare)
        for name, descriptor in self._rule_programs.items():
            calls = self._module.get_table(_RULE_PROGRAMS[name])
            if len(packed):
                calls[calls.Key(0)] = descriptor
            else:
                with suppress(KeyError):
                    del calls[calls.Key(0)]  # as if there never had been any

    def _load_rule_programs(self) -> None:
        from bcc import BPF  # noqa: PLC0415

        with _captured_stderr() as said:
            for name in _RULE_PROGRAMS:
                if name.startswith("xdp") and "xdp_ingress" not in self.programs:
                    continue
                kind = BPF.XDP if name.startswith("xdp") else BPF.SCHED_CLS
                try:
                    self._rule_programs[name] = self._module.load_func(name.encode(), kind).fd
                except Exception as error:
                    raise BuildError(f"the kernel does not take {name}: {_last_words(said(), str(error))}") from error

    def table(self, name: str) -> Any:
        """A map of the programs, BCC's, by its name in the C source."""
        return self._module.get_table(name.encode())

    def read_counters(self) -> dict[str, int]:
        """The kernel's totals over all CPUs, by their names in `enum counter`. Raises OSError."""
        per_cpu = self.counters[self.counters.Key(0)]
        names = self.enums["counter"]
        return {
            # Modulo 64 bits: what one CPU has counted another one may have taken back (ebpf/fragments.h).
            name: sum(cpu.counter[index] for cpu in per_cpu) & 0xFFFF_FFFF_FFFF_FFFF
            for name, index in names.items()
            if name not in ("COUNTERS", "COUNT_UNTRACKED")
        }

    def reap(self, keys: np.ndarray[Any, np.dtype[Any]], when: int) -> int:
        """Delete the entries under `keys` (key_dtype) that had expired or ended by datapath time `when`; how many.

        `when` lies at least a sweep in the past: then no program that saw an entry alive can still be running.
        Raises OSError.
        """
        return self._reap("REAP_EXPIRED", keys, np.zeros(len(keys), np.uint64), when)

    def remove(self, keys: np.ndarray[Any, np.dtype[Any]], ids: np.ndarray[Any, np.dtype[np.uint64]]) -> int:
        """End the connections under `keys` (key_dtype) that still have these `ids`; how many. Raises OSError.

        They are gone at once, and new connections have their room when this returns.
        """
        done = self._reap("REAP_REMOVE", keys, ids, 0)
        if done:
            ended = self.clock.now()
            time.sleep(5 * self.clock.tick / 1e9)  # nobody can be counting on them after that
            self._reap("REAP_EXPIRED", keys, ids, ended)
        return done

    def _reap(self, mode: str, keys: np.ndarray[Any, Any], ids: np.ndarray[Any, Any], when: int) -> int:
        size = self.enums[""]["REAP_KEYS"]
        layout = np.dtype([("head", _REAP_REQUEST), ("key", [("tuple", self.key_dtype), ("id", "u8")], size)])
        request = np.zeros((), layout)
        request["head"]["when"] = when
        request["head"]["now"] = self.clock.now()
        request["head"]["mode"] = self.enums["reap_mode"][mode]
        done = 0
        for start in range(0, len(keys), size):
            part = slice(start, min(start + size, len(keys)))
            n = part.stop - part.start
            request["head"]["keys"] = n
            request["key"]["tuple"][:n] = keys[part]
            request["key"]["id"][:n] = ids[part]
            done += self._reaper.run(request.tobytes()).retval
        return done

    def close(self) -> None:
        """Let go of programs and maps; what is attached or pinned stays."""
        for descriptor in (*self.programs.values(), *self._rule_programs.values()):
            os.close(descriptor)
        self._module.funcs.clear()
        self._module.cleanup()


def compile_datapath(options: BuildOptions) -> Datapath:
    """Compile and load the datapath. Takes about half a second. Raises BuildError, with the reason in words."""
    try:
        from bcc import BPF  # noqa: PLC0415  # the distribution's module: without it the rest of ctweb still runs
    except ImportError:
        raise BuildError(
            "BCC is not there: install python3-bpfcc and run with the distribution's own Python (make setup does both)"
        ) from None
    if os.geteuid() != 0:
        raise BuildError("loading BPF programs takes root")
    text = read_source()
    flags = [
        f"-DMAX_ENTRIES={options.max_entries}",
        f"-DSPARE_ENTRIES={2 * GRAVES}",
        f"-DGRAVES={GRAVES}",
        # A cell for each connection; in small tables two, which is what one of IPv6 takes.
        f"-DFRESH_CELLS={options.max_entries * (2 if options.max_entries <= SMALL_TABLE else 1)}",
        f"-DTICK_NSEC={tick_nanoseconds()}ULL",
        f"-DCPU_BITS={max(1, (os.sysconf('SC_NPROCESSORS_CONF') - 1).bit_length())}",
        "-Os",  # a third less for clang and the verifier to work through than BCC's -O2, and as fast
        "-g0",
        "-Wno-unused-function",
        "-Werror=implicit-function-declaration",
    ]
    programs = list(_PROGRAMS)
    if options.replay:
        flags += ["-DREPLAY", f"-DENDED_PAGES={ENDED_BYTES // mmap.PAGESIZE}"]
        programs = [name for name in programs if not name.startswith("xdp")]
    if options.ingress_only:
        flags.append("-DINGRESS_ONLY")
        programs = ["tc_ingress", "tc_aside", "tc_help", "reap", "read_clock"]
    os.environ["BCC_KERNEL_SOURCE"] = str(SOURCE / "headers")
    with _captured_stderr() as said:
        try:
            module = BPF(text=text.encode(), cflags=flags)
        except Exception as error:  # BCC raises nothing more particular
            raise BuildError(f"the datapath does not compile: {_last_words(said(), str(error))}") from error
        descriptors = {}
        for name in programs:
            kind = BPF.XDP if name.startswith("xdp") else BPF.SCHED_CLS
            try:
                descriptors[name] = module.load_func(name.encode(), kind).fd
            except Exception as error:
                raise BuildError(f"the kernel does not take {name}: {_last_words(said(), str(error))}") from error
    for name, table in _ASIDES.items():
        if name in descriptors:
            calls = module.get_table(table)
            descriptor = descriptors.pop(name)
            calls[calls.Key(0)] = calls.Leaf(descriptor)
            os.close(descriptor)  # the map keeps it
    give_back_compiler()
    return Datapath(options, module, descriptors, text)


def _last_words(said: str, otherwise: str) -> str:
    """The first error of the compiler, or the verifier's last line; everything goes to the log."""
    log.debug("%s", said)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    return errors[0] if errors else next((line for line in reversed(lines) if "processed" not in line), otherwise)


@contextmanager
def _captured_stderr() -> Iterator[Any]:
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
