"""Keeps the kernel's rules as the configuration has them, while the interfaces that they name come and go."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ctweb.datapath.build import BuildError
from ctweb.datapath.interfaces import Interface
from ctweb.rules import Rule, RuleError, pack

log = logging.getLogger(__name__)

Put = Callable[[np.ndarray[Any, np.dtype[np.void]]], None]


def indexes_of(name: str, interfaces: Mapping[int, Interface]) -> tuple[int, ...]:
    """The interfaces at which packets that come in through `name` are counted: itself, and all its ports."""
    found = {index for index, interface in interfaces.items() if interface.name == name}
    above: set[int] = set()
    while found - above:
        above |= found
        found |= {index for index, interface in interfaces.items() if interface.master in above}
    return tuple(sorted(found))


class Marking:
    """The rules in force. Methods may be called from any thread.

    put: Datapath.set_rules. layout: of `struct rule`. number: of a mark's name.
    """

    def __init__(self, put: Put, layout: np.dtype[np.void], number: Callable[[str], int]) -> None:
        self._put = put
        self._layout = layout
        self._number = number
        self._lock = threading.Lock()  # held while any of the following changes
        self._rules: tuple[Rule, ...] = ()
        self._interfaces: Mapping[int, Interface] = {}
        self._meaning: dict[str, tuple[int, ...]] = {}  # interfaces by name, as the kernel's list has them

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self._rules

    def set(self, rules: Sequence[Rule]) -> None:
        """Put these rules into force instead of those before, for connections that start from now on.

        Raises RuleError, BuildError or OSError; then those before stay.
        """
        with self._lock:
            self._enforce(tuple(rules), self._interfaces)

    def interfaces_are(self, interfaces: Mapping[int, Interface]) -> None:
        """Take notice of the interfaces that there are. What goes wrong is logged, and tried again the next time."""
        with self._lock:
            self._interfaces = interfaces
            if self._meant(self._rules, interfaces) != self._meaning:
                try:
                    self._enforce(self._rules, interfaces)
                except (RuleError, BuildError, OSError) as error:
                    log.error("the rules do not follow the interfaces: %s", error)

    def _enforce(self, rules: tuple[Rule, ...], interfaces: Mapping[int, Interface]) -> None:
        meaning = self._meant(rules, interfaces)
        if rules or self._rules:
            self._put(pack(rules, self._layout, number=self._number, indexes=meaning.__getitem__))
        for name, indexes in meaning.items():
            if indexes != self._meaning.get(name):
                log.info("rules: interface %s %s", name, "is there" if indexes else "is not there yet")
        self._rules, self._meaning = rules, meaning

    @staticmethod
    def _meant(rules: Sequence[Rule], interfaces: Mapping[int, Interface]) -> dict[str, tuple[int, ...]]:
        names = {rule.in_interface for rule in rules if rule.in_interface is not None}
        return {name: indexes_of(name, interfaces) for name in sorted(names)}
