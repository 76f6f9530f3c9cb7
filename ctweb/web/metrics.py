"""`/metrics` for Prometheus: the newest snapshot and its counters, in base units.

Nothing is counted for it between two scrapes, and the table is looked through once a snapshot, however many scrape.
Labels have few values: protocols without a name are one, and hosts stand only in the list that `top-hosts` bounds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, request
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ctweb.table.names import END_CAUSES, UNTRACKED_REASONS
from ctweb.table.snapshot import Snapshot
from ctweb.table.totals import busiest, connections
from ctweb.tracker import TableSource
from ctweb.version import VERSION

# Counters that need another name or more words; others that stand alone are called by their own name.
_TOTALS = {
    "created": ("ctweb_connections_created", "Connections that began."),
    "offered-packets": ("ctweb_offered_packets", "IP packets met at the first tracked hook."),
    "offered-bytes": ("ctweb_offered_bytes", "Their layer-3 bytes."),
    "fasttrack-packets": ("ctweb_fasttrack_packets", "Those of them that the XDP program forwarded itself."),
    "fasttrack-bytes": ("ctweb_fasttrack_bytes", "Their layer-3 bytes."),
    "ended-packets": ("ctweb_ended_packets", "Packets of connections that are over."),
    "ended-bytes": ("ctweb_ended_bytes", "Layer-3 bytes of connections that are over."),
    "ended-reply-bytes": ("ctweb_ended_reply_bytes", "Of these, what came back from the destinations."),
    "untracked-bytes": ("ctweb_untracked_bytes", "Layer-3 bytes of packets that belong to no connection."),
    "failed-sweeps": ("ctweb_failed_sweeps", "Sweeps that read no table; the log says why."),
}
# Fragments that came before their first one are taken back from these when it comes. A scraper would take a counter
# that falls for one that began anew: what is exported stays where it was until the counter is there again.
_TAKEN_BACK = ("fragment", "untracked-bytes")
# Those that go up and down, and what makes base units of them.
_GAUGES = {
    "live-packets": (
        "ctweb_live_packets", "Packets of the connections in the table: offered = live + ended + untracked.", 1,
    ),
    "live-bytes": ("ctweb_live_bytes", "Layer-3 bytes of the connections in the table.", 1),
    "unaccounted-packets": (
        "ctweb_unaccounted_packets", "Packets offered that are counted nowhere; negative: twice. Always 0.", 1,
    ),
    "unaccounted-bytes": (
        "ctweb_unaccounted_bytes", "Layer-3 bytes offered that are counted nowhere; negative: twice. Always 0.", 1,
    ),
    "conntrack-lag-ms": (
        "ctweb_conntrack_lag_seconds", "How far the table may be behind what nf_conntrack knows.", 1e-3,
    ),
    "conntrack-waiting": (
        "ctweb_conntrack_waiting", "Entries of nf_conntrack that no connection in the table belongs to.", 1,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class _Table:
    """What a scrape wants to know of one snapshot's connections."""

    snapshot: Snapshot
    connections: Mapping[tuple[str, str, str], int]  # by family, protocol, TCP state
    hosts: Mapping[str, float]  # bytes per second by source address, the busiest first
    counters: Mapping[str, int]


