"""Who is signed in on the page: sessions, kept by the server, known to the browser by a cookie.

They outlive a restart: `sessions.json` in the state directory has them, with a digest in the place of each token. One
ends when its user signs out, is removed or has another password, after a day in which it was not used, and after 30.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from ctweb import private_file
from ctweb.private_file import UnusableError
from ctweb.users import User, Users

FILE = "sessions.json"
IDLE_SECONDS = 24 * 3600
LONGEST_SECONDS = 30 * 24 * 3600
MOST = 256  # beyond it, one of who has the most gives way

log = logging.getLogger(__name__)


class Session(msgspec.Struct):
    """`csrf`: what a change must carry. `password`: of which password of its user; not the password."""

    name: str
    csrf: str
    password: str
    began: float  # Unix seconds, as used
    used: float


class Sessions:
    """The sessions of a state directory. Any thread may ask."""

    def __init__(self, directory: Path, users: Users, clock: Callable[[], float] = time.time) -> None:
        self._path = directory / FILE
        self._users = users
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions = self._saved()

    def begin(self, name: str, user: User) -> tuple[str, Session]:
        """A new session, and its token for the cookie."""
        token = secrets.token_urlsafe(32)
        now = self._clock()
        session = Session(name, secrets.token_urlsafe(32), _password_of(user), now, now)
        with self._lock:
            for key in [key for key, one in self._sessions.items() if not self._lasts(one)]:
                del self._sessions[key]
            while len(self._sessions) >= MOST:
                del self._sessions[self._to_give_way()]
            self._sessions[_digest(token)] = session
            self._save()
        return token, session

    def find(self, token: str) -> tuple[Session, User] | None:
        """The session with this token and its user, unless it is over."""
        with self._lock:
            session = self._sessions.get(_digest(token))
            if session is None or not self._lasts(session):
                return None
            session.used = self._clock()
        user = self._users.get(session.name)
        return (session, user) if user is not None else None

    def end(self, token: str) -> None:
        with self._lock:
            if self._sessions.pop(_digest(token), None) is not None:
                self._save()

    def _to_give_way(self) -> str:
        """Of who has the most, so that nobody signs out everybody else, the one that was not used for longest."""
        of = Counter(session.name for session in self._sessions.values())
        return min(self._sessions, key=lambda key: (-of[(one := self._sessions[key]).name], one.used))

    def _lasts(self, session: Session) -> bool:
        now = self._clock()
        user = self._users.get(session.name)
        return (
            user is not None
            and secrets.compare_digest(session.password, _password_of(user))
            and now - session.used < IDLE_SECONDS
            and now - session.began < LONGEST_SECONDS
        )

    def _saved(self) -> dict[str, Session]:
        """Those from before the start. When they were used last is not known: that they were idle, nobody can tell."""
        try:
            sessions = private_file.load(self._path, dict[str, Session])
        except FileNotFoundError:
            return {}
        except UnusableError as error:
            shown = private_file.shown(self._path)
            log.warning("everybody must sign in again: cannot use the sessions in %s: %s", shown, error)
            return {}
        now = self._clock()
        for session in sessions.values():
            session.used = now
        return sessions

    def _save(self) -> None:
        try:
            private_file.replace(self._path, msgspec.json.encode(self._sessions))
        except OSError as error:
            shown, why = private_file.shown(self._path), error.strerror
            log.warning("cannot save the sessions in %s: %s; after a restart, sign in again", shown, why)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _password_of(user: User) -> str:
    return hashlib.sha256(user.hash.encode()).hexdigest()
