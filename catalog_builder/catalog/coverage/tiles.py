"""The coverage map as tiles of a web map, drawn from a grid of masks.

The planet's cells fit into 26 MB: one uint32 each, bit i for the year 2000 + i. A tile is a look-up in
it, so nothing is prepared and a new build is shown at once. Cells are coloured as in the coverage image
(:mod:`catalog_builder.catalog.coverage.picture`). Where a pixel holds several cells it shows the class that
most of them have, the more opaque the more of its cells have a tile: a single tile stays visible.

``web/coverage.js`` draws the same from an embedded grid; a test compares the two.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image

from catalog_builder.catalog.coverage.picture import ALPHA, COLORS
from catalog_builder.catalog.coverage.table import Cells
from catalog_builder.errors import QueryError
from catalog_builder.tile.grid import N_CELLS, N_COLS, N_ROWS
from catalog_builder.tile.years import COVERAGE_NAMES, Masks, coverage_codes, year_bits

TILE = 256
"""Pixels of a side."""
MAX_ZOOM = 12
"""At this zoom a cell is wider than a map tile: further zoom shows no more detail."""
LEVELS = 6
"""Steps of opacity."""
ELSEWHERE = (140, 149, 159)
"""Colour of tiles that have other years than the one shown."""
ELSEWHERE_ALPHA = 0.35
LINES_FROM = 6.0
"""Pixels per cell from which cells are separated by a line."""
_KEPT = 2000
"""Number of cached map tiles, 0.3 to 20 kB each."""

NOTHING = len(COVERAGE_NAMES) + 1
"""Code of a cell without a tile; one less is a tile without the year shown."""
Codes = npt.NDArray[np.uint8]


class CoverageGrid:
    """The cells of a collection and their years, ready to be drawn. Safe to share between threads."""

    def __init__(self, cell: Cells, mask: Masks, years: Sequence[int]) -> None:
        """Spread the tiles over the planet.

        Parameters
        ----------
        cell, mask
            The tiles and their years, see :mod:`catalog_builder.catalog.coverage.table`.
        years
            The collection's years, ascending; other bits are ignored.
        """
        self.years = tuple(years)
        masks = np.zeros(N_CELLS, np.uint32)
        masks[cell] = mask & np.uint32(year_bits(years))
        self.masks = masks.reshape(N_ROWS, N_COLS)
        self._drawn: OrderedDict[tuple[int, int, int, int | None], bytes] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north of the tiles in degrees."""
        rows, cols = np.flatnonzero(self.masks.any(axis=1)), np.flatnonzero(self.masks.any(axis=0))
        if not len(rows):
            return (-180.0, -90.0, 180.0, 90.0)
        west, south = int(cols[0]) / 10 - 180, int(rows[0]) / 10 - 90
        east, north = int(cols[-1] + 1) / 10 - 180, int(rows[-1] + 1) / 10 - 90
        return (round(west, 1), round(south, 1), round(east, 1), round(north, 1))

    @cached_property
    def counts(self) -> dict[str, dict[str, int]]:
        """Tiles per class: of all (``all``), and of those that have a year, by year.

        ``elsewhere`` counts the tiles that do not have the year.
        """
        found, n = np.unique(self.masks, return_counts=True)
        n = np.where(found == 0, 0, n)
        codes = coverage_codes(found, self.years)
        table = {}
        for name, has in (
            ("all", found != 0),
            *((str(y), found & np.uint32(year_bits([y])) != 0) for y in self.years),
        ):
            classes = np.bincount(codes[has], weights=n[has], minlength=len(COVERAGE_NAMES)).astype(int)
            table[name] = dict(zip(COVERAGE_NAMES, classes.tolist(), strict=True))
            table[name]["elsewhere"] = int(n[~has].sum())
        return table

    def tile_png(self, z: int, x: int, y: int, year: int | None = None) -> bytes:
        """Draw a tile.

        Parameters
        ----------
        z, x, y
            Which tile, as web maps number them: Web Mercator, y from the north.
        year
            Show the tiles that have this year, others in grey; None shows all in the colour of their class.

        Returns
        -------
        bytes
            A PNG of 256 x 256 pixels with a palette, transparent where there is no tile.

        Raises
        ------
        QueryError
            If there is no such map tile, or the collection has no such year.
        """
        if not 0 <= z <= MAX_ZOOM:
            raise QueryError(f"zoom must be 0..{MAX_ZOOM}, found {z}")
        if not (0 <= x < 1 << z and 0 <= y < 1 << z):
            raise QueryError(f"at zoom {z} x and y must be 0..{(1 << z) - 1}, found {x} and {y}")
        if year is not None and year not in self.years:
            raise QueryError(f"year must be one of {', '.join(map(str, self.years))}, found {year}")
        key = (z, x, y, year)
        with self._lock:
            if key in self._drawn:
                self._drawn.move_to_end(key)
                return self._drawn[key]
        png = _png(self._indices(z, x, y, year))
        with self._lock:
            self._drawn[key] = png
            if len(self._drawn) > _KEPT:
                self._drawn.popitem(last=False)
        return png

    def _indices(self, z: int, x: int, y: int, year: int | None) -> Codes:
        """Return palette indices (256, 256)."""
        if TILE << z < N_COLS:
            return self._averaged(z, x, y, year)
        # One pixel more to the west and the north: a line is drawn where the cell changes.
        at = np.arange(-1, TILE)
        cols = np.clip(_columns(z, x, at + 0.5), 0, N_COLS - 1)
        rows = _rows(z, y, at + 0.5)
        codes = self._codes(self.masks[np.ix_(rows[1:], cols[1:])], year)
        level = np.full(codes.shape, LEVELS - 1, np.uint8)
        if (TILE << z) / N_COLS >= LINES_FROM:
            level[np.diff(rows) != 0] = LEVELS // 2 - 1
            level[:, np.diff(cols) != 0] = LEVELS // 2 - 1
        return _palette_index(codes, level)

    def _averaged(self, z: int, x: int, y: int, year: int | None) -> Codes:
        """Return palette indices where a pixel holds several cells."""
        edges = np.arange(TILE + 1, dtype=float)
        cols, rows = _columns(z, x, edges), _rows(z, y, edges)  # rows fall from north to south
        low = rows[-1]
        codes = self._codes(self.masks[low : rows[0] + 1, cols[0] : cols[-1]], year)
        # Far north pixels are smaller than cells, and starts repeat: reduceat then gives the one cell.
        # The last of the row starts only ends the row before it.
        row_starts, col_starts = rows[::-1] - low, cols[:-1] - cols[0]
        counts = np.stack(
            [
                np.add.reduceat(
                    np.add.reduceat(codes == code, row_starts, axis=0, dtype=np.int32), col_starts, axis=1
                )[-2::-1]
                for code in range(NOTHING)
            ]
        )
        area = np.maximum(-np.diff(rows), 1)[:, None] * np.maximum(np.diff(cols), 1)[None, :]
        held = counts[:-1].sum(axis=0)
        # Tiles that have the year hide those that have not.
        best = np.where(held > 0, counts[:-1].argmax(axis=0), NOTHING - 1)
        held = np.where(held > 0, held, counts[-1])
        best = np.where(held > 0, best, NOTHING).astype(np.uint8)
        share = np.minimum(held / area, 1.0)
        level = np.clip(np.ceil(np.sqrt(share) * LEVELS) - 1, 0, LEVELS - 1).astype(np.uint8)
        return _palette_index(best, level)

    def _codes(self, masks: npt.NDArray[np.uint32], year: int | None) -> Codes:
        """Return the class of cells, NOTHING - 1 for tiles without the year, NOTHING for no tile."""
        codes = coverage_codes(masks, self.years)
        if year is not None:
            codes[masks & np.uint32(year_bits([year])) == 0] = NOTHING - 1
        codes[masks == 0] = NOTHING
        return codes


