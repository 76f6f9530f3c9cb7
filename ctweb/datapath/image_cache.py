"""Compiled datapaths are kept on disk, so that only the first start of a version waits for the compiler."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from ctweb.datapath import libbcc
from ctweb.datapath.image import HEADERS, Image

log = logging.getLogger(__name__)

KEPT = 8  # of them, the ones used last
_FORMAT = "1"  # of what is written here


def directory() -> Path:
    """Where they lie: what systemd gave the service, or /var/cache/ctweb."""
    return Path(os.environ.get("CACHE_DIRECTORY", "/var/cache/ctweb").split(":")[0])


def image_for(text: str, flags: list[str], make: Callable[[], Image]) -> Image:
    """The image of this source and these flags: kept, or made and then kept. Raises what `make` raises.

    Programs go into the kernel as they stand here: only a directory that nobody else can write to is trusted.
    Where there is none, nothing is kept.
    """
    place, key = directory(), _key(text, flags)
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check(place)
        with _locked(place):
            return _read_or_make(place / f"{key}.image", make)
    except OSError as error:
        log.info("the compiled datapath is not kept: %s; the next start compiles again", error)
        return make()


def _read_or_make(path: Path, make: Callable[[], Image]) -> Image:
    try:
        image = msgspec.msgpack.decode(path.read_bytes(), type=Image)
    except FileNotFoundError:
        pass
    except (msgspec.MsgspecError, ValueError) as error:
        log.warning("%s cannot be used: %s; compiling again", path, error)
    else:
        with suppress(OSError):
            os.utime(path)
        return image
    image = make()
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(msgspec.msgpack.encode(image))
        os.replace(file.name, path)
        _forget_old(path.parent)
    except OSError as error:
        log.info("the compiled datapath is not kept: %s; the next start compiles again", error)
    return image


def _check(place: Path) -> None:
    """Raises PermissionError if another user could write there."""
    state = place.stat()
    if state.st_uid != os.geteuid() or state.st_mode & 0o022:
        raise PermissionError(f"{place} belongs to another user, or others may write to it (chmod 700 {place})")


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Who comes second waits for the compiler of the first. Raises OSError."""
    lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _key(text: str, flags: list[str]) -> str:
    """Whatever the compiler's work depends on."""
    parts = [_FORMAT, text, *flags, libbcc.version(), platform.machine(), platform.release()]
    parts += [f"{path.name}\0{path.read_text()}" for path in sorted(HEADERS.rglob("*.h"))]
    return hashlib.sha256("\0\0".join(parts).encode()).hexdigest()


def _forget_old(place: Path) -> None:
    images = sorted(place.glob("*.image"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in images[KEPT:]:
        path.unlink(missing_ok=True)
