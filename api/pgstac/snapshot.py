"""The server's state of a database: collections, and the years of their tiles.

The masks of the tiles come from the loader's records, not from pgSTAC's items: the coverage page,
the browse catalogues, counts of everything and direct access are served from memory, and follow a load.
Items that others write into pgSTAC appear in searches at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from api.catalogue.snapshot import StoredSnapshot
from catalog_builder.catalog.index.blocks import BLOCK_CELLS, N_BLOCK_COLS, N_BLOCK_ROWS, Blocks
from catalog_builder.catalog.index.keys import make_key, split_key
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.errors import CatalogError
from catalog_builder.tile import grid
from catalog_builder.tile.cover import Runs
from catalog_builder.tile.years import year_bits

Json = dict[str, Any]

Group = tuple[int, int, int]
"""Tile-years of one collection, year, UTM zone, hemisphere and mask: one's key, the mask, their number."""
Masks = npt.NDArray[np.uint32]
"""(1800, 3600): years of each tile, bit i is year 2000 + i."""


class LoadedTiles:
    """The tiles of a database: which there are, but no rows of them.

    These are :class:`~catalog_builder.catalog.index.tiles.Tiles`.
    """

    def __init__(
        self,
        collections: Mapping[str, CollectionRecord],
        documents: Mapping[str, str],
        masks: Mapping[str, Masks],
    ) -> None:
        """Take the records of collections of tiles, all documents, and the tiles' years."""
        self.collections = dict(collections)
        self.by_ordinal = {r.ordinal: r for r in self.collections.values()}
        self.documents = dict(documents)
        self._masks = {r.ordinal: masks[r.id] for r in self.collections.values()}
        self._years_counted: dict[tuple[int, int], Blocks] = {}
        self._years_grouped: dict[tuple[int, int], list[Group]] = {}
        self._covered: dict[int, tuple[npt.NDArray[np.int32], Masks]] = {}

    def only(self, ids: Collection[str]) -> Self:
        """Return the same tiles with some of the collections, as if there were no others."""
        found = copy(self)
        found.collections = {cid: r for cid, r in self.collections.items() if cid in ids}
        found.by_ordinal = {r.ordinal: r for r in found.collections.values()}
        found.documents = {cid: doc for cid, doc in self.documents.items() if cid in ids}
        found._masks = {o: self._masks[o] for o in found.by_ordinal}
        return found

    def has_tile(self, key: int) -> int:
        """Return 1 if there is such a tile-year, 0 if not."""
        ordinal, year, row, col = split_key(key)
        masks = self._masks.get(ordinal)
        if masks is None or year not in self.by_ordinal[ordinal].years:
            return 0
        return int(bool(masks[row, col] & year_bits([year])))

    def first_tiles(
        self, ordinal: int, limit: int, *, year: int | None = None, runs: Runs | None = None
    ) -> list[tuple[int, grid.TileId]]:
        """Return (year, tile) of the first tile-years of a collection, of a year and of some cells."""
        flat = self._masks[ordinal].ravel()
        found: list[tuple[int, grid.TileId]] = []
        for of in self.by_ordinal[ordinal].years if year is None else (year,):
            bit = np.uint32(year_bits([of]))
            cells = np.flatnonzero(flat & bit) if runs is None else runs.cells()
            cells = cells[(flat[cells] & bit) != 0][: limit - len(found)]
            found += [(of, grid.TileId.from_cell(cell)) for cell in cells.tolist()]
        return found

    def blocks(self, ordinal: int, year: int) -> Blocks:
        """Return the counts per block of a collection's year; counted once."""
        made = self._years_counted.get((ordinal, year))
        if made is None:
            there = (self._masks[ordinal] & np.uint32(year_bits([year]))) != 0
            counts = there.reshape(N_BLOCK_ROWS, BLOCK_CELLS, N_BLOCK_COLS, BLOCK_CELLS).sum(
                axis=(1, 3), dtype=np.int32
            )
            made = self._years_counted[ordinal, year] = Blocks(counts)
        return made

    def groups(self, ordinal: int, year: int, runs: Runs | None = None) -> list[Group]:
        """Return the tile-years of a collection's year and some cells in groups; whole years are cached."""
        made = self._years_grouped.get((ordinal, year)) if runs is None else None
        if made is None:
            made = self._grouped(ordinal, year, runs)
            if runs is None:
                self._years_grouped[ordinal, year] = made
        return made

    def _grouped(self, ordinal: int, year: int, runs: Runs | None) -> list[Group]:
        cells, masks = self.coverage(ordinal)
        if runs is not None:  # they may cover the globe, and most of it is empty
            first = np.searchsorted(cells, grid.cells(runs.row, runs.first_col))
            length = np.searchsorted(cells, grid.cells(runs.row, runs.last_col), "right") - first
            places = np.arange(length.sum()) + np.repeat(first - (np.cumsum(length) - length), length)
            cells, masks = cells[places], masks[places]
        there = (masks & np.uint32(year_bits([year]))) != 0
        cells, masks = cells[there], masks[there]
        row, col = grid.rows_cols(cells)
        place = (row >= grid.N_ROWS // 2) * 64 + col // grid.COLS_PER_ZONE
        _, one, n = np.unique((place.astype(np.int64) << 32) | masks, return_index=True, return_counts=True)
        parts = (row[one], col[one], masks[one], n)
        chosen = zip(*(part.tolist() for part in parts), strict=True)
        return [(make_key(ordinal, year, r, c), mask, count) for r, c, mask, count in chosen]

    def coverage(self, ordinal: int) -> tuple[npt.NDArray[np.int32], Masks]:
        """Return the distinct cells of a collection (row * 3600 + column, ascending) and their years."""
        made = self._covered.get(ordinal)
        if made is None:
            flat = self._masks[ordinal].ravel()
            (cells,) = np.nonzero(flat)
            made = self._covered[ordinal] = cells.astype(np.int32), flat[cells]
        return made


class PgstacSnapshot(StoredSnapshot):
    """The state of a database after a load."""

    tiles: LoadedTiles

    def __init__(
        self,
        tiles: LoadedTiles,
        generation: str,
        urls: Mapping[str, str],
        whole: frozenset[int],
        fetch: Callable[[str, Sequence[str]], Coroutine[Any, Any, list[Json]]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(tiles, generation)
        self._tiles = tiles
        self.urls = urls
        """The root URL in each collection's items, to be replaced by the service's."""
        self.whole = whole
        """Ordinals of the collections of which every tile-year of the catalogue is loaded."""
        self._fetch = fetch
        self._loop = loop

    def items(self, collection_id: str, ids: Sequence[str], root: str) -> list[Json]:
        """Return tile-years' items, in any order; for threads, not for the event loop."""
        _forbid_waiting_on(self._loop)
        if collection_id not in self.documents:
            return []
        found = asyncio.run_coroutine_threadsafe(self._fetch(collection_id, ids), self._loop).result()
        return [self.at(item, root) for item in found]

    def _part(self, ids: frozenset[str], generation: str) -> Self:
        return type(self)(self._tiles.only(ids), generation, self.urls, self.whole, self._fetch, self._loop)

    def at(self, item: Json, root: str) -> Json:
        """Return a tile-year's item with hrefs below the service's root URL."""
        url = self.urls[item["collection"]]
        for asset in item["assets"].values():
            if asset["href"].startswith(f"{url}/"):
                asset["href"] = root + asset["href"][len(url) :]
        return item


def _forbid_waiting_on(loop: asyncio.AbstractEventLoop) -> None:
    """Refuse to wait in an event loop for that loop."""
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return
    if running is loop:
        raise RuntimeError("an item cannot be waited for on the event loop; call it from a thread")


def records_of(
    stored: Mapping[str, CollectionRecord], years: Mapping[str, Mapping[int, int]], masks: Mapping[str, Masks]
) -> dict[str, CollectionRecord]:
    """Return the records of collections with the years and counts that were really loaded.

    Ordinals are reassigned: catalogues that were built separately may use the same one.
    """
    found = {}
    for ordinal, cid in enumerate(sorted(c for c in stored if years.get(c)), 1):
        counts = dict(sorted(years[cid].items()))
        found[cid] = replace(
            stored[cid],
            ordinal=ordinal,
            years=tuple(counts),
            counts=tuple(counts.values()),
            n_tiles=int(np.count_nonzero(masks[cid])),
        )
    return found


def masks_of(cells: Mapping[int, list[npt.NDArray[np.int32]]]) -> Masks:
    """Return the masks of tiles from their cells by year."""
    masks = np.zeros(grid.N_CELLS, np.uint32)
    for year, parts in cells.items():
        for part in parts:
            if len(part) and not (part[0] >= 0 and part[-1] < len(masks)):
                raise CatalogError("pgSTAC: the list of loaded tiles is damaged; load with --force")
            masks[part] |= np.uint32(year_bits([year]))
    return masks.reshape(grid.N_ROWS, grid.N_COLS)
