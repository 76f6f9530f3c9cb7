"""PPTP by hand, and nf_conntrack's helper: a call's GRE packets are one connection, also through a translation."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from datapath.crafted import ACK, GRE, PSH, SYN
from lab.network import Ends

from parity.by_hand import Conversation, send
from parity.conftest import Paths
from parity.machines import Parity
from parity.tables import Connection

_TABLE = """
table inet pptp {
    ct helper pptp-control { type "pptp" protocol tcp; l3proto ip; }
    chain watch {
        type filter hook prerouting priority 0
        tcp dport 1723 ct helper set "pptp-control"
    }
    chain before { type nat hook prerouting priority dstnat; }
    chain after { type nat hook postrouting priority srcnat; }
}
"""

Rule = Callable[[str, str], str]


@pytest.fixture(scope="module")
def helper(lab: Parity) -> Iterator[None]:
    lab.router.run("nft", "-f", "-", input=_TABLE)
    yield
    lab.router.run("nft", "delete table inet pptp")


@pytest.fixture(autouse=True)
def rule(lab: Parity, helper: None) -> Rule:
    """Add a rule to a chain; it stays until the last test here, each of which has its own addresses."""
    return lambda chain, text: lab.router.run("nft", f"add rule inet pptp {chain} {text}")


PNS, PAC = 0x1111, 0x2222  # call ids of the client and of the server
COOKIE = 0x1A2B3C4D
(START, START_REPLY, _, _, _, _, OUT, OUT_REPLY, IN, IN_REPLY, IN_CONNECT, CLEAR, DISCONNECT) = range(1, 14)
SIZES = {START: 144, START_REPLY: 144, OUT: 156, OUT_REPLY: 20, IN: 208, IN_REPLY: 12, IN_CONNECT: 16, CLEAR: 4,
         DISCONNECT: 136}  # fmt: skip


def message(kind: int, body: bytes = b"", *, size: int | None = None, cookie: int = COOKIE, control: int = 1) -> bytes:
    size = SIZES.get(kind, 4) if size is None else size
    head = struct.pack("!HHIHH", 12 + size, control, cookie, kind, 0)
    return head + body.ljust(size, b"\0")[:size]


@dataclass
class Control:
    """A control connection whose ends may see one another by other addresses than their own.

    near: from the client to the server that it knows. far: the same, as the server's side sees it.
    """

    lab: Parity
    near: Ends
    far: Ends
    port: int = 4000
    pns: int = PNS
    pac: int = PAC

    def __post_init__(self) -> None:
        self._client = Conversation(self.lab, self.near, sport=self.port, dport=1723)
        self._server = Conversation(self.lab, self.far, sport=self.port, dport=1723)
        self._server.next = self._client.next  # the same numbers
        self._client.client(SYN)
        self._server.server(SYN | ACK)
        self._client.client(ACK)
        self.client(message(START, b"\1\0"))
        self.server(message(START_REPLY, b"\1\0\1\1"))

    def client(self, payload: bytes) -> None:
        self._client.client(ACK | PSH, payload)

    def server(self, payload: bytes) -> None:
        self._server.server(ACK | PSH, payload)

    def request(self) -> bytes:
        return message(OUT, struct.pack("!H", self.pns))

    def reply(self, peer: int | None = None, result: int = 1, **given: int) -> bytes:
        """peer: the client's call id as the server has it."""
        return message(OUT_REPLY, struct.pack("!HHB", self.pac, self.pns if peer is None else peer, result), **given)

    def call_out(self, peer: int | None = None) -> None:
        self.client(self.request())
        self.server(self.reply(peer))

    def talk(self, from_server: bool, call_id: int, size: int = 40) -> None:
        """A packet of the call, with its receiver's id on the wire."""
        send(self.lab, self.far if from_server else self.near, GRE, gre(call_id, size), from_server)


def gre(call_id: int, size: int) -> bytes:
    return struct.pack("!HHHHI", 0x3001, 0x880B, size, call_id, 1) + bytes(size)


def calls(connections: list[Connection]) -> list[Connection]:
    return [c for c in connections if c.protocol == GRE]


def agree_on_one_call(lab: Parity, *paths: Ends) -> Connection:
    """Both tables have one GRE connection, expected and with packets both ways; what the kernel says of it."""
    (one,) = calls(lab.agree(*paths))
    kernel, ours = lab.expected(paths[0])
    assert kernel == ours == {(one.original, one.call)}
    assert min(one.packets) > 0
    (row,) = (r for r in lab.ctweb.rows(protocol="gre") if paths[0].client in r.values())
    assert (row["connection-type"], row["gre-version"], row["gre-protocol"]) == ("pptp", "1", "ppp")
    return one


@pytest.mark.parametrize("first", [False, True], ids=["client first", "server first"])
def test_a_call(lab: Parity, ghosts: Paths, first: bool):
    path = ghosts[0]
    control = Control(lab, path, path)
    control.call_out()
    for from_server in (first, not first, first):
        control.talk(from_server, PNS if from_server else PAC)
    one = agree_on_one_call(lab, path)
    assert (one.original[0], one.call) == ((path.server, str(PNS)) if first else (path.client, str(PAC)))
    assert (one.packets, one.assured) == ((2, 1), True)
    assert [c.helper for c in lab.agree(path) if c.protocol != GRE] == [True]


def test_an_incoming_call(lab: Parity, ghosts: Paths):
    path = ghosts[0]
    control = Control(lab, path, path)
    control.server(message(IN, struct.pack("!H", PAC)))
    control.client(message(IN_REPLY, struct.pack("!HHB", PNS, PAC, 1)))
    control.server(message(IN_CONNECT, struct.pack("!H", PNS)))
    control.talk(True, PNS)
    control.talk(False, PAC)
    agree_on_one_call(lab, path)


