"""The one running instance: its locks, and where the others find it.

Two locks, both held for the life of the process and released by the kernel with it: one in the state directory, whose
files have one writer, and one for the network namespace, whose packets are to be tracked once.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from ctweb import private_file
from ctweb.private_file import UnusableError

RUNTIME = Path("/run/ctweb")


class InstanceError(Exception):
    """Another instance is in the way, or none is there, or its files cannot be used; the message says which."""


class Running(msgspec.Struct, frozen=True):
    """Where the running instance answers: the contents of `running.json` in the state directory.

    `token`: who shows it as a bearer token may do everything. Another one each start; who can read the file has it.
    """

    pid: int
    host: str
    port: int
    token: str = msgspec.field(default_factory=lambda: secrets.token_urlsafe(32))
    tls: bool = False

    @property
    def url(self) -> str:
        """What to open; an address that listens on all is reached over loopback."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http{'s' if self.tls else ''}://{f'[{host}]' if ':' in host else host}:{self.port}/"


@contextmanager
def only_instance(state_dir: Path) -> Iterator[None]:
    """Be the only one on this state directory and in this network namespace. Raises InstanceError."""
    namespace = os.stat("/proc/self/ns/net").st_ino
    with (
        _lock(state_dir / "lock", f"on the state directory {state_dir}"),
        _lock(RUNTIME / f"netns-{namespace}.lock", "in this network namespace"),
    ):
        yield


def runs_in(namespace: str) -> bool:
    """Whether an instance runs in the network namespace of this number.

    Read from the kernel's list of locks: to try the lock could turn away one that is just starting.
    """
    try:
        lock = os.stat(RUNTIME / f"netns-{namespace}.lock").st_ino
    except OSError:
        return False
    held = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    return any("FLOCK" in words and words[-3].endswith(f":{lock}") for words in held)


@contextmanager
def announced(state_dir: Path, running: Running) -> Iterator[None]:
    """Let `find` find this process while the context lasts. Raises InstanceError."""
    path = state_dir / "running.json"
    try:
        private_file.replace(path, msgspec.json.encode(running))
    except OSError as error:
        raise _unusable(state_dir, error) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def find(state_dir: Path) -> Running:
    """The instance that runs on `state_dir`; after a crash it may be one that ran. Raises InstanceError."""
    path = state_dir / "running.json"
    try:
        return private_file.load(path, Running)
    except FileNotFoundError:
        raise InstanceError(
            f"ctweb is not running on the state directory {state_dir}; start it with `ctweb run`"
        ) from None
    except UnusableError as error:
        raise InstanceError(f"cannot read {path}: {error}") from None


def _unusable(directory: Path, error: OSError) -> InstanceError:
    remedies = {
        errno.ENOSPC: "make room there",
        errno.EDQUOT: "make room there",
        errno.EROFS: "make it writable, or choose another one with --state-dir",
    }
    remedy = "run it as root" if isinstance(error, PermissionError) else remedies.get(error.errno or 0)
    return InstanceError(f"cannot use {directory}: {error.strerror}{f'; {remedy}' if remedy else ''}")


@contextmanager
def _lock(path: Path, where: str) -> Iterator[None]:
    try:
        private_file.make_directory(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(path.parent, error) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = ""
            with suppress(OSError):
                holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            process = f" (process {holder})" if holder.isdigit() else ""
            raise InstanceError(f"ctweb is already running {where}{process}") from None
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except OSError as error:
            raise _unusable(path.parent, error) from None
        yield
    finally:
        os.close(descriptor)
