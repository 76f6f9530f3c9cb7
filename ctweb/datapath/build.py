"""Compile and load the datapath with BCC."""

from __future__ import annotations

import logging
import mmap
import os
import secrets
import threading
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from ctweb.datapath.bpf import TestRunner
from ctweb.datapath.c_types import type_of
from ctweb.datapath.clock import Clock, tick_nanoseconds
from ctweb.datapath.compiler import compile_image
from ctweb.datapath.connection_table import ConnectionTable
from ctweb.datapath.image import SOURCE, BuildError, Image, MapShape, read_source
from ctweb.datapath.image_cache import image_for
from ctweb.datapath.map import Map
from ctweb.datapath.pins import CHUNKS, Kept, Layout, Pins, namespace_cookie
from ctweb.datapath.programs import Programs
from ctweb.datapath.table_memory import TableMemory
from ctweb.datapath.takeover import STATE, carry_over, fits
from ctweb.settings import Tracking

__all__ = ["ENDED_BYTES", "SOURCE", "BuildError", "BuildOptions", "Datapath", "compile_datapath"]

log = logging.getLogger(__name__)

ENDED_BYTES = 8 << 20  # the ring buffer `ended` of a replay; a power of two

_REAP_REQUEST = np.dtype([("when", "u8"), ("now", "u8"), ("mode", "u4"), ("keys", "u4")])

RESTING = 1 << 15  # places beyond those of the connections: a place that is given back is not used again at once
NEAR_BUCKETS = 2048  # a power of two: 128 KB, a part of a processor's second cache; see ebpf/index.h
CONNECTIONS_PER_BUCKET = 8  # of the far ones, at most; 14 find room in it
SMALL_TABLE = 1 << 17
_PROG_ARRAY = 3  # BPF_MAP_TYPE_PROG_ARRAY
# A map of maps, by name, and what it holds: maps that are not made before they are wanted.
_HELD = {"translations_in_use": "translations", **CHUNKS}
MOST_REWRITES = 1 << 16  # connections behind NAT that can be fasttracked at a time, 64 bytes each


