"""Every transition of the TCP table, both directions, and what goes with them: timeouts, flags, new beginnings."""

from __future__ import annotations

import pytest
from crafted import ACK, CLIENT, FIN, RST, SERVER, SYN, tcp_frame

from ctweb.settings import Tracking

# Columns: the state before. IV: invalid, IG: ignored, "=": CLOSE by a reset, new: a new connection.
STATES = (
    "SYN_SENT",
    "SYN_RECEIVED",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "LISTEN",
)
SHORT = {"SS": "SYN_SENT", "SR": "SYN_RECEIVED", "ES": "ESTABLISHED", "FW": "FIN_WAIT", "CW": "CLOSE_WAIT",
         "LA": "LAST_ACK", "TW": "TIME_WAIT", "CL": "CLOSE", "S2": "LISTEN"}  # fmt: skip
TABLE = {
    #                   SS SR ES FW CW LA TW CL S2
    ("orig", "syn"):    "SS IG IG IG IG IG SS SS S2",
    ("orig", "synack"): "IV SR IV IV IV IV IV IV SR",
    ("orig", "fin"):    "IV FW FW LA LA LA TW CL IV",
    ("orig", "ack"):    "IV ES ES CW CW TW TW CL IV",
    ("orig", "rst"):    "CL CL CL CL CL CL CL CL CL",
    ("repl", "syn"):    "S2 IV IV IV IV IV SS IV S2",
    ("repl", "synack"): "SR IG IG IG IG IG IG IG SR",
    ("repl", "fin"):    "IV FW FW LA LA LA TW CL IV",
    ("repl", "ack"):    "IG SR ES CW CW TW TW CL IG",
    ("repl", "rst"):    "CL CL CL CL CL CL CL CL CL",
    ("orig", "none"):   "IV IV IV IV IV IV IV IV IV",
    ("repl", "none"):   "IV IV IV IV IV IV IV IV IV",
}  # fmt: skip
FLAGS = {"syn": SYN, "synack": SYN | ACK, "fin": FIN | ACK, "ack": ACK, "rst": RST | ACK, "none": 0}
WAY = {  # packets that lead to a state
    "SYN_SENT": "s",
    "SYN_RECEIVED": "sS",
    "ESTABLISHED": "sSaA",
    "FIN_WAIT": "sSaAf",
    "CLOSE_WAIT": "sSaAfA",
    "LAST_ACK": "sSaAfAF",
    "TIME_WAIT": "sSaAfAFa",
    "CLOSE": "sSaAfAFar",  # closed in order before the reset: a SYN reopens it
    "LISTEN": "sO",
}
CASES = [
    (*row, before, after)
    for row, line in TABLE.items()
    for before, after in zip(STATES, line.split(), strict=True)
]


class Pair:
    """Two ends in step: each packet has the numbers that follow on the ones before."""

    def __init__(self, table) -> None:
        self.table = table
        self.next = {True: 1000, False: 5_000_000}  # by whether the client sends

    def send(self, flags: int, client: bool, **given) -> None:
        numbers = {"seq": self.next[client], "ack": self.next[not client] if flags & ACK else 0} | given
        ends = (CLIENT, 1234, SERVER, 80) if client else (SERVER, 80, CLIENT, 1234)
        self.table.see(tcp_frame(*ends, flags, **numbers))
        if flags & (SYN | FIN) and not flags & RST:
            self.next[client] += 1
        self.next[client] += len(given.get("payload", b""))

    def play(self, way: str) -> None:
        for letter in way:
            kind = {"s": SYN, "S": SYN | ACK, "O": SYN, "a": ACK, "f": FIN | ACK, "r": RST | ACK}
            self.send(kind[letter if letter in kind else letter.lower()], client=letter.islower())


@pytest.fixture
def pair(table) -> Pair:
    return Pair(table)


