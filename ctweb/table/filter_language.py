"""The filter language, the same on the page, the command line and the wire. The grammar:

    filter  = [ either ]
    either  = both { "or" both }
    both    = not { [ "and" ] not }
    not     = ( "!" | "not" ) not | "(" either ")" | term | word
    term    = FIELD operator value { "," value }      src:10.0.0.0/8   state:established,listen   rate>1M
    operator = ":" | "=" | "!=" | "<" | ">" | "<=" | ">="
    value   = characters without space ( ) , "   |  QUOTED
    word    = characters without space ( ) "     |  QUOTED
    QUOTED  = " then anything, with \\" for a quote and \\\\ for a backslash, then "

FIELD is a name of fields.py, which says what its values are. Several values: any of them (with != none of them).
A word is free text: rows that contain it in an address, a port, the protocol or the TCP state as they are shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from ctweb.table.fields import FIELDS, Field, Test
from ctweb.table.properties import PROPERTIES
from ctweb.table.query_error import QueryError, quoted

LONGEST = 4096  # characters
MOST_TERMS = 64  # each costs some milliseconds at a million rows
DEEPEST = 32  # nested parentheses and negations

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"(\.id|[A-Za-z][A-Za-z-]*)(!=|<=|>=|[:=<>])")
_BARE_VALUE = re.compile(r'[^\s(),"]+')
_BARE_WORD = re.compile(r'[^\s()"]+')
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_ESCAPED = re.compile(r"\\(.)")
_ADDRESS_PART = re.compile(r"[0-9A-Fa-f:.\[\]]+")
_NOTHING = re.compile(r'[\s"()]*')
_KEYWORDS = ("or", "and", "not")


@dataclass(frozen=True)
class Word:
    """Free text."""

    text: str


@dataclass(frozen=True)
class Term:
    """`name` is one of FIELDS, `operator` one of its operators; `tests` are the values as read."""

    name: str
    operator: str
    values: tuple[str, ...]
    tests: tuple[Test, ...] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Not:
    node: Node


@dataclass(frozen=True)
class And:
    """Two or more, none of them an And."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Or:
    """Two or more, none of them an Or."""

    nodes: tuple[Node, ...]


Node = Word | Term | Not | And | Or


def term(name: str, operator: str, values: Sequence[str], about: str = "filter", position: int | None = None) -> Term:
    """A term by its parts. Raises QueryError (`about`, `position`) if the field does not take them."""
    known = FIELDS.get(name)
    if known is None:
        close = get_close_matches(name, FIELDS, 3)
        short = ", ".join(field for field in FIELDS if field not in PROPERTIES)
        expected = f"did you mean {' or '.join(close)}?" if close else f"expected one of {short} or a property"
        raise QueryError(about, f"there is no field {quoted(name)}: {expected}", position)
    operator = "=" if operator == ":" else operator
    if operator not in known.operators:
        raise QueryError(
            about, f"{name} cannot be compared with {operator}: expected {' or '.join(known.operators)}", position
        )
    tests = tuple(_test(known, operator, value, about, position) for value in values)
    return Term(name, operator, tuple(values), tests)


def _test(known: Field, operator: str, value: str, about: str, position: int | None) -> Test:
    try:
        test = known.read(value)
    except ValueError:
        raise QueryError(about, f"{known.name} takes {known.takes}, not {quoted(value)}", position) from None
    if operator not in ("=", "!=") and getattr(test, "first", 0) != getattr(test, "last", 0):
        raise QueryError(about, f"{known.name}{operator} takes one value, not the range {quoted(value)}", position)
    return test


def all_of(nodes: Sequence[Node]) -> Node:
    """The conjunction of one or more."""
    flat = [n for node in nodes for n in (node.nodes if isinstance(node, And) else (node,))]
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def any_of(nodes: Sequence[Node]) -> Node:
    """The disjunction of one or more."""
    flat = [n for node in nodes for n in (node.nodes if isinstance(node, Or) else (node,))]
    return flat[0] if len(flat) == 1 else Or(tuple(flat))


def parse(text: str) -> Node | None:
    """The filter that `text` writes; None: everything. Raises QueryError with the place and what was expected."""
    if len(text) > LONGEST:
        raise QueryError("filter", f"a filter has at most {LONGEST} characters", LONGEST)
    parser = _Parser(text)
    if parser.at_end():
        return None
    node = parser.either(0)
    if not parser.at_end():
        raise QueryError("filter", "expected a term, or the end: this ')' closes nothing", parser.position)
    return node


def says_nothing(text: str) -> bool:
    """Whether there are spaces, quotes and parentheses alone, such as a script makes of an empty variable.

    As a filter it is everything: what removes must not take it.
    """
    return _NOTHING.fullmatch(text) is not None


