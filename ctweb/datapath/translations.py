"""nf_conntrack's knowledge put into the kernel's table, and the translations read back from there."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctweb.datapath.bpf import TestRunner
from ctweb.datapath.ctnetlink import STATUS_EXPECTED, STATUS_HELPER, Ends, Entry
from ctweb.datapath.maps import Batches
from ctweb.table.names import CONNECTION_TYPE_NUMBERS, GRE, GRE_CALL, ICMP, ICMPV6, WITH_PORTS, Status
from ctweb.table.translated import Translated

if TYPE_CHECKING:
    from ctweb.datapath.build import Datapath

TUPLE = 40  # bytes of a struct tuple
PAIR = 2 * TUPLE  # with which an item begins: the original tuple, and the one behind the translation
_ITEM = struct.Struct("=QIIIHBB")  # what follows the two tuples in a struct nat_item (ebpf/translate.h)
_HEAD = struct.Struct("=QII")  # what precedes the items in a struct nat_request
_SIZE = PAIR + _ITEM.size
_ID = struct.Struct("=Q")
_ICMP = (ICMP, ICMPV6)
_HAS_MARK = 1 << 30  # NAT_HAS_MARK
_NO_PORTS = (b"\0\0", b"\0\0")
_H323 = ("Q.931", "H.245", "RAS")  # its helpers
TIDY_AT_ONCE = 8_192  # a sweep spends no more than some 10 ms on it


def normalised(ends: Ends) -> tuple[bytes, int]:
    """A `struct tuple`, and whether these ends go from its `hi`: ebpf/types.h and parse.h say how."""
    source, destination, protocol, source_port, destination_port = ends
    family = 4 if len(source) == 4 else 6
    # nf_conntrack knows GRE's call ids alone; other GRE it knows by addresses.
    is_call = protocol == GRE and (source_port, destination_port) != _NO_PORTS
    rest = bytes((protocol, family, GRE_CALL if is_call else 0, 0))
    lo, hi = source.ljust(16, b"\0"), destination.ljust(16, b"\0")
    if protocol in _ICMP:
        return lo + hi + source_port + destination_port + rest, 0
    if protocol not in WITH_PORTS and not is_call:
        source_port, destination_port = _NO_PORTS
    if (lo, source_port) > (hi, destination_port):
        return hi + lo + destination_port + source_port + rest, 1
    return lo + hi + source_port + destination_port + rest, 0


def _translated(original: Ends, reply: Ends) -> Ends:
    """The original direction's packets as they are behind the translation, by what replies to them carry."""
    if original.protocol in _ICMP:  # the reply's type is the answer's; its id is the translated one
        return Ends(reply.destination, reply.source, reply.protocol, reply.source_port, original.destination_port)
    return Ends(reply.destination, reply.source, reply.protocol, reply.destination_port, reply.source_port)


def type_of(helper: str) -> int:
    """The connection-type of what this helper of nf_conntrack watches, 0: RouterOS has none.

    The kernel names a helper after its protocol, and the port if that is not the usual one: `ftp`, `ftp-2121`.
    """
    return CONNECTION_TYPE_NUMBERS.get("h323" if helper in _H323 else helper.split("-")[0], 0)


def item(entry: Entry, mark: int | None, standing: int, kind: int = 0) -> bytes:
    """An entry as a `struct nat_item`.

    mark: number of the connection mark in the table, None: leave it; 0 takes away what nf_conntrack gave.
    kind: connection-type, 0: leave it.
    standing: number of the newest dump, which this is no older than.
    """
    original, from_hi = normalised(entry.original)
    behind = _translated(entry.original, entry.reply)
    reply, reply_from_hi = normalised(behind)
    bits = 0
    if (behind.source, behind.source_port) != (entry.original.source, entry.original.source_port):
        bits |= Status.SRCNAT
    if (behind.destination, behind.destination_port) != (entry.original.destination, entry.original.destination_port):
        bits |= Status.DSTNAT
    if entry.status & STATUS_EXPECTED:
        bits |= Status.EXPECTED
    if entry.status & STATUS_HELPER:
        bits |= Status.HELPER
    if mark is not None:
        bits |= _HAS_MARK
    if mark:
        bits |= Status.MARK_TOLD
    return original + reply + _ITEM.pack(0, bits, mark or 0, standing, kind, from_hi, from_hi ^ reply_from_hi)


