"""Item ids as keys of the index."""

from __future__ import annotations

from catalog_builder.catalog.index.keys import make_key
from catalog_builder.errors import GridError
from catalog_builder.tile.grid import TileId


def item_keys(item_id: str, ordinals: frozenset[int]) -> list[int]:
    """Return the keys of an id in some collections; other ids have none."""
    name, _, year = item_id.rpartition("_")
    if len(year) != 4 or not (year.isascii() and year.isdigit()):
        return []
    try:
        tile = TileId.from_name(name)
    except GridError:
        return []
    return [make_key(o, int(year), tile.row, tile.col) for o in sorted(ordinals)]
