"""Giving up root: the user that `ctweb run` becomes once its programs are attached, and the capabilities it keeps.

CAP_NET_ADMIN attaches to interfaces that come later, asks nf_tables, and deletes from nf_conntrack; CAP_BPF makes maps
and small programs. CAP_PERFMON goes: with it a program may read all of the kernel's memory. Without it the verifier
refuses the hooks, so that whatever may ever be attached is loaded before (docs/architecture.md, Rights).

All of these sets belong to a thread, not to the process, and only the calling thread's can be changed. So it is done
while there is one thread, from which the others take theirs.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER = "ctweb"
KEPT = {"CAP_NET_ADMIN": 12, "CAP_BPF": 39}
HOW_TO_MAKE_USER = f"useradd --system --user-group --home-dir /nonexistent --shell /usr/sbin/nologin {USER}"
HOW_TO_LET_READ = f"let the group {USER} read it (chgrp, chmod g+r) and enter the directories above, or restart"

# include/uapi/linux/prctl.h and capability.h
_PR_SET_KEEPCAPS, _PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 8, 23, 24, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class PrivilegeError(Exception):
    """Root cannot be given up, or what it had cannot be handed over; the message says why, and what to do."""


@dataclass(frozen=True)
class Account:
    """A user by number, and the group of the same name."""

    uid: int
    gid: int


class _Header(ctypes.Structure):
    """`struct __user_cap_header_struct`; pid 0: the calling thread."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    """`struct __user_cap_data_struct`, for 32 capabilities."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def account() -> Account | None:
    """The user to become; None if there is none of that name."""
    try:
        found = pwd.getpwnam(USER)
    except KeyError:
        return None
    return Account(found.pw_uid, found.pw_gid)


def out_of_reach(files: Iterable[Path], to: Account, below: Path = Path("/")) -> Path | None:
    """The first of these files, or of the directories from `below` to them, that this user may not read or enter."""
    for file in files:
        path = Path(os.path.realpath(file))
        above = [each for each in path.parents if each == below or below in each.parents]
        for each, wanted in ((path, 0o5 if path.is_dir() else 0o4), *((each, 0o1) for each in above)):
            found = each.stat()
            shift = 6 if found.st_uid == to.uid else 3 if found.st_gid == to.gid else 0
            if (found.st_mode >> shift & wanted) != wanted:
                return each
    return None


def drop(to: Account | None) -> None:
    """Become that user (None: stay the one it is), without other groups, and keep the capabilities of KEPT alone.

    For good: nothing that is executed gets more. Call it while the process has one thread. Raises PrivilegeError.
    """
    try:
        _prctl(_PR_SET_KEEPCAPS, 1)
        for capability in range(64):
            if _libc.prctl(_PR_CAPBSET_READ, *_unsigned(capability, 0, 0, 0)) < 0:  # beyond this kernel's last
                break
            _prctl(_PR_CAPBSET_DROP, capability)
        if to is not None:
            os.setgroups([])
            os.setresgid(to.gid, to.gid, to.gid)
            os.setresuid(to.uid, to.uid, to.uid)
        _set_capabilities(sum(1 << bit for bit in KEPT.values()))
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
        _prctl(_PR_SET_KEEPCAPS, 0)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    except OSError as error:
        raise PrivilegeError(
            f"cannot give up root: {error.strerror}; it takes CAP_SETUID, CAP_SETGID and CAP_SETPCAP (in a container?)"
        ) from None
    os.umask(0o077)
    for name, too_much in _still_privileged():
        raise PrivilegeError(f"cannot give up root: the thread {name} was there before and keeps {too_much}")


def hand_over(state_dir: Path, to: Account) -> None:
    """Give the state directory and the files in it to this user, closed to all others.

    Raises PrivilegeError and changes nothing for a directory that is not a state
    directory's like: of another user's, open to others, or with more in it than files.
    """
    shown = os.path.realpath(state_dir)
    try:
        with _opened(state_dir) as directory:
            _hand_over(directory, to, shown)
    except OSError as error:
        raise PrivilegeError(f"cannot give the state directory {shown} to the user {USER}: {error.strerror}") from None


def _hand_over(directory: int, to: Account, shown: str) -> None:
    found = os.fstat(directory)
    if found.st_uid not in (0, to.uid) or found.st_mode & 0o022:
        raise PrivilegeError(
            f"the state directory {shown} is not root's or {USER}'s alone: give another one with --state-dir, "
            "which may be one that is not there yet"
        )
    files = []
    for name in os.listdir(directory):
        there = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(there.st_mode):
            raise PrivilegeError(
                f"the state directory {shown} has a directory {name!r} in it, which is not ctweb's: give one for its "
                "state alone with --state-dir"
            )
        files.append(name)
    for name in files:
        _hand_over_file(directory, name, to)
    os.fchmod(directory, 0o700)
    os.fchown(directory, to.uid, to.gid)


def _hand_over_file(directory: int, name: str, to: Account) -> None:
    """Its user may have put anything there, so neither links nor second names of other files are followed."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:  # a symbolic link, a socket: nothing that we read
        return
    try:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            os.fchmod(descriptor, 0o600)
            os.fchown(descriptor, to.uid, to.gid)
    finally:
        os.close(descriptor)


@contextmanager
def within_reach(directory: Path) -> Iterator[Path]:
    """A path to `directory` that this process can go on using when it may not enter what lies above it any more.

    Raises OSError.
    """
    with _opened(directory) as descriptor:
        yield Path(f"/proc/self/fd/{descriptor}")


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _still_privileged() -> Iterator[tuple[str, str]]:
    """The threads that have more than KEPT, by number and name, and what it is."""
    kept = sum(1 << bit for bit in KEPT.values())
    wanted = {"CapPrm": kept, "CapEff": kept, "CapInh": 0, "CapBnd": 0, "CapAmb": 0}
    for thread in sorted(Path("/proc/self/task").iterdir()):
        text = (thread / "status").read_text()
        values = dict(re.findall(r"^(\w+):\s*(.*)$", text, re.MULTILINE))
        for name, value in wanted.items():
            if int(values[name], 16) & ~value:
                yield f"{thread.name} ({values['Name']})", f"{name} {values[name]}"
        if values.get("NoNewPrivs") == "0":
            yield f"{thread.name} ({values['Name']})", "the right to new privileges"


def _set_capabilities(mask: int) -> None:
    """Exactly these, permitted and effective; none inheritable."""
    halves = [_Sets(half, half, 0) for half in (mask & 0xFFFF_FFFF, mask >> 32)]
    if _libc.capset(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), (_Sets * 2)(*halves)) < 0:
        raise _error()


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, *_unsigned(argument, 0, 0, 0)) < 0:
        raise _error()


def _unsigned(*values: int) -> list[ctypes.c_ulong]:
    """Arguments as wide as prctl(2) reads them, which is variadic."""
    return [ctypes.c_ulong(value) for value in values]


def _error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))
