"""A connection found under the tuple behind its translation is brought home: no count is lost or doubled."""

from __future__ import annotations

import socket
import struct

import numpy as np
import pytest
from entries import FIRST_ID, loaded, put, reset
from hypothesis import given
from hypothesis import strategies as st

from ctweb.datapath.bpf import TestRunner
from ctweb.datapath.ctnetlink import STATUS_SRC_NAT, Ends, Entry
from ctweb.datapath.maps import Reader, keys
from ctweb.datapath.translations import Translations, item
from ctweb.table.names import Status

CLIENT, ROUTER, SERVER = "10.0.0.1", "10.0.0.2", "192.0.2.1"  # the hosts 1 and 2 of put()


def ends(source: str, sport: int, destination: str, dport: int) -> Ends:
    return Ends(
        socket.inet_aton(source), socket.inet_aton(destination), 17, sport.to_bytes(2, "big"), dport.to_bytes(2, "big")
    )


ORIGINAL, REPLY = ends(CLIENT, 1000, SERVER, 53), ends(SERVER, 53, ROUTER, 1000)
ENTRY = Entry(False, ORIGINAL, REPLY, STATUS_SRC_NAT, None, "")
counts = st.tuples(st.integers(0, 2**40), st.integers(0, 2**40))


@pytest.fixture(scope="module", params=[True, False], ids=["whole", "growing"])
def datapath(request):
    with loaded(max_entries=1000, whole=request.param) as made:
        yield made


def live(datapath):
    columns = Reader(datapath.connections).read()
    return columns.take(columns.expires > 1)


def frame(source: str, sport: int, destination: str, dport: int) -> bytes:
    udp = struct.pack("!HHHH", sport, dport, 8, 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 17, 0, *map(socket.inet_aton, (source, destination)))
    return bytes(12) + b"\x08\x00" + ip + udp


@given(stray=counts, home=counts | st.none(), stray_from_server=st.booleans(), home_from_server=st.booleans())
def test_counts_of_both_are_on_one_row(datapath, stray, home, stray_from_server, home_from_server):
    reset(datapath)
    put(datapath, 1, first=2, packets=np.array([stray]), bytes=np.array([stray]) * 7, status=int(stray_from_server))
    if home is not None:
        put(datapath, 1, first=1, packets=np.array([home]), bytes=np.array([home]) * 7, status=int(home_from_server))
    (found,) = Translations(datapath).learn([item(ENTRY, None, 1)])
    columns = live(datapath)
    assert columns.id.tolist() == [found] == [FIRST_ID + (2 if home is None else 1)]
    assert columns.lo_addr[0, :4].tolist() == [10, 0, 0, 1]

    # nf_conntrack's original direction, unless there was a row that had its own.
    from_server = home_from_server if home is not None else False
    status = int(columns.status[0])
    assert bool(status & Status.SWAPPED) == from_server
    assert status & Status.SRCNAT
    client = stray[stray_from_server] + (home[home_from_server] if home else 0)
    server = stray[not stray_from_server] + (home[not home_from_server] if home else 0)
    expected = [server, client] if from_server else [client, server]
    assert columns.packets[0].tolist() == expected
    assert columns.bytes[0].tolist() == [7 * n for n in expected]
    counters = datapath.read_counters()
    assert counters["COUNT_MERGED"] == (home is not None)
    assert counters["COUNT_ENDED_PACKETS"] == 0


def test_the_next_packet_of_either_side_counts_on_the_one_row(datapath):
    reset(datapath)
    datapath.expect_nat(True)
    put(datapath, 1, first=2)
    Translations(datapath).learn([item(ENTRY, None, 1)])
    ingress = TestRunner(datapath.programs["tc_ingress"])
    ingress.run(frame(CLIENT, 1000, SERVER, 53), repeat=3)
    ingress.run(frame(SERVER, 53, ROUTER, 1000), repeat=2)
    assert live(datapath).packets.tolist() == [[3, 2]]
    assert live(datapath).id.tolist() == [FIRST_ID + 2]


def test_there_is_no_map_of_translations_before_any_are_expected():
    """It takes 16 bytes for each connection that the table holds."""
    with loaded(max_entries=1000) as datapath:
        translations = Translations(datapath)
        assert len(translations.read()) == translations.newest_dump() == 0
        put(datapath, 1, first=1)
        translations.learn([item(ENTRY, None, 1)])
        assert datapath.read_counters()["COUNT_NAT_REFUSED"] == 1
        assert not datapath.has_translations
        datapath.expect_nat(True)
        assert datapath.has_translations
        translations.learn([item(ENTRY, None, 1)])
        assert datapath.read_counters()["COUNT_NAT_REFUSED"] == 1
        assert translations.read().leaves["id"].tolist() == [FIRST_ID + 1]
        assert translations.newest_dump() == 1


