"""Catalogues for browsing by links: collection, year, 10 degrees, 1 degree, items.

Millions of items cannot be linked from one document; these small catalogues, computed from the
counts per block, lead crawlers and users to each of them.

**A tree of its own.** Its root is ``/browse``, and neither the landing page nor a collection links into it by
``child``: pystac-client lists a collection's items by its ``items`` link and those of the landing page by
search, and then goes on to the ``child`` links. Whoever walked would get every item once more for every level
of the tree. By ``related`` links people find it, and walkers do not.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from stac_fastapi.types.errors import NotFoundError

from api.catalogue.snapshot import Snapshot
from api.http.links import GEOJSON, JSON, Link, link
from catalog_builder.catalog.collection import CATALOG_TITLE
from catalog_builder.catalog.index.blocks import BLOCK_CELLS
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.item.item import STAC_VERSION
from catalog_builder.tile.cover import Runs

_AREA = re.compile(r"(-?\d{1,3}),(-?\d{1,2}),(10|1)", re.ASCII)


def tree_link(href: str) -> Link:
    """Return the link by which a document says where the tree is."""
    return link("related", href, JSON, "The same items as a tree of catalogues, to walk by links")


def root_catalog(snapshot: Snapshot, root: str) -> dict[str, Any]:
    """Return the tree's root: a link for each collection of tiles."""
    links = [
        link("child", f"{root}/collections/{record.id}/browse", JSON, record.dataset.title)
        for record in snapshot.collections.values()
    ]
    return _catalog("browse", CATALOG_TITLE, f"{root}/browse", None, links, root)


def collection_catalog(snapshot: Snapshot, cid: str, root: str) -> dict[str, Any]:
    """Return the catalogue of a collection: a link for each year.

    Raises
    ------
    NotFoundError
        If it is not a collection of tiles.
    """
    record = snapshot.collections.get(cid)
    if record is None:
        raise NotFoundError(f"collection '{cid[:80]}' holds no tiles to browse")
    here = f"{root}/collections/{cid}/browse"
    links = [
        link("child", f"{here}/{year}", JSON, f"{record.dataset.title}, {year}") for year in record.years
    ]
    return _catalog(f"{cid}-browse", record.dataset.title, here, f"{root}/browse", links, root)


def year_catalog(snapshot: Snapshot, cid: str, year: int, root: str) -> dict[str, Any]:
    """Return the catalogue of a year: a link for each 10 x 10 degree area that contains tiles.

    Raises
    ------
    NotFoundError
        If the collection has no such year.
    """
    record = _record(snapshot, cid, year)
    counts = snapshot.tiles.blocks(record.ordinal, year).counts
    squares = counts.reshape(18, 10, 36, 10).sum(axis=(1, 3))
    here = f"{root}/collections/{cid}/browse/{year}"
    links = [
        link("child", f"{here}/{10 * i - 180},{10 * j - 90},10", JSON, _name(10 * i - 180, 10 * j - 90, 10))
        for j, i in np.argwhere(squares).tolist()
    ]
    title = f"{record.dataset.title}, {year}"
    return _catalog(f"{cid}-{year}", title, here, f"{root}/collections/{cid}/browse", links, root)


def area_catalog(snapshot: Snapshot, cid: str, year: int, area: str, root: str) -> dict[str, Any]:
    """Return the catalogue of 10 x 10 degrees (links to those of 1 degree) or of 1 degree (its items).

    Raises
    ------
    NotFoundError
        If it contains no tiles.
    """
    record = _record(snapshot, cid, year)
    match = _AREA.fullmatch(area)
    west, south, size = (int(g) for g in match.groups()) if match else (0, 0, 0)
    on_grid = size and -180 <= west < 180 and -90 <= south < 90 and west % size == south % size == 0
    counts = snapshot.tiles.blocks(record.ordinal, year).counts
    part = counts[south + 90 : south + 90 + size, west + 180 : west + 180 + size] if on_grid else counts[:0]
    if not part.any():
        raise NotFoundError(f"no tiles of {year} in '{area[:40]}'; expected west,south,10 or west,south,1")
    above = f"{root}/collections/{cid}/browse/{year}"
    if size == BLOCK_CELLS:
        links = [
            link("child", f"{above}/{west + i},{south + j},1", JSON, _name(west + i, south + j, 1))
            for j, i in np.argwhere(part).tolist()
        ]
        parent = above
    else:
        links = [
            link("item", f"{root}/collections/{cid}/items/{item}", GEOJSON, item)
            for item in _items(snapshot, record, year, west, south)
        ]
        parent = f"{above}/{west // 10 * 10},{south // 10 * 10},10"
    title = f"{record.dataset.title}, {year}, {_name(west, south, size)}"
    return _catalog(f"{cid}-{year}-{area}", title, f"{above}/{area}", parent, links, root)


def _items(snapshot: Snapshot, record: CollectionRecord, year: int, west: int, south: int) -> list[str]:
    """Return the ids of the items of 1 x 1 degree."""
    row, col = (south + 90) * BLOCK_CELLS, (west + 180) * BLOCK_CELLS
    rows = np.arange(row, row + BLOCK_CELLS, dtype=np.int32)
    runs = Runs(
        rows, np.full(BLOCK_CELLS, col, np.int32), np.full(BLOCK_CELLS, col + BLOCK_CELLS - 1, np.int32)
    )
    found = snapshot.tiles.first_tiles(record.ordinal, BLOCK_CELLS * BLOCK_CELLS, year=year, runs=runs)
    return [f"{tile.name}_{year}" for _, tile in found]


def _record(snapshot: Snapshot, cid: str, year: int) -> CollectionRecord:
    record = snapshot.collections.get(cid)
    if record is None or year not in record.years:
        raise NotFoundError(f"no year {year} in collection '{cid[:80]}'")
    return record


def _name(west: int, south: int, size: int) -> str:
    return f"{west} to {west + size} E, {south} to {south + size} N"


def _catalog(
    cid: str, title: str, here: str, parent: str | None, links: list[Link], root: str
) -> dict[str, Any]:
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": cid,
        "title": title,
        "description": f"{title}: {len(links)} entries.",
        "links": [
            link("self", here),
            link("root", f"{root}/browse"),
            *([link("parent", parent)] if parent is not None else []),
            *links,
        ],
    }
