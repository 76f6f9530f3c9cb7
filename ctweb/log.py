"""The log: stderr, one line an event, whatever the event contains; for people, or as JSON."""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import datetime, timezone
from typing import Any

import msgspec


class OneLine(logging.Formatter):
    """`2026-01-31 12:00:00 warning: message`. Control characters are escaped, a traceback becomes its last place."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s: %(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        record.levelname = record.levelname.lower()
        line = super().format(record).replace("\n", " ")
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)

    def formatException(self, ei: Any) -> str:
        return f"({_shown(ei)})"


class JsonLine(logging.Formatter):
    """`{"time":"2026-01-31T12:00:00.000000Z","level":"warning","logger":"ctweb.run","message":"..."}`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = _shown(record.exc_info)
        return msgspec.json.encode(line).decode()


def _shown(exc_info: Any) -> str:
    """An exception and its last place."""
    _, error, trace = exc_info
    places = traceback.extract_tb(trace)
    where = f" at {places[-1].filename}:{places[-1].lineno}" if places else ""
    return f"{type(error).__name__}: {error}{where}"


def set_up(*, as_json: bool = False) -> None:
    """Send what this program has to say to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLine() if as_json else OneLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
