"""The one running instance: its locks, and where the others find it.

Two locks, both held for the life of the process and released by the kernel with it: one in the state directory, whose
files have one writer, and one for the network namespace, whose packets are to be tracked once.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

RUNTIME = Path("/run/ctweb")


class InstanceError(Exception):
    """Another instance is in the way, or none is there, or its files cannot be used; the message says which."""


class Running(msgspec.Struct, frozen=True):
    """Where the running instance answers: the contents of `running.json` in the state directory."""

    pid: int
    host: str
    port: int


@contextmanager
def only_instance(state_dir: Path) -> Iterator[None]:
    """Be the only one on this state directory and in this network namespace. Raises InstanceError."""
    namespace = os.stat("/proc/self/ns/net").st_ino
    with (
        _lock(state_dir / "lock", f"on the state directory {state_dir}"),
        _lock(RUNTIME / f"netns-{namespace}.lock", "in this network namespace"),
    ):
        yield


@contextmanager
def announced(state_dir: Path, host: str, port: int) -> Iterator[None]:
    """Let `find` find this process at `host` and `port` while the context lasts."""
    path = state_dir / "running.json"
    partial = path.with_suffix(".new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(Running(os.getpid(), host, port)))
    partial.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def find(state_dir: Path) -> Running:
    """The instance that runs on `state_dir`; after a crash it may be one that ran. Raises InstanceError."""
    path = state_dir / "running.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Running)
    except FileNotFoundError:
        raise InstanceError(
            f"ctweb is not running on the state directory {state_dir}; start it with `ctweb run`"
        ) from None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InstanceError(f"cannot read {path}: {error}") from None


@contextmanager
def _lock(path: Path, where: str) -> Iterator[None]:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        remedy = "; run it as root" if isinstance(error, PermissionError) else ""
        raise InstanceError(f"cannot use {path.parent}: {error.strerror}{remedy}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = ""
            with suppress(OSError):
                holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            process = f" (process {holder})" if holder.isdigit() else ""
            raise InstanceError(f"ctweb is already running {where}{process}") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
