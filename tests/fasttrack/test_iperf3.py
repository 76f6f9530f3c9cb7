"""iperf3 through the fast path: all of it arrives, and the table has each packet and byte that left both ends."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from lab.network import IPV6, Ends, Namespace
from lab.tracked import Count
from lab.traffic import iperf3_server

from fasttrack.conftest import PORTS, Lab, fast
from fasttrack.flows import asked, listens

TCP_HEADER = 32  # with a timestamp; SYN's is longer
SECONDS = "5"  # UDP is assured after two, and decided about within one more
_ETH_P_ALL, _SO_RCVBUFFORCE = 3, 33
_PORTS = struct.Struct("!HH")


class Sent:
    """Packets and layer-3 bytes that leave a machine's eth0, as they are on the wire: by protocol and both ports."""

    def __init__(self, machine: Namespace) -> None:
        self.packets: Counter[tuple[int, int, int]] = Counter()
        self.bytes: Counter[tuple[int, int, int]] = Counter()
        self._sock = machine.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 32 << 20)
        with machine.entered():
            self._sock.bind(("eth0", _ETH_P_ALL))
        self._sock.settimeout(0.2)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        frame = bytearray(128)  # more than all headers
        while True:
            try:
                _, where = self._sock.recvfrom_into(frame)
            except TimeoutError:
                if self._ending.is_set():
                    return
                continue
            if where[2] == socket.PACKET_OUTGOING and where[1] in (0x0800, 0x86DD):
                self._count(frame, four=where[1] == 0x0800)

    def _count(self, frame: bytearray, *, four: bool) -> None:
        protocol, length = (frame[23], 0) if four else (frame[20], 40)
        length += int.from_bytes(frame[16:18] if four else frame[18:20], "big")
        flow = (protocol, *_PORTS.unpack_from(frame, 34 if four else 54))
        self.packets[flow] += 1
        self.bytes[flow] += length

    def close(self) -> None:
        """Once all that was sent is counted."""
        self._ending.set()
        self._thread.join()
        self._sock.close()


def overrun(server: Namespace, ends: Ends) -> int:
    """Datagrams that had arrived at the server, and whose receiver was too slow on a busy machine."""
    name = "Udp6RcvbufErrors" if ends is IPV6 else "UdpRcvbufErrors"
    return int(json.loads(server.run("nstat", "-azsj", name))["kernel"][name])


@dataclass
class Ran:
    """What iperf3 said, by port; what left both ends; and how often the table was read meanwhile."""

    said: dict[int, dict[str, Any]]
    there: Sent
    back: Sent
    sweeps: int


def run(lab: Lab, ends: Ends, protocol: str) -> Ran:
    """Plain, masqueraded and by port forwarding, at the same time."""
    options = ("--time", SECONDS, "--bitrate", "4M", "--length", "1000", *(["--udp"] if protocol == "udp" else []))
    before, sweep = overrun(lab.server, ends), lab.health()["sweep"]
    with ExitStack() as stack:
        there, back = Sent(lab.client), Sent(lab.server)
        for sent in (there, back):
            stack.callback(sent.close)
        runs = {}
        for port in PORTS:
            stack.enter_context(iperf3_server(lab.server, listens(port)))
            host, _ = asked(ends, port)
            command = ("iperf3", "--client", host, "--port", port, "--json", *options)
            runs[port] = lab.client.start(*command, stdout=subprocess.PIPE)
        said = {port: json.loads(process.communicate()[0]) for port, process in runs.items()}
    if protocol == "udp":
        assert sum(each["end"]["sum"]["lost_packets"] for each in said.values()) == overrun(lab.server, ends) - before
    return Ran(said, there, back, lab.health()["sweep"] - sweep)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_iperf3(lab: Lab, ends: Ends, protocol: str):
    ran = run(lab, ends, protocol)
    for _ in range(5):
        if ran.sweeps >= int(SECONDS) - 1:  # else the machine was too busy for it to decide in time
            break
        ran = run(lab, ends, protocol)
    number = socket.IPPROTO_UDP if protocol == "udp" else socket.IPPROTO_TCP
    for port, told in ran.said.items():
        source = told["start"]["connected"][0]["local_port"]
        forth, behind = (number, source, port), (number, listens(port), source)
        there, back = ran.there, ran.back
        if protocol == "tcp":  # what iperf3 says that it has sent may lack the last block
            payload = there.bytes[forth] - there.packets[forth] * (ends.header + TCP_HEADER)
            assert payload >= told["end"]["sum_received"]["bytes"] > 1_000_000, told["end"]
        expected = Count(there.packets[forth], there.bytes[forth], back.packets[behind], back.bytes[behind])
        assert expected.orig_packets > 1000
        row = lab.ctweb.counts(expected, protocol=protocol, src_address=ends.shown(ends.client, source))
        assert fast(row) > 0.25 * expected.orig_packets, (row, ran.sweeps, lab.ctweb.log.read_text())
