"""`ctweb doctor`: what this machine lacks to run ctweb, in words, and what to do about it.

It also runs where ctweb could not, with nothing installed: `python3 -m ctweb.doctor` in a bare checkout.
Each check is a function of what it reads, and answers one `Check`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctweb.doctor.check import Check, report
from ctweb.doctor.machine import machine_checks

if TYPE_CHECKING:
    from ctweb.config import Config

__all__ = ["Check", "examine", "main", "report"]


def examine(config: Config | None = None) -> list[Check]:
    """Every check of this machine, under `config` or the default one."""
    checks = machine_checks()
    try:
        # Here, for they import what may not be installed.
        from ctweb.config import Config  # noqa: PLC0415
        from ctweb.doctor.tracking import tracking_checks  # noqa: PLC0415
    except ImportError as error:
        packages = Check("packages", False, f"the Python package {error.name} is not installed", "make setup")
        return [*checks, packages]
    return checks + tracking_checks(config or Config(), loadable=all(check.ok for check in checks))


def main(config: Config | None = None) -> int:
    """Print the report; 1 if ctweb cannot run here."""
    checks = examine(config)
    print(report(checks))
    return 0 if all(check.ok for check in checks) else 1
