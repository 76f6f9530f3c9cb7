"""TCP of no connection, or outside the window of its own: it is counted as invalid and changes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from datapath.crafted import ACK, FIN, RST, SYN

from parity.by_hand import Conversation
from parity.conftest import Paths
from parity.machines import Parity


@pytest.fixture
def left_out(lab: Parity) -> Callable[[], int]:
    """How many TCP packets were of no connection since the test began, as of the last comparison.

    They are invalid, or ignored: let through without being believed, if only just out of window. The kernel has both.
    """

    def counted() -> int:
        counters = lab.counters()
        return counters["invalid-tcp"] + counters["ignored-tcp"]

    before = counted()
    return lambda: counted() - before


@pytest.fixture
def not_loose(lab: Parity) -> Iterator[None]:
    lab.router.sysctl(netfilter_nf_conntrack_tcp_loose=0)
    lab.set(loose_tcp_tracking="no")
    yield
    lab.router.sysctl(netfilter_nf_conntrack_tcp_loose=1)
    lab.set(loose_tcp_tracking="yes")


@pytest.fixture
def liberal(lab: Parity) -> Iterator[None]:
    lab.router.sysctl(netfilter_nf_conntrack_tcp_be_liberal=1)
    lab.set(liberal_tcp_tracking="yes")
    yield
    lab.router.sysctl(netfilter_nf_conntrack_tcp_be_liberal=0)
    lab.set(liberal_tcp_tracking="no")


def test_picked_up_in_the_middle(lab: Parity, ghosts: Paths):
    for path in ghosts:
        Conversation(lab, path).client(ACK, bytes(10))
    assert [(c.state, c.packets, c.seen_reply, c.assured) for c in lab.agree(*ghosts)] == [
        ("established", (1, 0), False, False)
    ] * 2


def test_picked_up_in_the_middle_and_closed(lab: Parity, ghosts: Paths):
    for path in ghosts:
        Conversation(lab, path).exchange().exchange().close()
    assert [(c.state, c.assured) for c in lab.agree(*ghosts)] == [("time-wait", True)] * 2


def test_picked_up_from_the_servers_side(lab: Parity, ghosts: Paths):
    """Who speaks first is the original side, though it be the server."""
    for path in ghosts:
        one = Conversation(lab, path)
        one.server(ACK, bytes(10))
        one.client(ACK)
        one.server(ACK, bytes(10))
    assert [(c.original[0], c.packets) for c in lab.agree(*ghosts)] == [(p.server, (2, 1)) for p in ghosts]


@pytest.mark.usefixtures("not_loose")
def test_not_picked_up(lab: Parity, ghosts: Paths, left_out: Callable[[], int]):
    for path in ghosts:
        Conversation(lab, path).exchange()
    assert lab.agree(*ghosts) == []
    assert left_out() == 8
    Conversation(lab, ghosts[0]).open().exchange().close()
    assert [c.state for c in lab.agree(*ghosts)] == ["time-wait"]


def test_nothing_starts_with_these(lab: Parity, ghosts: Paths, left_out: Callable[[], int]):
    """An answer to nothing, an end and a reset of nothing."""
    flags = (SYN | ACK, FIN | ACK, RST, RST | ACK)
    for path in ghosts:
        for one in flags:
            Conversation(lab, path).client(one)
            Conversation(lab, path).server(one)
    assert lab.agree(*ghosts) == []
    assert left_out() == 2 * 2 * len(flags)


def test_data_out_of_window(lab: Parity, ghosts: Paths, left_out: Callable[[], int]):
    """A little ahead, as far as can be, behind."""
    for path, far in itertools.product(ghosts, (70_000, 2**31 - 1, -70_000)):
        one = Conversation(lab, path).open().exchange()
        one.client(ACK, bytes(50), seq=one.next[0] + far)
        one.server(ACK, bytes(50), seq=one.next[1] + far)
    assert [(c.state, c.packets) for c in lab.agree(*ghosts)] == [("established", (4, 3))] * 6
    assert left_out() == 12


def test_acknowledgement_of_what_was_not_sent(lab: Parity, ghosts: Paths, left_out: Callable[[], int]):
    for path in ghosts:
        one = Conversation(lab, path).open().exchange()
        one.client(ACK, ack=one.next[1] + 1000)
        one.server(ACK, ack=one.next[0] + 100_000)
    assert [(c.state, c.packets) for c in lab.agree(*ghosts)] == [("established", (4, 3))] * 2
    assert left_out() == 4


def test_blind_reset(lab: Parity, ghosts: Paths, left_out: Callable[[], int]):
    """A reset by someone who does not see the connection does not close it: just behind, ahead, as far as can be."""
    for path, far in itertools.product(ghosts, (-1, 1_000_000, 2**31)):
        one = Conversation(lab, path).open().exchange()
        one.client(RST, seq=one.next[0] + far)
        one.server(RST, seq=one.next[1] + far)
        one.exchange()
    assert [(c.state, c.packets) for c in lab.agree(*ghosts)] == [("established", (6, 5))] * 6
    assert left_out() == 12


def test_reset_within_the_window_that_may_be_challenged(lab: Parity, ghosts: Paths):
    """Not quite the number that is due: the state stays until the ends have settled it."""
    for path in ghosts:
        one = Conversation(lab, path).open().exchange()
        one.client(RST, seq=one.next[0] + 10)
    assert [c.state for c in lab.agree(*ghosts)] == ["established"] * 2


def test_blind_end(lab: Parity, ghosts: Paths, left_out: Callable[[], int]):
    for path in ghosts:
        one = Conversation(lab, path).open().exchange()
        one.client(FIN | ACK, seq=one.next[0] + 500_000)
        one.server(FIN | ACK, seq=one.next[1] - 500_000)
    assert [(c.state, c.packets) for c in lab.agree(*ghosts)] == [("established", (4, 3))] * 2
    assert left_out() == 4


def test_a_syn_into_a_living_connection(lab: Parity, ghosts: Paths):
    for path in ghosts:
        one = Conversation(lab, path).open().exchange()
        one.client(SYN, seq=77_777)
        one.server(ACK)  # challenges it
        one.client(RST, seq=one.next[0])
    lab.agree(*ghosts)


@pytest.mark.usefixtures("liberal")
def test_liberal(lab: Parity, ghosts: Paths, left_out: Callable[[], int]):
    """What is out of window is let through, counts and ends; only a reset of a living connection must be exact."""
    for path in ghosts:
        one = Conversation(lab, path).open().exchange()
        one.client(ACK, bytes(50), seq=one.next[0] + 1_000_000)
        one.server(ACK, bytes(50), seq=one.next[1] - 1_000_000)
    assert [(c.state, c.packets) for c in lab.agree(*ghosts)] == [("established", (5, 4))] * 2
    for path, flags in itertools.product(ghosts, (FIN | ACK, RST)):
        one = Conversation(lab, path).open().exchange()
        one.server(flags, seq=one.next[1] + 1_000_000)
    assert sorted((c.state, c.packets) for c in lab.agree(*ghosts)) == sorted(
        [("established", (5, 4)), ("established", (4, 4)), ("fin-wait", (4, 4))] * 2
    )
    assert left_out() == 0