@dataclass(frozen=True)
class BuildOptions:
    """What the datapath is built for.

    max_entries: connections the table holds. replay: the clock is each frame's own time stamp. preallocate: the table's
    memory is all there from the start, and does not come as connections do (ebpf/places.h).
    """

    max_entries: int
    replay: bool = False
    preallocate: bool = False

    @property
    def fresh_cells(self) -> int:
        """Of the ring of new connections: one for each, in small tables more, for those that are over stay in it."""
        return self.max_entries * (3 if self.max_entries <= SMALL_TABLE else 1)

    def shape(self, declared: MapShape) -> MapShape:
        """A map as it is to be made."""
        return msgspec.structs.replace(declared, entries=self.entries.get(declared.name, declared.entries))

    @property
    def places(self) -> int:
        """Entries there is room for: also those that are over, but may not be used again yet."""
        return self.max_entries + RESTING

    @property
    def chunk_shift(self) -> int:
        """A chunk of a table that grows has two to the power of it places: it has 128 chunks or some more."""
        return next((shift for shift in (12, 14) if self.places <= 128 << shift), 17)

    @property
    def chunks(self) -> int:
        """Of a table that grows, at most."""
        return -(-self.places >> self.chunk_shift)

    @property
    def far_buckets(self) -> int:
        """Of the index, the far ones: a power of two."""
        return 1 << (-(-self.max_entries // CONNECTIONS_PER_BUCKET) - 1).bit_length()

    @property
    def entries(self) -> dict[str, int]:
        """The sizes of the maps that grow with the table, by name."""
        return {
            "places": self.places if self.preallocate else 1 << self.chunk_shift,
            "addresses": self.places if self.preallocate else 1 << self.chunk_shift,
            "place_chunks": self.chunks,
            "address_chunks": self.chunks,
            "spare_places": self.places,
            "buckets": NEAR_BUCKETS + self.far_buckets,
            "translations": self.max_entries,
            "rewrites": min(self.max_entries, MOST_REWRITES),
            "fresh": self.fresh_cells,
        }


class Datapath:
    """The programs and their maps. Made by compile_datapath(), and gone with close().

    programs: descriptors by name. connections: the table.
    settings, interfaces, datagrams, counters: maps.
    ended: descriptor of the ring buffer of connections that ended (of a replay only).
    memory: the table's, which may have to grow.
    key_dtype, leaf_dtype, translation_dtype: layouts of `struct tuple`, `struct conn` and `struct translation`.
    enums: constants of the C source by enum.
    taken_over: the maps are those of an earlier run, as it left them. marks: names that its connection marks have.
    """

    def __init__(self, options: BuildOptions, image: Image, pins: Pins | None = None) -> None:
        """pins: where maps of an earlier run may be, to go on with. Raises OSError, BuildError."""
        self.options = options
        self.enums = image.enums
        self.pins = pins
        self.marks: tuple[str, ...] = ("",)
        self.taken_over = False
        self._maps: dict[str, Map] = {}
        self._kept = False  # the maps with state are pinned, by keep()
        kept = pins.open() if pins else None
        try:
            self._shapes = {shape.name: options.shape(shape) for shape in image.maps}
            if kept:
                self.marks = tuple(kept.layout.marks)
                if fits(kept, self._shapes, self.enums):
                    self.taken_over = True
                    self._maps |= kept.maps
                    kept.maps.clear()
            self._make_maps()
            self.programs = Programs(image, self._maps)
            self._set_size()
            self._reaper = TestRunner(self.programs["reap"])
            self.clock = Clock.measure(self.programs["read_clock"])
            self.memory = TableMemory(self._maps, self._shapes, options.places, kept if self.taken_over else None)
            self._find_maps()
            if self.has_translations:
                self.expect_nat(True)  # before the first packet, as it was
            if kept:
                self._say(kept)
        except BaseException:
            self.close()
            raise
        finally:
            if kept:
                kept.close()

    def _make_maps(self) -> None:
        """All that were not taken over and have to be there for the programs."""
        later = {held for holder, held in _HELD.items() if holder in self._shapes}
        for name, shape in self._shapes.items():
            if name not in self._maps and name not in later:
                self._maps[name] = Map.create(shape, self._shapes[_HELD[name]] if name in _HELD else None)
        if self.has_translations:
            self.table("translations_in_use")[0] = self.table("translations").map_fd

    def _find_maps(self) -> None:
        self.connections = ConnectionTable(self._maps, self.memory.parts, self._put)
        self.settings = self.table("settings")
        self.interfaces = self.table("interfaces")
        self.shared = self.table("shared")
        self.datagrams = self.table("datagrams")
        self.counters = self.table("per_cpu")
        self.key_dtype = np.dtype(self.connections.Key)
        self.leaf_dtype = np.dtype(self.connections.Leaf)
        self.translation_dtype = np.dtype(type_of(self._shapes["translations"].leaf))
        self._settings_lock = threading.Lock()  # one writer at a time: each keeps what it does not change
        self._making = threading.Lock()  # of a map that is not made before it is wanted
        self._rules = self.table("rules")
        self.rule_dtype: np.dtype[np.void] = np.dtype(self._rules.Leaf)["rule"].base
        self.ended: int | None = self.table("ended").map_fd if self.options.replay else None

    def _say(self, kept: Kept) -> None:
        if self.taken_over:
            log.info("took over the connections of an earlier run")
            return
        lost = carry_over(kept, self)
        log.warning(
            "the datapath is another one than the earlier run's: its connections are carried over, but not %s",
            "; ".join(lost),
        )

    @property
    def translations(self) -> Map:
        """The map of translations; made, and in use, from the first time on that somebody asks. Raises OSError."""
        with self._making:
            if not self.has_translations:
                made = Map.create(self._shapes["translations"])
                try:
                    if self._kept and self.pins:
                        self.pins.add("translations", made)
                    self.table("translations_in_use")[0] = made.map_fd
                except OSError:
                    made.close()  # whoever asks next tries again
                    raise
                self._maps["translations"] = made
                log.debug("a map of %d translations is made", made.shape.entries)
            return self._maps["translations"]

    @property
    def has_translations(self) -> bool:
        """Whether there is a map of them."""
        return "translations" in self._maps

    def keep(self, owner: tuple[int, int] | None = None) -> None:
        """Pin the maps, so that a later start finds them however this process ends. Raises OSError.

        owner: user and group that this process will be of later on.
        """
        assert self.pins is not None
        if not self.taken_over:
            self.pins.write({name: each for name, each in self._maps.items() if name in STATE}, self._layout(), owner)
        else:
            self.pins.adopt(self._layout(), owner)
            if self.has_translations:  # not an earlier run's, perhaps
                self.pins.add("translations", self.translations)
        self.memory.keep(self.pins)
        self._kept = True
        self.pins.write_calls({name: each for name, each in self._maps.items() if each.shape.type == _PROG_ARRAY})

    def remember_marks(self, names: tuple[str, ...]) -> None:
        """The names of connection marks by number: a later start needs them too, if it is to find the maps.

        Raises OSError.
        """
        self.marks = names
        if self.pins:
            self.pins.describe(self._layout())

    def _layout(self) -> Layout:
        shapes = [shape for name, shape in self._shapes.items() if name in STATE]
        return Layout(namespace_cookie(), shapes, self.enums, list(self.marks))

    def _set_size(self) -> None:
        size = self.table("size")
        options, shared = self.options, self.table("shared")
        if not self.taken_over:
            shared[0] = shared.Leaf(seed=(secrets.randbits(64), secrets.randbits(64)))
        tags = 0xFFFF_FFFF & -1 << options.places.bit_length()
        size[0] = size.Leaf(
            settled_note=1 + secrets.randbelow(0xFFFF), bucket_mask=options.far_buckets - 1, tag_mask=tags,
            seed=shared[0].seed, places=options.places, max_entries=options.max_entries,
            fresh_cells=options.fresh_cells,
        )  # fmt: skip

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
        if expected:
            _ = self.translations  # there before a packet looks for one
        with self._settings_lock:
            settings = self.settings[self.settings.Key(0)]
            settings.nat = expected
            self.settings[self.settings.Key(0)] = settings

    def set_rules(self, packed: np.ndarray[Any, np.dtype[np.void]]) -> None:
        """Put these rules (rule_dtype, at most RULES_MAX) into force, from the next connection on.

        The programs that ask them are loaded with the first rules. Not for several threads at once.
        Raises BuildError if the kernel does not take the programs, OSError.
        """
        in_force = self.table("rules_in_force")
        spare = 1 - in_force[in_force.Key(0)].value
        leaf = np.zeros((), np.dtype(self._rules.Leaf))
        leaf["count"] = len(packed)
        leaf["rule"][: len(packed)] = packed
        if len(packed):
            self.programs.ask_rules(True)
        self._rules[self._rules.Key(spare)] = self._rules.Leaf.from_buffer_copy(leaf.tobytes())
        in_force[in_force.Key(0)] = in_force.Leaf(spare)
        if not len(packed):
            self.programs.ask_rules(False)

    def table(self, name: str) -> Map:
        """A map of the programs, by its name in the C source."""
        return self._maps[name]

    @property
    def maps(self) -> tuple[Map, ...]:
        """All maps of the programs."""
        return (*self._maps.values(), *self.memory.chunks)

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
        """End the connections under `keys` (key_dtype) that had expired by datapath time `when`; how many.

        `when` lies at least a sweep in the past: then no program that saw an entry alive can still be running. In a
        replay it is the frames' own time. Raises OSError.
        """
        now = when if self.options.replay else self.clock.now()
        return self._reap("REAP_EXPIRED", keys, np.zeros(len(keys), np.uint64), when, now)

    def remove(self, keys: np.ndarray[Any, np.dtype[Any]], ids: np.ndarray[Any, np.dtype[np.uint64]]) -> int:
        """End the connections under `keys` (key_dtype) that still have these `ids`; how many. Raises OSError.

        They are gone at once, and new connections have their room when this returns.
        """
        return self._reap("REAP_REMOVE", keys, ids, 0, self.clock.now())

    def remember(self, keys: np.ndarray[Any, np.dtype[Any]]) -> None:
        """Entries written under `keys` (key_dtype) before any packet came are connections now, in this order."""
        self._reap("REAP_REMEMBER", keys, np.zeros(len(keys), np.uint64), 0, 0)

    def _put(self, keys: np.ndarray[Any, np.dtype[Any]], leaves: np.ndarray[Any, np.dtype[Any]]) -> int:
        """Write entries into the table (ConnectionTable.write); how many found a place. Raises OSError."""
        self.memory.grow(len(keys))
        size = self.enums[""]["PUT_ENTRIES"]
        entry = np.dtype([("tuple", self.key_dtype), ("conn", self.leaf_dtype)])
        request = np.zeros((), np.dtype([("now", "u8"), ("entries", "u8"), ("entry", entry, size)]))
        request["now"] = self.clock.now()
        program, done = TestRunner(self.programs["put"]), 0
        for start in range(0, len(keys), size):
            n = min(size, len(keys) - start)
            request["entries"] = n
            request["entry"]["tuple"][:n] = keys[start : start + n]
            request["entry"]["conn"][:n] = leaves[start : start + n]
            done += program.run(request.tobytes()).retval
        return done

    def _reap(self, mode: str, keys: np.ndarray[Any, Any], ids: np.ndarray[Any, Any], when: int, now: int) -> int:
        size = self.enums[""]["REAP_KEYS"]
        layout = np.dtype([("head", _REAP_REQUEST), ("key", [("tuple", self.key_dtype), ("id", "u8")], size)])
        request = np.zeros((), layout)
        request["head"]["when"] = when
        request["head"]["now"] = now
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
        if hasattr(self, "programs"):
            self.programs.close()
        if hasattr(self, "memory"):
            self.memory.close()
        for each in self._maps.values():
            each.close()
        self._maps.clear()


def compile_flags(options: BuildOptions) -> list[str]:
    """What the compiler is told of these options, and of this machine."""
    flags = [
        f"-DNEAR_BUCKETS={NEAR_BUCKETS}",
        f"-DTICK_NSEC={tick_nanoseconds()}ULL",
        f"-DCPU_BITS={max(1, (os.sysconf('SC_NPROCESSORS_CONF') - 1).bit_length())}",
        "-Os",  # a third less for clang and the verifier to work through than BCC's -O2, and as fast
        "-g0",
        "-Wno-unused-function",
        "-Werror=implicit-function-declaration",
    ]
    if not options.preallocate:
        flags += ["-DTABLE_GROWS", f"-DCHUNK_SHIFT={options.chunk_shift}"]
    if options.replay:
        flags += ["-DREPLAY", f"-DENDED_PAGES={ENDED_BYTES // mmap.PAGESIZE}"]
    return flags


def compile_datapath(options: BuildOptions, pins: Pins | None = None) -> Datapath:
    """Load the datapath, compiled if it is not kept from an earlier start. Raises BuildError, with the reason in words.

    pins: where maps of an earlier run may be, to go on with.
    Compiling takes some five seconds of a CPU, loading a fraction of one.
    """
    if os.geteuid() != 0:
        raise BuildError("loading BPF programs takes root")
    text, flags = read_source(), compile_flags(options)
    image = image_for(text, flags, lambda: compile_image(text, flags))
    try:
        return Datapath(options, image, pins)
    except OSError as error:
        raise BuildError(f"the datapath cannot be loaded: {error.args[-1]}") from error
