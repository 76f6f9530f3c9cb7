"""The connection table as columns: what the datapath hands to the table.

One array per property, all of the same length and in the same order, never written to once published. About
100 bytes a connection. The fasttrack columns are one row of zeros repeated (stride 0) while nothing is
FastTracked. Times are datapath time (docs/architecture.md): u64 nanoseconds. `packets[:, 0]` is the
original direction.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]

BLOCK = 32_768  # rows handled at a time where a temporary copy should stay in the cache


@dataclass(frozen=True, eq=False)
class Columns:
    """n connections under their normalised tuples, as read from the kernel's map.

    `lo` and `hi` are the two ends in the key's order; the original direction goes lo -> hi unless `status`
    has SWAPPED. Ports are in host order. ICMP: `lo` asks, `lo_port` is the id, `hi_port` is type << 8 |
    code.
    """

    lo_addr: U8  # (n, 16) network order; IPv4 in the first four bytes, the rest zero
    hi_addr: U8  # (n, 16)
    lo_port: U16  # (n,)
    hi_port: U16  # (n,)
    protocol: U8  # (n,) IP protocol number
    family: U8  # (n,) 4 or 6
    variant: U8  # (n,) GRE: enum gre_variant of ebpf/types.h, which says what the ports are; otherwise 0
    id: U64  # (n,) never zero, never used again while the machine is up
    created: U64  # (n,) datapath ns
    expires: U64  # (n,) datapath ns; 0: claimed, about to go
    status: U32  # (n,) STATUS_* of ebpf/types.h
    tcp_state: U8  # (n,) enum tcp_state of ebpf/types.h
    mark: U32  # (n,) connection mark, index into Snapshot.mark_names; 0: none
    type: U16  # (n,) enum conn_type of ebpf/types.h; 0: none
    gre_protocol: U16  # (n,) GRE: ethertype of what it carries; of other protocols it means nothing
    ifindex: U32  # (n,) the interface that the first packet came in through
    packets: U64  # (n, 2) original, reply
    bytes: U64  # (n, 2) layer-3 bytes
    fasttrack_packets: U64  # (n, 2) part of packets
    fasttrack_bytes: U64  # (n, 2) part of bytes

    def __len__(self) -> int:
        return len(self.id)

    @classmethod
    def empty(cls) -> Columns:
        """No rows, every column with its right type and shape."""
        pair = np.empty((0, 2), np.uint64)
        word, half, byte = np.empty(0, np.uint64), np.empty(0, np.uint16), np.empty(0, np.uint8)
        address = np.empty((0, 16), np.uint8)
        return cls(
            lo_addr=address,
            hi_addr=address,
            lo_port=half,
            hi_port=half,
            protocol=byte,
            family=byte,
            variant=byte,
            id=word,
            created=word,
            expires=word,
            status=np.empty(0, np.uint32),
            tcp_state=byte,
            mark=np.empty(0, np.uint32),
            type=half,
            gre_protocol=half,
            ifindex=np.empty(0, np.uint32),
            packets=pair,
            bytes=pair,
            fasttrack_packets=pair,
            fasttrack_bytes=pair,
        )

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Columns:
        """The rows at `index` (integers, a mask or a slice), as new columns."""
        if isinstance(index, np.ndarray) and index.dtype == np.bool_:
            index = np.flatnonzero(index)  # a mask over (n, 16) takes numpy ten times as long as row numbers
        return Columns(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def without(self, rows: NDArray[np.intp]) -> Columns:
        """All but the rows at `rows`, which rise, as new columns."""
        return Columns(**{f.name: all_but(getattr(self, f.name), rows) for f in fields(self)})

    def compact(self, keep: NDArray[np.bool_]) -> Columns:
        """Only the rows of the mask `keep`, moved up in place: these columns are spent, the new ones go on.

        For whoever made the columns, before they are published: a million rows are not held twice.
        """
        if keep.all():
            return self
        columns = [getattr(self, f.name) for f in fields(self)]
        n = 0
        for start in range(0, len(keep), BLOCK):
            rows = np.flatnonzero(keep[start : start + BLOCK]) + start
            for column in columns:
                if column.strides[0]:
                    column[n : n + len(rows)] = column.take(rows, axis=0)
            n += len(rows)
        return self.take(slice(n))

    def freeze(self) -> Columns:
        """Itself, no longer writable by anybody."""
        for f in fields(self):
            getattr(self, f.name).flags.writeable = False
        return self


FEW = 64  # rows for which what lies between them is sooner copied than each row that stays


def all_but(column: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[Any]:
    """A column without the rows at `rows`, which rise."""
    if not column.strides[0]:
        return np.broadcast_to(column[:1], (len(column) - len(rows), *column.shape[1:]))
    if len(rows) <= FEW:
        ends = [*rows.tolist(), len(column)]
        starts = [0, *(row + 1 for row in ends[:-1])]
        return np.concatenate([column[start:end] for start, end in zip(starts, ends, strict=True)])
    kept = np.ones(len(column), np.bool_)
    kept[rows] = False
    return column.take(np.flatnonzero(kept), axis=0)
