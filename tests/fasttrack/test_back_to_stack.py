"""What the fast path must not decide goes the normal way, packet by packet, and what the stack does with it happens."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import pytest
from datapath.crafted import ACK, FIN, PSH, RST, SYN, TCP, UDP, ethernet, extension, fragment6, ip, ipv4, ipv6, tcp, udp
from lab.network import IPV4, IPV6, Ends, wait_for

from fasttrack.conftest import PLAIN, Lab
from fasttrack.flows import asked, connected
from fasttrack.test_wire import patched
from fasttrack.wire import Port, Quiet, mac, ports, quiet

TIMES = 5  # one of them might be for the stack anyway
MAGIC = b"back to the stack"
WINDOW = 1 << 30  # as far from every window as can be


def datagram(flow: Quiet, size: int = 50) -> bytes:
    return udp(flow.ends.client, flow.destination, flow.sport, flow.port, MAGIC.ljust(size, b"."))


def whole(flow: Quiet, size: int = 50) -> bytes:
    return ip(flow.ends.client, flow.destination, UDP, datagram(flow, size))


def fragments4(flow: Quiet) -> bytes:
    return ipv4(flow.ends.client, flow.destination, UDP, datagram(flow, 48), fragment=0x2000)


def options4(flow: Quiet) -> bytes:
    return ipv4(flow.ends.client, flow.destination, UDP, datagram(flow), options=b"\x01\x01\x01\x00")


def fragments6(flow: Quiet) -> bytes:
    return ipv6(flow.ends.client, flow.destination, 44, fragment6(UDP) + datagram(flow, 48))


def options6(flow: Quiet) -> bytes:
    return ipv6(flow.ends.client, flow.destination, 60, extension(UDP) + datagram(flow))


CASES: dict[str, tuple[Ends, Callable[[Quiet], bytes]]] = {
    "TTL 1": (IPV4, lambda flow: patched(whole(flow), 8, b"\1")),
    "fragment": (IPV4, fragments4),
    "IP options": (IPV4, options4),
    "too large": (IPV4, lambda flow: patched(whole(flow, 1300), 6, b"\x40\x00")),
    "hop limit 1": (IPV6, lambda flow: whole(flow)[:7] + b"\1" + whole(flow)[8:]),
    "fragment (IPv6)": (IPV6, fragments6),
    "extension header": (IPV6, options6),
    "too large (IPv6)": (IPV6, lambda flow: whole(flow, 1300)),
}
ANSWERED = {"TTL 1": b"\x0b\0", "too large": b"\3\4", "hop limit 1": b"\3\0", "too large (IPv6)": b"\2\0"}  # by ICMP


@pytest.fixture(scope="module")
def flows(lab: Lab):
    """A fast connection in each family, on a way with a smaller MTU than its interfaces'."""
    lab.router.ip("route add 10.9.2.2/32 dev wan mtu lock 1280", "route add fd09:2::2/128 dev wan mtu lock 1280")
    with quiet(lab, IPV4, PLAIN) as four, quiet(lab, IPV6, PLAIN) as six:
        for flow in (four, six):
            flow.until_fast()
        yield {IPV4: four, IPV6: six}


@pytest.fixture
def wire(lab: Lab):
    with ports(lab) as (near, far):
        yield near, far


def send(near: Port, frame: bytes) -> None:
    for _ in range(TIMES):
        near.send(frame)


def link(lab: Lab, packet: bytes, **given: object) -> bytes:
    return mac(lab.router, "lan") + mac(lab.client, "eth0") + ethernet(packet, **given)[12:]


@pytest.mark.parametrize("case", CASES)
def test_packets_that_the_stack_must_decide(lab: Lab, flows, wire: tuple[Port, Port], case: str):
    ends, make = CASES[case]
    flow, (near, far) = flows[ends], wire
    before = lab.by_stack()
    send(near, link(lab, whole(flow)))
    assert len(far.take(lambda frame: MAGIC in frame, TIMES)) == TIMES
    assert lab.by_stack() <= before + 1  # this kind does go fast
    before = lab.by_stack()
    send(near, link(lab, make(flow)))
    if case in ANSWERED:
        at = 34 if ends is IPV4 else 54
        assert near.take(lambda frame: frame[at : at + 2] == ANSWERED[case] and MAGIC in frame, 1)
    wait_for("the stack has them all", lambda: lab.by_stack() == before + TIMES)


def test_frames_that_nobody_must_forward(lab: Lab, flows, wire: tuple[Port, Port]):
    """Such as are for another machine, or in a VLAN that there is not."""
    flow, (near, far) = flows[IPV4], wire
    before = flow.counted()
    send(near, b"\x02\0\0\0\0\x01" + link(lab, whole(flow))[6:])
    send(near, link(lab, b"\0\5\x08\0" + whole(flow), ethertype=0x8100))
    assert flow.exchange()  # came after them
    assert not far.take(lambda frame: MAGIC in frame, 1)
    assert flow.counted() <= before + 1


