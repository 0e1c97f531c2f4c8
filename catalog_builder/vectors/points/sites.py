"""From degrees to pixels: cells of points, their metres in the zone of the cell, and what is around them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog_builder.tile.grid import PIXEL, Cells, cells_containing, epsg_codes, rows_cols
from catalog_builder.vectors.find import Listed, TileYear
from catalog_builder.vectors.points.reading import Coordinates, Sites
from catalog_builder.vectors.points.vectors import Indices

METRES_PER_DEGREE = 110_500.0
"""Of latitude where it is least, less a margin."""


def sites_of(lon: Coordinates, lat: Coordinates) -> Sites:
    """Return points as sites: each zone is projected once.

    Parameters
    ----------
    lon, lat
        Degrees, OGC:CRS84, on the globe.
    """
    cell = cells_containing(lon, lat)
    return Sites(cell, *_projected(cell, lon, lat))


def _projected(cell: Cells, lon: Coordinates, lat: Coordinates) -> tuple[Coordinates, Coordinates]:
    x, y = np.empty(len(cell)), np.empty(len(cell))
    for epsg, at in _by_zone(cell):
        x[at], y[at] = to_utm(epsg).transform(lon[at], lat[at])
    return x, y


def degrees_of(sites: Sites) -> tuple[Coordinates, Coordinates]:
    """Return longitudes and latitudes (OGC:CRS84) of sites, the other way round of :func:`sites_of`."""
    lon, lat = np.empty(len(sites)), np.empty(len(sites))
    for epsg, at in _by_zone(sites.cell):
        lon[at], lat[at] = to_utm(epsg).transform(sites.x[at], sites.y[at], direction="INVERSE")
    return lon, lat


def _by_zone(cell: Cells) -> Iterator[tuple[int, Indices]]:
    epsg = epsg_codes(*rows_cols(cell))
    for code in np.unique(epsg).tolist():
        yield code, np.flatnonzero(epsg == code)


@lru_cache(maxsize=128)
def to_utm(epsg: int) -> Any:
    """Return the pyproj transformer from degrees (OGC:CRS84) to a zone: 10 ms to make."""
    from pyproj import Transformer

    return Transformer.from_crs("OGC:CRS84", epsg, always_xy=True)


def cells_near(lon: Coordinates, lat: Coordinates, metres: float) -> Cells:
    """Return the distinct cells that are within some metres of points, and perhaps some more."""
    found = [cells_containing(lon, lat)]
    if metres > 0:
        up = metres / METRES_PER_DEGREE
        aside = up / np.cos(np.radians(np.minimum(np.abs(lat) + up, 89.0)))
        for east in (-1, 0, 1):
            for north in (-1, 0, 1):
                x = (lon + east * aside + 180) % 360 - 180
                found.append(cells_containing(x, np.clip(lat + north * up, -90, 90)))
    cells: Cells = np.unique(np.concatenate([np.unique(f) for f in found]))
    return cells


def around(
    listed: Listed, year: int, sites: Sites, dx: Indices, dy: Indices
) -> tuple[Sites, npt.NDArray[np.float64]]:
    """Return the pixels around sites as sites: each pixel belongs to the tile whose cell its centre is in.

    Parameters
    ----------
    listed, year
        Where tiles are.
    sites
        (n,)
    dx, dy
        Int (k,): pixels to the east and to the north. Both 0 is the site itself, in its own tile.

    Returns
    -------
    sites
        (n * k,), those of a site one after the other.
    distance
        (n, k): metres from the site to the centre of the pixel.
    """
    left, top = lattice_of(listed, year, sites.cell)
    x = left + (np.floor((sites.x - left) / PIXEL) + 0.5) * PIXEL
    y = top - (np.floor((top - sites.y) / PIXEL) + 0.5) * PIXEL
    x, y = x[:, None] + PIXEL * dx, y[:, None] + PIXEL * dy
    distance = np.hypot(x - sites.x[:, None], y - sites.y[:, None])
    own = np.repeat(sites.cell, len(dx))
    found = Sites(own.copy(), x.ravel(), y.ravel())
    is_self = np.tile((dx == 0) & (dy == 0), len(sites))
    for epsg, at in _by_zone(own):
        lon, lat = to_utm(epsg).transform(found.x[at], found.y[at], direction="INVERSE")
        cell = np.where(is_self[at], own[at], cells_containing(lon, lat))
        found.cell[at] = cell
        in_zone = epsg_codes(*rows_cols(cell)) == epsg
        if not in_zone.all():
            away = at[~in_zone]
            found.x[away], found.y[away] = _projected(cell[~in_zone], lon[~in_zone], lat[~in_zone])
    return found, distance


def lattice_of(listed: Listed, year: int, cell: Cells) -> tuple[Coordinates, Coordinates]:
    """Return where pixels begin in the tiles of cells, metres within 10: not always at a multiple of it.

    Parameters
    ----------
    listed, year
        Where tiles are.
    cell
        (n,)

    Returns
    -------
    left, top
        (n,)
    """
    cells, at = np.unique(cell, return_inverse=True)
    left, top = np.zeros(len(cells)), np.zeros(len(cells))
    for i, number in enumerate(cells.tolist()):
        source = listed.tile_years.get((number, year))
        if isinstance(source, TileYear):
            left[i] = source.place.raster.transform.c % PIXEL
            top[i] = source.place.raster.transform.f % PIXEL
    return left[at], top[at]
