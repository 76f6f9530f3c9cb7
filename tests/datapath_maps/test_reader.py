"""The kernel's table as columns."""

from __future__ import annotations

import ipaddress
import threading

import numpy as np
from entries import FIRST_ID, SECOND, packet, put, reset, take_away

from ctweb.datapath import maps
from ctweb.datapath.maps import Reader, keys


def test_an_empty_table_is_no_rows(datapath):
    assert len(Reader(datapath.connections).read()) == 0


def test_every_property_arrives_in_its_column(datapath):
    put(
        datapath, 1, first=0x010203, expires=77 * SECOND, created=66 * SECOND, status=0x2A, tcp_state=7,
        packets=[1, 2], bytes=[2**63, 2**64 - 9], fasttrack_packets=[5, 6], fasttrack_bytes=[7, 8], ifindex=9,
    )  # fmt: skip
    columns = Reader(datapath.connections).read()
    assert ipaddress.ip_address(columns.lo_addr[0, :4].tobytes()) == ipaddress.ip_address("10.1.2.3")
    assert ipaddress.ip_address(columns.hi_addr[0, :4].tobytes()) == ipaddress.ip_address("192.0.2.1")
    assert not columns.lo_addr[0, 4:].any()
    assert (columns.lo_port[0], columns.hi_port[0]) == (1000, 53)
    assert (columns.protocol[0], columns.family[0], columns.tcp_state[0]) == (17, 4, 7)
    assert (columns.id[0], columns.status[0]) == (FIRST_ID + 0x010203, 0x2A)
    assert (columns.expires[0], columns.created[0]) == (77 * SECOND, 66 * SECOND)
    assert columns.ifindex[0] == 9
    assert columns.packets.tolist() == [[6, 8]]  # the fast ones are among them
    assert columns.bytes.tolist() == [[2**63 + 7, 2**64 - 1]]
    assert columns.fasttrack_packets.tolist() == [[5, 6]]
    assert columns.fasttrack_bytes.tolist() == [[7, 8]]


def test_a_table_of_many_batches_comes_whole_and_each_row_hangs_together(datapath):
    n = 200_000
    hosts = np.arange(n, dtype=np.uint64)
    put(datapath, n, bytes=np.stack([hosts, hosts * 3], axis=1), packets=np.stack([hosts + 1, hosts], axis=1))
    columns = Reader(datapath.connections).read()
    order = np.argsort(columns.id)
    assert (columns.id[order] == FIRST_ID + hosts).all()
    assert (columns.bytes[order] == np.stack([hosts, hosts * 3], axis=1)).all()
    assert (columns.packets[order] == np.stack([hosts + 1, hosts], axis=1)).all()
    assert (columns.lo_addr[order][:, 1:4] == (hosts[:, None] >> np.uint64([16, 8, 0])) & np.uint64(255)).all()


def test_a_table_that_grows_and_shrinks_between_readings(datapath):
    reader = Reader(datapath.connections)
    for n in (10, 100_000, 120_000):
        put(datapath, n)
        assert len(reader.read()) == n
    reset(datapath)
    assert len(reader.read()) == 0


def test_columns_stay_as_they_were_when_the_table_is_read_again(datapath):
    reader = Reader(datapath.connections)
    put(datapath, 1000, bytes=1)
    first = reader.read()
    put(datapath, 1000, bytes=2)
    second = reader.read()
    assert (first.bytes == 1).all()
    assert (second.bytes == 2).all()


def test_a_bucket_larger_than_a_batch_is_read_all_the_same(datapath, monkeypatch):
    monkeypatch.setattr(maps, "BATCH", 1)
    put(datapath, 20_000, first=500)
    columns = Reader(datapath.connections).read()
    assert np.array_equal(np.sort(columns.id), FIRST_ID + np.arange(500, 20_500))


def test_fasttracked_rows_met_late_leave_the_rows_before_them_at_zero(datapath):
    put(datapath, 50_000)
    reader = Reader(datapath.connections)
    last = reader.read().id[-1]
    put(datapath, 1, first=int(last) - FIRST_ID, fasttrack_packets=[3, 4], fasttrack_bytes=[300, 400])
    columns = reader.read()
    assert columns.fasttrack_packets.sum(axis=0).tolist() == [3, 4]
    assert columns.fasttrack_bytes[columns.id == last].tolist() == [[300, 400]]


def test_no_row_is_lost_or_doubled_while_the_table_changes(datapath):
    """Entries that stay are in each reading exactly once, however many others come and go meanwhile."""
    put(datapath, 50_000)
    over = threading.Event()

    def churn():
        while not over.is_set():
            put(datapath, 5_000, first=60_000)
            put(datapath, 5_000, first=65_000)
            take_away(datapath, 10_000, first=60_000)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        reader = Reader(datapath.connections)
        for _ in range(20):
            ids = np.sort(reader.read().id)
            assert (ids[1:] != ids[:-1]).all()
            assert np.isin(FIRST_ID + np.arange(50_000), ids).all()
    finally:
        over.set()
        thread.join()


def test_keys_lead_back_to_the_same_entries(datapath):
    put(datapath, 5000)
    columns = Reader(datapath.connections).read()
    rows = np.array([3, 77, 4999])
    assert datapath.remove(keys(columns, rows, datapath.key_dtype), columns.id[rows]) == 3
    left = Reader(datapath.connections).read()
    assert set(columns.id.tolist()) - set(left.id.tolist()) == set(columns.id[rows].tolist())
    assert len(left) == 4997


def test_a_packet_counted_by_the_program_is_in_the_columns(datapath):
    for _ in range(3):
        packet(datapath, host=9, payload=100)
    columns = Reader(datapath.connections).read()
    assert columns.packets.tolist() == [[3, 0]]
    assert columns.bytes.tolist() == [[3 * 128, 0]]
    assert columns.lo_addr[0, :4].tobytes() == bytes([10, 0, 0, 9])
