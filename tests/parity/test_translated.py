"""What the router translates and marks."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from datapath.crafted import ACK, FIN, GRE, RST, SYN
from lab.network import Ends

from parity.by_hand import Conversation, send
from parity.conftest import Paths
from parity.machines import Parity
from parity.test_real_traffic import answer, connected, ping

_CHAINS = """
table inet translate {
    chain before { type nat hook prerouting priority dstnat; }
    chain after { type nat hook postrouting priority srcnat; }
    chain marking { type filter hook prerouting priority mangle; }
}
"""

Rule = Callable[[str, str], str]


@pytest.fixture(scope="module")
def chains(lab: Parity) -> Iterator[None]:
    lab.router.run("nft", "-f", "-", input=_CHAINS)
    yield
    lab.router.run("nft", "delete table inet translate")


@pytest.fixture
def rule(lab: Parity, chains: None) -> Rule:
    """Add a rule to a chain; it stays until the last test here, each of which has its own addresses."""
    return lambda chain, text: lab.router.run("nft", f"add rule inet translate {chain} {text}")


def family(path: Ends) -> str:
    return "ip6" if ":" in path.client else "ip"


def shown(path: Ends, address: str, port: int) -> str:
    """An end in nft's words, for the target of a translation."""
    return f"{family(path)} to {path.shown(address, port)}"


def ask(lab: Parity, path: Ends, sport: int, target: tuple[str, int], listens: tuple[str, int]) -> None:
    """A datagram from the client to `target`, which arrives at `listens`, and is answered."""
    machine = lab.client if listens[0] == path.host(1, 2) else lab.server
    kind = path.family, socket.SOCK_DGRAM
    with lab.client.socket(*kind) as near, machine.socket(*kind) as far:
        far.bind(listens)
        near.bind((path.client, sport))
        near.connect(target)
        near.send(bytes(100))
        data, peer = far.recvfrom(1000)
        far.sendto(2 * data, peer)
        assert len(near.recv(1000)) == 200


def test_masquerade(lab: Parity, hosts: Paths, rule: Rule):
    for path in hosts:
        rule("after", f'oifname "wan" {family(path)} saddr {path.client} masquerade')
        ping(lab.client, path, 5, 56)
        ask(lab, path, 4000, (path.server, 5000), (path.server, 5000))
        with connected(path, lab.client, lab.server) as (near, far):
            answer(near, far, 50_000)
    agreed = lab.agree(*hosts)
    assert len(agreed) == 6
    assert all(c.srcnat and not c.dstnat and c.seen_reply for c in agreed)


def test_masquerade_of_two_with_the_same_port(lab: Parity, hosts: Paths, more_hosts: Paths, rule: Rule):
    """The second one is given another port."""
    for path in hosts + more_hosts:
        rule("after", f'oifname "wan" {family(path)} saddr {path.client} masquerade')
        ask(lab, path, 4001, (path.host(2, 2), 5000), (path.host(2, 2), 5000))
    agreed = lab.agree(*hosts, *more_hosts)
    assert len(agreed) == len({c.reply for c in agreed}) == 4


def test_source_translation_to_a_range_of_ports(lab: Parity, hosts: Paths, rule: Rule):
    for path in hosts:
        to = path.shown(path.host(2, 1), 30_000)
        rule("after", f"{family(path)} saddr {path.client} udp dport 5000 snat {family(path)} to {to}-30009")
        ask(lab, path, 4000, (path.server, 5000), (path.server, 5000))
    assert [(c.srcnat, c.reply[1]) for c in lab.agree(*hosts)] == [(True, path.host(2, 1)) for path in hosts]


