"""Going on in a program whose directory its new user may not get to, such as a clone in /root: by kept descriptors."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ctweb.privileges import Account, out_of_reach

PROGRAM = Path(__file__).resolve().parents[1]


def keep_in_reach(to: Account) -> Path:
    """Let modules be imported whatever lies above them; where the program's own files are from here on.

    The directories stay open for good. Raises OSError.
    """
    kept = {base: _reached(base, to) for base in {str(PROGRAM), *sys.path} if os.path.isdir(base)}
    sys.path[:] = [kept.get(base, base) for base in sys.path]
    for module in list(sys.modules.values()):
        places = getattr(module, "__path__", None)
        if isinstance(places, list):  # a package: its other modules are looked for there
            places[:] = [_moved(place, kept) for place in places]
    sys.path_importer_cache.clear()
    importlib.invalidate_caches()
    return Path(kept[str(PROGRAM)])


def unreadable(files: Iterable[Path], to: Account) -> Path | None:
    """The first of these files of the program that this user may not read, wherever the program lies."""
    bases = sorted({str(PROGRAM), *sys.path}, key=len, reverse=True)
    for file in files:
        path = os.path.realpath(file)
        base = next((each for each in bases if each and path.startswith(each + "/")), "/")
        if refused := out_of_reach([Path(path)], to, below=Path(base)):
            return refused
    return None


def _reached(base: str, to: Account) -> str:
    """`base`, by a descriptor if this user would not get there."""
    if out_of_reach([Path(base)], to) is None:
        return base
    return f"/proc/self/fd/{os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)}"


def _moved(place: str, kept: dict[str, str]) -> str:
    for base in sorted(kept, key=len, reverse=True):
        if place == base or place.startswith(base + "/"):
            return kept[base] + place[len(base) :]
    return place
