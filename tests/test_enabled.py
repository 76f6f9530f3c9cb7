"""Whether to track: the verdict on every need, and the thread that follows them, on a real firewall."""

from __future__ import annotations

import subprocess

import pytest
from entries import wait_until
from running import new_namespace

from ctweb.datapath import firewall
from ctweb.enabled import Enabled, Needs, Verdict, decide
from ctweb.settings import MINUTE

LATE = 15 * MINUTE


@pytest.mark.parametrize(
    ("enabled", "needs", "verdict"),
    [
        ("yes", Needs(quiet=LATE), Verdict(True, "enabled=yes")),
        ("no", Needs(rules=1, firewall="there is an nftables rule", pages=1), Verdict(False, "enabled=no")),
        ("auto", Needs(quiet=LATE, rules=1), Verdict(True, "auto: the configuration has a rule")),
        ("auto", Needs(quiet=LATE, firewall="there is a rule"), Verdict(True, "auto: there is a rule")),
        ("auto", Needs(quiet=LATE, pages=1), Verdict(True, "auto: the page is open")),
        ("auto", Needs(quiet=LATE - 1), Verdict(True, "auto: it was started in the last 15m")),
        ("auto", Needs(quiet=0, seen=True), Verdict(True, "auto: somebody looked at connections in the last 15m")),
        ("auto", Needs(quiet=LATE, seen=True), Verdict(False, "auto: no rule here, no firewall rule, and nobody has "
                                                              "looked at connections in the last 15m")),
    ],
)  # fmt: skip
def test_the_verdict(enabled, needs, verdict):
    assert decide(enabled, needs, LATE) == verdict


@pytest.fixture
def namespace():
    with new_namespace() as name:
        yield name


def sh(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


class TestFirewall:
    def test_nftables(self, namespace):
        assert firewall.reason() == ""
        sh("nft", "add table inet t")
        sh("nft", "add chain inet t c { type filter hook input priority 0; policy accept; }")
        assert firewall.reason() == ""  # a chain is no rule
        sh("nft", "add rule inet t c accept")
        assert firewall.reason() == "there is an nftables rule"
        sh("nft", "flush ruleset")
        assert firewall.reason() == ""

    def test_many_rules_are_not_all_read(self, namespace):
        rules = "".join(f"add rule bridge t c meta mark {number} accept\n" for number in range(3000))
        script = "add table bridge t\nadd chain bridge t c\n" + rules
        subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)
        assert firewall.reason() == "there is an nftables rule"

    @pytest.mark.parametrize("command", ["iptables", "ip6tables"])
    def test_iptables_over_nftables_and_the_older_one(self, namespace, command):
        for variant, reason in (
            ("nft", "there is an nftables rule"),
            ("legacy", "there is an iptables rule in table mangle"),
        ):
            program = f"{command}-{variant}"
            sh(program, "-t", "mangle", "-L", "-n")
            assert firewall.reason() == "", variant
            sh(program, "-t", "mangle", "-A", "PREROUTING", "-j", "ACCEPT")
            assert firewall.reason() == reason
            sh(program, "-t", "mangle", "-F")
            assert firewall.reason() == "", variant

    def test_a_change_rings(self, namespace):
        bell = firewall.bell()
        assert bell is not None
        with bell:
            firewall.silence(bell)
            sh("nft", "add table inet t")
            assert bell.recv(65536)


class Switch:
    """What the datapath was told, and how it fails."""

    def __init__(self):
        self.told = []
        self.broken = False

    def __call__(self, attached):
        if self.broken:
            raise OSError("out of order")
        self.told.append(attached)


class TestFollowing:
    @pytest.fixture
    def settings(self):
        return {"enabled": "auto", "rules": 0, "timeout": 1}

    @pytest.fixture
    def enabled(self, namespace, settings):
        made = Enabled(lambda: settings["enabled"], lambda: settings["rules"], lambda: settings["timeout"])
        yield made
        made.stop()

    @pytest.fixture
    def switch(self, enabled):
        """The datapath, off at first."""
        told = Switch()
        enabled.start(told)
        wait_until(lambda: enabled.review() or not enabled.verdict.active)
        told.told.clear()
        return told

    def test_a_setting_is_in_force_when_the_review_returns(self, enabled, switch, settings):
        settings["enabled"] = "yes"
        enabled.review()
        assert (switch.told, enabled.verdict) == ([True], Verdict(True, "enabled=yes"))
        settings["enabled"] = "no"
        enabled.review()
        assert (switch.told, enabled.verdict) == ([True, False], Verdict(False, "enabled=no"))

    def test_a_firewall_rule_comes_and_goes(self, enabled, switch):
        sh("nft", "add table inet t")
        sh("nft", "add chain inet t c")
        sh("nft", "add rule inet t c accept")
        assert wait_until(lambda: enabled.verdict == Verdict(True, "auto: there is an nftables rule"))
        sh("nft", "flush ruleset")
        assert wait_until(lambda: not enabled.verdict.active)
        assert switch.told == [True, False]

    def test_a_page_is_a_need_for_as_long_as_it_is_open(self, enabled, switch):
        enabled.page_opened()
        enabled.page_opened()
        assert wait_until(lambda: enabled.verdict == Verdict(True, "auto: the page is open"))
        enabled.page_closed()
        enabled.review()
        assert enabled.verdict.active
        enabled.page_closed()
        assert wait_until(lambda: enabled.review() or not enabled.verdict.active)

    def test_who_looks_at_connections_is_a_need_for_a_while(self, enabled, switch, settings):
        settings["timeout"] = 10 * MINUTE
        enabled.looked()
        assert wait_until(lambda: enabled.verdict.reason == "auto: somebody looked at connections in the last 10m")
        settings["timeout"] = 1
        assert wait_until(lambda: enabled.review() or not enabled.verdict.active)

    def test_a_rule_of_the_configuration(self, enabled, switch, settings):
        settings["rules"] = 2
        enabled.review()
        assert enabled.verdict == Verdict(True, "auto: the configuration has a rule")

    def test_a_datapath_that_fails_is_told_and_tried_again(self, enabled, switch, settings):
        switch.broken = True
        settings["enabled"] = "yes"
        enabled.review()
        assert enabled.verdict == Verdict(False, "cannot attach: out of order")
        switch.broken = False
        enabled.review()
        assert (switch.told, enabled.verdict) == ([True], Verdict(True, "enabled=yes"))
