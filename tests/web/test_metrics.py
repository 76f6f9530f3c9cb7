"""/metrics: what Prometheus gets, held against the table, promtool's rules and the dashboard."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from running import Ctweb, until

from ctweb.table.snapshot import Snapshot
from ctweb.web.metrics import TableCollector

PROMTOOL = Path(sys.executable).with_name("promtool")
DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


def scrape(ctweb: Ctweb) -> Samples:
    """Every sample by name and labels."""
    status, headers, body = ctweb.ask("GET", "/metrics")
    assert status == 200, body
    assert headers["Content-Type"].startswith("text/plain")
    found: Samples = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), sample
            found[sample.name][labels] = sample.value
    return found


@pytest.fixture
def established(ctweb: Ctweb) -> Iterator[int]:
    """The client's port of an established TCP connection that the table shows."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        port = client.getsockname()[1]
        until(lambda: ctweb.get(f"/rest/ip/firewall/connection?src-port={port}&tcp-state=established")[1])
        yield port


def test_promtool_finds_nothing_to_mend(ctweb: Ctweb):
    body = ctweb.ask("GET", "/metrics")[2]
    checked = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=body, capture_output=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_openmetrics_for_who_asks_for_it(ctweb: Ctweb):
    status, headers, body = ctweb.ask("GET", "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_it_counts_connections_by_protocol_and_state(ctweb: Ctweb, established):
    tcp = (("family", "ip"), ("protocol", "tcp"), ("state", "established"))
    until(lambda: scrape(ctweb)["ctweb_connections"][tcp] >= 1)
    found = scrape(ctweb)
    assert found["ctweb_connections_created_total"][()] >= 1
    limit = ctweb.get("/rest/ip/firewall/connection/tracking")[1]["max-entries"]
    assert found["ctweb_connections_limit"] == {(): float(limit)}
    assert found["ctweb_programs_attached"] == {(("hook", "tc"), ("interface", "lo")): 1}
    assert found["ctweb_sweep_lag_seconds"][()] >= 0


def test_no_packet_is_missing_from_the_counts(ctweb: Ctweb):
    """Offered = live + ended + untracked, in a snapshot of a quiet second: asking makes packets too."""

    def adds_up() -> bool:
        time.sleep(2.2)
        found = scrape(ctweb)
        rows = ctweb.get("/rest/ip/firewall/connection")[1] + ctweb.get("/rest/ipv6/firewall/connection")[1]
        live = sum(int(row["orig-packets"]) + int(row["repl-packets"]) for row in rows)
        ended = found["ctweb_ended_packets_total"][()]
        untracked = sum(found["ctweb_untracked_packets_total"].values())
        return 0 < found["ctweb_offered_packets_total"][()] == live + ended + untracked

    until(adds_up)


def test_a_counter_that_is_taken_back_is_none_that_falls():
    """A fragment that came before its first one is untracked until that comes; a scraper would see a counter that began
    anew."""

    @dataclass
    class Source:
        snapshot: Snapshot
        max_entries: int = 1

    source = Source(Snapshot.empty())
    collector = TableCollector(
        source, hooks=dict, counters=lambda: Counter(), top_hosts=lambda: 0
    )
    exported = []
    for seq, n in enumerate((0, 7, 5, 6, 9), 1):
        counters = {"fragment": n, "untracked-bytes": 100 * n, "ended-packets": 10 - n}
        source.snapshot = replace(Snapshot.empty(), seq=seq, counters=counters)
        samples = [sample for family in collector.collect() for sample in family.samples]
        found = {(sample.name, sample.labels.get("reason")): sample.value for sample in samples}
        assert found["ctweb_ended_packets_total", None] == 10 - n
        exported.append(
            (found["ctweb_untracked_packets_total", "fragment"], found["ctweb_untracked_bytes_total", None])
        )
    assert exported == [(0, 0), (7, 700), (7, 700), (7, 700), (9, 900)]


def test_every_counter_of_the_kernel_is_exported(ctweb: Ctweb):
    counters = {name.replace("-ms", "-seconds") for name in ctweb.counters()}
    found = scrape(ctweb)
    labels = {value for name in found.values() for each in name for _, value in each}
    totals = {name.removeprefix("ctweb_").removesuffix("_total").replace("_", "-") for name in found}
    totals |= {name.removeprefix("connections-") for name in totals}
    assert counters - labels - totals - {"websockets", "websockets-refused"} == set()


def test_the_dashboard_asks_for_what_is_served(ctweb: Ctweb):
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {
        name
        for panel in panels
        for target in panel.get("targets", [])
        for name in re.findall(r"\bctweb_\w+", target["expr"])
    }
    assert len(asked) > 10
    assert asked - scrape(ctweb).keys() == {"ctweb_top_host_bytes_per_second"}  # opt-in


def test_busiest_hosts_are_named_only_if_the_configuration_says_so(run, tmp_path):
    config = tmp_path / "ctweb.toml"
    config.write_text("[metrics]\ntop-hosts = 1\n")
    ctweb = run("--config", str(config)).ready()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.7", 0))

        def named() -> bool:
            for _ in range(20):  # more than the scrapes themselves, which come from 127.0.0.1
                sender.sendto(b"x" * 50_000, ("127.0.0.1", 9))
            return (("host", "127.0.0.7"),) in scrape(ctweb).get("ctweb_top_host_bytes_per_second", {})

        until(named)
    assert len(scrape(ctweb)["ctweb_top_host_bytes_per_second"]) == 1
