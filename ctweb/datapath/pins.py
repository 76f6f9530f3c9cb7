"""The maps pinned in bpffs, so that the next start finds them however this process ends.

Below the directory of a network namespace, beside the links (attach.py): `maps/NAME` for the maps with state,
`maps/NAME-N` for an array that is in several, `maps/layout` for what they mean, and `calls-N/NAME` for the maps that
the hooks call other programs through, anew with each start N: the kernel empties such a map as soon as neither a pin
nor a descriptor is left.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ctweb.datapath.bpf import obj_get, obj_pin
from ctweb.datapath.image import MapShape
from ctweb.datapath.map import Map

_SO_NETNS_COOKIE = 71

# A map that user space makes: one element, which says how the others are laid out.
_LAYOUT = MapShape(
    name="layout", type=2, key_size=4, leaf_size=1 << 17, entries=1, flags=0,
    key='"unsigned int"', leaf=f'["layout", [["bytes", "unsigned char", [{1 << 17}]]], "struct"]',
)  # fmt: skip
_LENGTH = struct.Struct("=I")

# The maps of which a table that grows has chunks (ebpf/places.h), by the map of maps that each is in. Chunks have pins
# of their own: to open what is in a map of maps takes rights that a service does not have.
CHUNKS = {"address_chunks": "addresses", "place_chunks": "places"}


def chunk_pin(name: str, number: int) -> str:
    """The name under which a chunk is pinned."""
    return f"{name}-{number}"


class Layout(msgspec.Struct, frozen=True):
    """What pinned maps mean. shapes: with the entries they were made for. marks: names by number."""

    namespace: int
    shapes: list[MapShape]
    enums: dict[str, dict[str, int]]
    marks: list[str]


@dataclass
class Kept:
    """Maps with state that an earlier run left, open.

    chunks: of its table, if that grew, by name and in their order.
    """

    layout: Layout
    maps: dict[str, Map]
    chunks: dict[str, list[Map]]

    def take_chunks(self) -> dict[str, list[Map]]:
        """The chunks, which are the caller's from here on."""
        taken, self.chunks = self.chunks, {}
        return taken

    def close(self) -> None:
        """Let go of those that nobody has taken out."""
        for each in (*self.maps.values(), *(each for some in self.chunks.values() for each in some)):
            each.close()
        self.maps.clear()
        self.chunks.clear()


class Pins:
    """The pinned maps below one directory. Every method raises OSError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._maps = directory / "maps"
        self._layout: Map | None = None
        self._held = -1  # descriptor of the directory `maps`: what lies above it is root's alone

    def open(self) -> Kept | None:
        """What an earlier run in this network namespace left; None if that is nothing, or nothing that makes sense."""
        try:
            layout_map = Map(_LAYOUT, obj_get(self._maps / _LAYOUT.name))
        except OSError:
            return None
        try:
            layout = _read(layout_map)
        finally:
            layout_map.close()
        # The directory is named by a number that a later namespace may have; the cookie is never given again.
        if layout is None or layout.namespace != namespace_cookie():
            return None
        kept = Kept(layout, {}, {})
        for shape in layout.shapes:
            with suppress(OSError):  # one that is missing is seen by who wants to take it over
                kept.maps[shape.name] = Map(shape, obj_get(self._maps / shape.name))
            if shape.name in CHUNKS.values() and shape.name not in kept.maps:
                chunks = kept.chunks[shape.name] = list[Map]()
                with suppress(OSError):  # that was the last one
                    while True:
                        chunks.append(Map(shape, obj_get(self._maps / chunk_pin(shape.name, len(chunks)))))
        return kept

    def write(self, maps: Mapping[str, Map], layout: Layout, owner: tuple[int, int] | None = None) -> None:
        """Pin these maps, and nothing else, as the ones with state.

        The layout goes first and comes last: without it, nothing is taken over.
        owner: user and group that this process will be of when there are more to `add`.
        """
        self._make(self._maps)
        self._hold(owner)
        (self._maps / _LAYOUT.name).unlink(missing_ok=True)
        for path in self._maps.iterdir():
            path.unlink()
        for name, each in maps.items():
            obj_pin(each.map_fd, self._maps / name)
        self._close_layout()
        self._layout = Map.create(_LAYOUT)
        self.describe(layout)
        obj_pin(self._layout.map_fd, self._maps / _LAYOUT.name)

    def adopt(self, layout: Layout, owner: tuple[int, int] | None = None) -> None:
        """The maps with state stay pinned as they are; from here on their layout is ours to describe.

        owner: as of `write`.
        """
        self._hold(owner)
        self._close_layout()
        self._layout = Map(_LAYOUT, obj_get(self._maps / _LAYOUT.name))
        self.describe(layout)

    def add(self, name: str, made: Map) -> None:
        """Pin one more map with state, which the layout has already."""
        place = Path(f"/proc/self/fd/{self._held}") / name
        place.unlink(missing_ok=True)
        obj_pin(made.map_fd, place)

    def describe(self, layout: Layout) -> None:
        """Say anew what the pinned maps mean; nothing where none are."""
        if self._layout is None:
            return
        text = msgspec.msgpack.encode(layout)
        leaf = self._layout.Leaf.from_buffer_copy((_LENGTH.pack(len(text)) + text).ljust(_LAYOUT.leaf_size, b"\0"))
        self._layout[0] = leaf

    def write_calls(self, maps: Mapping[str, Map]) -> None:
        """Pin these maps of programs, besides those of earlier starts: what is still attached calls through them."""
        number = 1 + max((_number(path) for path in self._calls()), default=0)
        place = self._directory / f"calls-{number}"
        self._make(place)
        for name, each in maps.items():
            obj_pin(each.map_fd, place / name)

    def forget_older_calls(self) -> None:
        """Nothing is attached any more that came before the newest start."""
        for place in sorted(self._calls(), key=_number)[:-1]:
            _remove(place)

    def remove(self) -> bool:
        """Unpin all maps; whether there were any."""
        self._close_layout()
        self._let_go()
        places = [*self._calls(), *([self._maps] if self._maps.is_dir() else [])]
        for place in places:
            _remove(place)
        with suppress(OSError):  # links are left in it, or it was not there
            self._directory.rmdir()
        return bool(places)

    def _calls(self) -> Iterable[Path]:
        return [path for path in self._directory.glob("calls-*") if path.is_dir()] if self._directory.is_dir() else []

    def _make(self, place: Path) -> None:
        for path in (self._directory.parent, self._directory, place):
            path.mkdir(mode=0o700, exist_ok=True)

    def _hold(self, owner: tuple[int, int] | None) -> None:
        """Keep hold of the directory of maps, and give it to this owner."""
        self._let_go()
        self._held = os.open(self._maps, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if owner is not None:
            os.fchown(self._held, *owner)

    def _let_go(self) -> None:
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def _close_layout(self) -> None:
        if self._layout:
            self._layout.close()
            self._layout = None


def namespace_cookie() -> int:
    """A number for this network namespace that no other one gets before the next boot."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return int(struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0])


def _read(layout_map: Map) -> Layout | None:
    data = bytes(layout_map[0])
    (length,) = _LENGTH.unpack_from(data)
    try:
        return msgspec.msgpack.decode(data[_LENGTH.size : _LENGTH.size + length], type=Layout)
    except (msgspec.MsgspecError, ValueError):
        return None


def _number(path: Path) -> int:
    text = path.name.partition("-")[2]
    return int(text) if text.isdigit() else 0


def _remove(place: Path) -> None:
    for path in place.iterdir():
        path.unlink()
    os.rmdir(place)
