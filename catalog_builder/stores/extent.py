"""How far the arrays of a UTM zone reach, by the rule of upstream's stores.

geotessera 0.11 (``zarr.py``) makes one grid per zone on its northern CRS: around the corners of all tiles,
snapped outwards to whole pixels, and as many whole shards of 4096 pixels from the upper left corner as that
takes. So an index into an array means the same pixel in each store that is made from the same tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from catalog_builder.stores.zones import ZoneGroup
from catalog_builder.tile.blocks import FALSE_NORTHING
from catalog_builder.tile.grid import (
    COLS_PER_ZONE,
    LAT_EDGES,
    LON_EDGES,
    N_COLS,
    PIXEL,
    FloatArray,
    rows_cols,
)

SHARD = 4096
"""Rows and columns of a shard of upstream's stores, in pixels: arrays are whole shards."""
Cells = npt.NDArray[np.integer]


def view_groups(
    cells: Cells, land: Cells, years: Sequence[int], stored: Sequence[ZoneGroup] = ()
) -> tuple[ZoneGroup, ...]:
    """Return the groups of all zones that have tiles.

    Parameters
    ----------
    cells
        Numbers of the cells of all tiles, (n,).
    land
        Those of the land list, as far as it is known: zones reach around them too.
    years
        The time axis.
    stored
        Groups of the store that tiles are windows of: a zone that it has keeps its grid and its years, unless
        there are tiles or years beyond.
    """
    found = []
    for zone in np.unique(cells % N_COLS // COLS_PER_ZONE + 1).tolist():
        tiles, others = (some[some % N_COLS // COLS_PER_ZONE == zone - 1] for some in (cells, land))
        own = of_store(stored, zone)
        if own is None:
            found.append(zone_group(zone, np.union1d(tiles, others), years))
            continue
        axis = own.years if set(years) <= set(own.years) else tuple(sorted({*own.years, *years}))
        found.append(replace(_holding(own, _extent(zone, tiles)), years=axis, complete=axis))
    return tuple(found)


def zone_group(zone: int, cells: Cells, years: Iterable[int]) -> ZoneGroup:
    """Return the group of a UTM zone that holds some tiles, as upstream's ``zarr-init`` makes it.

    Parameters
    ----------
    zone
        1 to 60.
    cells
        Numbers of the tiles' cells, all of this zone, (n,) with n > 0: those of the land list, or of all
        tiles.
    years
        The time axis.

    Examples
    --------
    >>> from catalog_builder.tile.grid import TileId
    >>> group = zone_group(31, np.array([TileId.from_name("grid_0.15_52.05").cell]), [2024])
    >>> group.west, group.top, group.shape
    (300930, 5776130, (4096, 4096))
    """
    found, axis = _extent(zone, cells), tuple(years)
    return replace(found, rows=_shards(found.rows), cols=_shards(found.cols), years=axis, complete=axis)


def centres(group: ZoneGroup) -> tuple[FloatArray, FloatArray]:
    """Return the centres of a group's columns (ascending) and of its rows (descending) in metres."""
    x = group.west + (np.arange(group.cols, dtype=np.float64) + 0.5) * PIXEL
    y = group.top - (np.arange(group.rows, dtype=np.float64) + 0.5) * PIXEL
    return x, y


def _extent(zone: int, cells: Cells) -> ZoneGroup:
    """Return the smallest group around some tiles, without years."""
    from pyproj import Transformer  # 0.1 s to import: only when it is needed

    row, col = rows_cols(_outermost(cells))
    lon, lat = np.array(LON_EDGES), np.array(LAT_EDGES)
    corners = (
        np.concatenate([lon[col], lon[col + 1]] * 2),
        np.concatenate([lat[row + 1]] * 2 + [lat[row]] * 2),
    )
    epsg = 32600 + zone
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(*corners)
    west, top = math.floor(x.min() / PIXEL), math.ceil(y.max() / PIXEL)
    east, bottom = math.ceil(x.max() / PIXEL), math.floor(y.min() / PIXEL)
    name, ten = f"utm{zone:02d}", round(PIXEL)
    return ZoneGroup(name, epsg, west * ten, top * ten, top - bottom, east - west, (), ())


def _outermost(cells: Cells) -> Cells:
    """Return the cells that an extent follows from: of each row the first, the last and the innermost.

    Eastings grow with the longitude; northings, with the distance from the central meridian, away from the
    equator.
    """
    row, col = rows_cols(np.unique(cells))
    inner = np.abs(2 * (col % COLS_PER_ZONE) + 1 - COLS_PER_ZONE)
    order = np.lexsort((inner, row))
    starts = np.flatnonzero(np.diff(row, prepend=-1))  # rows are ascending, as cells are
    ends = np.append(starts[1:], len(row)) - 1
    sorted_cells = np.unique(cells)
    return np.unique(sorted_cells[np.concatenate([starts, ends, order[starts]])])


def _shards(pixels: int) -> int:
    """Return the pixels of the whole shards that hold some."""
    return math.ceil(pixels / SHARD) * SHARD


def of_store(groups: Sequence[ZoneGroup], zone: int) -> ZoneGroup | None:
    """Return the group of a zone as upstream's reader presents a store; None if it has none.

    The groups of an Icechunk repository, one for each hemisphere on a CRS of its own, are put together on the
    northern CRS: rows whose centres are north of the equator are those of the northern group, the others
    those of the southern one (geotessera 0.11, ``icechunk.py``).
    """
    found = [group for group in groups if group.zone == zone]
    if not found:
        return None
    if found[0].name.startswith("utm"):
        return found[0]
    parts = [_northern(group) for group in found]
    west, top = min(p.west for p in parts), max(p.top for p in parts)
    rows = max(_index(top - p.top) + p.rows for p in parts)
    cols = max(_index(p.west - west) + p.cols for p in parts)
    years = tuple(sorted({year for group in found for year in group.years}))
    return ZoneGroup(f"utm{zone:02d}", 32600 + zone, west, top, rows, cols, years, years)


def _northern(group: ZoneGroup) -> ZoneGroup:
    """Return a hemisphere's group on the northern CRS, without rows of the other hemisphere."""
    if group.epsg < 32700:
        return replace(group, rows=min(group.rows, _index(group.top)))
    top = group.top - round(FALSE_NORTHING)
    skipped = _index(max(top, 0))
    return replace(group, top=min(top, 0), rows=group.rows - skipped)


def _index(metres: float) -> int:
    return round(metres / PIXEL)


def _holding(group: ZoneGroup, other: ZoneGroup) -> ZoneGroup:
    """Return a group that reaches over another one too, by whole shards: itself if it does already."""
    north = _shards(max(_index(other.top - group.top), 0))
    west = _shards(max(_index(group.west - other.west), 0))
    top, left = group.top + round(north * PIXEL), group.west - round(west * PIXEL)
    rows, cols = north + group.rows, west + group.cols
    rows += _shards(max(_index(top - other.top) + other.rows - rows, 0))
    cols += _shards(max(_index(other.west - left) + other.cols - cols, 0))
    return replace(group, top=top, west=left, rows=rows, cols=cols)
