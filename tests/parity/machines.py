"""client - router - server: the router runs nf_conntrack and ctweb. Real hosts with real tools, and ghosts.

A ghost is an address at an end of the network that no machine answers for: frames made by hand go from one to another
through the router, and no kernel's TCP meddles.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from datapath.crafted import UDP, ethernet, ip, udp
from lab.network import IPV4, IPV6, Ends, Namespace, client_router_server, network, wait_for
from lab.tracked import CONFIG, Tracked
from lab.traffic import watch_with_conntrack

from parity.tables import Connection, of_ctweb, of_the_kernel, same, side_by_side

Expected = tuple[tuple[str, ...], str]  # original direction and, of PPTP, the call id

MAC = bytes.fromhex("02c700000001")  # of both of the router's interfaces
GHOST = "02:c7:00:00:00:02"
HOSTS = range(10, 60)
GHOSTS = range(100, 240)
LAST = 250  # a ghost whose packets say that all before them are through
TIMEOUTS = (  # a busy machine may take its time: nothing times out in nf_conntrack either
    *(f"tcp_timeout_{n}" for n in ("syn_sent", "syn_recv", "fin_wait", "close_wait", "last_ack", "time_wait", "close")),
    *("udp_timeout", "udp_timeout_stream", "icmp_timeout", "icmpv6_timeout", "gre_timeout", "gre_timeout_stream"),
    *(f"sctp_timeout_{n}" for n in ("closed", "cookie_wait", "cookie_echoed", "established", "shutdown_sent",
                                    "shutdown_recd", "shutdown_ack_sent", "heartbeat_sent")),
)  # fmt: skip


@dataclass
class Parity:
    """The three machines and the two tables."""

    client: Namespace
    router: Namespace
    server: Namespace
    ctweb: Tracked
    hook: str
    wires: tuple[socket.socket, socket.socket]  # of the client and of the server
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def see(self, frame: bytes, from_server: bool = False) -> None:
        """Send a frame to the router."""
        self.wires[from_server].send(MAC + frame[6:])

    def tables(self, *paths: Ends) -> tuple[list[Connection], list[Connection]]:
        """All connections of these paths' ends, in the kernel's table and in ours, after all that was sent."""
        self._wait_for_what_was_sent()
        return self._read(paths)

    def agree(self, *paths: Ends, but: Sequence[str] = ()) -> list[Connection]:
        """Wait until both tables know the same connections of these paths' ends; what the kernel says, in order.

        `but`: fields in which they differ, and should: the rows of both, the kernel's first.
        """
        self._wait_for_what_was_sent()
        read: tuple[list[Connection], list[Connection]] = ([], [])

        def agreed() -> bool:
            nonlocal read
            read = self._read(paths)
            return same(*read, but)

        wait_for("both tables agree", agreed, lambda: "\n" + side_by_side(*read))
        assert not but or not any(same(*read, [name for name in but if name != one]) for one in but), (
            f"one of {but} does not differ any more:\n{side_by_side(*read)}"
        )
        return sorted(read[0]) + (sorted(read[1]) if but else [])

    def expected(self, path: Ends) -> tuple[set[Expected], set[Expected]]:
        """What of this path's ends is expected, to nf_conntrack and to ctweb, after all that was sent."""
        self._wait_for_what_was_sent()
        kind, tree = ("ipv6", "ipv6") if path.family is socket.AF_INET6 else ("ipv4", "ip")
        listed = self.router.run("conntrack", "-L", "-o", "extended", "-f", kind, "-u", "EXPECTED").splitlines()
        rows = self.ctweb.get(f"/rest/{tree}/firewall/connection?expected=true")
        kernel, ours = map(of_the_kernel, listed), map(of_ctweb, rows)  # type: ignore[arg-type]
        return tuple({(c.original, c.call) for c in one if path.client in c.addresses} for one in (kernel, ours))  # type: ignore[return-value]

    def counters(self) -> dict[str, int]:
        """What ctweb has counted, as of its last look at its table."""
        return self.ctweb.get("/healthz")["counters"]  # type: ignore[index]

    def set(self, **tracking: str) -> None:
        """Change tracking settings, `_` for `-`."""
        body = {name.replace("_", "-"): value for name, value in tracking.items()}
        assert self.ctweb.ask("POST", "/rest/ip/firewall/connection/tracking/set", body)[0] == 200

    def _wait_for_what_was_sent(self) -> None:
        """Each end sends a last datagram. Once ctweb shows both, it has seen all before them; so has nf_conntrack."""
        port = str(10_000 + next(self.numbers))
        ends = path(IPV4, LAST)
        for source, target, from_server in ((ends.client, ends.server, False), (ends.server, ends.client, True)):
            self.see(ethernet(ip(source, target, UDP, udp(source, target, int(port), 9))), from_server)
        wait_for("the last datagrams are shown", lambda: len(self.ctweb.rows(src_port=port, dst_port="9")) == 2)

    def _read(self, paths: Sequence[Ends]) -> tuple[list[Connection], list[Connection]]:
        families = {"ipv6" if one.family is socket.AF_INET6 else "ipv4" for one in paths}
        listed = "".join(self.router.run("conntrack", "-L", "-o", "extended", "-f", one) for one in families)
        addresses = {address for one in paths for address in (one.client, one.server)}
        rows = [
            row
            for one in families
            for row in self.ctweb.get(f"/rest/{'ip' if one == 'ipv4' else one}/firewall/connection")  # type: ignore[attr-defined]
        ]
        kernel, ours = map(of_the_kernel, listed.splitlines()), map(of_ctweb, rows)
        return [c for c in kernel if c.addresses & addresses], [c for c in ours if c.addresses & addresses]


def path(like: Ends, number: int) -> Ends:
    """From the host of this number behind the router's one side to its like behind the other."""
    return replace(like, client=like.host(1, number), server=like.host(2, number))


@contextmanager
def parity(hook: str, directory: Path) -> Iterator[Parity]:
    with network("par-") as net:
        client, router, server = client_router_server(net)
        for machine in (client, router, server):
            machine.offloads("off")
        for machine, number in ((client, 1), (server, 2)):
            machine.ip(
                *(f"addr add {IPV4.host(number, n)}/24 dev eth0" for n in HOSTS),
                *(f"addr add {IPV6.host(number, n)}/64 dev eth0 nodad" for n in HOSTS),
            )
        for device, number in (("lan", 1), ("wan", 2)):
            router.ip(
                f"link set {device} address {MAC.hex(':')} gso_max_segs 1",
                *(f"neigh replace {one.host(number, n)} lladdr {GHOST} dev {device}"
                  for one in (IPV4, IPV6) for n in (*GHOSTS, LAST)),
            )  # fmt: skip
        watch_with_conntrack(router)
        router.sysctl(netfilter_nf_conntrack_checksum=0)  # nobody below the table looks at them
        router.sysctl(**{f"netfilter_nf_conntrack_{name}": 600 for name in TIMEOUTS})
        config = CONFIG + "[marks]\nvoip = 16\n"
        ctweb = Tracked(router, directory, "--hook", hook, "--interface", "lan", "--interface", "wan", config=config)
        with _wire(client) as near, _wire(server) as far:
            yield Parity(client, router, server, ctweb, hook, (near, far))
        ctweb.check_conservation()
        assert ctweb.end() == 0, ctweb.log.read_text()


def _wire(machine: Namespace) -> socket.socket:
    made = machine.socket(socket.AF_PACKET, socket.SOCK_RAW)
    made.bind(("eth0", 0))
    return made