@pytest.mark.parametrize(("direction", "kind", "before", "after"), CASES)
def test_transition(pair, table, direction, kind, before, after):
    pair.play(WAY[before])
    assert table.state() == before
    was, replied = table.only().copy(), "SEEN_REPLY" in table.flags()
    untracked = table.untracked()
    table.sleep(1)
    flags = FLAGS[kind]
    if (direction, kind, before) == ("orig", "rst", "SYN_SENT"):
        flags = RST  # there is nothing to acknowledge yet
    pair.send(flags, client=direction == "orig")
    table.check_conservation()

    conn = table.only() if table.live() else None
    counted = int(conn["packets"].sum()) - int(was["packets"].sum()) if conn is not None else None
    if kind == "rst" and not replied:
        assert conn is None, "a reset before any reply ends the connection"
        assert table.counted()["RESET"] == 1
    elif after == "IV":
        assert conn.tobytes() == was.tobytes(), "an invalid packet changes nothing"
        reason = "MALFORMED_TRANSPORT" if kind == "none" else "INVALID_TCP"
        assert table.untracked()[reason] == untracked.get(reason, 0) + 1
    elif after == "IG" or (kind, before) == ("syn", "SYN_SENT"):
        assert (table.state(), counted) == ("LISTEN" if after == "S2" else before, 0)
        assert conn["expires"] == was["expires"]
        assert table.untracked()["IGNORED_TCP"] == untracked.get("IGNORED_TCP", 0) + 1
    elif after == "SS":
        assert table.state() == "SYN_SENT"
        assert conn["id"] != was["id"]
        assert sorted(conn["packets"]) == [0, 1]
        assert table.counted()["REOPENED"] == 1
        assert bool(conn["status"] & 1) != bool(was["status"] & 1) if direction == "repl" else True
    else:
        assert (table.state(), counted) == (SHORT[after], 1)
        assert conn["id"] == was["id"]
        assert conn["expires"] > was["expires"] - 86_400 * 10**9


@pytest.mark.parametrize(
    ("flags", "loose", "state"),
    [(SYN, True, "SYN_SENT"), (SYN, False, "SYN_SENT"), (ACK, True, "ESTABLISHED"), (ACK, False, "gone"),
     (SYN | ACK, True, "gone"), (FIN | ACK, True, "gone"), (RST, True, "gone"), (RST | ACK, True, "gone"),
     (0, True, "gone"), (SYN | FIN, True, "gone"), (FIN, True, "gone"), (SYN | RST, True, "gone")],
)  # fmt: skip
def test_first_packet(table, pair, flags, loose, state):
    table.datapath.apply(Tracking(loose_tcp_tracking=loose))
    pair.send(flags, client=True)
    assert table.state() == state
    assert sum(table.untracked().values()) == (state == "gone")


TIMES = Tracking(
    tcp_syn_sent_timeout=11_000, tcp_syn_received_timeout=12_000, tcp_established_timeout=900_000,
    tcp_fin_wait_timeout=14_000, tcp_close_wait_timeout=15_000, tcp_last_ack_timeout=16_000,
    tcp_time_wait_timeout=17_000, tcp_close_timeout=18_000, tcp_max_retrans_timeout=200_000,
    tcp_unacked_timeout=300_000,
)  # fmt: skip


@pytest.mark.parametrize(
    ("way", "seconds"),
    [("s", 11), ("sS", 12), ("sSaA", 900), ("sSaAf", 14), ("sSaAfA", 15), ("sSaAfAF", 16), ("sSaAfAFa", 17),
     ("sSaAr", 18), ("a", 200), ("aA", 300), ("aAa", 900)],
)  # fmt: skip
def test_each_state_has_its_timeout(table, pair, way, seconds):
    table.datapath.apply(TIMES)
    pair.play(way)
    assert table.timeout() == seconds


def test_unacknowledged_data_caps_the_timeout_until_it_is_acknowledged(table, pair):
    table.datapath.apply(TIMES)
    pair.play("sSaA")
    pair.send(ACK, client=True, payload=b"hello")
    assert table.timeout() == 300
    pair.send(ACK, client=False)
    assert table.timeout() == 900


def test_retransmissions_cap_the_timeout(table, pair):
    table.datapath.apply(TIMES)
    pair.play("sSaA")
    seq = pair.next[True]
    pair.send(ACK, client=True, payload=b"hello")
    for _ in range(2):
        pair.send(ACK, client=True, seq=seq, payload=b"hello")
        pair.next[True] = seq + 5
        assert table.timeout() == 300
    pair.send(ACK, client=True, seq=seq, payload=b"hello")
    assert table.timeout() == 200


def test_a_window_of_zero_caps_the_timeout(table, pair):
    table.datapath.apply(TIMES)
    pair.play("sSaA")
    pair.send(ACK, client=False, window=0)
    assert table.timeout() == 200


def test_a_retransmitted_syn_does_not_keep_its_entry(table, pair):
    pair.play("s")
    table.sleep(3)
    pair.next[True] -= 1
    pair.play("s")
    assert table.timeout() == 2
    table.sleep(2)
    pair.next[True] -= 1
    before = table.counted()["CREATED"]
    pair.play("s")
    assert table.timeout() == 5
    assert table.counted()["CREATED"] == before + 1


def test_flags_come_in_order(table, pair):
    pair.play("s")
    assert table.flags() == set()
    pair.play("S")
    assert table.flags() == {"SEEN_REPLY"}
    pair.play("a")
    assert table.flags() == {"SEEN_REPLY", "ASSURED"}


def test_picked_up_is_assured_once_answered(table, pair):
    pair.play("aa")
    assert table.flags() == set()
    pair.play("A")
    assert table.flags() == {"SEEN_REPLY"}
    pair.play("a")
    assert table.flags() == {"SEEN_REPLY", "ASSURED"}


