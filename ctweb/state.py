"""The tracking settings that were changed while the program ran, kept in the state directory.

They stand above the configuration file's.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from ctweb import private_file
from ctweb.private_file import UnusableError
from ctweb.settings import SettingError, Tracking, parse_changes

FILE = "tracking.json"

log = logging.getLogger(__name__)


class StateError(Exception):
    """The state directory cannot be read or written; the message says which file, why, and what to do."""


def load(directory: Path, base: Tracking) -> tuple[Tracking, dict[str, str]]:
    """`base` with the saved changes made, and those changes as they were saved.

    A saved setting that is no longer valid is logged and left out. Raises StateError if the file cannot be used.
    """
    path = directory / FILE
    shown = private_file.shown(path)
    try:
        saved = private_file.load(path, dict[str, str])
    except FileNotFoundError:
        return base, {}
    except UnusableError as error:
        raise StateError(f"cannot use the saved settings in {shown}: {error}; mend or remove the file") from None
    good: dict[str, str] = {}
    for name, value in saved.items():
        try:
            base = parse_changes(base, {name: value})
        except SettingError as error:
            log.warning("saved setting left out: %s; it stands in %s", error, shown)
        else:
            good[name] = value
    return base, good


def save(directory: Path, changes: dict[str, str]) -> None:
    """Keep `changes` for good, readable by the owner alone. Raises StateError and leaves the old file."""
    path = directory / FILE
    try:
        private_file.replace(path, msgspec.json.format(msgspec.json.encode(changes)) + b"\n")
    except OSError as error:
        raise StateError(
            f"cannot save the settings in {private_file.shown(path)}: {error.strerror}; nothing was changed. "
            "Is the state directory writable and the disk not full?"
        ) from None
