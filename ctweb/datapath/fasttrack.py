"""FastTrack: which connections the XDP program forwards itself (ebpf/fasttrack.h, ebpf/forward.h).

The sweep decides, once for each established connection: a rule must mean it, it must pass through this machine, and
nf_conntrack, where it runs, must have been prepared for seeing few of its packets. A decision carries the number of
the rules it was made by (the stamp), which the kernel compares: other rules undo all earlier decisions at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ctypes import c_uint8
from ipaddress import ip_address
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pyroute2 import IPRoute

from ctweb.datapath import conntrack_liberal, conntrack_requests, xdp_features
from ctweb.datapath.bpf import TestRunner
from ctweb.datapath.fast_ports import Hooked, Port, ports_of
from ctweb.datapath.interfaces import Interface
from ctweb.datapath.maps import keys
from ctweb.datapath.marking import indexes_of
from ctweb.datapath.translations import Standing
from ctweb.datapath.way_changes import WayChanges
from ctweb.matching import matches
from ctweb.rules import Rule
from ctweb.table.columns import Columns
from ctweb.table.names import TCP, TCP_STATE_NUMBERS, UDP, Status
from ctweb.table.rates import Rows

if TYPE_CHECKING:
    from ctweb.datapath.build import Datapath

log = logging.getLogger(__name__)

STAMP_SHIFT = 16  # STATUS_STAMP of ebpf/types.h
STAMPS = 1 << 16
NO_REWRITE = 0xFFFFFFFF
SILENCE = 10  # seconds after the last sweep from which on packets take the normal way
_NAT = np.uint32(Status.SRCNAT | Status.DSTNAT)
_PASSES = np.uint32(Status.SEEN_REPLY | Status.ASSURED | Status.CONFIRMED)

Mask = NDArray[np.bool_]


class FastTrack:
    """The rules that fasttrack, and what was decided by them. Methods may be called from any thread but `sweep`."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath
        self._flags = datapath.enums["fast_port_flags"]
        self._settings = datapath.table("fasttrack")
        self._free = list(range(datapath.options.entries["rewrites"]))  # places; this and the next of the sweep alone
        self._changing = threading.Lock()  # one change of rules at a time; held around everything else
        self._ways = WayChanges(datapath.table("way_changes"))
        self._lock = threading.Lock()  # held while any of the following changes
        self._rules: Mapping[int, Rule] = {}
        self._interfaces: Mapping[int, Interface] = {}
        self._hooked: Mapping[int, Hooked] | None = None  # None: not known yet
        self._ports: dict[int, Port] = {}
        self._in_force: list[tuple[Rule, tuple[int, ...] | None]] = []  # with the indexes of its in-interface
        self._refused: Mapping[int, str] = {}  # by number of the rule, why
        self._stamp = 0  # of what is in force; 0: the next sweep gives it one
        self._used = False  # there ever was a rule in force
        self._decider: TestRunner | None = None
        key = datapath.key_dtype
        rewrite = [("tuple", key), ("id", "u8"), ("flip", "u8"), ("pad", "u8")]
        self._item = np.dtype([("tuple", key), ("rewrite", rewrite), ("decision", "u4"), ("place", "u4")])  # fast_item
        at_once = datapath.enums[""]["FAST_ITEMS"]
        self._request = np.dtype([("now", "u8"), ("items", "u8"), ("item", self._item, at_once)])
        self._rewritten: dict[int, int] = {}  # id of the connection -> place of its rewrite
        self._last_error = ""
        self._swap: Callable[[Mapping[str, int]], None] | None = None
        self._swapped_in: bool | None = None  # whether the fast program is what is attached; None: here and there

    @property
    def programs(self) -> Mapping[str, int]:
        """What is to be attached, with the rules as they are."""
        return _Swapped(self._datapath.programs) if self._rules else self._datapath.programs

    @property
    def refusals(self) -> tuple[str, ...]:
        """Which rules are not in force, and why: a line for each."""
        return tuple(f"rule {number}: {why}" for number, why in self._refused.items())

    @property
    def ports(self) -> tuple[Port, ...]:
        """The interfaces that have programs, and whether they take part."""
        return tuple(self._ports.values())

    @property
    def active(self) -> bool:
        """Whether a rule is in force."""
        return bool(self._in_force)

    def set(self, rules: Mapping[int, Rule]) -> None:
        """Put these rules, by their number in the configuration, into force; connections follow at the next sweep.

        What the ones before have fasttracked takes the normal way from here on.
        Raises BuildError, AttachError, OSError; then those before stay.
        """
        with self._changing:
            before = self._rules
            try:
                if rules and self._decider is None:
                    self._decider = TestRunner(self._datapath.programs["fasttrack_decide"])
                self._put_in_force(rules)
            except Exception:
                try:
                    self._put_in_force(before)
                except Exception as error:  # the first one is raised; nothing goes fast by rules that are not there
                    log.error("fasttrack: cannot go back to the rules before: %s", error)
                raise

    def _put_in_force(self, rules: Mapping[int, Rule]) -> None:
        """Raises BuildError, AttachError, OSError."""
        with self._lock:
            self._rules = dict(rules)
            self._enforce()
        if self._swap and self._swapped_in != bool(rules):
            self._swapped_in = None  # some of them may be, if it fails
            self._swap(self.programs)
            self._swapped_in = bool(rules)
        self._follow_ways()

    def _follow_ways(self) -> None:
        """Raises OSError."""
        if self._rules and self._swap:
            self._ways.start()
        else:
            self._ways.stop()

    def interfaces_are(self, interfaces: Mapping[int, Interface]) -> None:
        """Take notice of the interfaces that there are."""
        with self._lock:
            self._interfaces = interfaces

    def hooks_are(self, hooked: Mapping[int, Hooked]) -> None:
        """Take notice of what programs are where; `interfaces_are` comes before."""
        with self._lock:
            self._hooked = hooked
            if self._used:
                self._set_ports(ports_of(hooked, xdp_features.features()))
            self._enforce()

    @contextmanager
    def running(self, swap: Callable[[Mapping[str, int]], None]) -> Iterator[None]:
        """While it lasts, with rules there is a thread that follows changes of routes, so that next hops may be kept.

        With other rules, other programs are put in the place of the attached ones by `swap` (Interfaces.replace).
        Afterwards everything takes the normal way, also if programs stay attached. Raises OSError.
        """
        with self._changing:
            self._swap, self._swapped_in = swap, bool(self._rules)
            self._follow_ways()
        try:
            yield
        finally:
            self.set({})
            self._swap = None

    def _set_ports(self, ports: dict[int, Port]) -> None:
        there, devices = self._datapath.table("fast_ports"), self._datapath.table("fast_devices")
        before = {index: port for index, port in self._ports.items() if port.takes_part}
        after = {index: port for index, port in ports.items() if port.takes_part}
        for index in before.keys() - after.keys():
            there[index] = there.Leaf()  # first: nothing is sent there any more
            del devices[index]
        for index, port in after.items():
            if before.get(index) != port:
                devices[index] = index
                flags = self._flags["PORT_TAKES_PART"] | (self._flags["PORT_VIRTUAL"] if port.virtual else 0)
                there[index] = there.Leaf((c_uint8 * 6)(*port.mac), flags)
        for index, port in ports.items():
            if self._ports.get(index) != port:
                log.info("fasttrack: interface %s%s", port.name, f": {port.reason}" if port.reason else " takes part")
        self._ports = ports

    def _enforce(self) -> None:
        """Make what is in force follow rules, interfaces and ports; for who holds the lock."""
        if self._hooked is None or not (self._rules or self._used):
            return
        if not self._used:
            self._used = True
            self._set_ports(ports_of(self._hooked, xdp_features.features()))
        in_force: list[tuple[Rule, tuple[int, ...] | None]] = []
        refused: dict[int, str] = {}
        for number, rule in self._rules.items():
            try:
                in_force.append((rule, meant(rule, self._ports, self._interfaces)))
            except ValueError as why:
                refused[number] = str(why)
        if in_force != self._in_force:
            self._settings[self._settings.Key(0)] = self._settings.Leaf()  # stamp 0: nothing goes fast
            self._in_force = in_force
            self._stamp = 0
        before, self._refused = self._refused, refused
        for number, reason in refused.items():
            if before.get(number) != reason:
                log.warning("not in force: rule %s: %s", number, reason)
        for number in sorted(before.keys() & self._rules.keys() - refused.keys()):
            log.info("in force from now on: rule %s", number)

    def _go_on(self) -> None:
        """Packets may go fast for some seconds more; for who holds the lock."""
        until = self._datapath.clock.now() + SILENCE * 10**9
        self._settings[self._settings.Key(0)] = self._settings.Leaf(self._stamp << STAMP_SHIFT, until)

    def sweep(self, columns: Columns, standing: Standing | None) -> None:
        """Decide about connections that are established by now; F is shown for those decided by the rules in force.

        columns: newly read, not frozen yet. standing: NAT as it stands.
        """
        if not self._rules and not (columns.status & np.uint32(Status.FASTTRACK)).any():
            return
        stamps = columns.status >> np.uint32(STAMP_SHIFT)
        with self._lock:
            if self._hooked is not None and self._rules:
                # What an interface can do changes without a word: veth's other end without GRO takes nothing any more.
                self._set_ports(ports_of(self._hooked, xdp_features.features()))
                self._enforce()
            in_force = list(self._in_force)
            if in_force:
                # One that no connection has, not even from an earlier run.
                self._stamp = self._stamp or unused_stamp(stamps)
                self._go_on()
            stamp = self._stamp
        stale = stamps != stamp if stamp else np.ones(len(columns), np.bool_)
        columns.status[stale] &= ~np.uint32(Status.FASTTRACK)
        rows = np.flatnonzero(stale & may_pass(columns)) if stamp else np.empty(0, np.intp)
        try:
            if len(rows):
                self._decide(columns, rows, in_force, stamp, standing)
            self._last_error = ""
        except OSError as error:  # they stay on the normal way, and are decided later
            if str(error) != self._last_error:
                log.error("cannot fasttrack connections, trying again each second: %s", error)
            self._last_error = str(error)

    def _decide(
        self,
        columns: Columns,
        rows: NDArray[np.intp],
        in_force: list[tuple[Rule, tuple[int, ...] | None]],
        stamp: int,
        standing: Standing | None,
    ) -> None:
        some = columns.take(rows)
        chosen = np.zeros(len(rows), np.bool_)
        for rule, ifindexes in in_force:
            chosen |= matches(rule, some, ifindexes)
        translated = (some.status & _NAT) != 0
        place = Rows(standing.leaves["id"]).find(some.id) if standing else np.full(len(rows), -1, np.int32)
        if chosen.any():
            chosen &= ~ends_here(some, standing, np.where(translated, place, -1))
        ready = np.ones(len(rows), np.bool_)
        ready[chosen & translated & (place < 0)] = False  # nf_conntrack tells soon
        behind_nat = np.flatnonzero(chosen & translated & ready)
        if len(behind_nat) > len(self._free):
            self._tidy(columns)
            placeless = behind_nat[~np.isin(some.id[behind_nat], self._with_place())]
            ready[placeless[len(self._free) :]] = False  # until there is room
        asked = np.flatnonzero(chosen & ready & (translated | (some.protocol == TCP)))
        if len(asked) and conntrack_requests.follows_any():
            has = conntrack_liberal.make_liberal(some.take(asked))
            ready[asked[~has & translated[asked]]] = False  # without its entry a translation is nobody's
        elif len(asked):
            ready[asked[translated[asked]]] = False
        decided = np.flatnonzero(ready)
        self._put(columns, rows[decided], chosen[decided], translated[decided], place[decided], stamp, standing)

    def _put(
        self,
        columns: Columns,
        rows: NDArray[np.intp],
        chosen: Mask,
        translated: Mask,
        place: NDArray[np.int32],
        stamp: int,
        standing: Standing | None,
    ) -> None:
        assert self._decider is not None
        items = np.zeros(len(rows), self._item)
        items["tuple"] = keys(columns, rows, self._datapath.key_dtype)
        items["rewrite"]["id"] = columns.id[rows]
        items["decision"] = np.uint32(stamp << STAMP_SHIFT) | chosen * np.uint32(Status.FASTTRACK)
        some = np.flatnonzero(chosen & translated)
        items["place"] = NO_REWRITE
        if standing and len(some):
            rewrite = items["rewrite"]
            rewrite["tuple"][some] = standing.keys[place[some]]
            rewrite["flip"][some] = standing.leaves["flip"][place[some]]
            items["place"][some] = [self._place_of(int(id_)) for id_ in rewrite["id"][some]]
        request = np.zeros((), self._request)
        at_once = request["item"].size
        for start in range(0, len(items), at_once):
            part = items[start : start + at_once]
            request["now"], request["items"] = self._datapath.clock.now(), len(part)
            request["item"][: len(part)] = part
            self._decider.run(request.tobytes())
        columns.status[rows[chosen]] |= np.uint32(Status.FASTTRACK)

    def _place_of(self, connection: int) -> int:
        if connection not in self._rewritten:
            self._rewritten[connection] = self._free.pop()
        return self._rewritten[connection]

    def _with_place(self) -> NDArray[np.uint64]:
        """Ids of the connections that have a place."""
        return np.fromiter(self._rewritten, np.uint64, len(self._rewritten))

    def _tidy(self, columns: Columns) -> None:
        """Take back the places of connections that are gone; 25 ms with a million connections."""
        ids = self._with_place()
        for gone in ids[~np.isin(ids, columns.id)].tolist():
            self._free.append(self._rewritten.pop(gone))


