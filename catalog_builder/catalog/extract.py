"""The part of a catalogue to export, read from its index page by page in bounded memory.

Every export reads through an :class:`Extract`, so that all of them select the same items and describe
them in the same way as the API.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from shapely.geometry.base import BaseGeometry

from catalog_builder import storage
from catalog_builder.catalog.index.keys import make_keys, rows_cols
from catalog_builder.catalog.index.reader import Index
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.catalog.index.search.item_rows import item_texts, tile_rows
from catalog_builder.catalog.index.search.pages import Row
from catalog_builder.catalog.index.search.selection import Selection
from catalog_builder.errors import DatasetError, QueryError
from catalog_builder.item.item import TileRows, item_template
from catalog_builder.item.template import JsonRenderer
from catalog_builder.tile import grid
from catalog_builder.tile.cover import Runs, cover
from catalog_builder.tile.datasets import dataset

PAGE = 2000
"""Items read and rendered at a time: 10 MB of JSON."""


@dataclass(frozen=True)
class Extract:
    """Some years and cells of one collection."""

    index: Index
    record: CollectionRecord
    years: tuple[int, ...]
    """Ascending; all of them are years of the collection."""
    root: str
    """URL the catalogue is served at, without a trailing slash; replaces ``{root}``."""
    runs: Runs | None = None
    """Cells; None is all."""

    @property
    def id(self) -> str:
        """Collection id."""
        return self.record.id

    @cached_property
    def template(self) -> dict[str, Any]:
        """The item template, with complete URLs."""
        return item_template(self.record.dataset, self.record.addresses, self.root, self.record.grid)

    @cached_property
    def _renderer(self) -> JsonRenderer:
        return JsonRenderer(self.template)

    def document(self) -> dict[str, Any]:
        """Return the collection's STAC document as in the API, without structural links."""
        text = self.index.documents[self.id].replace("{root}", self.root)
        found: dict[str, Any] = orjson.loads(text)
        return found

    def selection(self, years: Sequence[int] | None = None) -> Selection:
        """Return the selection for the index: all years, or some."""
        return Selection([self.record.ordinal], self.years if years is None else years, self.runs)

    def count(self, year: int | None = None) -> int:
        """Return the exact number of items, in all years or in one."""
        return self.index.count(self.selection(None if year is None else (year,))).n

    def pages(self, year: int | None = None) -> Iterator[list[Row]]:
        """Yield the index's rows in key order: by year, then south to north, then west to east."""
        selection = self.selection(None if year is None else (year,))
        after = None
        while rows := self.index.page(selection, PAGE, after):
            yield rows
            after = rows[-1][0]

    def texts(self, rows: Sequence[Row]) -> list[str]:
        """Return the items of some rows as JSON texts."""
        return item_texts(rows, self.record, self._renderer)

    def cells(self, year: int) -> npt.NDArray[np.int32]:
        """Return the cells of a year (row * 3600 + column), ascending."""
        parts = [cells_of(rows) for rows in self.pages(year)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    def rows_of(self, cell: npt.NDArray[np.int32], year: int) -> TileRows:
        """Return the tile-years of some cells of a year, in their order."""
        keys = make_keys(self.record.ordinal, year, *grid.rows_cols(cell))
        found = self.index.page(Selection([self.record.ordinal], keys=keys.tolist()), len(keys))
        place = np.empty(len(keys), np.int64)
        place[np.argsort(keys)] = np.arange(len(keys))
        return tile_rows([found[i] for i in place.tolist()])


def cells_of(rows: Sequence[Row]) -> npt.NDArray[np.int32]:
    """Return the cells of the index's rows (row * 3600 + column), in their order."""
    return grid.cells(*rows_cols(np.array([r[0] for r in rows], np.int64)))


def extracts(
    index: Index,
    *,
    url: str | None = None,
    collections: Iterable[str] | None = None,
    years: Iterable[int] | None = None,
    region: BaseGeometry | None = None,
) -> list[Extract]:
    """Return the extracts to export, by collection; collections without items are omitted.

    Parameters
    ----------
    index
        Of the catalogue.
    url
        URL the catalogue is served at; None: the one it was built for.
    collections
        Collection ids or dataset names; None is all.
    years
        None is all.
    region
        Only tiles that share a point with it; None is all.

    Raises
    ------
    DatasetError
        If a collection is not in the catalogue.
    QueryError
        If no item is selected, or no URL is known.
    """
    if url is not None:
        storage.check_base(url, "--url")
    root = (url or index.meta.get("url", "")).rstrip("/")
    if "://" not in root:
        raise QueryError(
            "--url: the catalogue was built without the URL it is served at, which its items contain;"
            " expected one such as https://stac.example.org"
        )
    wanted = sorted(set(years)) if years is not None else None
    runs = cover(region) if region is not None else None
    found = []
    for record in _records(index, collections):
        chosen = tuple(y for y in record.years if wanted is None or y in wanted)
        extract = Extract(index, record, chosen, root, runs)
        if chosen and extract.count():
            found.append(extract)
    if not found:
        have = "; ".join(f"{r.id} has {', '.join(map(str, r.years))}" for r in _records(index, collections))
        raise QueryError(f"no item matches these years and this region: {have}")
    return found


def _records(index: Index, collections: Iterable[str] | None) -> list[CollectionRecord]:
    if collections is None:
        return list(index.collections.values())
    found = []
    for name in collections:
        cid = name if name in index.collections else dataset(name).collection_id
        if cid not in index.collections:
            have = ", ".join(index.collections)
            raise DatasetError(f"no collection {cid} in this catalogue: it has {have}")
        found.append(index.collections[cid])
    return found
