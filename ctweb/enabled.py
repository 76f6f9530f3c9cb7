"""Whether to track, by the setting `enabled`, and why. Not tracking means that no program is attached anywhere."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ctweb.datapath import firewall
from ctweb.settings import format_time

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0  # between two looks when nothing rings: the older iptables tell nobody of a change
PAUSE_SECONDS = 0.1  # a burst of changes costs few looks


@dataclass(frozen=True)
class Verdict:
    """Whether connections are tracked at the moment, and the reason in words."""

    active: bool
    reason: str


@dataclass(frozen=True)
class Needs:
    """What may need tracking. quiet: milliseconds since somebody last looked at connections, or since the start.

    seen: somebody has looked. firewall: which firewall rule there is, in words. rules: of the configuration.
    """

    rules: int = 0
    firewall: str = ""
    pages: int = 0
    quiet: int = 0
    seen: bool = False


def decide(enabled: str, needs: Needs, auto_timeout: int) -> Verdict:
    """The verdict on the setting (yes, no or auto) and, for auto, on what needs tracking."""
    if enabled != "auto":
        return Verdict(enabled == "yes", f"enabled={enabled}")
    within = format_time(auto_timeout)
    if needs.rules:
        return Verdict(True, "auto: the configuration has a rule")
    if needs.firewall:
        return Verdict(True, f"auto: {needs.firewall}")
    if needs.pages:
        return Verdict(True, "auto: the page is open")
    if needs.quiet < auto_timeout:
        who = "somebody looked at connections" if needs.seen else "it was started"
        return Verdict(True, f"auto: {who} in the last {within}")
    return Verdict(
        False, f"auto: no rule here, no firewall rule, and nobody has looked at connections in the last {within}"
    )


class Enabled:
    """Keeps the datapath attached or detached as the setting and the needs have it; the thread `enabled` looks again.

    setting: the setting in force. rules: how many the configuration has. auto_timeout: milliseconds that tracking
    goes on after the start, or after the last client. Methods may be called from any thread.
    """

    def __init__(self, setting: Callable[[], str], rules: Callable[[], int], auto_timeout: Callable[[], int]) -> None:
        self._setting = setting
        self._rules = rules
        self._auto_timeout = auto_timeout
        self._switch: Callable[[bool], None] | None = None
        self._clients = threading.Lock()  # held while one of the next three changes
        self._pages = 0
        self._looked = time.monotonic()
        self._seen = False
        self._deciding = threading.Lock()  # one decision at a time, from the look to the switch
        self._firewall = firewall.Firewall()
        self._verdict = self._decide()
        self._bell = firewall.bell()
        self._wake = os.eventfd(0)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="enabled", daemon=True)

    @property
    def verdict(self) -> Verdict:
        """As of the last look. Before `start`: what the start should be."""
        return self._verdict

    def start(self, switch: Callable[[bool], None]) -> None:
        """Follow the needs. switch: attaches or detaches, and raises OSError if it could not; now as `verdict` says."""
        log.info("%s: %s", "tracking" if self._verdict.active else "not tracking", self._verdict.reason)
        self._switch = switch
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._ring()
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._wake)
        if self._bell is not None:
            self._bell.close()
        self._firewall.close()

    def page_opened(self) -> None:
        with self._clients:
            self._pages += 1
        self.looked()

    def page_closed(self) -> None:
        with self._clients:
            self._pages -= 1
            self._looked = time.monotonic()

    def looked(self) -> None:
        """Somebody asked for connections."""
        with self._clients:
            self._looked = time.monotonic()
            self._seen = True
        if not self._verdict.active:
            self._ring()

    def review(self) -> None:
        """Decide afresh; what follows from it is done when this returns."""
        with self._deciding:
            before, wanted = self._verdict, self._decide()
            if wanted.active != before.active and self._switch is not None:
                try:
                    self._switch(wanted.active)
                except Exception as error:  # netlink raises several; the next look tries again
                    trouble = f"cannot {'attach' if wanted.active else 'detach'}: {error}"
                    wanted = Verdict(before.active, trouble)
            self._verdict = wanted
        if wanted.active != before.active:
            log.info("%s: %s", "tracking" if wanted.active else "not tracking any more", wanted.reason)
        elif wanted.reason.startswith("cannot") and wanted != before:
            log.error("%s", wanted.reason)

    def _decide(self) -> Verdict:
        setting = self._setting()
        with self._clients:
            pages, seen, quiet = self._pages, self._seen, int((time.monotonic() - self._looked) * 1000)
        rule = ""
        if setting == "auto":
            try:
                rule = self._firewall.reason()
            except OSError as error:
                rule = f"cannot tell whether there is a firewall rule ({error})"
        return decide(setting, Needs(self._rules(), rule, pages, quiet, seen), self._auto_timeout())

    def _ring(self) -> None:
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        bells: list[int | socket.socket] = [self._wake] if self._bell is None else [self._wake, self._bell]
        while True:
            ringing = select.select(bells, [], [], LOOK_SECONDS)[0]
            if self._wake in ringing:
                os.eventfd_read(self._wake)
            if self._stopping.is_set():
                return
            try:
                if self._bell is not None and self._bell in ringing:
                    firewall.silence(self._bell)
                self.review()
            except Exception as error:  # without this thread there would be no other look
                log.error("cannot decide whether to track, trying again: %s: %s", type(error).__name__, error)
            self._stopping.wait(PAUSE_SECONDS)
