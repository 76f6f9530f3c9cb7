"""Answers with the whole of a large table: made while they are sent, in bounded memory, and not too many at once."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from entries import FIRST_ID, loaded, put
from flask import Flask
from flask.testing import FlaskClient

from ctweb.settings import Tracking
from ctweb.tracker import Tracker
from ctweb.web import rest
from ctweb.web.rest_answers import LARGE, LARGE_AT_ONCE, PIECE

CONNECTIONS = "/rest/ip/firewall/connection"
N = 100_000


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """A client of a table of N connections in the kernel."""
    state: Path = tmp_path_factory.mktemp("large") / "state"
    with loaded() as datapath:
        put(datapath, N)
        tracker = Tracker(datapath, Tracking(), state)
        tracker.sweep()
        app = Flask("large")
        app.register_blueprint(rest.blueprint(tracker))
        yield app.test_client()


def test_every_row_arrives_in_pieces_and_memory_stays_bounded(client: FlaskClient):
    with client.get(CONNECTIONS) as first:  # what follows from the columns is worked out once, and kept
        assert next(first.response).startswith(b"[")
    tracemalloc.start()
    try:
        ids = length = 0
        with client.get(CONNECTIONS) as response:
            assert response.status_code == 200
            for piece in response.response:
                assert len(piece) <= PIECE
                ids += piece.count(b'{".id"')
                length += len(piece)
            peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert ids >= N - 1000  # a piece may end in the middle of one
    assert length > 60_000_000
    assert peak < length / 4


def test_it_is_json_with_each_connection_once(client: FlaskClient):
    rows = json.loads(client.get(CONNECTIONS + "?.proplist=src-address,protocol").data)
    assert {int(row[".id"][1:], 16) for row in rows} == set(range(FIRST_ID, FIRST_ID + N))
    assert len(rows) == N


def test_more_large_answers_than_there_is_room_for_are_refused_and_small_ones_are_not(client: FlaskClient):
    open_ones = [client.get(CONNECTIONS) for _ in range(LARGE_AT_ONCE)]
    refused = client.get(CONNECTIONS)
    assert (refused.status_code, refused.json["error"]) == (503, 503)
    assert "ask for fewer rows" in refused.json["detail"]
    assert len(client.get(CONNECTIONS + "?src-address=10.0.0.0/24").json) == 256
    assert int(client.get(CONNECTIONS + "?count-only=").json["ret"]) == N > LARGE
    for one in open_ones:
        one.close()
    with client.get(CONNECTIONS) as again:
        assert again.status_code == 200