def meant(rule: Rule, ports: Mapping[int, Port], interfaces: Mapping[int, Interface]) -> tuple[int, ...] | None:
    """The interfaces that the rule names; None: any. Raises ValueError if it cannot be in force, and says why."""
    parts = {index for index, port in ports.items() if port.takes_part}
    if rule.in_interface is None:
        if not parts:
            why = "; ".join(f"{port.name}: {port.reason}" for port in ports.values())
            raise ValueError(f"action: no interface takes part in FastTrack ({why or 'none has programs'})")
        return None
    indexes = indexes_of(rule.in_interface, interfaces)
    if not indexes:
        raise ValueError(f"in-interface: there is no interface {rule.in_interface!r}")
    if not parts.intersection(indexes):
        why = "; ".join(sorted({ports[index].reason for index in indexes if index in ports}))
        raise ValueError(f"in-interface: {rule.in_interface} takes no part in FastTrack: {why or 'it has no programs'}")
    return indexes


class _Swapped(Mapping[str, int]):
    """The programs with the fast one in the place of xdp_ingress."""

    def __init__(self, programs: Mapping[str, int]) -> None:
        self._programs = programs

    def __getitem__(self, name: str) -> int:
        return self._programs["xdp_fasttrack" if name == "xdp_ingress" else name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._programs)

    def __len__(self) -> int:
        return len(self._programs)


