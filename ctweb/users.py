"""Who may sign in: names, roles and password hashes, in `users.json` in the state directory.

`ctweb user` writes the file, the running instance reads it again whenever it has changed. No password stands anywhere.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec

from ctweb import private_file
from ctweb.private_file import UnusableError
from ctweb.state import StateError

FILE = "users.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")  # no colon: it ends the name in HTTP Basic

Role = Literal["read", "full"]

log = logging.getLogger(__name__)


class User(msgspec.Struct, frozen=True):
    """`role`: read looks, full also removes and changes settings. `hash`: another one whenever the password was set."""

    role: Role
    hash: str


_NOBODY: Mapping[str, User] = MappingProxyType({})


class Users:
    """The users of a state directory, always as the file has them. Any thread may ask."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._read: tuple[object, Mapping[str, User]] = (None, _NOBODY)  # what the file was like, and what was in it

    def read(self) -> Mapping[str, User]:
        """The users by name. Raises StateError if the file cannot be used."""
        try:
            state = self._path.lstat()
            stamp = (state.st_ino, state.st_mtime_ns, state.st_size)
            seen, users = self._read
            if stamp != seen:
                users = MappingProxyType(private_file.load(self._path, dict[str, User]))
                self._read = stamp, users
            return users
        except (FileNotFoundError, NotADirectoryError):
            return _NOBODY
        except (OSError, UnusableError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            shown = private_file.shown(self._path)
            raise StateError(f"cannot use the users in {shown}: {why}; mend or remove the file") from None

    def now(self) -> Mapping[str, User]:
        """The same for a running instance: while the file cannot be used, nobody can sign in, and the log says why."""
        try:
            return self.read()
        except StateError as error:
            log.error("nobody can sign in: %s", error)
            return _NOBODY

    def get(self, name: str) -> User | None:
        return self.now().get(name)

    def put(self, name: str, user: User) -> None:
        """Add the user, or put it in the place of the one of that name. Raises StateError."""
        with self._changed() as users:
            users[name] = user

    def remove(self, name: str) -> bool:
        """Remove the user; False if there is none of that name. Raises StateError."""
        with self._changed() as users:
            return users.pop(name, None) is not None

    @contextmanager
    def _changed(self) -> Iterator[dict[str, User]]:
        """The users to change, and nobody else changes them meanwhile."""
        directory = self._path.parent
        try:
            private_file.make_directory(directory)
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise StateError(f"cannot use the state directory {directory}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            before = self.read()
            users = dict(before)
            yield users
            if users != before:
                private_file.replace(self._path, msgspec.json.format(msgspec.json.encode(users)) + b"\n")
        except OSError as error:
            raise StateError(
                f"cannot save the users in {private_file.shown(self._path)}: {error.strerror}; nothing was changed"
            ) from None
        finally:
            os.close(descriptor)
