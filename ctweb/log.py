"""The log: stderr, one line an event, whatever the event contains."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any


class OneLine(logging.Formatter):
    """`2026-01-31 12:00:00 warning: message`. Control characters are escaped, a traceback becomes its last place."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s: %(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        record.levelname = record.levelname.lower()
        line = super().format(record).replace("\n", " ")
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)

    def formatException(self, ei: Any) -> str:
        _, error, trace = ei
        places = traceback.extract_tb(trace)
        where = f" at {places[-1].filename}:{places[-1].lineno}" if places else ""
        return f"({type(error).__name__}: {error}{where})"


def set_up() -> None:
    """Send what this program has to say to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
