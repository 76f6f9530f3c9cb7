"""Names of services by protocol and port, as /etc/services has them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

PLACE = Path("/etc/services")
LARGEST = 1 << 20  # bytes that are read of it
MOST = 10_000  # services

_LINE = re.compile(r"([!-\"$-~]{1,40})[ \t]+(\d{1,5})/([a-z]+)", re.ASCII)


@cache
def services() -> dict[str, str]:
    """Names by `protocol/port`; empty where the machine has no such list. Read once."""
    try:
        with PLACE.open("rb") as file:
            return parsed(file.read(LARGEST).decode(errors="replace"))
    except OSError:
        return {}


def parsed(text: str) -> dict[str, str]:
    """The first name of each protocol and port in a text of services(5), at most MOST of them."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        read = _LINE.match(line)
        if read and int(read[2]) <= 0xFFFF and len(found) < MOST:
            found.setdefault(f"{read[3]}/{int(read[2])}", read[1])
    return found
