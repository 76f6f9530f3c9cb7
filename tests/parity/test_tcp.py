"""TCP connections as they open, live and close."""

from __future__ import annotations

from datapath.crafted import ACK, FIN, PSH, RST, SYN, URG

from parity.by_hand import SACK_PERMITTED, Conversation, sack, scale
from parity.conftest import Paths
from parity.machines import Parity
from parity.tables import Connection


def told(connections: list[Connection]) -> list[tuple[str, tuple[int, int], bool, bool]]:
    return [(c.state, c.packets, c.seen_reply, c.assured) for c in connections]


def test_half_open(lab: Parity, ghosts: Paths):
    for path in ghosts:
        Conversation(lab, path).client(SYN)
    assert told(lab.agree(*ghosts)) == [("syn-sent", (1, 0), False, False)] * 2


def test_answered_but_not_acknowledged(lab: Parity, ghosts: Paths):
    for path in ghosts:
        one = Conversation(lab, path)
        one.client(SYN)
        one.server(SYN | ACK)
    assert told(lab.agree(*ghosts)) == [("syn-received", (1, 1), True, False)] * 2


def test_open(lab: Parity, ghosts: Paths):
    for path in ghosts:
        Conversation(lab, path).open().exchange()
    assert told(lab.agree(*ghosts)) == [("established", (4, 3), True, True)] * 2


def test_answered_but_retransmitted(lab: Parity, ghosts: Paths):
    """The SYN again, and again after its answer."""
    one = Conversation(lab, ghosts[0])
    one.client(SYN)
    one.client(SYN, seq=1000)
    one.server(SYN | ACK)
    one.client(SYN, seq=1000)
    one.server(SYN | ACK, seq=5000)
    lab.agree(ghosts[0])
    one.client(ACK)
    (agreed,) = lab.agree(ghosts[0])
    assert (agreed.state, agreed.assured) == ("established", True)


def test_retransmitted_syn(lab: Parity, ghosts: Paths):
    for path in ghosts:
        one = Conversation(lab, path)
        for _ in range(4):
            one.client(SYN, seq=1000)
    assert [c.state for c in lab.agree(*ghosts)] == ["syn-sent"] * 2


def test_refused(lab: Parity, ghosts: Paths):
    """A reset before any other answer: forgotten."""
    for path in ghosts:
        one = Conversation(lab, path)
        one.client(SYN)
        one.server(RST | ACK, seq=0)
    assert lab.agree(*ghosts) == []


def test_given_up_before_an_answer(lab: Parity, ghosts: Paths):
    one = Conversation(lab, ghosts[0])
    one.client(SYN)
    one.client(RST)
    assert lab.agree(ghosts[0]) == []


def test_reset_by_the_client(lab: Parity, ghosts: Paths):
    for path in ghosts:
        Conversation(lab, path).open().exchange().client(RST)
    assert told(lab.agree(*ghosts)) == [("close", (5, 3), True, True)] * 2


def test_reset_by_the_server(lab: Parity, ghosts: Paths):
    for path in ghosts:
        Conversation(lab, path).open().exchange().server(RST | ACK)
    assert told(lab.agree(*ghosts)) == [("close", (4, 4), True, True)] * 2


def test_reset_of_a_connection_half_open(lab: Parity, ghosts: Paths):
    one = Conversation(lab, ghosts[0])
    one.client(SYN)
    one.server(SYN | ACK)
    one.client(RST)
    assert told(lab.agree(ghosts[0])) == [("close", (2, 1), True, False)]


def test_closed_by_the_client(lab: Parity, ghosts: Paths):
    for path in ghosts:
        Conversation(lab, path).open().exchange().close()
    assert told(lab.agree(*ghosts)) == [("time-wait", (6, 5), True, True)] * 2


def test_closed_step_by_step(lab: Parity, ghosts: Paths):
    """The server closes first; every state on the way."""
    one = Conversation(lab, ghosts[0]).open().exchange()
    states = []
    for side, flags in ((one.server, FIN | ACK), (one.client, ACK), (one.client, FIN | ACK), (one.server, ACK)):
        side(flags)
        states += [c.state for c in lab.agree(ghosts[0])]
    assert states == ["fin-wait", "close-wait", "last-ack", "time-wait"]


def test_closed_from_both_ends_at_once(lab: Parity, ghosts: Paths):
    for path in ghosts:
        one = Conversation(lab, path).open().exchange()
        ends = one.next[:]
        one.client(FIN | ACK)
        one.server(FIN | ACK, ack=ends[0])
        one.client(ACK)
        one.server(ACK)
    assert [c.state for c in lab.agree(*ghosts)] == ["time-wait"] * 2


def test_data_after_one_side_closed(lab: Parity, ghosts: Paths):
    one = Conversation(lab, ghosts[0]).open().exchange()
    one.client(FIN | ACK)
    one.server(ACK)
    for _ in range(5):
        one.server(ACK | PSH, bytes(500))
        one.client(ACK)
    assert told(lab.agree(ghosts[0])) == [("close-wait", (10, 9), True, True)]


def test_reset_after_the_end(lab: Parity, ghosts: Paths):
    one = Conversation(lab, ghosts[0]).open().exchange().close()
    one.server(RST, seq=123)
    assert [c.state for c in lab.agree(ghosts[0])] == ["close"]


