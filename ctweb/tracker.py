"""The tracker's border towards the web: what a reader of the table may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ctweb.settings import Tracking
from ctweb.table.snapshot import Snapshot


class TableSource(Protocol):
    """The running table as its readers see it. Every method may be called from any thread."""

    @property
    def snapshot(self) -> Snapshot:
        """The newest published snapshot."""

    def wait(self, seq: int, timeout: float) -> Snapshot:
        """Block until a snapshot newer than `seq` is published or `timeout` seconds have passed; the newest."""

    @property
    def tracking(self) -> Tracking:
        """The tracking settings in force."""

    def set_tracking(self, changes: Mapping[str, str]) -> Tracking:
        """Change settings by RouterOS name, at once and for good. Raises SettingError and changes nothing."""

    @property
    def max_entries(self) -> int: ...
