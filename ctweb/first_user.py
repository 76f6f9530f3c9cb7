"""The first start: with no user there is nobody who could sign in, so one is made."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path

from ctweb.config import Config
from ctweb.passwords import generated, hashed
from ctweb.users import User, Users

NAME = "admin"

log = logging.getLogger(__name__)


def ensure(users: Users, state_dir: Path, *, log_is_kept: bool) -> None:
    """If there is no user, make one and say its password on stderr, this once. Raises StateError.

    state_dir: as commands are told it.
    log_is_kept: stderr is a log that is stored and read by others (the journal, JSON for a collector). A password does
    not belong there: then none is made, and the log says how to.
    """
    if users.read():
        return
    command = f"ctweb user set {NAME}"
    if state_dir != Config().state_dir:
        command += f" --state-dir {shlex.quote(str(state_dir))}"
    if log_is_kept:
        log.warning("nobody can sign in: there is no user yet; make one with `%s`", command)
        return
    password = generated()
    users.put(NAME, User("full", hashed(password)))
    print(
        f"\n  Sign in as {NAME} with the password {password}\n"
        f"  It is shown this once. Another one: {command}\n",
        file=sys.stderr,
        flush=True,
    )
