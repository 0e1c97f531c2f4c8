"""The arrays of one state of a catalogue: their documents, and where the pixels of a chunk come from."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from api.access import Access
from api.catalogue.snapshot import AnySnapshot
from api.files.direct.converted import find_all_pixels
from api.zarr.paths import Asked
from catalog_builder.catalog.index.keys import make_key
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.errors import UnreadableError
from catalog_builder.pixels.window import Window
from catalog_builder.stores.zones import ZoneGroup
from catalog_builder.zone_arrays import attributes
from catalog_builder.zone_arrays.fill import TileSource
from catalog_builder.zone_arrays.metadata import (
    BULK_CHUNK,
    CHUNK,
    EMBEDDINGS,
    SCALES,
    ArrayLayout,
    arrays_of,
    coordinates,
    group_document,
    root_document,
    window_of,
)
from catalog_builder.zone_arrays.reader import Placed, identity
from catalog_builder.zone_arrays.touching import Touched, tiles_touching

_SOURCES = 4096
"""Tile-years whose sources are kept."""
_MADE = 16
"""Documents and coordinates that are kept, of up to 2 MB."""
_BUILD_DIGITS = 12
_UNMASKED_VERSION = 2
"""From this version of upstream's model on tiles have no water: a landmask would be all land."""


@dataclass(frozen=True, slots=True)
class Member:
    """A document of the hierarchy, or the one chunk of a coordinate."""

    side: int
    """Rows and columns of chunks."""
    group: str | None
    array: str | None
    is_coordinate: bool = False
    """Whether it is the chunk."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of codes or scales that tile-years touch."""

    view: DatasetView
    layout: ArrayLayout
    window: Window
    """In pixels of the group."""
    year: int
    touched: tuple[Touched, ...]
    """Tiles that there are in this year, in upstream's order."""


class DatasetView:
    """The arrays of a collection in a snapshot; safe to share between threads.

    Parameters
    ----------
    snapshot
        The state of the catalogue.
    record
        Of the collection.
    home, access
        Where the catalogue's files are, and how this server gives those in S3.
    """

    def __init__(self, snapshot: AnySnapshot, record: CollectionRecord, home: str, access: Access) -> None:
        self._record = record
        self.build = snapshot.generation[:_BUILD_DIGITS]
        """What this state of the catalogue is called in addresses."""
        self._groups: Mapping[str, ZoneGroup] = {zone.name: zone for zone in record.zones}
        self._layouts = {
            (side, name): arrays_of(group, side)
            for side in (CHUNK, BULK_CHUNK)
            for name, group in self._groups.items()
        }
        self._snapshot, self._home, self._access = snapshot, home, access
        self._sources: _Newest[tuple[str, int], TileSource] = _Newest(_SOURCES)
        self._made: _Newest[Member, bytes] = _Newest(_MADE)

    def find(self, asked: Asked) -> Member | Chunk | str:
        """Return what an address names, or why there is nothing.

        Quick enough for the event loop: tile-years are looked up in the index, and nothing is opened.
        """
        if asked.group is None:
            return Member(asked.side, None, None)
        layouts = self._layouts.get((asked.side, asked.group))
        if layouts is None:
            return f"no zone '{asked.group}' here: expected one of {', '.join(self._groups)}"
        if asked.array is None:
            return Member(asked.side, asked.group, None)
        layout = layouts.get(asked.array)
        if layout is None:
            return f"no array '{asked.array[:40]}' here: expected one of {', '.join(layouts)}"
        if asked.chunk is None:
            return Member(asked.side, asked.group, asked.array)
        counts = layout.counts
        if len(asked.chunk) != len(counts) or any(
            n >= count for n, count in zip(asked.chunk, counts, strict=True)
        ):
            return f"{layout.name} has {' x '.join(map(str, counts))} chunks ({', '.join(layout.axes)})"
        if layout.name not in (EMBEDDINGS, SCALES):
            return Member(asked.side, asked.group, asked.array, is_coordinate=True)
        group, (time, *_) = self._groups[asked.group], asked.chunk
        window, year = window_of(layout, asked.chunk, group), group.years[time]
        has, ordinal = self._snapshot.tiles.has_tile, self._record.ordinal
        touched = tuple(
            one
            for one in tiles_touching(group, window)
            if has(make_key(ordinal, year, one.tile.row, one.tile.col))
        )
        if not touched:
            return "no tile-year touches this chunk: all of it is the array's fill value"
        return Chunk(self, layout, window, year, touched)

    def made(self, member: Member) -> bytes | None:
        """Return a document or coordinate if it is at hand."""
        return self._made.get(member)

    def make(self, member: Member) -> bytes:
        """Return a document or coordinate that there is; tens of milliseconds, so call it from a thread."""
        found = self._make(member)
        self._made.put(member, found)
        return found

    def _make(self, member: Member) -> bytes:
        if member.group is None:
            of_groups = {name: (group, self._attributes(group)) for name, group in self._groups.items()}
            root = attributes.root(self._record.dataset) | {"tessera:build": self.build}
            if not self._is_masked:
                root["geoemb:landmask"] = False
            return orjson.dumps(root_document(of_groups, root, member.side))
        group = self._groups[member.group]
        if member.array is None:
            return orjson.dumps(group_document(group, self._attributes(group), member.side))
        if member.is_coordinate:
            return coordinates(group, member.array)
        return orjson.dumps(self._layouts[member.side, member.group][member.array].document())

    @property
    def _is_masked(self) -> bool:
        """Whether water is told apart, by a landmask or by a store: upstream's first versions do."""
        store = self._record.addresses.store
        if store is not None and store.kind == "zarr":
            return bool(orjson.loads(store.attributes).get("geoemb:landmask", True))
        return bool(self._record.landmask_root) and float(self._record.dataset.version) < _UNMASKED_VERSION

    def _attributes(self, group: ZoneGroup) -> dict[str, Any]:
        store = self._record.addresses.store
        found = attributes.grid(group, ("y", "x"))
        if store is not None and store.kind == "icechunk":  # as geotessera's reader presents one
            found["geotessera:mask_source"] = "source_nodata"
        return found

    def placed(self, chunk: Chunk) -> list[Placed]:
        """Return the sources of a chunk. Call it from a thread.

        Raises
        ------
        CatalogError
            If an item is not as this program writes them.
        UnreadableError
            If a tile-year has no pixels that can be read.
        """
        wanted = [(touched.tile.name, chunk.year) for touched in chunk.touched]
        known = {key: self._sources.get(key) for key in wanted}
        missing = [key for key, source in known.items() if source is None]
        if missing:
            for key, source in self._look_up(missing).items():
                self._sources.put(key, source)
                known[key] = source
        pairs = zip(chunk.touched, (known[key] for key in wanted), strict=True)
        return [Placed(touched, source, identity(source)) for touched, source in pairs if source is not None]

    def _look_up(self, tile_years: Sequence[tuple[str, int]]) -> dict[tuple[str, int], TileSource]:
        ids = {f"{name}_{year}": (name, year) for name, year in tile_years}
        items = find_all_pixels(self._snapshot, self._home, self._access, self._record.dataset, list(ids))
        found = {}
        for item_id, key in ids.items():
            pixels = items.get(item_id)
            if pixels is None:
                raise UnreadableError(f"{item_id}: the catalogue has no pixels of it that can be read")
            found[key] = TileSource(pixels.place, pixels.landmask if self._is_masked else None)
        return found


class _Newest[K, V]:
    """What was used last, for all threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """Return what is kept, if it is."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: K, value: V) -> None:
        """Keep something."""
        with self._lock:
            self._kept[key] = value
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
