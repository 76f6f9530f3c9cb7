"""Going on where an earlier run left off: with its maps, or with what they hold carried into new ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctweb.datapath.image import MapShape
from ctweb.datapath.map import Map
from ctweb.datapath.maps import entries_of, write
from ctweb.datapath.pins import Kept, Layout
from ctweb.datapath.whole_table import WholeTable

if TYPE_CHECKING:
    from ctweb.datapath.build import Datapath

# Maps with state: what they hold is of the connections, and stays. Every other map is filled anew at each start.
STATE = frozenset({
    "connections", "places", "addresses", "buckets", "spare_places", "shared", "per_cpu", "fresh", "graves",
    "translations", "offers", "datagrams", "expectations", "expecting", "watched", "calls",
})  # fmt: skip

# Of these, the one that is made when it is first wanted.
_LATER = frozenset({"translations"})

# Constants whose numbers may differ: counters are carried over by name, timeouts are written at each start.
_BY_NAME = frozenset({"counter", "timeout"})


def fits(kept: Kept, shapes: Mapping[str, MapShape], enums: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether programs with these maps (`shapes`, with their sizes) and constants can go on with what was kept."""
    ours = {name: shape for name, shape in shapes.items() if name in STATE}
    theirs = {shape.name: shape for shape in kept.layout.shapes}
    missing = ours.keys() - kept.maps.keys()
    return ours == theirs and missing <= _LATER and kept.layout.enums == enums


def carry_over(kept: Kept, datapath: Datapath) -> list[str]:
    """Copy connections and totals of another layout or size into the maps of `datapath`; what is lost, in words.

    Before anything of `datapath` is attached. Raises OSError.
    """
    lost = ["expected connections", "translations, until nf_conntrack tells of them again"]
    connections = _table(kept)
    if connections is None or "per_cpu" not in kept.maps:
        return [*lost, "all connections and totals: their maps are gone"]
    keys, leaves = _live(connections, kept.layout.enums["expires"])
    chosen: NDArray[np.intp] = np.empty(0, np.intp)
    if odd := _odd_constant(kept.layout.enums, datapath.enums):
        lost.append(f"all connections: {odd} means something else now")
    elif keys.dtype != datapath.key_dtype:
        lost.append("all connections: a tuple looks different now")
    else:
        chosen = _choose(leaves, datapath)
        if len(chosen) < len(leaves):
            lost.append(f"{len(leaves) - len(chosen)} of {len(leaves)} connections: the table is smaller now")
        _carry_connections(keys[chosen], leaves[chosen], datapath)
    _carry_totals(kept.maps["per_cpu"], kept.layout, datapath, over=np.delete(leaves, chosen))
    return lost


def _odd_constant(before: Mapping[str, Mapping[str, int]], now: Mapping[str, Mapping[str, int]]) -> str:
    """A constant that both know with different values; "" if there is none."""
    for enum in before.keys() & now.keys() - _BY_NAME:
        for name in before[enum].keys() & now[enum].keys():
            if before[enum][name] != now[enum][name]:
                return name
    return ""


def _table(kept: Kept) -> Map | WholeTable | None:
    """The earlier run's table of connections, whichever kind it had."""
    if kept.maps.keys() >= WholeTable.MAPS:
        return WholeTable(kept.maps)
    return kept.maps.get("connections")


def _live(connections: Map | WholeTable, expires: Mapping[str, int]) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Keys and values of all entries that are connections."""
    table = np.dtype(connections.Key), np.dtype(connections.Leaf)
    keys, values = [np.empty(0, table[0])], [np.empty(0, table[1])]
    for some_keys, leaves in entries_of(connections).read():
        live = (leaves["expires"] != expires["EXPIRES_CLAIMED"]) & (leaves["expires"] != expires["EXPIRES_ENDED"])
        keys.append(some_keys[live])
        values.append(leaves[live])
    return np.concatenate(keys), np.concatenate(values)


def _choose(leaves: NDArray[np.void], datapath: Datapath) -> NDArray[np.intp]:
    """As many as the table holds, in order of age: where there is not room for all, first those that are assured."""
    assured = (leaves["status"] & datapath.enums["status"]["STATUS_ASSURED"]) != 0
    chosen = np.lexsort((leaves["created"], ~assured))[: datapath.options.max_entries]
    in_order: NDArray[np.intp] = chosen[np.argsort(leaves["created"][chosen], kind="stable")]
    return in_order


def _carry_connections(keys: NDArray[np.void], leaves: NDArray[np.void], datapath: Datapath) -> None:
    """Field by field; those that are new are zero."""
    made = np.zeros(len(leaves), datapath.leaf_dtype)
    for name in set(made.dtype.names or ()) & set(leaves.dtype.names or ()):
        made[name] = leaves[name]
    write(datapath.connections, keys, made)
    datapath.remember(keys)


def _carry_totals(totals: Map, layout: Layout, datapath: Datapath, over: NDArray[np.void]) -> None:
    """The counters by name, all on the first CPU; connections that are `over` are among the ended. Ids go on above."""
    cpus = totals[0]
    before, now = layout.enums["counter"], datapath.enums["counter"]
    sums = {
        name: sum(cpu.counter[before[name]] for cpu in cpus) if name in before else 0
        for name in now
        if name not in ("COUNTERS", "COUNT_UNTRACKED")
    }
    for name in {"packets", "fasttrack_packets"} & set(over.dtype.names or ()):
        sums["COUNT_ENDED_PACKETS"] += int(over[name].sum())
    for name in {"bytes", "fasttrack_bytes"} & set(over.dtype.names or ()):
        sums["COUNT_ENDED_BYTES"] += int(over[name].sum())
        sums["COUNT_ENDED_REPLY_BYTES"] += int(over[name][:, 1].sum())
    sums["COUNT_EARLY_DROP"] += len(over)
    to = datapath.counters.Leaf()
    for name, value in sums.items():
        to[0].counter[now[name]] = value & 0xFFFF_FFFF_FFFF_FFFF
    highest = max(cpu.last_id for cpu in cpus)
    for cpu in to:
        cpu.last_id = highest
    datapath.counters[0] = to
