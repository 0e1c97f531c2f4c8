"""Free text search: the items and collections that match a word or phrase.

An item's words are those of its collection (id, title, description, keywords) and its own: id, tile,
year, longitude and latitude as they stand in its title. Every term therefore stands for whole
collections, years, rows or columns of the grid, or single tiles, and nothing is scanned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from api.catalogue.snapshot import Snapshot
from api.filter.bounds import NOTHING, Bound
from api.filter.ids import item_keys
from catalog_builder.errors import GridError
from catalog_builder.tile import grid
from catalog_builder.tile.cell_sets import from_mask
from catalog_builder.tile.grid import TileId

_DEGREES = re.compile(r"-?\d{1,3}\.\d5", re.ASCII)


def bounds_of(terms: Sequence[str], snapshot: Snapshot) -> list[Bound]:
    """Return the parts of the index that match one of some terms, each exact; they may overlap."""
    found = []
    for term in terms:
        words = term.strip().lower()
        ordinals = frozenset(
            snapshot.collections[cid].ordinal for cid in collections_that_mention(words, snapshot)
        )
        found.append(Bound(ordinals=ordinals) if ordinals else NOTHING)
        found += own_bounds(words, snapshot)
    return found


def collections_that_mention(words: str, snapshot: Snapshot) -> list[str]:
    """Return the ids of collections that match a word or phrase."""
    return [cid for cid, text in snapshot.documents.items() if mentions(orjson.loads(text), [words])]


def own_bounds(words: str, snapshot: Snapshot) -> list[Bound]:
    """Return the bounds of items that match a term themselves: each bound limits one dimension."""
    found = []
    if re.fullmatch(r"\d{4}", words, re.ASCII) and int(words) in snapshot.years:
        found.append(Bound(years=frozenset([int(words)])))
    ordinals = frozenset(r.ordinal for r in snapshot.collections.values())
    if keys := item_keys(words, ordinals):
        found.append(Bound(keys=frozenset(keys)))
    try:
        tile = TileId.from_name(words)
    except GridError:
        pass
    else:
        found.append(Bound(cells=_cells([tile.row], [tile.col])))
    if _DEGREES.fullmatch(words):
        hundredths = np.array(round(float(words) * 100))
        row, col = map(int, grid.of_centres(hundredths, hundredths))
        everything = (range(grid.N_ROWS), range(grid.N_COLS))
        if 0 <= row < grid.N_ROWS:
            found.append(Bound(cells=_cells([row], everything[1])))
        if 0 <= col < grid.N_COLS:
            found.append(Bound(cells=_cells(everything[0], [col])))
    return found


def _cells(rows: Sequence[int], cols: Sequence[int]) -> Any:
    row_mask, col_mask = np.zeros(grid.N_ROWS, np.bool_), np.zeros(grid.N_COLS, np.bool_)
    row_mask[list(rows)] = True
    col_mask[list(cols)] = True
    return from_mask(row_mask, col_mask)


def mentions(document: dict[str, Any], terms: Sequence[str]) -> bool:
    """Return whether a collection matches one of some terms, as whole words, case-insensitively."""
    parts = [document.get("id", ""), document.get("title", ""), document.get("description", "")]
    parts += document.get("keywords", [])
    text = "\n".join(p.lower() for p in parts if p)
    return any(
        re.search(rf"(?<!\w){re.escape(term.strip().lower())}(?!\w)", text) is not None
        for term in terms
        if term.strip()
    )
