"""SIGHUP: the configuration is read again, and what can change while it runs is put into force."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable

import msgspec

from ctweb import service
from ctweb.config import Config, ConfigError
from ctweb.datapath.attach import AttachError
from ctweb.datapath.build import BuildError
from ctweb.datapath.conntrack import Conntrack
from ctweb.datapath.rulebook import Rulebook
from ctweb.rules import RuleError
from ctweb.settings import as_text, format_time
from ctweb.tracker import Tracker
from ctweb.web.tls import Certificate

log = logging.getLogger(__name__)

LIVE = ("rule", "marks", "tracking", "auto_timeout", "metrics")
"""What of the configuration can change while it runs; the rest is read at the start only."""


class Reload:
    """The configuration in force, and the thread `reload` that reads it again after each SIGHUP.

    read: reads the configuration as at the start, command line included. The signal's own action is taken away as
    soon as this is made, in the main thread. A SIGHUP because the terminal has gone ends the program as SIGTERM does.
    """

    def __init__(self, config: Config, read: Callable[[], Config]) -> None:
        self.config = config  # in force, as far as it can change
        self._started = config
        self._read = read
        self._bell = os.eventfd(0)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reload", daemon=True)
        self._on_terminal = _has_terminal()
        signal.signal(signal.SIGHUP, self._ring)

    def start(
        self, tracker: Tracker, rulebook: Rulebook, conntrack: Conntrack, certificate: Certificate | None
    ) -> None:
        """From here on reload; a SIGHUP that came before is obeyed now. `certificate`: of HTTPS."""
        self._tracker, self._rulebook, self._conntrack, self._certificate = tracker, rulebook, conntrack, certificate
        self._thread.start()

    def stop(self) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._stopping.set()
        os.eventfd_write(self._bell, 1)
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._bell)

    def _ring(self, *_: object) -> None:
        if self._on_terminal and not _has_terminal():
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        while os.eventfd_read(self._bell) and not self._stopping.is_set():
            service.reloading()
            try:
                log.info("reloaded: %s", self.reload())
            except (ConfigError, RuleError, AttachError, BuildError, OSError) as error:
                log.error("not reloaded: %s; everything stays as it was", error)
            except Exception as error:  # without this thread there would be no other reload
                log.error("not reloaded: %s: %s", type(error).__name__, error)
            service.ready()

    def reload(self) -> str:
        """Read the configuration and put it into force, all of it or nothing; what changed, in words.

        Raises ConfigError, RuleError, AttachError, BuildError or OSError.
        """
        new, old = self._read(), self.config
        certificate = self._certificate.renewed(new.tls) if self._certificate is not None and new.tls else None
        rules, settings = self._rulebook.rules, as_text(self._tracker.tracking)
        said = []
        if new.rule != rules:
            self._rulebook.set(new.rule)
            changed = f", {len(new.rule)} instead of {len(rules)}" if len(new.rule) != len(rules) else " changed"
            said.append(f"rules{changed}")
        try:
            kept = self._tracker.rebase(new.tracking)
        except OSError:
            self._rulebook.set(rules)
            raise
        now = as_text(self._tracker.tracking)
        changes = [f"{name}={now[name]} instead of {settings[name]}" for name in now if now[name] != settings[name]]
        if changes:
            said.append("tracking: " + ", ".join(changes))
        before, wanted = as_text(old.tracking), as_text(new.tracking)
        said += [f"{name} stays {now[name]}, set while it ran" for name in kept if before[name] != wanted[name]]
        if new.marks != old.marks:
            self._conntrack.rename(new.marks)
            said.append(f"marks: {', '.join(f'{name}={number}' for name, number in new.marks.items()) or 'none'}")
        if new.auto_timeout != old.auto_timeout:
            said.append(f"auto-timeout={format_time(new.auto_timeout)} instead of {format_time(old.auto_timeout)}")
        if new.metrics != old.metrics:
            said.append(f"metrics: top-hosts={new.metrics.top_hosts} instead of {old.metrics.top_hosts}")
        if certificate is not None and self._certificate is not None:
            self._certificate.become(certificate)
            said.append("another certificate, for connections from now on")
        live = LIVE + (("tls",) if bool(new.tls) == bool(self._started.tls) else ())
        fixed = [
            field.encode_name
            for field in msgspec.structs.fields(Config)
            if field.name not in live and getattr(new, field.name) != getattr(self._started, field.name)
        ]
        if fixed:
            said.append("a restart is needed for " + ", ".join(fixed))
        self.config = new
        self._tracker.review()
        return "; ".join(said) or "nothing changed"


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