class Translations:
    """The kernel's side of NAT. Not for several threads at once."""

    def __init__(self, datapath: Datapath) -> None:
        self._clock = datapath.clock
        self._runner = TestRunner(datapath.programs["translate"])
        self._operations = datapath.enums["nat_operation"]
        self._items = datapath.enums[""]["NAT_ITEMS"]
        self._datapath = datapath
        self._batches: Batches | None = None  # before there is a map

    def learn(self, items: Sequence[bytes]) -> list[int]:
        """Make the table agree with these; the id of each one's connection, 0: there is none. Raises OSError."""
        return self._run("NAT_LEARN", items)

    def forget(self, items: Sequence[bytes]) -> None:
        """nf_conntrack has these no more. What it told stays with the connections that are there. Raises OSError."""
        self._run("NAT_FORGET", items)

    def tidy(self, keys: NDArray[np.void]) -> None:
        """Delete the translations under these keys, which no connection has, or lead them on. Raises OSError."""
        text, rest = keys.tobytes(), bytes(_ITEM.size)
        items = [bytes(TUPLE) + text[at : at + TUPLE] + rest for at in range(0, len(text), TUPLE)]
        self._run("NAT_TIDY", items)

    def read(self) -> Standing:
        """Every translation there is. Raises MapError."""
        if self._batches is None:
            if not self._datapath.has_translations:
                return Standing(np.empty(0, self._datapath.key_dtype), np.empty(0, self._datapath.translation_dtype))
            self._batches = Batches(self._datapath.translations, "table of translations")
        keys, leaves = [], []
        for some_keys, some_leaves in self._batches.read():
            keys.append(some_keys.copy())
            leaves.append(some_leaves.copy())
        order = np.argsort(np.concatenate([part["standing"] for part in leaves]), kind="stable")
        return Standing(np.concatenate(keys)[order], np.concatenate(leaves)[order])

    def newest_dump(self) -> int:
        """The highest number of a dump that some translation stands by; 0 without any. Raises MapError."""
        return int(self.read().leaves["standing"].max(initial=0))

    def forget_older(self, dump: int) -> None:
        """Forget what a dump of this number, now complete, did not have. Raises OSError."""
        there = self.read()
        standing = there.leaves["standing"]
        old = np.flatnonzero((standing > 0) & (standing < dump))
        rest = bytes(_ITEM.size)
        originals, replies = there.leaves["tuple"][old], there.keys[old]
        self.forget([a.tobytes() + b.tobytes() + rest for a, b in zip(originals, replies, strict=True)])

    def _run(self, operation: str, items: Sequence[bytes]) -> list[int]:
        ids: list[int] = []
        for start in range(0, len(items), self._items):
            part = items[start : start + self._items]
            head = _HEAD.pack(self._clock.now(), self._operations[operation], len(part))
            answer = self._runner.run((head + b"".join(part)).ljust(_HEAD.size + self._items * _SIZE, b"\0")).data
            ids += [_ID.unpack_from(answer, _HEAD.size + n * _SIZE + PAIR)[0] for n in range(len(part))]
        return ids


@dataclass(frozen=True, eq=False)
class Standing:
    """The kernel's translations as read: parallel arrays of `struct tuple` and `struct translation`.

    Those that nf_conntrack still has stand last: of several for one connection, these count.
    """

    keys: NDArray[np.void]
    leaves: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.keys)

    def translated(self) -> Translated:
        """As the table wants them, in the same order."""
        return Translated(
            id=np.ascontiguousarray(self.leaves["id"]),
            lo_addr=_bytes(self.keys["lo_addr"]),
            hi_addr=_bytes(self.keys["hi_addr"]),
            lo_port=_port(self.keys["lo_port"]),
            hi_port=_port(self.keys["hi_port"]),
            flip=self.leaves["flip"].astype(np.bool_),
        )

    def unused(self, translation: NDArray[np.int32], turn: int) -> NDArray[np.void]:
        """The keys of those in which no connection has its row (`translation`); of many, another part each `turn`."""
        unused = np.ones(len(self), np.bool_)
        unused[translation[translation >= 0]] = False
        keys = self.keys[np.flatnonzero(unused)]
        start = turn * TIDY_AT_ONCE % max(len(keys), 1)
        return np.concatenate((keys[start:], keys[:start]))[:TIDY_AT_ONCE]


def _bytes(addresses: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """(m, 4) words in network order as (m, 16) bytes."""
    return np.ascontiguousarray(addresses).view(np.uint8)


def _port(column: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """From network to host order."""
    return np.ascontiguousarray(column).view(">u2").astype(np.uint16)
