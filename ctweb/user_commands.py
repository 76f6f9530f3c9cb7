"""`ctweb user`: who may sign in. A running instance knows of every change with the next request."""

from __future__ import annotations

import sys

import click

from ctweb.command_line import Failure, configured, failing_in_one_line
from ctweb.config import Config
from ctweb.state import StateError
from ctweb.users import NAME, Role, User, Users

SHORT = 8  # characters; shorter ones are taken, with a warning


@click.group()
def user() -> None:
    """Who may sign in: on the page, and with HTTP Basic."""


@user.command(name="set")
@configured
@click.argument("name")
@click.option("--role", type=click.Choice(["read", "full"]), help="What a new user may do.  [default: full]")
@click.option("--password-stdin", is_flag=True, help="The password is the first line of standard input.")
def set_user(config: Config, name: str, role: Role | None, password_stdin: bool) -> None:
    """Add a user, or give one another password; of one that is there, --role alone changes the role alone.

    It asks for the password unless --password-stdin is given. Whoever is signed in under the name must sign in again.
    """
    from ctweb.passwords import hashed  # noqa: PLC0415  # slow to import

    if not NAME.fullmatch(name):
        raise Failure(f"{name!r} is no user name: it takes 1 to 64 of the letters A to Z, digits and . _ @ -")
    users = Users(config.state_dir)
    with failing_in_one_line(StateError):
        there = users.read().get(name)
        role_alone = there is not None and role is not None and not password_stdin
        with failing_in_one_line(ValueError):
            hash = there.hash if there is not None and role_alone else hashed(_password(name, password_stdin))
        users.put(name, User(role or (there.role if there is not None else "full"), hash))


def _password(name: str, from_stdin: bool) -> str:
    if from_stdin:
        try:
            line = sys.stdin.buffer.readline(8192).decode()
        except UnicodeDecodeError:
            raise Failure("the password on standard input is not UTF-8 text") from None
        password = line.rstrip("\r\n")
    elif sys.stdin.isatty():
        password = str(click.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True, err=True))
    else:
        raise Failure("there is no terminal to ask for the password: give --password-stdin")
    if 0 < len(password) < SHORT:
        click.echo(f"ctweb: warning: a password of fewer than {SHORT} characters is soon guessed", err=True)
    return password


@user.command(name="list")
@configured
def list_users(config: Config) -> None:
    """Show the users, a line each: name and role."""
    with failing_in_one_line(StateError):
        users = Users(config.state_dir).read()
    for name, one in sorted(users.items()):
        click.echo(f"{name if name.isprintable() else ascii(name)} {one.role}")  # the file may be mended by hand


@user.command(name="remove")
@configured
@click.argument("name")
def remove_user(config: Config, name: str) -> None:
    """Remove a user; whoever is signed in under the name is signed out."""
    with failing_in_one_line(StateError):
        if not Users(config.state_dir).remove(name):
            raise Failure(f"there is no user {name!r}; `ctweb user list` shows who there is")