def test_simultaneous_open(table, pair):
    pair.play("sO")
    assert table.state() == "LISTEN"
    pair.next = {True: 1000, False: 5_000_000}
    pair.send(SYN | ACK, client=True, ack=5_000_001)
    assert table.state() == "SYN_RECEIVED"
    pair.next[False] = 5_000_001
    pair.send(ACK, client=False)
    assert table.state() == "ESTABLISHED"


class TestWindow:
    """A blind attacker changes nothing; liberal-tcp-tracking lets it through."""

    @pytest.fixture(autouse=True)
    def _opened(self, table, pair):
        pair.play("sSaA")
        self.was = table.only().copy()

    @pytest.mark.parametrize(
        ("flags", "change"),
        [(RST, {"seq": 7}), (RST | ACK, {"seq": 2_000_000_000}), (ACK, {"seq": 1_000_000, "payload": b"x"}),
         (FIN | ACK, {"seq": 900_000}), (ACK, {"ack": 5_100_000})],
    )  # fmt: skip
    def test_out_of_window_is_invalid(self, table, pair, flags, change):
        pair.send(flags, client=True, **change)
        now = table.only()
        assert (table.state(), list(now["packets"]), now["expires"]) == (
            "ESTABLISHED", list(self.was["packets"]), self.was["expires"]
        )  # fmt: skip
        assert table.untracked() == {"INVALID_TCP": 1}
        table.check_conservation()

    @pytest.mark.parametrize(("flags", "state"), [(ACK, "ESTABLISHED"), (FIN | ACK, "FIN_WAIT")])
    def test_liberal_lets_it_through(self, table, pair, flags, state):
        table.datapath.apply(Tracking(liberal_tcp_tracking=True))
        pair.send(flags, client=True, seq=1_000_000, payload=b"x")
        assert (table.state(), int(table.only()["packets"].sum())) == (state, 5)
        assert not table.untracked()

    def test_a_reset_that_is_not_quite_right_leaves_room_for_a_challenge(self, table, pair):
        pair.send(RST, client=True, seq=pair.next[True] + 10)
        assert table.state() == "ESTABLISHED"
        assert table.timeout() == 10
        pair.send(ACK, client=False)
        assert table.timeout() == 300, "a connection with something unacknowledged"

    def test_an_exact_reset_closes(self, table, pair):
        pair.send(RST, client=True)
        assert table.state() == "CLOSE"

    @pytest.mark.parametrize(
        ("offers", "accepted"),
        [
            ((bytes((1, 3, 3, 4)), bytes((1, 3, 3, 4))), 1),
            ((bytes((1, 3, 3, 4)), b""), 0),
            ((b"", bytes((1, 3, 3, 4))), 0),
        ],
        ids=["both offer scaling", "only the client", "only the server"],
    )
    def test_the_window_is_scaled_if_both_offer_it(self, table, pair, offers, accepted):
        table.clear()
        pair.next = {True: 1000, False: 5_000_000}
        pair.send(SYN, client=True, options=offers[0], window=1000)
        pair.send(SYN | ACK, client=False, options=offers[1], window=1000)
        pair.send(ACK, client=True, window=1000)
        pair.send(ACK, client=False, window=1000)
        counted = int(table.only()["packets"].sum())
        pair.send(ACK, client=True, seq=pair.next[True] + 10_000, payload=b"x")
        assert int(table.only()["packets"].sum()) - counted == accepted

    def test_sack_moves_the_window(self, table, pair):
        """Data far ahead that the receiver has told of by SACK is in window for what comes after it."""
        table.clear()
        pair.next = {True: 1000, False: 5_000_000}
        permitted = bytes((4, 2, 1, 1))
        pair.send(SYN, client=True, options=permitted, window=3000)
        pair.send(SYN | ACK, client=False, options=permitted, window=3000)
        pair.send(ACK, client=True, window=3000)
        pair.send(ACK, client=False, window=3000)
        lost = pair.next[True]
        pair.send(ACK, client=True, payload=bytes(1000))
        pair.send(ACK, client=True, payload=bytes(1500))
        block = (lost + 1000).to_bytes(4, "big") + (lost + 2500).to_bytes(4, "big")
        pair.send(ACK, client=False, ack=lost, window=3000, options=bytes((1, 1, 5, 10)) + block)
        before = int(table.only()["packets"][0]) + int(table.only()["packets"][1])
        pair.send(ACK, client=True, seq=lost + 5000, payload=b"x")  # below SACK's end + window
        assert int(table.only()["packets"].sum()) == before + 1
        pair.send(ACK, client=True, seq=lost + 5600, payload=b"x")
        assert int(table.only()["packets"].sum()) == before + 1
