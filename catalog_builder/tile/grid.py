"""The 0.1 degree tile grid and every tile's UTM raster: pure arithmetic, no I/O.

A tile is a 0.1 x 0.1 degree cell of longitude and latitude, named by its **centre**
(``grid_0.15_52.05``). Inside the project a tile is two integers, hundredths of a degree
(``lon_i``, ``lat_i``, always ending in 5), or a row and a column counted from the south-west
corner of the world; floats appear only at the edge.

The pixels of a tile are a 10 m raster in its UTM zone. Its CRS, origin and shape follow from the
name by a formula (geotessera 0.11, ``zarr.py``; see :func:`rasters`), so no file has to be opened
to describe a tile. Within a zone the formula depends only on the latitude row and on the column's
position in the zone, so 1800 x 60 values describe the planet: they are computed once, on demand.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from affine import Affine

from catalog_builder.errors import GridError

N_ROWS = 1800
"""Latitude rows, 0 at the south pole."""
N_COLS = 3600
"""Longitude columns, 0 at 180 degrees west."""
N_CELLS = N_ROWS * N_COLS
"""Cells of the grid; a cell's number is ``row * N_COLS + column``, the spatial sort order."""
FIRST_LAT_I, FIRST_LON_I = -8995, -17995
"""Centre of row 0 and of column 0 in hundredths of a degree; the next ones are :data:`STEP` further."""
STEP = 10
"""Size of a cell in hundredths of a degree."""
COLS_PER_ZONE = 60
"""Columns of one UTM zone (6 degrees); no tile straddles a zone edge."""
PIXEL = 10.0
"""Pixel size in metres."""

Grid = Literal["utm", "source"]
"""``utm``: origins on multiples of 10 m, where the pixels actually lie (geotessera issue 429), so all
tiles of a zone share one pixel grid. ``source``: the unsnapped corner that upstream publishes."""

IntArray = npt.NDArray[np.integer]
Cells = npt.NDArray[np.int32]
"""Cell numbers, see :func:`cells`."""
FloatArray = npt.NDArray[np.float64]

# Edges of the cells in degrees. Dividing integers gives the double nearest to the decimal, the
# same double that parsing "0.1" from a request gives: comparisons with a user's bbox are exact.
LON_EDGES: list[float] = [(i * STEP - 18000) / 100 for i in range(N_COLS + 1)]
LAT_EDGES: list[float] = [(i * STEP - 9000) / 100 for i in range(N_ROWS + 1)]

# ASCII: digits of other scripts would pass as well, and int() reads them.
_NAME = re.compile(r"grid_(-?(?:0|[1-9]\d{0,2})\.\d{2})_(-?(?:0|[1-9]\d?)\.\d{2})", re.ASCII)


class Bounds(NamedTuple):
    """West, south, east, north in degrees (OGC:CRS84)."""

    west: float
    south: float
    east: float
    north: float


