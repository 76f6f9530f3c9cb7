"""RouterOS's query words, the `.query` of a print: conditions in postfix notation.

    name            has the property           name=value     has it with this value
    -name           does not have it           <name=value    less       >name=value    greater
    #OPERATIONS     on the stack of results

Each condition pushes its result. Operations go from left to right: `!` turns the top over, `&` and `|` take two and
push one, a number before another operation copies the result at that index (0 is the top), a number at the end leaves
only that one; `.` after another operation copies the top, after a number it does nothing. What is on the stack at the
end must all hold. A leading `?` or `?=` is allowed. `>name=` is written for "has it" in RouterOS's own examples.
Source: MikroTik's manual, API, "Queries".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctweb.table.facts import Facts, Mask
from ctweb.table.filter_language import MOST_TERMS, Term, term
from ctweb.table.match import mask
from ctweb.table.properties import PROPERTIES
from ctweb.table.query_error import QueryError, UnknownField, quoted

ABOUT = ".query"
MOST_OPERATIONS = 256

_WORD = re.compile(r"([<>]?)([^=]*)=(.*)", re.DOTALL)
_OPERATION = re.compile(r"([0-9]{1,4})(\.?)|[!&|.]")


@dataclass(frozen=True)
class Has:
    """The property is there."""

    name: str


@dataclass(frozen=True)
class Without:
    """The property is not there."""

    name: str


@dataclass(frozen=True)
class Operation:
    """`sign` is one of ! & | or, with an index into the stack, `copy` or `keep`."""

    sign: str
    index: int = 0


Step = Term | Has | Without | Operation


@dataclass(frozen=True)
class Words:
    """What words mean, step by step; the stack never runs out."""

    steps: tuple[Step, ...]

    def mask(self, facts: Facts) -> Mask:
        """The rows for which they hold. (n,)"""
        stack: list[Mask] = []
        for step in self.steps:
            match step:
                case Has(name):
                    stack.append(_has(facts, name))
                case Without(name):
                    stack.append(~_has(facts, name))
                case Term():
                    stack.append(mask(facts, step))
                case Operation(sign, index):
                    _operate(stack, sign, index)
        found = stack[0]
        for other in stack[1:]:
            found = found & other
        return found


def _has(facts: Facts, name: str) -> Mask:
    present = PROPERTIES[name].present
    return np.ones(len(facts), np.bool_) if present is None else present(facts)


def _operate(stack: list[Mask], sign: str, index: int) -> None:
    """Results are shared by their copies, and never written to."""
    match sign:
        case "copy":
            stack.append(stack[-1 - index])
        case "keep":
            stack[:] = [stack[-1 - index]]
        case "!":
            stack.append(~stack.pop())
        case "&":
            stack.append(stack.pop() & stack.pop())
        case "|":
            stack.append(stack.pop() | stack.pop())


def read(words: Sequence[str]) -> Words | None:
    """The meaning of `words`; None: there are none, and all rows are meant. Raises QueryError."""
    steps: list[Step] = []
    depth = operations = 0
    for word in words:
        bare = word.removeprefix("?").removeprefix("=")
        if not bare.startswith("#"):
            steps.append(_condition(bare))
            depth += 1
            if depth > MOST_TERMS:
                raise QueryError(ABOUT, f"too many query words: at most {MOST_TERMS} conditions")
            continue
        for operation in _operations(bare[1:]):
            operations += 1
            if operations > MOST_OPERATIONS:
                raise QueryError(ABOUT, f"too many operations in query words: at most {MOST_OPERATIONS}")
            depth = _depth_after(operation, depth, word)
            steps.append(operation)
    return Words(tuple(steps)) if steps else None


def _condition(word: str) -> Step:
    found = _WORD.fullmatch(word)
    if found is None:
        name = word.removeprefix("-")
        _check(name)
        return Without(name) if word.startswith("-") else Has(name)
    operator, name, value = found[1] or "=", found[2], found[3]
    _check(name)
    if operator == ">" and not value:
        return Has(name)
    return term(name, operator, [value], about=name)


def _check(name: str) -> None:
    if name not in PROPERTIES:
        raise UnknownField(name, f"there is no property {quoted(name)}")


def _operations(text: str) -> list[Operation]:
    made: list[Operation] = []
    place = 0
    while place < len(text):
        found = _OPERATION.match(text, place)
        if found is None:
            raise QueryError(ABOUT, f".query takes # with any of & | ! . and numbers, not {quoted('#' + text)}")
        place = found.end()
        if found[1]:
            made.append(Operation("keep" if place == len(text) and not found[2] else "copy", int(found[1])))
        else:
            made.append(Operation("copy") if found[0] == "." else Operation(found[0]))
    return made


def _depth_after(operation: Operation, depth: int, word: str) -> int:
    """How many results are on the stack after `operation`, of `depth` before it. Raises QueryError for too few."""
    needed = {"!": 1, "&": 2, "|": 2}.get(operation.sign, operation.index + 1)
    if depth < needed:
        raise QueryError(ABOUT, f"query word {quoted(word)} needs {needed} results before it, and there are {depth}")
    return {"copy": depth + 1, "keep": 1, "!": depth}.get(operation.sign, depth - 1)