class TableCollector(Collector):
    """Everything that is exported. May be asked by several threads.

    hooks: the hook (xdp, tc) of each tracked interface; "" for one that should have programs and has none.
    counters: the web server's own. top_hosts: how many hosts are to be named now; 0: none.
    """

    def __init__(
        self,
        source: TableSource,
        *,
        hooks: Callable[[], Mapping[str, str]],
        counters: Callable[[], Mapping[str, int]],
        top_hosts: Callable[[], int],
    ) -> None:
        self._source = source
        self._top_hosts = top_hosts
        self._hooks = hooks
        self._counters = counters
        self._lock = threading.Lock()
        self._table = _Table(Snapshot.empty(), {}, {}, {})

    def collect(self) -> Iterator[Metric]:
        table = self._newest()
        snapshot = table.snapshot
        yield _labelled(
            GaugeMetricFamily("ctweb_build_info", "The version that runs.", labels=("version",)),
            {(VERSION,): 1},
        )
        yield _labelled(
            GaugeMetricFamily(
                "ctweb_connections",
                "Connections in the table, by IP version, protocol and TCP state.",
                labels=("family", "protocol", "state"),
            ),
            table.connections,
        )
        yield GaugeMetricFamily(
            "ctweb_connections_limit", "Connections that the table can hold.", value=self._source.max_entries
        )
        yield from _totals(table.counters)
        yield CounterMetricFamily("ctweb_sweeps", "Sweeps: readings of the kernel's table.", value=snapshot.seq)
        yield GaugeMetricFamily(
            "ctweb_sweep_duration_seconds", "Time that the newest sweep took.", value=snapshot.sweep_seconds
        )
        yield GaugeMetricFamily(
            "ctweb_sweep_lag_seconds",
            "Age of the newest reading of the table; about a second when all is well.",
            value=max(0.0, time.time() - snapshot.time) if snapshot.seq else float("inf"),
        )
        own = self._counters()
        yield GaugeMetricFamily("ctweb_websocket_clients", "Pages that watch the table.", value=own["websockets"])
        yield CounterMetricFamily(
            "ctweb_websocket_refusals", "Pages sent away: too many at once.", value=own["websockets-refused"]
        )
        yield CounterMetricFamily(
            "ctweb_sign_ins_failed", "Wrong names and passwords.", value=own["sign-ins-failed"]
        )
        yield CounterMetricFamily(
            "ctweb_sign_ins_slowed", "Sign-ins sent away after too many failures.", value=own["sign-ins-slowed"]
        )
        yield _labelled(
            GaugeMetricFamily(
                "ctweb_programs_attached",
                "Whether an interface that is to be tracked has its programs, and where packets coming in are met.",
                labels=("interface", "hook"),
            ),
            {(interface, hook): int(bool(hook)) for interface, hook in self._hooks().items()},
        )
        if table.hosts:
            yield _labelled(
                GaugeMetricFamily(
                    "ctweb_top_host_bytes_per_second",
                    "Both directions of the connections that a host began, for the busiest hosts.",
                    labels=("host",),
                ),
                {(host,): rate for host, rate in table.hosts.items()},
            )

    def _newest(self) -> _Table:
        with self._lock:
            snapshot = self._source.snapshot
            if snapshot is not self._table.snapshot or not snapshot.seq:
                hosts = busiest(snapshot, self._top_hosts())
                counters = _never_less(snapshot.counters, self._table.counters)
                self._table = _Table(snapshot, connections(snapshot), hosts, counters)
            return self._table


def add_to(app: Flask, collector: TableCollector) -> None:
    """Serve /metrics in the form that the scraper asks for."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)

    @app.get("/metrics")
    def metrics() -> Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), content_type=content_type)


def _never_less(counters: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """The counters, those that can be taken back at least what they were."""
    kept = {name: max(counters[name], before.get(name, 0)) for name in _TAKEN_BACK if name in counters}
    return {**counters, **kept}


def _totals(counters: Mapping[str, int]) -> Iterator[Metric]:
    for counter, count in counters.items():
        if counter in _GAUGES:
            name, says, unit = _GAUGES[counter]
            yield GaugeMetricFamily(name, says, value=count * unit)
        elif counter not in END_CAUSES and counter not in UNTRACKED_REASONS:
            plain = (f"ctweb_{counter.replace('-', '_')}", f"The counter {counter} of /healthz.")
            name, says = _TOTALS.get(counter, plain)
            yield CounterMetricFamily(name, says, value=count)
    yield _labelled(
        CounterMetricFamily("ctweb_connections_ended", "Connections that are over, by cause.", labels=("cause",)),
        {(cause,): counters.get(cause, 0) for cause in END_CAUSES},
    )
    yield _labelled(
        CounterMetricFamily(
            "ctweb_untracked_packets",
            "Packets that belong to no connection, by reason; refused: the table was full.",
            labels=("reason",),
        ),
        {(reason,): counters.get(reason, 0) for reason in UNTRACKED_REASONS},
    )


def _labelled(
    family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[Any, float]
) -> GaugeMetricFamily | CounterMetricFamily:
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