@dataclass(frozen=True, slots=True, order=True)
class TileId:
    """One cell of the grid, by its centre in hundredths of a degree.

    >>> TileId.from_name("grid_0.15_52.05")
    TileId(lat_i=5205, lon_i=15)
    >>> TileId.containing(0.1, 52.0).name
    'grid_0.15_52.05'
    """

    lat_i: int
    """Centre latitude x 100, -8995 ... 8995 in steps of 10."""
    lon_i: int
    """Centre longitude x 100, -17995 ... 17995 in steps of 10."""

    def __post_init__(self) -> None:
        """Reject a centre that is not on the grid."""
        if (self.lon_i - 5) % STEP or not FIRST_LON_I <= self.lon_i <= -FIRST_LON_I:
            raise GridError(
                f"longitude {self.lon_i / 100} is not a tile centre: expected x.x5 between -179.95 and 179.95"
            )
        if (self.lat_i - 5) % STEP or not FIRST_LAT_I <= self.lat_i <= -FIRST_LAT_I:
            raise GridError(
                f"latitude {self.lat_i / 100} is not a tile centre: expected x.x5 between -89.95 and 89.95"
            )

    @classmethod
    def from_name(cls, name: str) -> TileId:
        """Parse ``grid_<lon>_<lat>``.

        Raises
        ------
        GridError
            If the name does not have that form or its centre is off the grid.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise GridError(f"'{name}' is not a tile name: expected grid_<lon>_<lat> such as grid_0.15_52.05")
        lon, lat = match.groups()
        return cls(lat_i=int(lat.replace(".", "")), lon_i=int(lon.replace(".", "")))

    @classmethod
    def from_row_col(cls, row: int, col: int) -> TileId:
        """Return the tile of a grid row (0 in the south) and column (0 in the west)."""
        if not (0 <= row < N_ROWS and 0 <= col < N_COLS):
            raise GridError(f"row {row}, column {col} is off the grid of {N_ROWS} x {N_COLS} tiles")
        return cls(lat_i=row * STEP + FIRST_LAT_I, lon_i=col * STEP + FIRST_LON_I)

    @classmethod
    def from_cell(cls, cell: int) -> TileId:
        """Return the tile with a cell number, see :func:`cells`."""
        return cls.from_row_col(*divmod(int(cell), N_COLS))

    @classmethod
    def containing(cls, lon: float, lat: float) -> TileId:
        """Return the tile that contains a point; cells are half-open [west, east) x [south, north).

        The last column and row also own the edges 180 E and 90 N.
        """
        if not (-180 <= lon <= 180 and -90 <= lat <= 90):  # also rejects NaN
            raise GridError(f"point ({lon}, {lat}) is not on the globe: expected lon -180..180, lat -90..90")
        return cls.from_row_col(
            min(bisect_right(LAT_EDGES, lat) - 1, N_ROWS - 1),
            min(bisect_right(LON_EDGES, lon) - 1, N_COLS - 1),
        )

    @property
    def lon(self) -> float:
        """Centre longitude in degrees."""
        return self.lon_i / 100

    @property
    def lat(self) -> float:
        """Centre latitude in degrees."""
        return self.lat_i / 100

    @property
    def row(self) -> int:
        """Latitude row, 0 in the south."""
        return (int(self.lat_i) - FIRST_LAT_I) // STEP  # int: a value from an int16 column would overflow

    @property
    def col(self) -> int:
        """Longitude column, 0 in the west."""
        return (int(self.lon_i) - FIRST_LON_I) // STEP

    @property
    def cell(self) -> int:
        """Cell number, see :func:`cells`."""
        return self.row * N_COLS + self.col

    @property
    def name(self) -> str:
        """Upstream's name of the tile, ``grid_<lon>_<lat>`` with two decimals."""
        return f"grid_{self.lon_i / 100:.2f}_{self.lat_i / 100:.2f}"

    @property
    def bounds(self) -> Bounds:
        """Bounds of the cell in degrees. The raster is larger: neighbours overlap by some pixels."""
        return Bounds(
            (self.lon_i - 5) / 100, (self.lat_i - 5) / 100, (self.lon_i + 5) / 100, (self.lat_i + 5) / 100
        )

    @property
    def utm_zone(self) -> int:
        """UTM zone 1 ... 60, without the exceptions for Norway and Svalbard."""
        return self.col // COLS_PER_ZONE + 1

    @property
    def epsg(self) -> int:
        """EPSG code of the raster: 326zz north of the equator, 327zz south of it."""
        return (32700 if self.lat_i < 0 else 32600) + self.utm_zone

    def raster(self, grid: Grid = "utm") -> Raster:
        """Return the tile's pixel raster."""
        r = rasters(np.array([self.row]), np.array([self.col]), grid)
        return Raster(
            epsg=self.epsg,
            transform=Affine(PIXEL, 0.0, float(r.origin_x[0]), 0.0, -PIXEL, float(r.origin_y[0])),
            height=int(r.height[0]),
            width=int(r.width[0]),
        )


def centres(row: IntArray, col: IntArray) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """Return centre latitudes and longitudes of rows and columns in hundredths of a degree.

    >>> centres(np.array([1420]), np.array([1801]))
    (array([5205], dtype=int16), array([15], dtype=int16))
    """
    lat_i = _wide(row) * STEP + FIRST_LAT_I
    lon_i = _wide(col) * STEP + FIRST_LON_I
    return lat_i.astype(np.int16), lon_i.astype(np.int16)


def of_centres(lat_i: IntArray, lon_i: IntArray) -> tuple[IntArray, IntArray]:
    """Return rows and columns of centres given in hundredths of a degree.

    >>> of_centres(np.array([5205], np.int16), np.array([15], np.int16))
    (array([1420], dtype=int32), array([1801], dtype=int32))
    """
    return (_wide(lat_i) - FIRST_LAT_I) // STEP, (_wide(lon_i) - FIRST_LON_I) // STEP


