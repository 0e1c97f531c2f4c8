"""One raster across zones, on any grid: resampled by GDAL's warper, on values and not on codes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from shapely.geometry.base import BaseGeometry

from catalog_builder.errors import QueryError, StorageError
from catalog_builder.pixels.values import Values
from catalog_builder.pixels.window import Mask, Window
from catalog_builder.tile.grid import COLS_PER_ZONE, N_COLS, N_ROWS, PIXEL, TileId, cells_containing
from catalog_builder.tile.regions.crs import MAX_EDGE, project
from catalog_builder.vectors.find import Found
from catalog_builder.vectors.regions.grid import Grid
from catalog_builder.vectors.regions.plan import overlap

Resampling = Literal["nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average"]
RESAMPLINGS: tuple[Resampling, ...] = get_args(Resampling)
KERNEL = 4
"""Pixels around a place that a resampling looks at, at most."""
TOLERANCE = 0.001
"""Pixels by which places may be wrong: rasterio makes no such raster with 0."""
_DEGREE = 111_320.0
"""Metres of a degree of latitude, at most."""


@dataclass(frozen=True, slots=True)
class Warp:
    """The grid of an output that is not left on the lattices of its tiles.

    Raises
    ------
    QueryError
        If the parameters contradict each other, or one is out of range.
    """

    crs: str | None = None
    """Anything that PROJ takes, such as ``EPSG:4326``; None: the UTM zone with most of the region."""
    resolution: float | None = None
    """Size of a pixel in units of the CRS; None: 10 m, or what GDAL suggests for a CRS in degrees."""
    like: Path | None = None
    """A raster whose grid is taken exactly: CRS, transform and shape."""
    resampling: Resampling = "nearest"

    def __post_init__(self) -> None:
        """Reject what cannot be done."""
        if self.like is not None and (self.crs is not None or self.resolution is not None):
            raise QueryError("like: it says CRS and resolution itself: give it alone")
        if self.resolution is not None and not 0 < self.resolution < float("inf"):
            raise QueryError(f"resolution: expected a number above 0, found {self.resolution}")
        if self.resampling not in RESAMPLINGS:
            raise QueryError(
                f"resampling: expected one of {', '.join(RESAMPLINGS)}, found '{self.resampling}'"
            )


def grid_of(warp: Warp, found: Found, region: BaseGeometry) -> Grid:
    """Return the grid of all years of a request.

    Without a raster to follow, it is the smallest one around what the catalogue has of the region whose
    origin is a multiple of the resolution, so that regions on one resolution share a lattice.

    Raises
    ------
    QueryError
        If the CRS is unknown, or the region does not lie in it.
    StorageError
        If the raster to follow cannot be read.
    """
    if warp.like is not None:
        return _grid_like(warp.like)
    pieces = {cell: overlap(TileId.from_cell(cell), region) for cell, _ in found.tile_years}
    held = {cell: piece for cell, piece in pieces.items() if piece is not None}
    epsg = _main_zone(held)
    crs, is_degrees, unit = _crs(warp.crs or f"EPSG:{epsg}")
    moved = [projected(piece, crs) for piece in held.values()]
    west, south, east, north = shapely.total_bounds(np.array(moved, object))
    size = warp.resolution or (_suggested(held, crs) if is_degrees else 10.0 / unit)
    # what is a whole number of pixels but for its last digits stays that
    left, top = np.floor(west / size + 1e-6), np.ceil(north / size - 1e-6)
    width, height = np.ceil(east / size - 1e-6) - left, top - np.floor(south / size + 1e-6)
    transform = Affine(size, 0.0, float(left * size), 0.0, -size, float(top * size))
    return Grid(crs, transform, max(1, int(height)), max(1, int(width)))


def _grid_like(path: Path) -> Grid:
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(path) as src:
            crs, transform, shape = src.crs, src.transform, src.shape
    except RasterioError as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error
    if crs is None:
        raise QueryError(f"{path}: has no CRS")
    if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise QueryError(f"{path}: is not north-up: its transform is {tuple(transform)[:6]}")
    epsg = crs.to_epsg()
    return Grid(f"EPSG:{epsg}" if epsg else crs.to_wkt(), transform, *shape)


def _crs(text: str) -> tuple[str, bool, float]:
    """Return a CRS as its code or WKT, whether its unit is a degree, and the metres of its unit."""
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        crs = CRS.from_user_input(text)
    except CRSError:
        raise QueryError(f"crs: '{text[:100]}' is not a CRS: expected one such as EPSG:27700") from None
    if not (crs.is_geographic or crs.is_projected):
        raise QueryError(f"crs: {crs.name} is neither projected nor longitude and latitude")
    epsg = crs.to_epsg()
    unit = 1.0 if crs.is_geographic else float(crs.axis_info[0].unit_conversion_factor)
    return f"EPSG:{epsg}" if epsg else crs.to_wkt(), crs.is_geographic, unit


def _main_zone(pieces: Mapping[int, BaseGeometry]) -> int:
    """Return the EPSG code of the zone in which most of a region lies; the first of those alike."""
    area: dict[int, float] = {}
    for cell, piece in sorted(pieces.items()):
        epsg = TileId.from_cell(cell).raster().epsg
        area[epsg] = area.get(epsg, 0.0) + piece.area
    return max(area, key=lambda epsg: area[epsg])


def _suggested(pieces: Mapping[int, BaseGeometry], crs: str) -> float:
    """Return the resolution that GDAL suggests for the first tile, which has the diagonal of its pixels."""
    from rasterio.warp import calculate_default_transform

    raster = TileId.from_cell(min(pieces)).raster()
    transform, _, _ = calculate_default_transform(
        f"EPSG:{raster.epsg}", crs, raster.width, raster.height, *raster.bbox
    )
    return float(transform.a)


def projected(region: BaseGeometry, crs: str) -> BaseGeometry:
    """Return a region (OGC:CRS84) in a CRS.

    Raises
    ------
    QueryError
        If a part of it has no place in the CRS.
    """
    from pyproj import Transformer

    moved = project(
        shapely.segmentize(region, MAX_EDGE), Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    )
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise QueryError(f"crs: the region does not lie in {crs[:60]}")
    return moved


class Warped:
    """Rasters of zones on one grid.

    A pixel is that of the zone that its centre lies in, and has data if its centre is in the region; of a
    region without area, every pixel that it touches.
    """

    is_quantized = False

    def __init__(
        self, grid: Grid, region: BaseGeometry, zones: Mapping[int, Sequence[Any]], bands: int
    ) -> None:
        from pyproj import Transformer

        self._grid, self._zones, self._bands = grid, zones, bands
        self._shape = projected(region, grid.crs)
        self._touched = region.area == 0
        self._degrees = Transformer.from_crs(grid.crs, "OGC:CRS84", always_xy=True)

    def read(self, window: Window) -> Values:
        """Return the pixels of a window; no data where there are none."""
        import rasterio

        found = Values.empty(window.shape, self._bands)
        mask = self._mask(window)
        if not mask.any():
            return found
        zone = self._zone(window)
        at = rasterio.windows.Window(window.col, window.row, window.width, window.height)
        for epsg, rasters in self._zones.items():
            mine = mask & (zone == epsg)
            for raster in rasters if mine.any() else ():
                values = np.moveaxis(raster.read(window=at), 0, -1)
                drawn = mine & ~found.has_data() & np.isfinite(values).all(axis=-1)
                found.values[drawn] = values[drawn]
        return found

    def _mask(self, window: Window) -> Mask:
        from rasterio.features import geometry_mask

        transform = self._grid.transform @ Affine.translation(window.col, window.row)
        left, top = transform @ (0, 0)
        right, bottom = transform @ (window.width, window.height)
        # a pixel more on each side: an edge of the box is no edge of the region
        near = shapely.box(left - transform.a, bottom + transform.e, right + transform.a, top - transform.e)
        clipped = shapely.intersection(self._shape, near)
        if clipped.is_empty:
            return np.zeros(window.shape, np.bool_)
        mask: Mask = geometry_mask([clipped], window.shape, transform, all_touched=self._touched, invert=True)
        return mask

    def _zone(self, window: Window) -> npt.NDArray[np.int32]:
        """Return the EPSG code of the zone in which the centre of each pixel lies."""
        rows, cols = np.mgrid[0 : window.height, 0 : window.width]
        t = self._grid.transform
        x = t.c + t.a * (cols.ravel() + window.col + 0.5)
        y = t.f + t.e * (rows.ravel() + window.row + 0.5)
        lon, lat = self._degrees.transform(x, y)
        row, col = np.divmod(cells_containing(np.asarray(lon), np.asarray(lat)), N_COLS)
        epsg = np.where(row < N_ROWS // 2, 32701, 32601) + col // COLS_PER_ZONE
        zone: npt.NDArray[np.int32] = epsg.reshape(window.shape).astype(np.int32)
        return zone


@contextmanager
def warped(
    grid: Grid, region: BaseGeometry, zones: Mapping[int, Sequence[Path]], warp: Warp, bands: int
) -> Iterator[Warped]:
    """Yield the canvas of rasters of zones (by EPSG code), which GDAL reads and resamples as it is read."""
    import rasterio
    from rasterio.enums import Resampling as Of
    from rasterio.vrt import WarpedVRT

    scales = {} if warp.resampling == "nearest" else _scales(grid, region)
    with ExitStack() as stack:
        opened: dict[int, list[Any]] = {}
        for epsg, path in ((epsg, path) for epsg, paths in zones.items() for path in paths):
            src = stack.enter_context(rasterio.open(path))
            opened.setdefault(epsg, []).append(
                stack.enter_context(
                    WarpedVRT(
                        src,
                        crs=grid.crs,
                        transform=grid.transform,
                        height=grid.height,
                        width=grid.width,
                        resampling=Of[warp.resampling],
                        src_nodata=float("nan"),
                        nodata=float("nan"),
                        tolerance=TOLERANCE,
                        **scales,
                    )
                )
            )
        yield Warped(grid, region, opened, bands)


def _scales(grid: Grid, region: BaseGeometry) -> dict[str, str]:
    """Return how many pixels of the grid there are to one of 10 m, as GDAL's warper takes it.

    GDAL would take it from each window that is read, whose box is wider where the CRS is turned: kernels
    would change from window to window.
    """
    _, is_degrees, unit = _crs(grid.crs)
    wide, high = (_DEGREE, _DEGREE) if is_degrees else (unit, unit)
    if is_degrees:
        wide *= max(0.01, math.cos(math.radians((region.bounds[1] + region.bounds[3]) / 2)))
    x, y = PIXEL / (grid.transform.a * wide), PIXEL / (-grid.transform.e * high)
    return {"XSCALE": str(min(1.0, x)), "YSCALE": str(min(1.0, y))}


def margin(warp: Warp, grid: Grid) -> float:
    """Return how far around a region pixels are needed, in metres."""
    _, is_degrees, unit = _crs(grid.crs)
    size = max(grid.transform.a, -grid.transform.e) * (_DEGREE if is_degrees else unit)
    return (1 if warp.resampling == "nearest" else KERNEL) * max(PIXEL, size) + 2 * PIXEL
