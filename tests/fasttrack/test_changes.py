"""Whatever changes during a transfer: it goes on, by one way or the other, and no packet is lost where none need be."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from lab.hooks import hooks
from lab.network import IPV4, IPV6, Ends, wait_for
from lab.tracked import CONFIG, Row, Tracked

from fasttrack.conftest import FASTTRACK, FORWARDED, MASQUERADED, PLAIN, Lab, fast
from fasttrack.flows import Datagrams, Transfer, datagrams, in_one_piece, transfer
from fasttrack.wire import mac

ETH_P_IP = 0x0800


@contextmanager
def traffic(lab: Lab, *, lossless: bool = True) -> Iterator[list[Transfer | Datagrams]]:
    """Fast connections of all kinds, which are whole in the end."""
    with ExitStack() as stack:
        made: list[Transfer | Datagrams] = [
            stack.enter_context(transfer(lab, IPV4, PLAIN)),
            stack.enter_context(transfer(lab, IPV6, MASQUERADED)),
        ]
        if lossless:
            made.append(stack.enter_context(datagrams(lab, IPV4, MASQUERADED)))
            made.append(stack.enter_context(datagrams(lab, IPV6, FORWARDED)))
        for flow in made:
            lab.wait_until_fast(flow)
        yield made


def normal(lab: Lab, flow: Transfer | Datagrams) -> None:
    """Wait until packets of the connection go by the stack, and none goes fast."""

    def way(row: Row) -> tuple[int, int]:
        fast = int(row["orig-fasttrack-packets"])
        return fast, int(row["orig-packets"]) - fast

    before = [way(lab.row(flow))]

    def only_by_stack() -> bool:
        before.append(way(lab.row(flow)))
        fast, slow = before[-1]
        since = next(ways for ways in before if ways[0] == fast)
        return slow > since[1] + 50

    wait_for("all packets go by the stack", only_by_stack, lambda: before[-20:])


def test_rules_go_and_come_again(lab: Lab):
    with traffic(lab) as flows:
        lab.reload("")
        for flow in flows:
            normal(lab, flow)
            assert lab.row(flow)["fasttrack"] == "false"
        lab.reload(FASTTRACK + 'protocol = "tcp"\n')
        for flow in flows[:2]:
            lab.wait_until_fast(flow)
        normal(lab, flows[2])
        lab.reload(FASTTRACK)
        for flow in flows:
            lab.wait_until_fast(flow)


def ids(lab: Lab, flow: Transfer | Datagrams) -> dict[str, Row]:
    """The rows of the flow by id. Met in its middle it has the direction of the packet that came first."""
    ways = ({"src_address": flow.source}, {"dst_address": flow.source})
    return {row[".id"]: row for way in ways for row in lab.ctweb.rows(protocol=flow.protocol, **way)}


def test_a_removed_connection_starts_anew_on_the_normal_way(lab: Lab):
    with transfer(lab, IPV4, PLAIN) as tcp, datagrams(lab, IPV6, PLAIN) as udp:
        for flow in (tcp, udp):
            lab.wait_until_fast(flow)
        for flow in (tcp, udp):
            before = ids(lab, flow)
            lab.router.run(*lab.ctweb.cli("remove", "--yes", f"proto:{flow.protocol} sport:{flow.sport} fasttrack:yes"))

            def anew(flow: Transfer | Datagrams = flow, before: dict[str, Row] = before) -> bool:
                return bool(ids(lab, flow).keys() - before.keys())

            wait_for("another one", anew)
        wait_for("packets go fast", lambda: any(fast(row) for row in ids(lab, udp).values()), lambda: ids(lab, udp))
        # The other one is picked up in the middle, its window is not known: it goes on by the one way or the other.


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_routes_and_neighbours_change(lab: Lab, family: str):
    ends: Ends = {"ipv4": IPV4, "ipv6": IPV6}[family]
    with ExitStack() as stack:
        flows = [stack.enter_context(make(lab, ends, PLAIN)) for make in (transfer, datagrams)]
        for flow in flows:
            lab.wait_until_fast(flow)
        # A second way to the server: another address on its side of the router, by a route of its own.
        other = ends.host(2, 77)
        plen = "/128" if ends is IPV6 else "/32"
        lab.server.ip(f"addr add {other}{plen} dev eth0 {'nodad' if ends is IPV6 else ''}")
        lab.router.ip(f"route replace {ends.server}{plen} via {other} dev wan")
        for flow in flows:
            lab.wait_until_fast(flow, more=100)
        lab.router.ip(f"route del {ends.server}{plen}")
        for flow in flows:
            lab.wait_until_fast(flow, more=100)
        # The neighbour forgets its address.
        lab.router.ip(f"neigh flush to {ends.server} dev wan")
        for flow in flows:
            lab.wait_until_fast(flow, more=100)


def test_the_neighbour_gets_another_address(lab: Lab):
    with traffic(lab, lossless=False) as flows:
        old = mac(lab.server, "eth0")
        lab.server.ip("link set eth0 address 02:00:00:00:77:01")
        for end in (IPV4, IPV6):
            lab.router.ip(f"neigh replace {end.server} lladdr 02:00:00:00:77:01 dev wan nud reachable")
        for flow in flows:
            lab.wait_until_fast(flow, more=100)
        lab.server.ip(f"link set eth0 address {old.hex(':')}")
        for end in (IPV4, IPV6):
            lab.router.ip(f"neigh replace {end.server} lladdr {old.hex(':')} dev wan nud reachable")


def test_what_a_changed_address_loses_had_arrived_there(lab: Lab):
    """The router learns the address before the server has it: until then, and only then, nothing can arrive."""
    old, new = mac(lab.server, "eth0"), b"\x02\0\0\0\x77\x02"
    udp = Datagrams(lab, IPV4, PLAIN)
    with ExitStack() as stack:
        stack.callback(udp.stop)
        lab.wait_until_fast(udp, more=100)
        tap = stack.enter_context(lab.server.socket(socket.AF_PACKET, socket.SOCK_RAW))
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        with lab.server.entered():
            tap.bind(("eth0", ETH_P_IP))
        lab.router.ip(f"neigh replace 10.9.2.2 lladdr {new.hex(':')} dev wan nud reachable")
        met = udp.sent
        wait_for("some are sent there", lambda: udp.sent > met + 100)
        lab.server.ip(f"link set eth0 address {new.hex(':')}")
        lab.wait_until_fast(udp, more=100)
        lost = udp.lost()
        assert len(lost) > 50
        assert in_one_piece(lost)
        assert lost == numbers(tap, udp.sport, new)
        lab.server.ip(f"link set eth0 address {old.hex(':')}")
        lab.router.ip(f"neigh replace 10.9.2.2 lladdr {old.hex(':')} dev wan nud reachable")


def numbers(tap: socket.socket, sport: int, to: bytes) -> list[int]:
    """Of the flow's datagrams that came to this address of the link layer when it was not the interface's."""
    tap.settimeout(0.5)
    found = []
    while True:
        try:
            frame, where = tap.recvfrom(2000)
        except TimeoutError:
            return found
        if where[2] == socket.PACKET_OTHERHOST and frame[:6] == to and frame[34:36] == sport.to_bytes(2, "big"):
            found.append(int.from_bytes(frame[42:46], "big"))


def test_an_interface_goes_down_and_comes_up(lab: Lab):
    udp = Datagrams(lab, IPV4, FORWARDED)
    try:
        with traffic(lab, lossless=False) as flows:
            lab.wait_until_fast(udp)
            lab.router.ip("link set wan down")
            met = udp.sent
            wait_for("some are sent meanwhile", lambda: udp.sent > met + 50)
            lab.router.ip("link set wan up", "addr replace fd09:2::1/64 dev wan nodad")
            for flow in (*flows, udp):
                lab.wait_until_fast(flow, more=100)
        lost = udp.lost()
        assert set(range(met + 10, met + 50)) <= set(lost)  # there was no way
        assert in_one_piece(lost)
    finally:
        udp.stop()


def test_the_other_end_takes_no_redirected_packets_any_more(lab: Lab):
    """With its GRO an interface's other end loses that; whoever sent there would lose all."""
    with traffic(lab, lossless=False) as flows:
        lab.server.run("ethtool", "-K", "eth0", "gro", "off")
        for flow in flows:
            normal(lab, flow)
        said = lab.ctweb.log.read_text()
        assert "interface wan: its other end takes no redirected packets" in said
        lab.server.run("ethtool", "-K", "eth0", "gro", "on")
        for flow in flows:
            lab.wait_until_fast(flow, more=100)


def test_the_program_stops_and_is_killed(lab: Lab, tmp_path):
    with traffic(lab) as flows:
        assert lab.ctweb.end() == 0
        again = Tracked(lab.router, tmp_path / "again", "--hook", "xdp", config=CONFIG + FASTTRACK)
        object.__setattr__(lab, "ctweb", again)
        for flow in flows[2:]:  # their NAT is told by nf_conntrack
            lab.wait_until_fast(flow)
        again.process.send_signal(signal.SIGKILL)
        again.process.wait()
        wait_for("nothing is attached", lambda: not hooks(lab.router), lambda: hooks(lab.router))
        sent = [flow.sent for flow in flows[2:] if isinstance(flow, Datagrams)]
        wait_for("it goes on", lambda: all(f.sent > s + 200 for f, s in zip(flows[2:], sent, strict=True)))