def test_what_stands_behind_the_packet_is_not_forwarded(lab: Lab, flows, wire: tuple[Port, Port]):
    flow, (near, far) = flows[IPV4], wire
    frame = link(lab, whole(flow))
    send(near, frame + bytes(30))
    assert [len(each) for each in far.take(lambda frame: MAGIC in frame, TIMES)] == [len(frame)] * TIMES


class Connection:
    """A TCP connection that stands still: its sockets, and what it would send next."""

    protocol = "tcp"

    def __init__(self, lab: Lab, ends: Ends, near: Port, port: int = PLAIN) -> None:
        self._lab, self.ends, self.port = lab, ends, port
        self.destination = asked(ends, port)[0]
        self.near, self.far = connected(lab, ends, port)
        self.sport: int = self.near.getsockname()[1]
        self.source = ends.shown(ends.client, self.sport)
        self._wire = near

    def exchange(self) -> None:
        for one, other in ((self.near, self.far), (self.far, self.near)):
            one.send(b"x" * 100)
            assert other.recv(1000) == b"x" * 100

    def numbers(self) -> tuple[int, int]:
        """Its next sequence number and acknowledgement: as the server's last packet has them."""
        ports_ = struct.pack("!HH", self.port, self.sport)
        self.exchange()
        at = 34 if self.ends is IPV4 else 54
        frame = self._wire.take(lambda frame: frame[at : at + 4] == ports_ and len(frame) > at + 100, 1)[0]
        seq, ack = struct.unpack_from("!II", frame, at + 4)
        return ack, seq + 100

    def close(self) -> None:
        self.near.close()
        self.far.close()

    def segment(self, flags: int, seq: int, ack: int, **given: object) -> bytes:
        source, to = self.ends.client, self.destination
        return ip(source, to, TCP, tcp(source, to, self.sport, self.port, flags, seq=seq, ack=ack, **given))


def test_tcp_that_the_stack_must_decide(lab: Lab, ends: Ends):
    with ports(lab) as (near, _):
        flow = Connection(lab, ends, near)

        def is_fast() -> bool:
            flow.exchange()
            return int(lab.row(flow)["orig-fasttrack-packets"]) > 0

        wait_for("packets go fast", is_fast)
        seq, ack = flow.numbers()
        before = lab.by_stack()
        send(near, link(lab, flow.segment(ACK, seq, ack)))
        flow.exchange()
        assert lab.by_stack() <= before + 1  # this kind does go fast
        for flags, distance, acknowledged in (
            (ACK, WINDOW, 0), (ACK | PSH, -WINDOW, 0), (ACK, 0, WINDOW), (SYN, 0, 0), (SYN | ACK, 0, 0),
            (FIN | ACK, WINDOW, 0), (RST, WINDOW, 0), (RST | ACK, WINDOW, 0), (0, 0, 0), (FIN | SYN, 0, 0),
        ):  # fmt: skip
            before = lab.by_stack()
            send(near, link(lab, flow.segment(flags, seq + distance, ack + acknowledged, payload=MAGIC)))
            what = f"the stack has {flags, distance, acknowledged}"
            wait_for(what, lambda before=before: lab.by_stack() >= before + TIMES)
        flow.exchange()
        row = lab.row(flow)
        assert (row["tcp-state"], row["fasttrack"]) == ("established", "true")
        flow.close()


def test_a_segment_that_others_would_overtake_is_not_the_one_for_the_stack(lab: Lab, ends: Ends):
    """On its longer way it would come after them, and TCP sends again what is late. One without payload may be late."""
    with ports(lab) as (near, _):
        flow = Connection(lab, ends, near)

        def is_fast() -> bool:
            flow.exchange()
            return int(lab.row(flow)["orig-fasttrack-packets"]) > 0

        def counts() -> tuple[int, int]:
            """Of the client's packets: all, and those that went to the stack."""
            lab.settle()
            row = lab.row(flow)
            counted = int(row["orig-packets"])
            return counted, counted - int(row["orig-fasttrack-packets"])

        wait_for("packets go fast", is_fast)
        seq, ack = flow.numbers()
        bare = link(lab, flow.segment(ACK, seq, ack))
        full = link(lab, flow.segment(ACK, seq + 1000, ack, payload=MAGIC))
        late = True
        while late:  # the machine was busy
            before = counts()
            time.sleep(1.5)
            since = time.monotonic()
            send(near, bare)
            time.sleep(2.6)  # one is due after two ticks of 1.07 s, and after four whatever it is
            send(near, full)
            late = time.monotonic() - since > 4
            after = counts()
        assert after == (before[0] + 2 * TIMES, before[1] + 1)
        send(near, bare)
        assert counts() == (after[0] + TIMES, after[1] + 1)
        flow.close()
