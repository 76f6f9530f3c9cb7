"""All rules of the configuration, each kind kept in force by who owns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ctweb.datapath.fasttrack import FastTrack
from ctweb.datapath.interfaces import Interface
from ctweb.datapath.marking import Marking
from ctweb.rules import FASTTRACK, Rule


class Rulebook:
    """The rules in force. Methods may be called from any thread."""

    def __init__(self, marking: Marking, fasttrack: FastTrack) -> None:
        self._marking = marking
        self.fasttrack = fasttrack
        self._rules: tuple[Rule, ...] = ()

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self._rules

    def set(self, rules: Sequence[Rule]) -> None:
        """Put these into force instead of those before.

        Raises RuleError, BuildError, AttachError, OSError; then those before stay.
        """
        numbered = {number: rule for number, rule in enumerate(rules, 1) if rule.action == FASTTRACK}
        before = self._marking.rules
        self._marking.set([rule for rule in rules if rule.action != FASTTRACK])
        try:
            self.fasttrack.set(numbered)
        except Exception:
            self._marking.set(before)
            raise
        self._rules = tuple(rules)

    def interfaces_are(self, interfaces: Mapping[int, Interface]) -> None:
        """Take notice of the interfaces that there are."""
        self._marking.interfaces_are(interfaces)
        self.fasttrack.interfaces_are(interfaces)
