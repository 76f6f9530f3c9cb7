"""The model is judged by nf_conntrack for every shape of frames that the fuzz has, as for TCP conversations."""

from __future__ import annotations

import itertools
import random
import struct
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from datapath.oracle import Oracle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab.network import wait_for

from reliability.frames import HOSTS, SHAPES, Dice, ethernet, ip, mutated, plain
from reliability.judge import (
    Court,
    alone,
    court,
    differences,
    fragments_of,
    of_the_model,
    on_the_wire,
    same_is_promised,
    sitting,
)
from reliability.model import Connection, Model
from reliability.model_packet import SCTP, TCP, UDP, UDPLITE, Packet, Untracked, read
from reliability.strategies import packets

FRAMES = 4000


@pytest.fixture(scope="module")
def judge() -> Iterator[Oracle]:
    with sitting() as made:
        yield made


def frames(dice: Dice, source: Iterator[bytes], share: float = 0.1) -> Iterator[bytes]:
    """Those that a router takes and nf_conntrack decides as the model should, a share mutated behind the IP header."""
    for frame in source:
        header = 14 + (frame[14] & 15) * 4 if frame[14] >> 4 == 4 else 54
        changed = frame[:header] + mutated(dice, frame[header:]) if dice.random() < share and frame[header:] else frame
        sent = on_the_wire(changed)
        if sent and same_is_promised(sent):
            yield sent


def agreed(both: Court, *, least: int = 40, streams: bool = False) -> None:
    """Model and judge know the same connections, and as many packets that are about one, or belong to none.

    `streams`: no packet came about two seconds after its connection's first one.
    """
    judged = both.verdict()
    wrong = differences(of_the_model(both.model), judged, streams=streams or both.is_brief)
    assert not wrong, wrong
    assert alone(both.model.counters) == both.alone()
    assert len(judged) >= least


@pytest.mark.parametrize("shape", ["tcp", "udp", "icmp", "icmpv6", "gre", "others", "errors", "extensions"])
def test_frames_of_a_shape(judge, shape):
    dice = random.Random(f"judged {shape}")
    source = frames(dice, (step.frame for step in SHAPES[shape](dice)))
    with court(judge) as both:
        for frame in itertools.islice(source, FRAMES):
            both.see(frame)
        agreed(both)


def wrapped(dice: Dice, frame: bytes) -> bytes:
    kind, packet = frame[12:14], frame[14:]
    if dice.random() < 0.3:
        packet = struct.pack("!BBHHH", 0x11, 0, 7, len(packet) + 2, 0x0021 if kind == b"\x08\x00" else 0x0057) + packet
        kind = b"\x88\x64"
    tags = b"".join(struct.pack("!HH", dice.choice((0x8100, 0x88A8)), 5) for _ in range(dice.randrange(4)))
    return frame[:12] + tags + kind + packet


def test_tagged_frames(judge):
    """The same ends behind tags, in a PPPoE session or outside are one connection. The judge is given what devices for
    them would hand over; this kernel has none."""
    dice = random.Random("judged tags")
    source = frames(dice, (ethernet(plain(dice)) for _ in itertools.count()))
    with court(judge) as both:
        for frame in itertools.islice(source, FRAMES):
            both.see(frame, by_the_model=wrapped(dice, frame))
        agreed(both)