def cells(row: IntArray, col: IntArray) -> Cells:
    """Return cell numbers, ``row * 3600 + column``: the spatial sort order.

    >>> cells(np.array([1420]), np.array([1801]))
    array([5113801], dtype=int32)
    """
    cell: Cells = (_wide(row) * N_COLS + col).astype(np.int32, copy=False)
    return cell


def cells_containing(lon: FloatArray, lat: FloatArray) -> Cells:
    """Return the cells of points, as :meth:`TileId.containing` has them; -1 for what is not on the globe.

    >>> cells_containing(np.array([0.1, np.nan]), np.array([52.0, 0.0]))
    array([5113801,      -1], dtype=int32)
    """
    row = np.minimum(np.searchsorted(LAT_EDGES, lat, side="right") - 1, N_ROWS - 1)
    col = np.minimum(np.searchsorted(LON_EDGES, lon, side="right") - 1, N_COLS - 1)
    on_globe = (np.abs(lon) <= 180) & (np.abs(lat) <= 90)  # also rejects NaN
    return np.where(on_globe, cells(row, col), -1).astype(np.int32)


def rows_cols[T: np.integer](cell: npt.NDArray[T]) -> tuple[npt.NDArray[T], npt.NDArray[T]]:
    """Return rows and columns of cells; dtype as given.

    >>> rows_cols(np.array([5113801], np.int32))
    (array([1420], dtype=int32), array([1801], dtype=int32))
    """
    row: npt.NDArray[T] = cell // N_COLS
    col: npt.NDArray[T] = cell % N_COLS
    return row, col


@cache
def centre_texts() -> tuple[list[str], list[str]]:
    """Return centre latitudes by row and longitudes by column as formatted in names and titles, ``0.15``."""
    lat = [f"{(row * STEP + FIRST_LAT_I) / 100:.2f}" for row in range(N_ROWS)]
    lon = [f"{(col * STEP + FIRST_LON_I) / 100:.2f}" for col in range(N_COLS)]
    return lat, lon


def _wide(values: IntArray) -> IntArray:
    """Return integers of at least 32 bits: a column times ten overflows 16."""
    return values.astype(np.promote_types(values.dtype, np.int32), copy=False)


@dataclass(frozen=True, slots=True)
class Raster:
    """A tile's pixels: north-up, 10 m, in its UTM zone."""

    epsg: int
    transform: Affine
    """Pixel (column, row) to projected metres."""
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return (self.height, self.width)

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """West, south, east, north in metres of the CRS."""
        t = self.transform
        return (t.c, t.f - PIXEL * self.height, t.c + PIXEL * self.width, t.f)


@dataclass(frozen=True, slots=True)
class Rasters:
    """The rasters of many tiles, one array element per tile."""

    epsg: npt.NDArray[np.int32]
    origin_x: FloatArray
    """Left edge in metres."""
    origin_y: FloatArray
    """Top edge in metres."""
    height: npt.NDArray[np.int32]
    width: npt.NDArray[np.int32]


def rasters(rows: IntArray, cols: IntArray, grid: Grid = "utm") -> Rasters:
    """Return the rasters of tiles given by row and column, vectorised.

    The formula is upstream's (geotessera 0.11, ``zarr.py``): project the four corners of the cell;
    the origin is (min x of the western corners, max y of the northern ones), the width and height
    are the distances to the far corners over 10 m, rounded. With ``grid="utm"`` the origin is
    then moved to ``floor(x / 10) * 10``, ``ceil(y / 10) * 10``, where upstream's resampling put the
    pixels (geotessera issue 429); the shape is the same.

    Parameters
    ----------
    rows, cols
        Integer arrays of one shape, rows 0 ... 1799 from the south, columns 0 ... 3599 from the west.
    grid
        Which origin to use, see :data:`Grid`.

    Raises
    ------
    GridError
        If a row or column is off the grid.
    """
    rows = np.asarray(rows)
    cols = np.asarray(cols)
    if rows.size and (rows.min() < 0 or rows.max() >= N_ROWS or cols.min() < 0 or cols.max() >= N_COLS):
        raise GridError(f"rows must be 0..{N_ROWS - 1} and columns 0..{N_COLS - 1}")
    table = _table()
    zone_col = cols % COLS_PER_ZONE
    origin_x = table.origin[0, rows, zone_col]
    origin_y = table.origin[1, rows, zone_col]
    if grid == "utm":
        origin_x, origin_y = snap_origin(origin_x, origin_y)
    return Rasters(
        epsg=epsg_codes(rows, cols),
        origin_x=origin_x,
        origin_y=origin_y,
        height=table.shape[0, rows, zone_col],
        width=table.shape[1, rows, zone_col],
    )


