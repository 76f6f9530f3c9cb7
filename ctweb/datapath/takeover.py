"""Going on where an earlier run left off: with its maps, or with what they hold carried into new ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctweb.datapath.connection_table import ConnectionTable
from ctweb.datapath.image import MapShape
from ctweb.datapath.map import Map
from ctweb.datapath.maps import write
from ctweb.datapath.parts import Parts
from ctweb.datapath.pins import CHUNKS, Kept, Layout

if TYPE_CHECKING:
    from ctweb.datapath.build import Datapath

# Maps with state: what they hold is of the connections, and stays. Every other map is filled anew at each start.
STATE = frozenset({
    "places", "addresses", "place_chunks", "address_chunks", "buckets", "spare_places", "shared", "per_cpu", "fresh",
    "translations", "offers", "datagrams", "expectations", "expecting", "watched", "calls",
})  # fmt: skip

# Constants whose numbers may differ: counters are carried over by name, timeouts are written at each start.
_BY_NAME = frozenset({"counter", "timeout"})


def fits(kept: Kept, shapes: Mapping[str, MapShape], enums: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether programs with these maps (`shapes`, with their sizes) and constants can go on with what was kept."""
    ours = {name: shape for name, shape in shapes.items() if name in STATE}
    theirs = {shape.name: shape for shape in kept.layout.shapes}
    missing = ours.keys() - kept.maps.keys()
    later = {"translations", *kept.chunks}  # made when they are wanted
    if not (ours == theirs and missing <= later and kept.layout.enums == enums):
        return False
    return all(len(kept.chunks[name]) not in kept.maps[holder] for holder, name in CHUNKS.items() if holder in ours)


def carry_over(kept: Kept, datapath: Datapath) -> list[str]:
    """Copy connections and totals of another layout or size into the maps of `datapath`; what is lost, in words.

    Before anything of `datapath` is attached. Raises OSError.
    """
    lost = ["expected connections", "translations, until nf_conntrack tells of them again"]
    live = _live(kept)
    if live is None or "per_cpu" not in kept.maps:
        return [*lost, "all connections and totals: their maps are gone, or of another kind"]
    keys, leaves = live
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


def _live(kept: Kept) -> tuple[NDArray[np.void], NDArray[np.void]] | None:
    """Keys and values of all entries of the earlier run that are connections; None: their maps are gone."""
    shapes = {shape.name: shape for shape in kept.layout.shapes}
    there = {name: [kept.maps[name]] if name in kept.maps else kept.chunks.get(name) for name in CHUNKS.values()}
    parts = {name: Parts(shapes[name], maps) for name, maps in there.items() if maps}
    if parts.keys() != there.keys() or not kept.maps.keys() >= ConnectionTable.MAPS:
        return None
    connections = ConnectionTable(kept.maps, parts)
    keys, values = [np.empty(0, np.dtype(connections.Key))], [np.empty(0, np.dtype(connections.Leaf))]
    for some_keys, leaves in connections.read():
        keys.append(some_keys.copy())
        values.append(leaves.copy())
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
