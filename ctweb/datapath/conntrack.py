"""Follows nf_conntrack, where it runs: what it translates, marks, expects or watches with a helper goes into the table.

The thread `conntrack` owns it all. It listens to ctnetlink's events, with a filter in the kernel that passes only
those of interest, and dumps the whole table when it begins, when events were lost, and once in a while, so that
nothing is wrong for good. Neither turns nf_conntrack on: it tracks when a rule needs it, not for a listener.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from ctweb.datapath.build import Datapath
from ctweb.datapath.ctnetlink import (
    DELETE,
    GROUPS,
    NETLINK_NETFILTER,
    NEW,
    Ends,
    Entry,
    Malformed,
    done,
    dump_request,
    event_filter,
    interrupted,
    messages,
    parse,
)
from ctweb.datapath.translations import PAIR, TUPLE, Translations, item, type_of
from ctweb.table.marks import MarkNames

log = logging.getLogger(__name__)

PRESENT = Path("/proc/sys/net/netfilter/nf_conntrack_count")  # of the thread's own network namespace
RECEIVE_BUFFER = 16 << 20  # bytes, as the kernel accounts them: some 20,000 events
_DRAIN = 512  # events handled together
_MESSAGE = 1 << 16
_CHUNK = 1 << 18  # of a dump at a time; the kernel gives 32 KB or less
_LOOK = 1.0  # seconds between looks for what has no event
_DUMP_EVERY = 60.0  # seconds, at least
_DUMP_SHARE = 0.01  # of the time at most goes into dumps that nothing asked for
_WAITING = 16_384  # entries kept whose connection is not in the table yet
_MASTERS = 16_384  # connections with a helper that are remembered for what they expect
_OTHER_MARKS = 10_000  # marks without a name that are shown as their number; more of them share one name

_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33


class Conntrack:
    """What nf_conntrack knows, put into the table of `datapath`. Methods may be called from any thread.

    names: mark numbers by name, from the configuration. receive_buffer: bytes of the socket for events.
    """

    def __init__(
        self,
        datapath: Datapath,
        marks: MarkNames,
        names: Mapping[str, int],
        *,
        receive_buffer: int = RECEIVE_BUFFER,
    ) -> None:
        self._datapath = datapath
        self._translations = Translations(datapath)
        self._marks = marks
        self._naming = _Naming(marks, names)
        self._dumped_with = self._naming  # the names that the newest dump was begun with
        # Of what a helper watches, by its original direction: connection-type, and the newest dump when it was told.
        self._types: dict[Ends, tuple[int, int]] = {}
        self._receive_buffer = receive_buffer
        self._quit = os.eventfd(0)
        self._thread = threading.Thread(target=self._run, name="conntrack", daemon=True)
        self._events: socket.socket | None = None
        # Number of the newest dump that was begun; an earlier run's translations may be there, of its dumps.
        self._dump = self._translations.newest_dump()
        self._lost = False  # events were, since the last dump began
        self._next_dump = 0.0  # monotonic
        self._waiting: dict[bytes, bytes] = {}  # items without a connection, by their original tuple
        self._drained = time.monotonic()  # when no event was left to read
        self._behind = False
        self._counts = {
            f"conntrack-{what}": 0 for what in ("events", "overruns", "malformed", "dumps", "failures")
        }
        self._last_error = ""

    @property
    def counters(self) -> dict[str, int]:
        """Totals since the start; `conntrack-lag-ms`: how far the table may be behind nf_conntrack; and who waits."""
        lag = time.monotonic() - self._drained if self._behind else 0.0
        return self._counts | {"conntrack-lag-ms": round(lag * 1000), "conntrack-waiting": len(self._waiting)}

    def rename(self, names: Mapping[str, int]) -> None:
        """Other names for mark numbers, also of the marks that are there: by the next turn of the thread."""
        self._naming = _Naming(self._marks, names)

    def start(self) -> None:
        """From here on. Where nf_conntrack is there, its translations are expected once this returns."""
        if PRESENT.exists():
            self._datapath.expect_nat(True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. May be called twice."""
        if self._quit < 0:
            return
        os.eventfd_write(self._quit, 1)
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._quit)
        self._quit = -1

    def _run(self) -> None:
        while True:
            try:
                self._step()
                self._last_error = ""
            except Exception as error:  # whatever it is, the next turn may go better; a dump then makes up for it
                self._counts["conntrack-failures"] += 1
                self._lost = True
                text = f"{type(error).__name__}: {error}"
                if text != self._last_error:
                    log.error("cannot follow nf_conntrack, trying again: %s", text)
                self._last_error = text
                if select.select([self._quit], [], [], _LOOK)[0]:
                    break
            waiting_for = [self._quit, *([self._events] if self._events else [])]
            if self._quit in select.select(waiting_for, [], [], 0 if self._behind else _LOOK)[0]:
                break
        if self._events:
            self._events.close()

    def _step(self) -> None:
        """What there is to do now; not longer than a dump takes."""
        if self._events is None:
            if not PRESENT.exists():
                return
            self._datapath.expect_nat(True)
            self._events = _listen(self._receive_buffer)
            self._lost = True
        self._read_events()
        if self._lost or self._naming is not self._dumped_with or time.monotonic() >= self._next_dump:
            self._take_dump()
        elif self._waiting and not self._behind:
            self._learn([])

    def _read_events(self) -> None:
        """Handle what has come, a bounded number of events."""
        assert self._events is not None
        news: list[Entry] = []
        self._behind = True
        for _ in range(_DRAIN):
            try:
                data = self._events.recv(_MESSAGE)
            except BlockingIOError:
                self._behind = False
                self._drained = time.monotonic()
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._counts["conntrack-overruns"] += 1
                self._lost = True
                continue
            self._counts["conntrack-events"] += 1
            try:
                for kind, _, start, end in messages(data):
                    if kind in (NEW, DELETE) and (entry := self._entry(data, start, end)):
                        news.append(entry)
            except Malformed as error:
                self._malformed(error)
        self._take(news)

    def _take(self, entries: list[Entry]) -> None:
        """Put these into the table. An entry's last word counts; who has come and gone is learned all the same."""
        news: dict[bytes, bytes] = {}
        gone: dict[bytes, bytes] = {}
        unmarked: dict[bytes, bytes] = {}
        naming = self._naming
        for entry in entries:
            made = item(entry, naming.number(entry.mark), self._dump, self._type(entry))
            key = made[:PAIR]
            if entry.gone:
                gone[key] = made
            elif entry.says_something:
                news[key] = made
                gone.pop(key, None)
            else:
                unmarked[key] = made
        self._learn(news.values())
        # Its mark may have been taken away while events were lost. Without a connection there is nothing to wait for.
        self._translations.learn([made for key, made in unmarked.items() if key not in news])
        if gone:
            for key in gone:
                if self._waiting.get(key[:TUPLE], b"")[:PAIR] == key:
                    del self._waiting[key[:TUPLE]]
            self._translations.forget(list(gone.values()))

    def _learn(self, news: Iterable[bytes]) -> None:
        """These, and what waits for its connection."""
        for made in news:
            if len(self._waiting) < _WAITING or made[:TUPLE] in self._waiting:
                self._waiting[made[:TUPLE]] = made
        items = list(self._waiting.values())
        for made, connection in zip(items, self._translations.learn(items), strict=True):
            if connection:
                del self._waiting[made[:TUPLE]]

    def _type(self, entry: Entry) -> int:
        """The connection-type of what a helper watches, or of what such a connection expected; 0: none."""
        if not entry.helper:
            return self._types.get(entry.master, (0, 0))[0] if entry.master else 0
        kind = type_of(entry.helper)
        if entry.gone:
            self._types.pop(entry.original, None)
        elif kind and (entry.original in self._types or len(self._types) < _MASTERS):
            self._types[entry.original] = kind, self._dump
        return kind

    def _entry(self, data: bytes, start: int, end: int) -> Entry | None:
        """The entry that stands there, if it is of interest. A message that does not parse is counted, and None."""
        try:
            return parse(data, start, end)
        except Malformed as error:
            self._malformed(error)
            return None

    def _malformed(self, error: Malformed) -> None:
        self._counts["conntrack-malformed"] += 1
        log.debug("a message of nf_conntrack does not parse: %s", error)

    def _take_dump(self) -> None:
        """Read nf_conntrack's whole table, and between its parts the events that come meanwhile."""
        began = time.monotonic()
        self._lost = False
        self._dumped_with = self._naming
        self._dump += 1
        complete = True
        with closing(_socket()) as netlink:
            netlink.settimeout(10)
            netlink.send(dump_request(self._dump))
            ended = False
            while not ended:
                data = netlink.recv(_CHUNK)
                entries = []
                for kind, flags, start, end in messages(data):
                    complete = complete and not interrupted(flags)
                    ended = ended or done(data, kind, start)
                    if kind == NEW and (entry := self._entry(data, start, end)):
                        entries.append(entry)
                self._take(entries)
                self._read_events()
                if select.select([self._quit], [], [], 0)[0]:
                    return
        if complete:
            self._translations.forget_older(self._dump)
            self._types = {ends: told for ends, told in self._types.items() if told[1] == self._dump}
        self._counts["conntrack-dumps"] += 1
        ended_at = time.monotonic()
        self._next_dump = ended_at + max(_DUMP_EVERY, (ended_at - began) / _DUMP_SHARE)


class _Naming:
    """What nf_conntrack's marks are called. For the thread alone.

    names: mark numbers by name, from the configuration.
    """

    def __init__(self, marks: MarkNames, names: Mapping[str, int]) -> None:
        self._marks = marks
        self._names = {number: name for name, number in names.items()}
        self._numbers: dict[int, int] = {}  # nf_conntrack's mark -> its number in the table

    def number(self, mark: int | None) -> int | None:
        """The number in the table of nf_conntrack's mark."""
        if not mark:
            return mark
        number = self._numbers.get(mark)
        if number is None:
            name = self._names.get(mark)
            if name is None:
                name = str(mark) if len(self._numbers) < _OTHER_MARKS else "other"
            number = self._numbers[mark] = self._marks.number(name)
        return number


def _socket() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)


def _listen(receive_buffer: int) -> socket.socket:
    """A socket that gets the events of interest. Raises OSError."""
    made = _socket()
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer)
        text = event_filter()
        program = ctypes.create_string_buffer(text, len(text))
        # struct sock_fprog
        made.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(text) // 8, ctypes.addressof(program))
        )
        made.bind((0, GROUPS))
    except BaseException:
        made.close()
        raise
    return made