def test_a_translation_that_nf_conntrack_has_holds_for_the_next_connection_too(datapath):
    """Its entry may live longer than the table's."""
    reset(datapath)
    datapath.expect_nat(True)
    translations = Translations(datapath)
    translations.learn([item(ENTRY, None, 1)])
    TestRunner(datapath.programs["tc_ingress"]).run(frame(SERVER, 53, ROUTER, 1000))
    columns = live(datapath)
    assert (columns.lo_addr[0, 3], columns.packets.tolist()) == (1, [[1, 0]])


def test_what_nf_conntrack_forgot_goes_with_its_connection(datapath):
    reset(datapath)
    datapath.expect_nat(True)
    put(datapath, 1, first=1)
    translations = Translations(datapath)
    translations.learn([item(ENTRY, None, 1)])
    translations.forget([item(ENTRY, None, 1)])
    ingress = TestRunner(datapath.programs["tc_ingress"])
    ingress.run(frame(SERVER, 53, ROUTER, 1000))
    assert live(datapath).packets.tolist() == [[0, 1]]  # as long as it lives

    columns = live(datapath)
    datapath.remove(_keys(datapath), columns.id)
    ingress.run(frame(SERVER, 53, ROUTER, 1000))
    assert live(datapath).lo_addr[:, 3].tolist() == [2]  # a connection of the router's own now
    translations.tidy(translations.read().keys)
    assert len(translations.read()) == 0


def test_a_translation_of_another_port_owner_is_not_taken_away(datapath):
    """Its DESTROY comes when the port has been given to the next one already."""
    reset(datapath)
    put(datapath, 1, first=1)
    put(datapath, 1, first=3)
    translations = Translations(datapath)
    translations.learn([item(ENTRY, None, 1)])
    next_one = Entry(False, ends("10.0.0.3", 1000, SERVER, 53), REPLY, STATUS_SRC_NAT, None, "")
    assert translations.learn([item(next_one, None, 1)]) == [FIRST_ID + 3]
    translations.forget([item(ENTRY, None, 1)])
    assert translations.read().leaves["id"].tolist() == [FIRST_ID + 3]


def test_an_older_dump_is_forgotten(datapath):
    reset(datapath)
    translations = Translations(datapath)
    translations.learn([item(ENTRY, None, 1)])
    translations.forget_older(1)
    assert len(translations.read()) == 1
    translations.forget_older(2)
    assert len(translations.read()) == 0


def test_a_rules_mark_is_left_alone_unless_another_is_told(datapath):
    """nf_conntrack lists every entry that has no mark with a mark of 0: that is no word about ours."""
    reset(datapath)
    put(datapath, 1, first=1, mark=7)
    translations = Translations(datapath)
    translations.learn([item(ENTRY, None, 1)])
    assert live(datapath).mark.tolist() == [7]
    translations.learn([item(ENTRY, 0, 1)])
    assert live(datapath).mark.tolist() == [7]
    translations.learn([item(ENTRY, 8, 1)])
    assert live(datapath).mark.tolist() == [8]
    translations.learn([item(ENTRY, 0, 1)])
    assert live(datapath).mark.tolist() == [0]


def _keys(datapath):
    columns = live(datapath)
    return keys(columns, np.arange(len(columns)), datapath.key_dtype)


def test_a_translation_that_is_told_again_is_counted_once(datapath):
    """nf_conntrack's entries are asked for again and again, as long as no packet has shown them, and by each dump."""
    reset(datapath)
    put(datapath, 1, first=1)
    translations = Translations(datapath)
    before = datapath.read_counters()["COUNT_NAT_LEARNED"]
    reply = ends(SERVER, 53, ROUTER, 2000)
    entry = Entry(False, ORIGINAL, reply, STATUS_SRC_NAT, None, "")
    for dump in (1, 1, 2):
        assert translations.learn([item(entry, None, dump)]) == [FIRST_ID + 1]
    translations.learn([item(Entry(False, ends(CLIENT, 1001, SERVER, 53), reply, STATUS_SRC_NAT, None, ""), None, 2)])
    assert datapath.read_counters()["COUNT_NAT_LEARNED"] - before == 2
