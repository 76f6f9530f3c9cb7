"""The first start: with no user there is nobody who could sign in, so one is made."""

from __future__ import annotations

import logging
import sys

from ctweb.passwords import generated, hashed
from ctweb.users import User, Users

NAME = "admin"

log = logging.getLogger(__name__)


def ensure(users: Users, *, log_is_kept: bool) -> None:
    """If there is no user, make one and say its password on stderr, this once. Raises StateError.

    log_is_kept: stderr is a log that is stored and read by others (the journal, JSON for a collector). A password does
    not belong there: then none is made, and the log says how to.
    """
    if users.read():
        return
    if log_is_kept:
        log.warning("nobody can sign in: there is no user yet; make one with `ctweb user set %s`", NAME)
        return
    password = generated()
    users.put(NAME, User("full", hashed(password)))
    print(
        f"\n  Sign in as {NAME} with the password {password}\n"
        f"  It is shown this once. Another one: ctweb user set {NAME}\n",
        file=sys.stderr,
        flush=True,
    )
