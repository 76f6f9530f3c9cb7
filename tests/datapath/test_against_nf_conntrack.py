"""Random conversations, seen by the programs and by the kernel's own nf_conntrack: both must know the same of each."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator

import pytest
from crafted import ACK, FIN, PSH, RST, SYN, URG, ethernet, ipv4, ipv6, tcp, tcp_frame
from lab.network import wait_for
from oracle import TIMEOUTS, Entry, Oracle, oracle
from table import SECOND

from ctweb.settings import Tracking

ENDS = {4: ("10.0.0.2", "10.0.0.130"), 6: ("2001:db8:1::2", "2001:db8:2::2")}
CONVERSATIONS = 1500

OF_THE_ORACLE = Tracking(
    tcp_syn_sent_timeout=TIMEOUTS["tcp_timeout_syn_sent"] * 1000,
    tcp_syn_received_timeout=TIMEOUTS["tcp_timeout_syn_recv"] * 1000,
    tcp_established_timeout=TIMEOUTS["tcp_timeout_established"] * 1000,
    tcp_fin_wait_timeout=TIMEOUTS["tcp_timeout_fin_wait"] * 1000,
    tcp_close_wait_timeout=TIMEOUTS["tcp_timeout_close_wait"] * 1000,
    tcp_last_ack_timeout=TIMEOUTS["tcp_timeout_last_ack"] * 1000,
    tcp_time_wait_timeout=TIMEOUTS["tcp_timeout_time_wait"] * 1000,
    tcp_close_timeout=TIMEOUTS["tcp_timeout_close"] * 1000,
    tcp_max_retrans_timeout=TIMEOUTS["tcp_timeout_max_retrans"] * 1000,
    tcp_unacked_timeout=TIMEOUTS["tcp_timeout_unacknowledged"] * 1000,
)


@pytest.fixture(scope="module")
def judge() -> Iterator[Oracle]:
    with oracle() as made:
        yield made


class Conversation:
    """TCP packets between two ends, most of them plausible. Numbers near the edges of windows are common."""

    def __init__(self, dice: random.Random, family: int, port: int) -> None:
        self.dice = dice
        self.ends = ENDS[family]
        self.family = family
        self.port = port
        self.next = [dice.choice((0, 1, 2**31 - 5, 2**32 - 3, dice.getrandbits(32))) for _ in range(2)]
        self.acknowledged = [self.next[1], self.next[0]]
        self.scales = [dice.choice((None, 0, 3, 14, 200)) for _ in range(2)]
        self.sack = dice.random() < 0.5

    def frames(self) -> Iterator[tuple[bytes, bool]]:
        """Frames, each with whether it is from the server."""
        dice = self.dice
        opening = dice.choice(
            ("", "s", "sS", "sSa", "sSa", "sSa", "sSaDd", "sSaDd", "sSaDdfF", "sSaf", "sSaDdfFa", "y")
        )
        for kind in opening:
            yield self.step(kind)
        for _ in range(dice.randrange(9)):
            yield self.step(dice.choice("aAaADdDdfFrRsSkKxXtToO"))

    def step(self, kind: str) -> tuple[bytes, bool]:
        """Lower case: from the client. a/A, d/D data, f/F end, r/R reset, s open, S answer, x/X anything, ..."""
        dice = self.dice
        server = kind.isupper() or (kind == "y" and dice.random() < 0.5)
        me, other = int(server), 1 - int(server)
        seq, ack = self.next[me], self.next[other]
        flags, payload, options = ACK, b"", b""
        window = dice.choice((0, 1, 100, 1000, 65_535, 65_535))
        match kind.lower():
            case "s" | "y":
                flags = SYN | ACK if kind == "S" else SYN
                if self.scales[me] is not None:
                    options += bytes((1, 3, 3, self.scales[me]))
                if self.sack:
                    options += bytes((4, 2, 1, 1))
                if dice.random() < 0.1:
                    options = bytes((2, 4, 5, 180)) + options + bytes((8, 10)) + bytes(8)
                self.next[me] = (seq + 1) & 0xFFFFFFFF
            case "d":
                flags |= PSH if dice.random() < 0.5 else 0
                payload = bytes(dice.choice((1, 10, 100, 1000)))
                self.next[me] = (seq + len(payload)) & 0xFFFFFFFF
            case "f":
                flags |= FIN
                self.next[me] = (seq + 1) & 0xFFFFFFFF
            case "r":
                flags = RST | (ACK if dice.random() < 0.5 else 0)
                if dice.random() < 0.3:
                    seq = dice.choice((0, (seq + 1) & 0xFFFFFFFF, (seq - 1) & 0xFFFFFFFF))
                if dice.random() < 0.2:
                    ack = 0
            case "k":  # a SACK
                left = (ack + dice.choice((1, 1000))) & 0xFFFFFFFF
                right = (left + dice.choice((0, 1, 1000))) & 0xFFFFFFFF
                options = bytes((1, 1, 5, 10)) + struct.pack("!II", left, right)
            case "x":  # any flags, valid or not
                flags = dice.choice(
                    (0, SYN | FIN, FIN, SYN | RST, PSH, ACK | URG, FIN | ACK | URG, SYN | URG, RST | FIN)
                )
            case "t":  # the same again
                seq = (seq - dice.choice((0, 1, 10, 1000, 70_000))) & 0xFFFFFFFF
                payload = bytes(dice.choice((0, 1, 10)))
            case "o":  # out of place
                seq = (seq + dice.choice((-70_000, -66_000, -1, 1, 99, 1000, 65_535, 65_536, 2**31))) & 0xFFFFFFFF
                ack = (ack + dice.choice((-70_000, -66_001, -66_000, -65_999, -1, 0, 0, 0, 1, 2**31))) & 0xFFFFFFFF
        if dice.random() < 0.05:
            options = bytes(dice.choices((0, 1, 2, 3, 4, 5, 10, 255), k=dice.choice((4, 12, 40))))
        ports = (self.port, 80)
        segment = tcp(
            self.ends[me], self.ends[other], ports[me], ports[other], flags,
            seq=seq, ack=ack if flags & ACK or dice.random() < 0.5 else 0, window=window, options=options,
            payload=payload,
        )  # fmt: skip
        make = ipv4 if self.family == 4 else ipv6
        return ethernet(make(self.ends[me], self.ends[other], 6, segment)), server


def told(table) -> dict[tuple[str, ...], Entry]:
    """The live table in the oracle's words, by the oracle's keys."""
    enums = table.datapath.enums
    names = {value: name.removeprefix("TCP_") for name, value in enums["tcp_state"].items()}
    status = enums["status"]
    found = {}
    for key, conn in table.live():
        ends = [(key["lo_addr"], key["lo_port"]), (key["hi_addr"], key["hi_port"])]
        if conn["status"] & status["STATUS_SWAPPED"]:
            ends.reverse()
        texts = [
            socket.inet_ntop(socket.AF_INET, words.tobytes()[:4])
            if key["family"] == 4
            else socket.inet_ntop(socket.AF_INET6, words.tobytes())
            for words, _ in ends
        ]
        ports = [str(socket.ntohs(int(port))) for _, port in ends]
        found[("tcp", *texts, *ports)] = Entry(
            names[int(conn["tcp_state"])],
            round((int(conn["expires"]) - table.now) / SECOND),
            tuple(int(n) for n in conn["packets"]),
            tuple(int(n) for n in conn["bytes"]),
            bool(conn["status"] & status["STATUS_SEEN_REPLY"]),
            bool(conn["status"] & status["STATUS_ASSURED"]),
        )
    return found


def agree(mine: Entry | None, judged: Entry | None) -> bool:
    if mine is None or judged is None:
        return mine is judged
    # The second SYN's timeout (LISTEN) cannot be set in the kernel; a few seconds pass between sending and asking.
    same_timeout = mine.state == "LISTEN" or abs(mine.timeout - judged.timeout) < 25
    return same_timeout and (mine.state, mine.packets, mine.bytes, mine.seen_reply, mine.assured) == (
        judged.state, judged.packets, judged.bytes, judged.seen_reply, judged.assured
    )  # fmt: skip


@pytest.mark.parametrize("liberal", [False, True], ids=["strict", "liberal"])
@pytest.mark.parametrize("family", [4, 6])
def test_random_tcp_conversations(table, judge, family, liberal):
    table.datapath.apply(
        Tracking(**{name: getattr(OF_THE_ORACLE, name) for name in OF_THE_ORACLE.__struct_fields__}
                 | {"liberal_tcp_tracking": liberal})
    )  # fmt: skip
    judge.clear()
    judge.liberal(liberal)
    dice = random.Random(f"{family} {liberal}")
    story = {}
    for port in range(1000, 1000 + CONVERSATIONS):
        conversation = Conversation(dice, family, port)
        story[str(port)] = list(conversation.frames())
        for frame, from_server in story[str(port)]:
            judge.see(frame, from_server)
            table.see(frame)
    mine = told(table)
    last = tcp_frame(*[x for end in zip(ENDS[family], (999, 80), strict=True) for x in end], SYN)
    judge.see(last)
    key = ("tcp", *ENDS[family], "999", "80")
    judged = wait_for("the last frame", lambda: key in (now := judge.entries()) and now)
    del judged[key]

    wrong = [name for name in mine.keys() | judged.keys() if not agree(mine.get(name), judged.get(name))]
    assert not wrong, explain(wrong, story, mine, judged)
    table.check_conservation()


def explain(wrong, story, mine, judged) -> str:
    lines = [f"{len(wrong)} differ"]
    for name in sorted(wrong, key=lambda n: len(story[n[3] if n[3] != "80" else n[4]]))[:4]:
        lines += [str(name), f"  here:   {mine.get(name)}", f"  kernel: {judged.get(name)}"]
        for frame, from_server in story[name[3] if name[3] != "80" else name[4]]:
            segment = frame[14 + (20 if frame[14] >> 4 == 4 else 40) :]
            seq, ack, words, flags, window = struct.unpack_from("!IIBBH", segment, 4)
            names = "".join(c for c, bit in zip("FSRPAU", (1, 2, 4, 8, 16, 32), strict=True) if flags & bit)
            lines.append(
                f"    {'<' if from_server else '>'} {names:4} seq {seq} ack {ack} win {window}"
                f" len {len(segment) - (words >> 4) * 4} options {segment[20 : (words >> 4) * 4].hex()}"
            )
    return "\n".join(lines)
