"""Rules of the configuration on real traffic: connections get their marks, at either hook, also after a reload."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.network import IPV4, IPV6, Ends, Namespace, client_router_server, network, wait_for
from lab.tracked import CONFIG, Tracked, refused
from lab.traffic import ping, udp

MANY = "".join(
    f'[[rule]]\nsrc-address = "10.200.0.{number}"\naction = "mark-connection"\nnew-connection-mark = "never"\n'
    for number in range(70)
)
RULES = """
[[rule]]
protocol = "udp"
src-address = "10.9.0.0/16"
in-interface = "lan"
action = "mark-connection"
new-connection-mark = "from lan"

[[rule]]
protocol = "udp"
src-address = "fd09:1::/64"
dst-address = "fd09::/16"
action = "mark-connection"
new-connection-mark = "six"

[[rule]]
protocol = "icmp"
in-interface = "late"
action = "mark-connection"
new-connection-mark = "late"

[[rule]]
protocol = "icmp"
action = "mark-connection"
new-connection-mark = "pings"
"""


@pytest.fixture
def machines() -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    with network() as net:
        client, router, server = client_router_server(net)
        yield client, router, server


def mark_of_udp(ctweb: Tracked, ends: Ends, source: Namespace, destination: Namespace) -> str | None:
    """The mark of a new connection between client and server."""
    if source.role == "server":
        ends = replace(ends, client=ends.server, server=ends.client)
    sport, _ = udp(ends, source, destination, [10], [10])
    return ctweb.row(protocol="udp", src_port=str(sport)).get("connection-mark")


def test_rules_mark_connections(machines, hook: str, tmp_path: Path):
    client, router, server = machines
    ctweb = Tracked(router, tmp_path, "--hook", hook, config=CONFIG + MANY + RULES)
    assert mark_of_udp(ctweb, IPV4, client, server) == "from lan"
    assert mark_of_udp(ctweb, IPV4, server, client) is None  # came in through wan
    assert mark_of_udp(ctweb, IPV6, client, server) == "six"
    assert mark_of_udp(ctweb, IPV6, server, client) is None
    ping(client, IPV4.server, 1)
    ping(client, IPV6.server, 1)
    row = ctweb.row(protocol="icmp", connection_mark="pings")
    assert row["dst-address"] == IPV4.server
    assert "connection-mark" not in ctweb.row(protocol="icmpv6", dst_address=IPV6.server)
    # An interface that comes later.
    router.ip("link set lan down", "link set lan name late", "link set late up")
    wait_for("noticed", lambda: "interface late is there" in ctweb.log.read_text())
    ping(client, IPV4.router, 1)
    assert ctweb.row(protocol="icmp", dst_address=IPV4.router)["connection-mark"] == "late"
    assert mark_of_udp(ctweb, IPV4, client, server) is None
    # Everywhere that the table is shown.
    assert ctweb.rows(where='mark:"from lan"')
    printed = router.run(*ctweb.cli("print", "mark:pings"))
    assert "CONNECTION-MARK" in printed
    assert "pings" in printed
    assert ctweb.end() == 0


def test_a_bad_rule_is_refused_at_the_start(machines, tmp_path: Path):
    _, router, _ = machines
    (tmp_path / "bad.toml").write_text(MANY + '[[rule]]\nprotocol = "udp"\ndst-port = "0-65536"\n')
    status, said = refused(router, tmp_path, "--config", tmp_path / "bad.toml")
    assert status == 2
    assert said.splitlines()[-1].endswith("bad.toml: rule 71: dst-port: takes a port, a range, or several such as "
                                          "\"80,443,8000-8100\", not '0-65536'")  # fmt: skip


def test_a_reload_changes_rules_and_settings_and_a_bad_file_nothing(machines, hook: str, tmp_path: Path):
    client, router, server = machines
    ctweb = Tracked(router, tmp_path, "--hook", hook)
    file = tmp_path / "ctweb.toml"
    assert mark_of_udp(ctweb, IPV4, client, server) is None

    def reload(text: str, said: str) -> None:
        file.write_text(text)
        before = ctweb.log.stat().st_size
        ctweb.process.send_signal(signal.SIGHUP)
        wait_for(said, lambda: said in ctweb.log.read_bytes()[before:].decode())

    mark = 'action = "mark-connection"\nnew-connection-mark'
    reload(CONFIG.replace('udp-timeout = "10m"', 'udp-timeout = "9m"') + f'[[rule]]\n{mark} = "one"\n',
           "reloaded: rules, 1 instead of 0; tracking: udp-timeout=9m instead of 10m")  # fmt: skip
    assert mark_of_udp(ctweb, IPV4, client, server) == "one"
    assert ctweb.get("/rest/ip/firewall/connection/tracking")["udp-timeout"] == "9m"
    reload(CONFIG + f'[[rule]]\n{mark} = "two"\n[[rule]]\nprotocol = "x"\n', "not reloaded: ")
    assert "rule 2: protocol: takes" in ctweb.log.read_text()
    assert mark_of_udp(ctweb, IPV4, client, server) == "one"
    assert ctweb.get("/rest/ip/firewall/connection/tracking")["udp-timeout"] == "9m"
    # Set while it ran: stands above the file.
    file.write_text(CONFIG)
    router.run(*ctweb.cli("settings", "set", "icmp-timeout=7m"))
    reload('max-entries = 5000\nhook = "tc"\n' + CONFIG.replace('icmp-timeout = "10m"', 'icmp-timeout = "8m"'),
           "icmp-timeout stays 7m, set while it ran; a restart is needed for max-entries")  # fmt: skip
    assert ctweb.get("/rest/ip/firewall/connection/tracking")["icmp-timeout"] == "7m"
    assert mark_of_udp(ctweb, IPV4, client, server) is None
    assert ctweb.rows(connection_mark="one")  # keep the mark they got
    reload('max-entries = 5000\nhook = "tc"\n' + CONFIG.replace('icmp-timeout = "10m"', 'icmp-timeout = "8m"'),
           "reloaded: a restart is needed for max-entries")  # fmt: skip
    assert ctweb.end() == 0
