"""PPTP through the router, made by hand: a call is one expected connection, without any help of nf_conntrack."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack

import pytest
from datapath.crafted import ACK, GRE, PSH, SYN, TCP, ethernet, ip, tcp

from lab.network import IPV4, client_router_server, network, wait_for
from lab.tracked import CONFIG, Tracked

MAC = bytes.fromhex("02c700000001")  # of both of the router's interfaces
GHOST = "02:c7:00:00:00:02"  # nobody answers for the ends
PNS, PAC = 0x1111, 0x2222


def message(kind: int, body: bytes, size: int) -> bytes:
    return struct.pack("!HHIHH", 12 + size, 1, 0x1A2B3C4D, kind, 0) + body.ljust(size, b"\0")


SAID = (  # from the server?
    (False, message(1, b"\1\0", 144)),
    (True, message(2, b"\1\0\1\1", 144)),
    (False, message(7, struct.pack("!H", PNS), 156)),
    (True, message(8, struct.pack("!HHB", PAC, PNS, 1), 20)),
)


@pytest.mark.parametrize("hook", ["tc", "xdp"])
def test_a_call(tmp_path, hook):
    ends = (IPV4.host(1, 100), IPV4.host(2, 100))
    with network() as net, ExitStack() as stack:
        client, router, server = client_router_server(net)
        for device, end in zip(("lan", "wan"), ends, strict=True):
            router.ip(f"link set {device} address {MAC.hex(':')}", f"neigh replace {end} lladdr {GHOST} dev {device}")
        wires = [stack.enter_context(one.socket(socket.AF_PACKET, socket.SOCK_RAW)) for one in (client, server)]
        for wire in wires:
            wire.bind(("eth0", 0))
        tracked = Tracked(router, tmp_path, "--hook", hook, config=CONFIG)
        numbers = [1000, 5000]

        def send(from_server: bool, protocol: int, payload: bytes) -> None:
            source, target = ends[::-1] if from_server else ends
            wires[from_server].send(MAC + ethernet(ip(source, target, protocol, payload))[6:])

        def say(from_server: bool, flags: int, payload: bytes = b"") -> None:
            ports = (1723, 4000) if from_server else (4000, 1723)
            pair = ends[::-1] if from_server else ends
            ack = numbers[not from_server] if flags & ACK else 0
            send(from_server, TCP, tcp(*pair, *ports, flags, seq=numbers[from_server], ack=ack, payload=payload))
            numbers[from_server] += len(payload) + bool(flags & SYN)

        for from_server, flags in ((False, SYN), (True, SYN | ACK), (False, ACK)):
            say(from_server, flags)
        for from_server, payload in SAID:
            say(from_server, ACK | PSH, payload)
        for _ in range(3):
            for from_server, call in ((True, PNS), (False, PAC)):
                send(from_server, GRE, struct.pack("!HHHHI", 0x3001, 0x880B, 8, call, 1) + b"datagram")
        row = wait_for("the call", lambda: tracked.rows(protocol="gre", orig_packets="3", repl_packets="3"))[0]
        expected = {"src-address": ends[1], "dst-address": ends[0], "gre-key": str(PNS), "connection-type": "pptp"}
        assert (expected | dict.fromkeys(("expected", "assured", "confirmed"), "true")).items() <= row.items()
        assert len(tracked.rows(protocol="gre")) == 1
        control = tracked.row(dst_port="1723")
        assert (control["connection-type"], control["uses-helper"]) == ("pptp", "true")
        assert tracked.end() == 0
