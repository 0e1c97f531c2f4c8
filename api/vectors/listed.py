"""What a snapshot has of cells, as the readers of vectors want it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import batched

import numpy as np

from api.catalogue.snapshot import AnySnapshot
from api.files.direct.converted import find_all_pixels
from api.http.work.waiting import Deadline
from catalog_builder.catalog.index.keys import make_key
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.errors import CatalogError, TooLargeError
from catalog_builder.tile.grid import Cells, TileId
from catalog_builder.vectors.find import Listed, TileYear

_TOGETHER = 200
_FOLDERS = re.compile(r"(?:[a-z0-9]+:/)?(?:/[^/\s'\":,]+)*/(?=[^/\s])")
"""Of a path or URL: where the server's files are is its own affair."""


def list_cells(
    snapshot: AnySnapshot,
    home: str,
    record: CollectionRecord,
    cells: Cells,
    years: Sequence[int],
    most: int,
    deadline: Deadline,
) -> Listed:
    """Return what a collection has of cells. Call it from a thread.

    Parameters
    ----------
    snapshot, home, record
        The catalogue as the reader may see it, where it is, and the collection.
    cells
        Distinct cell numbers.
    years
        Years to look for.
    most
        Tile-years.
    deadline
        Looked at between batches.

    Raises
    ------
    TooLargeError
        If there are more.
    QueryTimeoutError
        If the deadline passes.
    """
    tiles = [TileId.from_cell(cell) for cell in np.unique(cells).tolist()]

    def has(tile: TileId, year: int) -> bool:
        return bool(snapshot.tiles.has_tile(make_key(record.ordinal, year, tile.row, tile.col)))

    wanted = [year for year in years if year in record.years]
    others = [year for year in record.years if year not in wanted]
    there: dict[str, tuple[TileId, int]] = {}
    known: set[int] = set()
    for i, tile in enumerate(tiles):
        if not i % _TOGETHER:
            deadline.check()
        mine = [year for year in wanted if has(tile, year)]
        there |= {f"{tile.name}_{year}": (tile, year) for year in mine}
        if mine or any(has(tile, year) for year in others):
            known.add(tile.cell)
        if len(there) > most:
            raise TooLargeError(f"the request touches more than {most:,} tile-years")
    found: dict[tuple[int, int], TileYear | str] = {}
    for ids in batched(there, _TOGETHER):
        deadline.check()
        places = _places(snapshot, home, record, ids)
        for name in ids:
            tile, year = there[name]
            found[tile.cell, year] = places.get(name, f"{name} is listed, but has no pixels to read in place")
    return Listed(record.dataset, tuple(years), found, frozenset(known))


def _places(
    snapshot: AnySnapshot, home: str, record: CollectionRecord, ids: Sequence[str]
) -> dict[str, TileYear | str]:
    """Return where tile-years are, or why they cannot be read."""
    try:
        found = find_all_pixels(snapshot, home, snapshot.access, record.dataset, ids)
    except CatalogError as error:
        if len(ids) == 1:
            return {ids[0]: reason_for_clients(str(error))}
        return {k: v for each in ids for k, v in _places(snapshot, home, record, [each]).items()}
    places: dict[str, TileYear | str] = {}
    for name, pixels in found.items():
        tile, _, year = name.rpartition("_")
        if pixels is not None:
            places[name] = TileYear(name, record.dataset, TileId.from_name(tile), int(year), pixels.place)
    return places


def reason_for_clients(reason: str) -> str:
    """Return why something cannot be read, without the folders of the server.

    >>> reason_for_clients("/srv/v1/2024/grid_0.05_51.05/grid_0.05_51.05.npy: no such file")
    'grid_0.05_51.05.npy: no such file'
    """
    return _FOLDERS.sub("", reason)
