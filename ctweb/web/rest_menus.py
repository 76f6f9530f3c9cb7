"""The menus under /rest, and which commands each of them has: what is routed, refused and documented goes by this."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

ID = re.compile(r"\*[0-9A-Fa-f]{1,16}")


@dataclass(frozen=True)
class Menu:
    """`path` is what follows /rest/. `family` (4, 6): it is the collection of such connections; None: one object."""

    path: str
    about: str
    commands: tuple[str, ...] = ("print",)
    family: int | None = None


CONNECTIONS = tuple(
    Menu(f"{tree}/firewall/connection", f"The connections over IPv{family}", ("print", "remove"), family)
    for tree, family in (("ip", 4), ("ipv6", 6))
)
TRACKING = Menu("ip/firewall/connection/tracking", "The settings of connection tracking", ("print", "set"))
RESOURCE = Menu("system/resource", "This machine")
IDENTITY = Menu("system/identity", "This machine's name")

MENUS = {menu.path: menu for menu in (*CONNECTIONS, TRACKING, RESOURCE, IDENTITY)}


def _tree() -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for menu in MENUS.values():
        place = tree
        for word in menu.path.split("/"):
            place = place.setdefault(word, {})
        place.update({command: {} for command in menu.commands})
    return tree


_TREE = _tree()


def refusal(method: str, path: str) -> str:
    """Why nothing answers a request for `path`, in RouterOS's words."""
    words = [word for word in path.split("/") if word]
    menu = MENUS.get("/".join(words))
    if menu is None and words and ID.fullmatch(words[-1]):
        menu = MENUS.get("/".join(words[:-1]))
        words = words[:-1]
    if menu is not None:
        if method == "DELETE" or (method == "PATCH" and "set" in menu.commands):
            return "missing or invalid resource identifier"
        if method in ("PUT", "PATCH"):
            return _no_such("add" if method == "PUT" else "set")
    return _no_such(_first_unknown(words))


def _first_unknown(words: list[str]) -> str:
    """The word that leads nowhere, or the last one if the path exists but takes no such request."""
    known = _TREE
    for word in words:
        if word not in known:
            return word
        known = known[word]
    return words[-1] if words else ""


def _no_such(word: str) -> str:
    return f"no such command or directory ({shown(word)})"


def shown(text: str) -> str:
    """`text` for a message: what others wrote stays short."""
    return text if len(text) <= 60 else text[:57] + "..."
