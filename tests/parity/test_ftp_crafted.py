"""FTP control connections by hand: of hostile words nothing is expected that nf_conntrack's helper does not expect."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from datapath.crafted import ACK, PSH, SYN, TCP, ethernet, ip, tcp
from datapath.ftp_words import ODD, RIGHT, WRONG, filled
from lab.network import Ends

from parity.by_hand import Conversation
from parity.conftest import Paths
from parity.machines import Parity

_HELPER = """
table inet ftp {
    ct helper ftp-control { type "ftp" protocol tcp; }
    chain watch {
        type filter hook prerouting priority 0
        tcp dport 21 ct helper set "ftp-control"
    }
}
"""
@pytest.fixture(scope="module", autouse=True)
def helper(lab: Parity) -> Iterator[None]:
    lab.router.run("nft", "-f", "-", input=_HELPER)
    yield
    lab.router.run("nft", "delete table inet ftp")


def say_and_come(lab: Parity, path: Ends, by_server: bool, words: str, number: int) -> None:
    """A control connection on which this is said, and connections to where it may have meant."""
    control = Conversation(lab, path, sport=2000 + number, dport=21).open()
    control.server(ACK | PSH, b"220 hello\r\n")
    control.client(ACK | PSH, b"USER anonymous\r\n")
    control.server(ACK)
    ends = (path.server, path.client) if by_server else (path.client, path.server)
    port = 20_000 + number
    (control.server if by_server else control.client)(ACK | PSH, filled(words, *ends, port))
    there = path if by_server else Ends(path.family, path.server, path.client, path.router)
    for where in (port, 0, port | 256):  # as a byte too large may be taken
        segment = tcp(there.client, there.server, 30_000 + number, where, SYN)
        lab.see(ethernet(ip(there.client, there.server, TCP, segment)), not by_server)


def test_the_mark_of_the_control_connection(lab: Parity, ghosts: Paths):
    """What it expects begins with that."""
    for path in ghosts:
        address = f"{'ip6' if ':' in path.client else 'ip'} saddr {path.client}"
        lab.router.run("nft", f"add rule inet ftp watch {address} tcp dport 21 ct mark set 16")
        say_and_come(lab, path, True, "229 Extended (|||PORT|)", 0)
        say_and_come(lab, path, False, f"EPRT |{2 if ':' in path.client else 1}|OWN|PORT|", 1)
    expected = [one for path in ghosts for one in lab.expected(path)[1]]
    assert len(expected) == 4
    marks = {c.original: c.mark for c in lab.agree(*ghosts)}
    assert [marks[origin] for origin, _ in expected] == ["voip"] * 4
    assert [mark for origin, mark in marks.items() if origin[3] not in ("21", "20000", "20001")] == [""] * 8


@pytest.mark.parametrize("who", RIGHT)
def test_nothing_is_expected_that_nf_conntrack_does_not(lab: Parity, ghosts: Paths, who: str):
    path = ghosts["IPv6" in who]
    said = RIGHT[who] + ODD[who] + WRONG[who]
    for number, words in enumerate(said):
        say_and_come(lab, path, who.startswith("server"), words, number)
    kernel, ours = ({said[int(origin[2]) - 30_000] for origin, _ in one} for one in lab.expected(path))
    assert kernel == set(RIGHT[who] + ODD[who])
    assert ours == kernel  # the odd ones by nf_conntrack's word alone
