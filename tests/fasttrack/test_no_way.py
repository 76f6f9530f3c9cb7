"""Packets for which there is no way, or none through this machine, are for the stack; with a way they go fast again."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack

import pytest
from lab.network import IPV4, IPV6, Ends, wait_for

from fasttrack.conftest import FASTTRACK, PLAIN, Lab, fast
from fasttrack.test_back_to_stack import MAGIC, TIMES, link, send, whole
from fasttrack.wire import ports, quiet

DEAF = """
table inet deaf {
    chain in {
        type filter hook input priority 0
        icmpv6 type nd-neighbor-solicit drop
    }
}
table arp deaf {
    chain in {
        type filter hook input priority 0
        drop
    }
}
"""


def through(lab: Lab, ends: Ends, begin: str, end: str, answer: bytes) -> None:
    """Between the two `ip` commands packets are the stack's, which answers by ICMP; before and after they go fast."""
    with quiet(lab, ends, PLAIN) as flow, ports(lab) as (near, far):
        flow.until_fast()

        def arrive() -> None:
            before = lab.by_stack()
            send(near, link(lab, whole(flow)))
            assert len(far.take(lambda frame: MAGIC in frame, TIMES)) == TIMES
            assert lab.by_stack() <= before + 1  # now and then one is for the stack

        arrive()
        lab.router.ip(begin)
        try:
            lab.settle()
            before = lab.by_stack()
            send(near, link(lab, whole(flow)))
            wait_for("the stack has them all", lambda: lab.by_stack() == before + TIMES)
            at = 34 if ends is IPV4 else 54
            assert near.take(lambda frame: frame[at : at + 2] == answer and MAGIC in frame, 1)
        finally:
            lab.router.ip(end)
        flow.until_fast()
        arrive()


def test_no_route(lab: Lab, ends: Ends):
    host = f"{ends.server}/{32 if ends is IPV4 else 128}"
    answer = b"\3\1" if ends is IPV4 else b"\1\0"
    through(lab, ends, f"route add unreachable {host}", f"route del unreachable {host}", answer)


def test_no_neighbour(lab: Lab, ends: Ends):
    """It says nothing any more, and is forgotten."""
    known = json.loads(lab.server.run("ip", "-j", "link", "show", "eth0"))[0]["address"]
    lab.server.run("nft", "-f", "-", input=DEAF)
    try:
        answer = b"\3\1" if ends is IPV4 else b"\1\3"
        forget, tell = f"neigh del {ends.server} dev wan", f"neigh replace {ends.server} lladdr {known} dev wan"
        through(lab, ends, forget, tell, answer)
    finally:
        lab.server.run("nft", "-f", "-", input="delete table inet deaf\ndelete table arp deaf")


def test_the_machine_itself(lab: Lab, ends: Ends):
    """What begins or ends here is not forwarded, though the same rule means it."""
    with ExitStack() as stack:
        flow = stack.enter_context(quiet(lab, ends, PLAIN))
        here = stack.enter_context(lab.router.socket(ends.family, socket.SOCK_DGRAM))
        here.bind((ends.router, 9999))
        near = stack.enter_context(lab.client.socket(ends.family, socket.SOCK_DGRAM))
        near.connect((ends.router, 9999))
        source = ends.shown(ends.client, near.getsockname()[1])
        rows = []

        def later() -> bool:
            """A connection through this machine goes fast, which was made at the same time."""
            near.send(b"there")
            here.sendto(b"back", here.recvfrom(100)[1])
            assert near.recv(100) == b"back"
            assert flow.exchange()
            rows[:] = lab.ctweb.rows(protocol="udp", src_address=source)
            return bool(rows) and rows[0]["assured"] == "true" and fast(lab.row(flow)) > 10

        wait_for("the other one goes fast", later, lambda: rows)
        assert (rows[0]["fasttrack"], fast(rows[0])) == ("false", 0)


@pytest.mark.parametrize(("interface", "meant"), [("lan", True), ("wan", False)])
def test_what_the_rule_does_not_mean(lab: Lab, interface: str, meant: bool):
    """Of two connections, one from each side, the rule means the one that began there."""
    lab.reload(FASTTRACK + f'in-interface = "{interface}"\n')
    try:
        with quiet(lab, IPV6, PLAIN) as flow, ExitStack() as stack:
            far = stack.enter_context(lab.client.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            far.bind((IPV6.client, 9999))
            near = stack.enter_context(lab.server.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            near.connect((IPV6.client, 9999))
            source = IPV6.shown(IPV6.server, near.getsockname()[1])

            def counted() -> tuple[int, int]:
                """Fast packets of the connection from the client, and of the one from the server."""
                near.send(b"there")
                far.sendto(b"back", far.recvfrom(100)[1])
                assert near.recv(100) == b"back"
                assert flow.exchange()
                rows = lab.ctweb.rows(protocol="udp", src_address=source)
                return sum(map(fast, lab.rows(flow))), sum(map(fast, rows))

            wait_for("one goes fast", lambda: max(counted()) > 10, counted)
            assert (counted()[0] > 0, counted()[1] > 0) == (meant, not meant)
    finally:
        lab.reload(FASTTRACK)
