"""`enabled` on a real run: what hangs on the interfaces, what grows in the table, and the reason that is shown."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import PORT
from simple_websocket import Client

from lab.hooks import hooks
from lab.network import IPV4, Namespace, client_router_server, network, wait_for
from lab.tracked import CONFIG, Tracked
from lab.traffic import ping

# No minutes of grace: whoever looks is forgotten after a second.
IMPATIENT = 'auto-timeout = "1s"\n' + CONFIG


@pytest.fixture
def machines() -> Iterator[tuple[Namespace, Namespace]]:
    """A client, and the router that it pings through."""
    with network() as net:
        client, router, _ = client_router_server(net)
        yield client, router


def tracking(ctweb: Tracked) -> tuple[str, str]:
    answer = ctweb.get("/rest/ip/firewall/connection/tracking")
    return answer["active"], answer["reason"]


def becomes(ctweb: Tracked, active: str, words: str) -> None:
    wait_for(f"active={active}: {words}", lambda: (t := tracking(ctweb))[0] == active and words in t[1])


def test_no_means_nothing_is_attached_and_yes_attaches_again(machines, hook: str, tmp_path: Path):
    client, router = machines
    config = CONFIG.replace("[tracking]", '[tracking]\nenabled = "no"')
    ctweb = Tracked(router, tmp_path, "--hook", hook, config=config)
    assert hooks(router) == {}
    assert tracking(ctweb) == ("false", "enabled=no")
    ping(client, IPV4.server, 3)
    seen = ctweb.get("/healthz")["sweep"]
    wait_for("swept since", lambda: ctweb.get("/healthz")["sweep"] >= seen + 2)
    health = ctweb.get("/healthz")
    assert health["tracking"] == {"active": False, "reason": "enabled=no"}
    assert (health["connections"], health["counters"]["offered-packets"], health["attached"]) == (0, 0, 0)
    router.run(*ctweb.cli("settings", "set", "enabled=yes"))
    everything = hooks(router)
    assert everything.keys() == {"lo", "lan", "wan"}
    assert tracking(ctweb) == ("true", "enabled=yes")
    ping(client, IPV4.server, 3)
    identity = ctweb.row(protocol="icmp", dst_address=IPV4.server)[".id"]
    # Off again: at once, and what is in the table stays until its time is over.
    router.run(*ctweb.cli("settings", "set", "enabled=no"))
    assert hooks(router) == {}
    ping(client, IPV4.router, 3)
    assert [row[".id"] for row in ctweb.rows(protocol="icmp")] == [identity]
    assert "not tracking any more: enabled=no" in ctweb.log.read_text()
    assert ctweb.end() == 0


def test_auto_follows_the_firewall(machines, tmp_path: Path):
    _, router = machines
    ctweb = Tracked(router, tmp_path, config=IMPATIENT)
    becomes(ctweb, "false", "nobody has looked at connections in the last 1s")
    assert hooks(router) == {}
    router.run("nft", "-f", "-", input="table inet t { chain c { accept; }; }")
    becomes(ctweb, "true", "there is an nftables rule")
    assert hooks(router).keys() == {"lo", "lan", "wan"}
    router.run("nft", "flush", "ruleset")
    becomes(ctweb, "false", "no firewall rule")
    assert hooks(router) == {}
    assert "not tracking any more: auto: no rule here" in ctweb.log.read_text()


def test_auto_follows_the_page_and_who_reads_the_table(machines, tmp_path: Path):
    _, router = machines
    ctweb = Tracked(router, tmp_path, config=IMPATIENT)
    becomes(ctweb, "false", "nobody has looked")  # asking this very question is no need
    with router.entered():
        page = Client.connect(f"ws://127.0.0.1:{PORT}/live", headers=ctweb.signed_in())
    becomes(ctweb, "true", "the page is open")
    page.send(json.dumps({"type": "view"}))
    while (message := json.loads(page.receive(timeout=20)))["type"] != "rows":
        pass
    assert message["tracking"] == {"active": True, "reason": "auto: the page is open"}
    page.close()
    becomes(ctweb, "false", "nobody has looked")
    ctweb.rows()
    wait_for("attached", lambda: hooks(router))
    becomes(ctweb, "false", "nobody has looked")


def test_auto_with_a_rule_in_the_configuration(machines, tmp_path: Path):
    _, router = machines
    ctweb = Tracked(router, tmp_path, config=IMPATIENT)
    becomes(ctweb, "false", "no rule here")
    (tmp_path / "ctweb.toml").write_text(IMPATIENT + '[[rule]]\naction = "mark-connection"\nname = "all"\n')
    ctweb.process.send_signal(signal.SIGHUP)
    becomes(ctweb, "true", "auto: the configuration has a rule")
    assert hooks(router)


def test_a_fresh_start_tracks_for_a_while(machines, tmp_path: Path):
    client, router = machines
    ctweb = Tracked(router, tmp_path)
    assert tracking(ctweb) == ("true", "auto: it was started in the last 15m")
    ping(client, IPV4.server, 3)
    assert ctweb.row(protocol="icmp", dst_address=IPV4.server)
    becomes(ctweb, "true", "auto: somebody looked at connections in the last 15m")