def unused_stamp(stamps: NDArray[np.uint32]) -> int:
    """One that is not among these, and not 0, which new connections have."""
    taken = np.zeros(STAMPS, np.bool_)
    taken[stamps] = taken[0] = True
    return int(np.flatnonzero(~taken)[0])


def may_pass(columns: Columns) -> Mask:
    """Connections that are established and assured, and of which packets have left this machine. (n,)"""
    there = (columns.status & (_PASSES | np.uint32(Status.HELPER))) == _PASSES
    tcp = (columns.protocol == TCP) & (columns.tcp_state == TCP_STATE_NUMBERS["established"])
    found: Mask = there & (tcp | (columns.protocol == UDP))
    return found


def ends_here(columns: Columns, standing: Standing | None, place: NDArray[np.int32]) -> Mask:
    """Which of these connections begin or end on this machine itself. (n,)

    place: the row in `standing` of each translated one, -1: it is not.
    """
    swapped = ((columns.status & np.uint32(Status.SWAPPED)) != 0)[:, None]
    sources = np.where(swapped, columns.hi_addr, columns.lo_addr)
    destinations = np.where(swapped, columns.lo_addr, columns.hi_addr)
    if standing is not None:
        # A translated destination is where it really goes; the source before the translation is where it comes from.
        some = np.flatnonzero(place >= 0)
        behind, flip = standing.keys[place[some]], standing.leaves["flip"][place[some]].astype(np.bool_)
        to_lo = swapped[some, 0] ^ flip
        lo, hi = (np.ascontiguousarray(behind[end]).view(np.uint8) for end in ("lo_addr", "hi_addr"))
        destinations[some] = np.where(to_lo[:, None], lo, hi)
    ends = [np.ascontiguousarray(end).view(np.uint64) for end in (sources, destinations)]
    found = np.zeros(len(columns), np.bool_)
    for first, second in own_addresses():
        for end in ends:
            found |= (end[:, 0] == first) & (end[:, 1] == second)
    return found


def own_addresses() -> NDArray[np.uint64]:
    """This machine's addresses, each as two words. (n, 2)"""
    with IPRoute() as netlink:
        told = {message.get("local") or message.get("address") for message in netlink.get_addr()}
    packed = b"".join(ip_address(address).packed.ljust(16, b"\0") for address in told if address)
    return np.frombuffer(packed, np.uint64).reshape(-1, 2)
