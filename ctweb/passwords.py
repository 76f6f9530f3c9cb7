"""Passwords as hashes: Argon2id.

OWASP's smaller parameters: one verification takes about 20 ms of one processor and 19 MiB, so that Basic stays usable
and a flood of wrong passwords (web/password_check.py lets them in one at a time) costs memory for one.
"""

from __future__ import annotations

import secrets
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

LONGEST = 1024  # characters

_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


def hashed(password: str) -> str:
    """A hash of `password`, with a salt of its own. Raises ValueError for one that nobody could sign in with."""
    if not password:
        raise ValueError("a password must not be empty")
    if len(password) > LONGEST:
        raise ValueError(f"a password has at most {LONGEST} characters")
    return _hasher.hash(password)


def is_right(password: str, hash: str | None) -> bool:
    """Whether `hash` was made of `password`. None (there is no such user) takes as long, and is never right."""
    try:
        _hasher.verify(hash if hash is not None else _nobodys(), password[: LONGEST + 1])
    except (VerificationError, InvalidHashError, ValueError):
        return False
    return hash is not None


def generated() -> str:
    """A password that nobody guesses: 96 bits in 16 characters."""
    return secrets.token_urlsafe(12)


@cache
def _nobodys() -> str:
    return _hasher.hash(secrets.token_urlsafe())