def test_port_forwarding(lab: Parity, hosts: Paths, rule: Rule):
    for path in hosts:
        for protocol in ("udp", "tcp"):
            to = shown(path, path.server, 5000)
            rule("before", f"{family(path)} saddr {path.client} {protocol} dport 8080 dnat {to}")
        ask(lab, path, 4000, (path.router, 8080), (path.server, 5000))
        with lab.server.socket(path.family, socket.SOCK_STREAM) as listener:
            listener.bind((path.server, 5000))
            listener.listen()
            with lab.client.socket(path.family, socket.SOCK_STREAM) as near:
                near.bind((path.client, 4000))
                near.connect((path.router, 8080))
                far, _ = listener.accept()
                with far:
                    answer(near, far, 20_000)
    agreed = lab.agree(*hosts)
    assert [(c.original[1], c.reply[0], c.dstnat, c.srcnat) for c in agreed] == [
        (path.router, path.server, True, False) for path in hosts * 2
    ]


def test_hairpin(lab: Parity, hosts: Paths, rule: Rule):
    """The client asks the router's other side and is answered from its own network."""
    for path in hosts:
        inside, outside = path.host(1, 2), path.host(2, 1)
        rule("before", f"{family(path)} saddr {path.client} udp dport 8081 dnat {shown(path, inside, 5001)}")
        rule("after", f'oifname "lan" {family(path)} saddr {path.client} masquerade')
        ask(lab, path, 4000, (outside, 8081), (inside, 5001))
    assert [(c.packets, c.srcnat, c.dstnat) for c in lab.agree(*hosts)] == [((1, 1), True, True)] * 2


def test_tcp_by_hand_through_a_translation(lab: Parity, ghosts: Paths, rule: Rule):
    """States and windows of a translated connection; a blind reset changes nothing there either."""
    for path in ghosts:
        public = path.host(2, 240)
        rule("after", f"{family(path)} saddr {path.client} snat {family(path)} to {public}")
        back = Conversation(lab, path, sport=4000)
        back.client(SYN)
        translated = Conversation(lab, Ends(path.family, public, path.server, path.router), sport=4000)
        translated.next = [1001, 5000]
        translated.server(SYN | ACK)
        back.next[1] = 5001
        back.client(ACK)
        translated.next[0] = back.next[0]
        translated.server(ACK, bytes(100))
        translated.server(RST, seq=translated.next[1] + 1_000_000)
        back.next[1] = translated.next[1]
        back.client(ACK)
        back.client(FIN | ACK)
    assert [(c.state, c.packets, c.srcnat) for c in lab.agree(*ghosts)] == [("fin-wait", (4, 2), True)] * 2


def test_gre_with_a_key_through_a_translation(lab: Parity, ghosts: Paths, rule: Rule):
    """nf_conntrack knows the addresses alone; the table has a connection for each key, both directions of it."""
    path = ghosts[0]
    public = path.host(2, 241)
    lab.router.ip(f"neigh replace {public} lladdr 02:c7:00:00:00:02 dev wan")
    rule("after", f"ip saddr {path.client} snat ip to {public}")
    there = Ends(path.family, public, path.server, path.router)
    for key in (1, 2):
        packet = struct.pack("!HHI", 0x2000, 0x0800, key) + bytes(60)
        send(lab, path, GRE, packet)
        send(lab, there, GRE, packet, from_server=True)
    kernel, ours = lab.tables(path)
    assert [(c.packets, c.srcnat, c.reply) for c in kernel] == [((2, 2), True, (path.server, public))]
    assert [(c.packets, c.srcnat, c.reply) for c in ours] == [((1, 1), True, (path.server, public))] * 2
    rows = lab.ctweb.rows(protocol="gre", src_address=path.client)
    assert sorted(row["gre-key"] for row in rows) == ["1", "2"]


def test_marks(lab: Parity, hosts: Paths, rule: Rule):
    for path in hosts:
        for port, mark in ((5001, 16), (5002, 4711)):
            rule("marking", f"{family(path)} saddr {path.client} udp dport {port} ct mark set {mark}")
        for port in (5000, 5001, 5002):
            ask(lab, path, 4000, (path.server, port), (path.server, port))
    assert [c.mark for c in lab.agree(*hosts)] == ["", "voip", "4711"] * 2