def test_time_wait_is_used_again(lab: Parity, ghosts: Paths):
    """The same two ports: a new connection, which counts from its own SYN."""
    for path in ghosts:
        Conversation(lab, path, sport=2000).open().exchange().close()
        Conversation(lab, path, sport=2000, numbers=(900_000, 700_000)).open()
    assert told(lab.agree(*ghosts)) == [("established", (2, 1), True, True)] * 2


def test_a_reset_connection_is_used_again(lab: Parity, ghosts: Paths):
    Conversation(lab, ghosts[0], sport=2000).open().exchange().client(RST)
    Conversation(lab, ghosts[0], sport=2000, numbers=(900_000, 700_000)).open()
    assert told(lab.agree(ghosts[0])) == [("established", (2, 1), True, True)]


def test_simultaneous_open(lab: Parity, ghosts: Paths):
    for path in ghosts:
        one = Conversation(lab, path)
        one.client(SYN)
        one.server(SYN)
    assert [c.state for c in lab.agree(*ghosts)] == ["listen"] * 2
    for path in ghosts:
        one = Conversation(lab, path, sport=2001)
        one.client(SYN)
        one.server(SYN)
        one.client(SYN | ACK, seq=1000)
        one.server(SYN | ACK, seq=5000)
        one.client(ACK)
    states = [c.state for c in lab.agree(*ghosts)]
    assert sorted(states) == ["established", "established", "listen", "listen"]


def test_retransmitted_data(lab: Parity, ghosts: Paths):
    for path in ghosts:
        one = Conversation(lab, path).open()
        for _ in range(5):
            one.client(ACK, bytes(200), seq=1001)
    assert told(lab.agree(*ghosts)) == [("established", (7, 1), True, True)] * 2


def test_window_scaling(lab: Parity, ghosts: Paths):
    """More in flight than an unscaled window allows."""
    for path in ghosts:
        one = Conversation(lab, path).open(scale(7))
        for side in (one.client, one.server):
            side(ACK, window=60_000)
        for _ in range(150):
            one.client(ACK, bytes(1400))
        one.server(ACK)
    assert told(lab.agree(*ghosts)) == [("established", (153, 3), True, True)] * 2


def test_scaling_that_one_side_did_not_offer(lab: Parity, ghosts: Paths):
    """Then windows are not scaled: what goes beyond the plain one is invalid."""
    before = lab.counters()["invalid-tcp"]
    one = Conversation(lab, ghosts[0])
    one.client(SYN, options=scale(7), window=1000)
    one.server(SYN | ACK, window=1000)
    one.client(ACK, window=1000)
    one.server(ACK, bytes(100), seq=5001 + 60_000, window=1000)
    assert told(lab.agree(ghosts[0])) == [("established", (2, 1), True, True)]
    assert lab.counters()["invalid-tcp"] == before + 1


def test_selective_acknowledgement(lab: Parity, ghosts: Paths):
    """A segment is lost, the others are acknowledged by blocks, then it comes again."""
    for path in ghosts:
        one = Conversation(lab, path).open(SACK_PERMITTED)
        one.client(ACK, bytes(1000), seq=2001)
        one.server(ACK, ack=1001, options=sack(2001, 3001))
        one.client(ACK, bytes(1000), seq=3001)
        one.server(ACK, ack=1001, options=sack(2001, 4001))
        one.client(ACK, bytes(1000), seq=1001)
        one.server(ACK, ack=4001)
    assert told(lab.agree(*ghosts)) == [("established", (5, 4), True, True)] * 2


def test_numbers_that_wrap_around(lab: Parity, ghosts: Paths):
    for path in ghosts:
        Conversation(lab, path, numbers=(2**32 - 150, 2**32 - 50)).open().exchange().exchange().close()
    assert told(lab.agree(*ghosts)) == [("time-wait", (8, 7), True, True)] * 2


def test_windows_of_zero(lab: Parity, ghosts: Paths):
    one = Conversation(lab, ghosts[0]).open()
    one.client(ACK, bytes(100))
    one.server(ACK, window=0)
    one.client(ACK, seq=1100)
    one.server(ACK, window=0)
    one.server(ACK, window=5000)
    one.client(ACK, bytes(100))
    assert told(lab.agree(ghosts[0])) == [("established", (5, 4), True, True)]


def test_flags_that_make_no_sense(lab: Parity, ghosts: Paths):
    """Null, Christmas tree, SYN and FIN: they neither start nor change anything."""
    nonsense = (0, FIN | PSH | URG, SYN | FIN, SYN | RST, FIN | RST, FIN)
    for path in ghosts:
        for flags in nonsense:
            Conversation(lab, path).client(flags)
    assert lab.agree(*ghosts) == []
    for path in ghosts:
        one = Conversation(lab, path).open()
        for flags in nonsense:
            one.client(flags, seq=1001)
    assert told(lab.agree(*ghosts)) == [("established", (2, 1), True, True)] * 2


def test_urgent_and_congestion_flags(lab: Parity, ghosts: Paths):
    one = Conversation(lab, ghosts[0])
    one.client(SYN | 0xC0)
    one.server(SYN | ACK | 0x40)
    one.client(ACK | 0x40)
    one.client(ACK | URG | PSH | 0x80, b"!")
    assert told(lab.agree(ghosts[0])) == [("established", (3, 1), True, True)]


def test_many_connections_of_one_pair(lab: Parity, ghosts: Paths):
    for path in ghosts:
        for port in range(3000, 3100):
            one = Conversation(lab, path, sport=port).open()
            if port % 2:
                one.close()
    agreed = lab.agree(*ghosts)
    assert [c.state for c in agreed].count("established") == [c.state for c in agreed].count("time-wait") == 100