def to_text(node: Node | None) -> str:
    """How a filter is written: `parse` reads the same filter from it."""
    match node:
        case None:
            return ""
        case Word(text):
            plain = (
                _BARE_WORD.fullmatch(text)
                and text.lower() not in _KEYWORDS
                and not text.startswith("!")
                and (not _NAME.match(text) or _is_address_part(text))
            )
            return text if plain else _quote(text)
        case Term(name, operator, values):
            written = (v if _BARE_VALUE.fullmatch(v) else _quote(v) for v in values)
            return f"{name}{':' if operator == '=' else operator}{','.join(written)}"
        case Not(inner):
            return f"!({to_text(inner)})" if isinstance(inner, And | Or) else f"!{to_text(inner)}"
        case And(nodes):
            return " ".join(f"({to_text(n)})" if isinstance(n, Or) else to_text(n) for n in nodes)
        case Or(nodes):
            return " or ".join(to_text(n) for n in nodes)


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _is_address_part(text: str) -> bool:
    """`fe:` and `dead:beef` are pieces of an address, and no field has such a name."""
    found = _NAME.match(text)
    return found is not None and found[1].lower() not in FIELDS and _ADDRESS_PART.fullmatch(text) is not None


class _Parser:
    """Recursive descent, one method a rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.terms = 0

    def at_end(self) -> bool:
        self.position = _SPACE.match(self.text, self.position).end()  # type: ignore[union-attr]
        return self.position == len(self.text)

    def fail(self, message: str) -> QueryError:
        return QueryError("filter", message, self.position)

    def accept(self, sign: str) -> bool:
        if self.at_end() or self.text[self.position] != sign:
            return False
        self.position += 1
        return True

    def keyword(self, *words: str) -> str | None:
        """The next word if it is one of `words`. It stays unread if it is not."""
        found = None if self.at_end() else _BARE_WORD.match(self.text, self.position)
        if found is None or found[0].lower() not in words:
            return None
        self.position = found.end()
        return found[0].lower()

    def either(self, depth: int) -> Node:
        nodes = [self.both(depth)]
        while self.keyword("or"):
            nodes.append(self.both(depth))
        return any_of(nodes)

    def both(self, depth: int) -> Node:
        nodes = [self.negation(depth)]
        while not self.at_end() and self.text[self.position] != ")":
            before = self.position
            if self.keyword("or"):
                self.position = before
                break
            self.keyword("and")
            nodes.append(self.negation(depth))
        return all_of(nodes)

    def negation(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise self.fail(f"nested too deep: at most {DEEPEST} parentheses and negations")
        if self.accept("!") or self.keyword("not"):
            return Not(self.negation(depth + 1))
        if self.accept("("):
            opened = self.position - 1
            node = self.either(depth + 1)
            if not self.accept(")"):
                raise QueryError("filter", "expected ')' for this '('", opened)
            return node
        return self.term_or_word()

    def term_or_word(self) -> Node:
        self.terms += 1
        if self.at_end() or self.text[self.position] == ")":
            raise self.fail("expected a term such as src:10.0.0.0/8, or a word to search for")
        if self.terms > MOST_TERMS:
            raise self.fail(f"too many terms: at most {MOST_TERMS}")
        start = self.position
        if self.text[start] == '"':
            return Word(self.string())
        word = _BARE_WORD.match(self.text, start)
        if word is not None and word[0].lower() in _KEYWORDS:
            raise self.fail(f"expected a term before {word[0]!r}; to search for the word, put it in quotes")
        named = _NAME.match(self.text, start)
        if named is None or (word is not None and _is_address_part(word[0])):
            assert word is not None  # what is neither space, parenthesis nor quote is a word
            self.position = word.end()
            return Word(word[0])
        return self.term(named)

    def term(self, named: re.Match[str]) -> Term:
        name, operator = named[1].lower(), named[2]
        if name not in FIELDS:
            term(name, operator, (), position=named.start())
        self.position = named.end()
        values = []
        tests: tuple[Test, ...] = ()
        while True:
            start = self.position
            values.append(self.value(name))
            tests += term(name, operator, values[-1:], position=start).tests
            if self.text[self.position : self.position + 1] != ",":
                return Term(name, "=" if operator == ":" else operator, tuple(values), tests)
            if operator not in (":", "=", "!="):
                raise self.fail(f"{name}{operator} takes one value")
            self.terms += 1
            if self.terms > MOST_TERMS:
                raise self.fail(f"too many values: at most {MOST_TERMS} in a filter")
            self.position += 1

    def value(self, name: str) -> str:
        if self.text[self.position : self.position + 1] == '"':
            return self.string()
        found = _BARE_VALUE.match(self.text, self.position)
        if found is None:
            raise self.fail(f"{name} takes {FIELDS[name].takes}: expected it here")
        self.position = found.end()
        return found[0]

    def string(self) -> str:
        found = _QUOTED.match(self.text, self.position)
        if found is None:
            raise self.fail("this quote is not closed: expected another '\"'")
        self.position = found.end()
        return _ESCAPED.sub(r"\1", found[1])