def _columns(z: int, x: int, at: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Return the grid's columns at pixel positions of a tile column."""
    return np.floor((x * TILE + at) * (N_COLS / (TILE << z))).astype(np.int64)


def _rows(z: int, y: int, at: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Return the grid's rows, 0 in the south, at pixel positions of a tile row."""
    mercator = np.pi * (1 - 2 * (y * TILE + at) / (TILE << z))
    latitude = np.degrees(np.arctan(np.sinh(mercator)))
    return np.clip(np.floor((latitude + 90) * 10).astype(np.int64), 0, N_ROWS - 1)


def _palette_index(codes: Codes, level: Codes) -> Codes:
    """Return 0 for nothing, else 1 + code * LEVELS + level."""
    return np.where(codes == NOTHING, 0, 1 + codes * LEVELS + level).astype(np.uint8)


def _palette() -> tuple[bytes, bytes]:
    """Return colours (RGB) and opacities by palette index."""
    colors, alphas = [(255, 255, 255)], [0]
    strengths = [*((COLORS[name], ALPHA) for name in COVERAGE_NAMES), (ELSEWHERE, ELSEWHERE_ALPHA)]
    for color, alpha in strengths:
        for level in range(LEVELS):
            colors.append(color)
            alphas.append(int(255 * alpha * (level + 1) / LEVELS + 0.5))
    return bytes(v for color in colors for v in color), bytes(alphas)


_COLORS, _ALPHAS = _palette()


def _png(indices: Codes) -> bytes:
    image = Image.fromarray(indices, "P")
    image.putpalette(_COLORS)
    out = io.BytesIO()
    # Level 1 is twice as quick as the default and its tiles are a fifth larger: they are small.
    image.save(out, "PNG", transparency=_ALPHAS, compress_level=1)
    return out.getvalue()