def test_what_goes_on_for_more_than_two_seconds(judge):
    """Then UDP that was answered is assured; UDP-Lite was before."""
    dice = random.Random("judged time")
    names = [(protocol, family, port) for protocol in (UDP, UDPLITE) for family in (4, 6) for port in range(1, 200)]

    def datagram(protocol: int, family: int, port: int, back: bool) -> bytes:
        ends, ports = (HOSTS[family][0], HOSTS[family][2]), (port, 1000)
        if back:
            ends, ports = ends[::-1], ports[::-1]
        made = on_the_wire(ethernet(ip(*ends, protocol, struct.pack("!HHHH", *ports, 8, 0))))
        assert made
        return made

    with court(judge) as both:
        for _ in range(2):
            for name in names:
                for _ in range(dice.randrange(4)):
                    both.see(datagram(*name, dice.random() < 0.5))
            began = time.monotonic()
            wait_for("two seconds have passed", lambda began=began: time.monotonic() - began > 2.1)
        agreed(both, least=len(names) // 2, streams=True)
        assured = Counter((name[0], known.assured) for name, known in of_the_model(both.model).items())
        assert len(assured) == 4, assured


def test_datagrams_in_fragments(judge):
    """In any order, some pieces twice. nf_conntrack counts what they are together, the model each as it is on the wire;
    of those whose first piece is lost neither knows a connection. No TCP, and no wrong lengths in transport headers:
    how long the datagram is cannot be seen in its first piece."""
    dice = random.Random("judged fragments")
    made = (ethernet(plain(dice)[:1400] + bytes(dice.choice((64, 200)))) for _ in itertools.count())
    source = frames(dice, (frame for frame in made if not needs_all_of_it(frame)), 0)
    with court(judge) as both:
        pieced, together = both.model, Model(both.model.tracking)
        for ident, frame in enumerate(itertools.islice(source, FRAMES // 4), 1):
            first, *pieces = fragments_of(frame, ident, dice.choice((64, 128)))
            complete, before = dice.random() < 0.9, (counted(pieced), counted(together))
            if complete:
                together.see(frame, both.now)
                pieces = dice.sample([first, *pieces], 1 + len(pieces))
                if pieces[0] != first and dice.random() < 0.3:  # the first one twice would be decided twice
                    pieces.insert(1, pieces[0])
            for piece in pieces:
                both.see(piece)
            size = sum(map(len, pieces)) - 14 * len(pieces)
            known = complete and counted(together) == before[1] + Counter(packets=1, bytes=len(frame) - 14)
            assert counted(pieced) == before[0] + (Counter(packets=len(pieces), bytes=size) if known else Counter())
        judged = both.verdict()
        wrong = differences(of_the_model(together), judged, streams=both.is_brief)
        assert not wrong, wrong
        assert len(judged) > 40
        assert pieced.connections.keys() == together.connections.keys()
        for key, connection in pieced.connections.items():
            assert facts(connection) == facts(together.connections[key])


def needs_all_of_it(frame: bytes) -> bool:
    packet = Packet()
    try:
        read(frame, packet)
    except Untracked as why:
        return str(why) == "MALFORMED_TRANSPORT"
    return packet.protocol == TCP


def counted(model: Model) -> Counter[str]:
    """On connections."""
    counters = model.counters
    none, untracked = alone(counters)
    return Counter(
        packets=counters["OFFERED_PACKETS"] - none - untracked - counters["IGNORED_TCP"],
        bytes=counters["OFFERED_BYTES"] - counters["UNTRACKED_BYTES"],
    )


def facts(connection: Connection) -> tuple[object, ...]:
    """What is the same of a connection whether its packets came in pieces or not."""
    return connection.swapped, [n > 0 for n in connection.packets], connection.seen_reply


CHUNKS = {"init": 1, "init-ack": 2, "sack": 3, "heartbeat": 4, "heartbeat-ack": 5, "shutdown": 7, "shutdown-ack": 8,
          "cookie-echo": 10, "cookie-ack": 11, "shutdown-complete": 14, "data": 0}  # fmt: skip


def association(dice: Dice, family: int, port: int) -> Iterator[bytes]:
    """An SCTP association as RFC 9260 has it, to any of its ends."""
    talk = [("data", 0), ("sack", 1), ("data", 1), ("sack", 0), ("heartbeat", 0), ("heartbeat-ack", 1)]
    script = [("init", 0), ("init-ack", 1), ("cookie-echo", 0), ("cookie-ack", 1)]
    script += dice.choices(talk, k=dice.randrange(8))
    script += [("shutdown", 0), ("shutdown-ack", 1), ("shutdown-complete", 0)]
    hosts = (HOSTS[family][0], HOSTS[family][2])
    for kind, me in script[: dice.choice((1, 2, 3, 4, 8, None))]:
        rest = struct.pack("!IIHHI", 111 + 111 * me, 65_535, 1, 1, 1) if kind.startswith("init") else bytes(12)
        tag = 0 if kind == "init" else (222, 111)[me]
        ports = (port, 5000) if not me else (5000, port)
        packet = struct.pack("!HHIIBBH", *ports, tag, 0, CHUNKS[kind], 0, 4 + len(rest)) + rest
        made = on_the_wire(ethernet(ip(hosts[me], hosts[1 - me], SCTP, packet)))
        assert made
        yield made


def test_sctp_associations(judge):
    """Ends, counters and answers are promised; states are nf_conntrack's own."""
    dice = random.Random("judged SCTP")
    with court(judge) as both:
        for family, port in itertools.product((4, 6), range(1, 300)):
            for frame in association(dice, family, port):
                both.see(frame)
        agreed(both, least=2 * 299)


@given(story=st.lists(packets(), min_size=5, max_size=30))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_frames_that_hypothesis_makes(judge, story):
    with court(judge) as both:
        for frame in frames(random.Random(0), map(ethernet, story), 0):
            both.see(frame)
        agreed(both, least=0)
