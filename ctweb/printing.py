"""What `ctweb print` writes: rows as a table, as JSON or as CSV, once or again and again."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Literal, TextIO

import msgspec

from ctweb.table.text import table_text

Form = Literal["table", "json", "csv"]
Rows = Sequence[Mapping[str, str]]  # in REST form

_HOME, _CLEAR, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[H\x1b[2J", "\x1b[K", "\x1b[J"


class Printer:
    """Writes tables to `out`. again: there will be several.

    Several tables take each other's place on a terminal, as far as it has lines. Elsewhere a table is followed by an
    empty line, and a JSON array is one line.
    """

    def __init__(self, out: TextIO, form: Form, *, again: bool) -> None:
        self._out = out
        self._form = form
        self._again = again
        self._redraws = again and form == "table" and out.isatty()
        self._drawn = False

    def show(self, rows: Rows) -> None:
        """Write one table. Raises OSError, such as BrokenPipeError when nobody reads on."""
        if self._form == "json":
            self._json(rows)
        elif self._form == "csv":
            self._csv(rows)
        elif self._redraws:
            self._draw(rows)
        else:
            text = table_text(rows, self._size().columns if self._out.isatty() else None)
            self._out.write(text + "\n" * (bool(text) + self._again))
        self._out.flush()

    def close(self) -> None:
        """After the last table: what comes next on the terminal stands below it."""
        if self._drawn:
            self._out.write("\n")

    def _json(self, rows: Rows) -> None:
        between = "," if self._again else ",\n"
        self._out.write("[" + between.join(msgspec.json.encode(row).decode() for row in rows) + "]\n")

    def _csv(self, rows: Rows) -> None:
        from ctweb.table.rows import REST_PROPERTIES  # noqa: PLC0415  # brings numpy along, slow to import

        writer = csv.DictWriter(self._out, REST_PROPERTIES, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

    def _draw(self, rows: Rows) -> None:
        """Over the table before, line by line: nothing flickers."""
        size = self._size()
        height = max(size.lines, 4)
        lines = table_text(rows[:height], size.columns).splitlines()
        if len(lines) + len(rows) - len(rows[:height]) > height:
            head = len(lines) - len(rows[:height])
            lines = lines[: height - 1]
            lines.append(f"... and {len(rows) - (len(lines) - head)} more"[: size.columns])
        self._out.write(_HOME if self._drawn else _CLEAR)
        self._out.write((_CLEAR_LINE + "\n").join(lines) + _CLEAR_LINE + _CLEAR_BELOW)
        self._drawn = True

    def _size(self) -> os.terminal_size:
        return shutil.get_terminal_size()
