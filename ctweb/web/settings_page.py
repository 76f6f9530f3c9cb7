"""What the page's settings dialog shows: every setting with its meaning, and the state of what they steer.

`GET /page/settings` answers all of it; `POST /page/settings/check` says of values that are still being typed whether
they would be taken, and changes nothing. They are changed where everybody changes them, in REST.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

from ctweb.settings import SETTINGS, SettingError, Tracking, as_text, parse_changes
from ctweb.table.facts import facts_of
from ctweb.tracker import TableSource
from ctweb.web.rest_answers import error_body

Hooks = Callable[[], Mapping[str, str]]


def add_to(app: Flask, source: TableSource, hooks: Hooks) -> None:
    """Serve both. `hooks`: the hook (xdp, tc) of each interface that is tracked now."""

    @app.get("/page/settings")
    def settings() -> ResponseReturnValue:
        return jsonify(described(source, hooks))

    @app.post("/page/settings/check")
    def check() -> ResponseReturnValue:
        try:
            changes = msgspec.json.decode(request.get_data(), type=dict[str, str])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return error_body(400, f"no settings: {error}")
        return jsonify(complaints(source.tracking, changes))


def version(tracking: Tracking) -> int:
    """A number that differs whenever the settings do: a page that knows another one asks for them anew."""
    return zlib.crc32(msgspec.json.encode(tracking))


def described(source: TableSource, hooks: Hooks) -> dict[str, Any]:
    """All settings in RouterOS's order with their values, and what stands beside them."""
    tracking, snapshot, verdict = source.tracking, source.snapshot, source.verdict
    values = as_text(tracking)
    ipv6 = int(np.count_nonzero(facts_of(snapshot).is_ipv6))
    return {
        "version": version(tracking),
        "settings": [
            {
                "name": setting.name,
                "kind": setting.kind,
                "value": values[setting.name],
                "default": setting.default,
                "choices": setting.choices or (("yes", "no") if setting.kind == "yes-no" else ()),
                "takes": setting.takes,
                "doc": setting.doc,
            }
            for setting in SETTINGS.values()
        ],
        "tracking": {"active": verdict.active, "reason": verdict.reason},
        "max-entries": source.max_entries,
        "total-entries": len(snapshot),
        "total-ip4-entries": len(snapshot) - ipv6,
        "total-ip6-entries": ipv6,
        "interfaces": [{"name": name, "hook": hook} for name, hook in sorted(hooks().items())],
        "fasttrack": None
        if (fast := source.fast_path) is None
        else {
            "packets": fast.packets,
            "offered": fast.offered,
            "interfaces": [{"name": name, "reason": reason} for name, reason in sorted(fast.interfaces)],
            "refusals": fast.refusals,
        },
    }


def complaints(tracking: Tracking, changes: Mapping[str, str]) -> dict[str, str | None]:
    """What is wrong with each of the `changes`, in words; None: it would be taken."""
    found: dict[str, str | None] = {}
    for name, value in changes.items():
        try:
            parse_changes(tracking, {name: value})
        except SettingError as error:
            found[name] = str(error)
        else:
            found[name] = None
    return found
