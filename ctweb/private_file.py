"""Files of the state directory: written whole and swapped in, and nobody but the directory's owner reads them."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")


class UnusableError(Exception):
    """A file that is there cannot be read, or what is in it not understood; the message says why, but not which."""


def load(path: Path, kind: type[T]) -> T:
    """The JSON in `path`. Raises FileNotFoundError, or UnusableError."""
    try:
        return msgspec.json.decode(_read(path), type=kind)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnusableError(error.strerror or str(error)) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnusableError(str(error)) from None


def _read(path: Path) -> bytes:
    """Links are not followed, and nothing is waited for: the directory's owner is not root, who reads here too."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file")
        return file.read()


def shown(path: Path) -> Path:
    """How messages name it: within a directory that is reached by a descriptor, or by a link."""
    return Path(os.path.realpath(path.parent), path.name)


def make_directory(path: Path) -> None:
    """Make the state directory unless it is there. Raises OSError; what is in its place, its message says."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        there = next(one for one in (path, *path.parents) if os.path.lexists(one))
        name = "it" if there == path else str(there)
        if there.is_symlink() and not there.exists():
            target = os.readlink(there)
            why = f"{name} is a link to {target}, which is not there: make that directory, or remove the link"
            raise FileNotFoundError(errno.ENOENT, why) from None
        raise NotADirectoryError(errno.ENOTDIR, f"{name} is no directory: remove it, or choose another one") from None


def replace(path: Path, data: bytes) -> None:
    """Make `data` the contents of `path`: a crash leaves the old file or the new one. Makes its directory if need be.

    The file belongs to whoever owns the directory, so that a process that runs as that user can read what root wrote.
    Raises OSError and leaves the old file.
    """
    make_directory(path.parent)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            owner = path.parent.stat()
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