def test_a_call_ends_with_its_disconnect(lab: Parity, ghosts: Paths):
    path = ghosts[0]
    control = Control(lab, path, path)
    control.call_out()
    control.talk(False, PAC)
    control.talk(True, PNS)
    agree_on_one_call(lab, path)
    control.server(message(DISCONNECT, struct.pack("!H", PAC)))
    assert calls(lab.agree(path)) == []


def test_calls_of_several_clients(lab: Parity, ghosts: Paths):
    """To one server, with the same call ids."""
    path = ghosts[0]
    others = [Ends(path.family, path.host(1, 240 + n), path.server, path.router) for n in range(3)]
    lab.router.ip(*(f"neigh replace {one.client} lladdr 02:c7:00:00:00:02 dev lan" for one in others))
    for number, one in enumerate(others):
        control = Control(lab, one, one, 4000 + number, pac=PAC + number)
        control.call_out()
        control.talk(False, PAC + number)
        control.talk(True, PNS)
    assert [c.packets for c in calls(lab.agree(*others))] == [(1, 1)] * 3


@pytest.mark.parametrize("first", [False, True], ids=["client first", "server first"])
def test_a_call_through_source_translation(lab: Parity, ghosts: Paths, rule: Rule, first: bool):
    """nf_nat_pptp gives the client the number of its port as call id."""
    path, port = ghosts[0], 4100 + first
    public = path.host(2, 242 + first)
    lab.router.ip(f"neigh replace {public} lladdr 02:c7:00:00:00:02 dev wan")
    rule("after", f"ip saddr {path.client} snat ip to {public}")
    control = Control(lab, path, Ends(path.family, public, path.server, path.router), port)
    control.call_out(port)
    for from_server in (first, not first, first, not first):
        control.talk(from_server, port if from_server else PAC)
    one = agree_on_one_call(lab, path)
    assert (one.packets, one.srcnat or one.dstnat) == ((2, 2), True)
    control.server(message(DISCONNECT, struct.pack("!H", PAC)))
    assert calls(lab.agree(path)) == []


@pytest.mark.parametrize("first", [False, True], ids=["client first", "server first"])
def test_a_call_to_a_forwarded_server(lab: Parity, ghosts: Paths, rule: Rule, first: bool):
    path, port = ghosts[0], 4200 + first
    asked = Ends(path.family, path.client, path.host(2, 244 + first), path.router)
    rule("before", f"ip daddr {asked.server} tcp dport 1723 dnat ip to {path.server}")
    control = Control(lab, asked, path, port)
    control.call_out(port)
    for from_server in (first, not first, first, not first):
        control.talk(from_server, port if from_server else PAC)
    one = agree_on_one_call(lab, path, asked)
    assert (one.packets, one.srcnat or one.dstnat) == ((2, 2), True)


def asked(control: Control, *replies: bytes) -> None:
    """The client calls, and is answered so."""
    control.client(control.request())
    for reply in replies:
        control.server(reply)


def refused_session(control: Control) -> None:
    control.server(message(START_REPLY, b"\1\0\2\1"))
    asked(control, control.reply())


def by_the_client(control: Control) -> None:
    control.client(control.request())
    control.client(control.reply())


CRAFTED: dict[str, Callable[[Control], None]] = {
    "nothing said": lambda _: None,
    "refused": lambda c: asked(c, c.reply(result=2)),
    "another call": lambda c: asked(c, c.reply(peer=c.pns + 5000)),
    "the port for the call, without a translation": lambda c: asked(c, c.reply(peer=c.port)),
    "short by one": lambda c: asked(c, c.reply(size=19)),
    "long": lambda c: asked(c, c.reply() + bytes(1000)),
    "a length that lies": lambda c: asked(c, b"\xff\xff" + c.reply()[2:]),
    "another cookie": lambda c: asked(c, c.reply(cookie=1)),
    "management": lambda c: asked(c, c.reply(control=2)),
    "an unknown message": lambda c: asked(c, message(99, struct.pack("!HHB", c.pac, c.pns, 1), size=20)),
    "one byte": lambda c: asked(c, b"\0"),
    "garbage": lambda c: asked(c, b"x" * 300),
    "unasked": lambda c: c.server(c.reply(peer=0)),
    "without a session": refused_session,
    "by the client": by_the_client,
    "connected unasked": lambda c: c.server(message(IN_CONNECT, struct.pack("!H", c.pns))),
    "twice": lambda c: asked(c, c.reply(), c.reply()),
    "split": lambda c: asked(c, c.reply()[:20], c.reply()[20:]),
    "two in one": lambda c: asked(c, message(CLEAR) + c.reply()),
    "in order": lambda c: asked(c, c.reply()),
}


def test_crafted(lab: Parity, ghosts: Paths):
    """Whatever is said: both tables make the same of it, and of what comes then."""
    path = ghosts[0]
    for number, say in enumerate(CRAFTED.values()):
        control = Control(lab, path, path, 4000 + number, pns=PNS + number, pac=PAC + number)
        say(control)
        control.talk(False, control.pac)
        control.talk(True, control.pns)
    lab.agree(path)
    kernel, ours = lab.expected(path)
    assert kernel == ours
    numbers = {int(call) - PAC for _, call in ours}
    assert {what for number, what in enumerate(CRAFTED) if number in numbers} == {
        "long", "a length that lies", "twice", "in order",
    }  # fmt: skip