def epsg_codes(rows: IntArray, cols: IntArray) -> npt.NDArray[np.int32]:
    """Return the EPSG codes of tiles' rasters: 326zz north of the equator, 327zz south of it."""
    codes = np.where(rows < N_ROWS // 2, 32700, 32600) + cols // COLS_PER_ZONE + 1
    found: npt.NDArray[np.int32] = codes.astype(np.int32)
    return found


def snap_origin(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Snap upper left corners (metres) outwards to the 10 m grid.

    Rounding to a micrometre first keeps a corner that is already on the grid (the equator) there,
    whatever the last bit of the projection says.
    """
    return np.floor(np.round(x, 6) / PIXEL) * PIXEL, np.ceil(np.round(y, 6) / PIXEL) * PIXEL


class _RasterTable(NamedTuple):
    """Unsnapped origin (x, y) and shape (height, width), each (2, 1800, 60): by row and column in zone."""

    origin: FloatArray
    shape: npt.NDArray[np.int32]


@cache
def _table() -> _RasterTable:
    """Project the planet's corners: 0.1 s, once per process."""
    # pyproj takes 0.1 s to import: only when geometry is needed
    from pyproj import Transformer

    origin = np.empty((2, N_ROWS, COLS_PER_ZONE))
    shape = np.empty((2, N_ROWS, COLS_PER_ZONE), dtype=np.int32)
    # Zone 31 starts at 0 degrees east; every zone has the same shape, so it is used for all.
    west, east = np.arange(COLS_PER_ZONE) / 10, np.arange(1, COLS_PER_ZONE + 1) / 10
    edges = np.array(LAT_EDGES)
    for epsg, rows in ((32731, np.arange(N_ROWS // 2)), (32631, np.arange(N_ROWS // 2, N_ROWS))):
        to_utm = Transformer.from_crs(4326, epsg, always_xy=True)
        south, north = edges[rows], edges[rows + 1]
        ul_x, ul_y = to_utm.transform(*np.meshgrid(west, north))
        ur_x, ur_y = to_utm.transform(*np.meshgrid(east, north))
        ll_x, ll_y = to_utm.transform(*np.meshgrid(west, south))
        lr_x, lr_y = to_utm.transform(*np.meshgrid(east, south))
        left, top = np.minimum(ul_x, ll_x), np.maximum(ul_y, ur_y)
        origin[0, rows], origin[1, rows] = left, top
        shape[0, rows] = np.rint((top - np.minimum(ll_y, lr_y)) / PIXEL)
        shape[1, rows] = np.rint((np.maximum(ur_x, lr_x) - left) / PIXEL)
    return _RasterTable(origin, shape)


def rows_cols_touching(bounds: Bounds) -> tuple[range, range]:
    """Return the rows and columns of the cells that share a point with a box, edges included.

    The box must have west <= east (split a box that crosses the antimeridian first).
    """
    west, south, east, north = bounds
    first_col = max(bisect_left(LON_EDGES, west) - 1, 0)
    last_col = min(bisect_right(LON_EDGES, east) - 1, N_COLS - 1)
    first_row = max(bisect_left(LAT_EDGES, south) - 1, 0)
    last_row = min(bisect_right(LAT_EDGES, north) - 1, N_ROWS - 1)
    return range(first_row, last_row + 1), range(first_col, last_col + 1)


def split_antimeridian(west: float, south: float, east: float, north: float) -> list[Bounds]:
    """Split a box into boxes with west <= east: two when it crosses the antimeridian (west > east).

    Raises
    ------
    GridError
        If a value is not finite, a latitude is beyond the poles, a longitude beyond 180 degrees,
        or south is north of north.
    """
    if not all(map(math.isfinite, (west, south, east, north))):
        raise GridError("a bbox must hold finite numbers")
    if not (-180 <= west <= 180 and -180 <= east <= 180):
        raise GridError(f"bbox longitudes must lie in -180..180, found {west} and {east}")
    if not (-90 <= south <= 90 and -90 <= north <= 90):
        raise GridError(f"bbox latitudes must lie in -90..90, found {south} and {north}")
    if south > north:
        raise GridError(f"bbox south {south} is north of its north {north}: expected west,south,east,north")
    if west <= east:
        return [Bounds(west, south, east, north)]
    return [Bounds(west, south, 180.0, north), Bounds(-180.0, south, east, north)]
