"""Interfaces that come, go and change their names while `ctweb run` runs, seen in its table."""

from __future__ import annotations

from lab.conftest import Lab
from lab.hooks import hooks, settle
from lab.network import Ends, address, wait_for
from lab.traffic import ping, ping_count


def test_an_interface_that_comes_changes_its_name_and_goes(lab: Lab, ends: Ends):
    late = lab.network.namespace("late")

    def appears(name: str) -> None:
        lab.network.join(late, "eth0", lab.router, name)
        settle(lab.router)
        assert len(hooks(lab.router)[name]) == 2
        address(late, "eth0", 7, 2)
        address(lab.router, name, 7, 1)

    def counted(pings: int) -> str:
        """A ping's row; its id."""
        known = {row[".id"] for row in lab.ctweb.rows(src_address=ends.host(7, 2))}
        ping(late, ends.host(7, 1), pings)

        def new() -> list[str]:
            return [r[".id"] for r in lab.ctweb.rows(src_address=ends.host(7, 2)) if r[".id"] not in known]

        (row,) = wait_for("a new row", new)
        lab.ctweb.counts(ping_count(ends, pings), **{".id": row})
        return row

    appears("late0")
    first = counted(5)
    lab.router.ip("link set late0 name later0")
    counted(6)
    lab.router.ip("link del later0")
    wait_for("it is let go", lambda: "later0" not in hooks(lab.router))
    # Its connections live on until their time is over.
    assert lab.ctweb.rows(**{".id": first})
    appears("late0")
    counted(7)
    lab.router.ip("link del late0")
