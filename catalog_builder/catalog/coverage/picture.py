"""The coverage map as an image: which tiles have every year, only the newest, or some years.

The rule and the colours are those of upstream's map (geotessera ``visualization.py``): dark green,
dark blue, dark orange, 60 % opaque. Drawn with Pillow: nothing else has to be installed, and a map of the
planet takes half a second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import shapely
from PIL import Image, ImageDraw, ImageFont
from shapely.geometry.base import BaseGeometry

from catalog_builder.catalog.coverage.table import Cells, coverage_table
from catalog_builder.errors import QueryError
from catalog_builder.storage import write_atomic
from catalog_builder.tile.cover import Runs, cover
from catalog_builder.tile.grid import N_COLS, N_ROWS, rows_cols
from catalog_builder.tile.years import COVERAGE_NAMES, Masks, coverage_codes, year_bits

Color = tuple[int, int, int]

COLORS: dict[str, Color] = {"full": (0, 100, 0), "latest": (0, 0, 139), "partial": (255, 140, 0)}
"""CSS darkgreen, darkblue, darkorange."""
ALPHA = 0.6
_PAPER: Color = (255, 255, 255)
_GROUND: Color = (243, 246, 249)
_LAND: Color = (224, 226, 222)
_GRATICULE: Color = (208, 215, 222)
_FRAME: Color = (140, 149, 159)
_INK: Color = (31, 35, 40)
_FAINT_INK: Color = (101, 109, 118)
_OUTLINE: Color = (87, 96, 106)

_EMPTY, _OTHER = 255, 254  # codes of cells that have no tile
_MAX_SIDE = 8000
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10)


def coverage_png(
    target: str | Path | BinaryIO,
    cell: Cells,
    mask: Masks,
    years: Sequence[int],
    *,
    region: BaseGeometry | None = None,
    others: Cells | None = None,
    title: str = "TESSERA coverage",
    width: int = 1800,
) -> None:
    """Draw the coverage map as a PNG.

    Parameters
    ----------
    target
        Path, s3:// URL (both written atomically), or an open binary file.
    cell, mask
        The tiles and their years, see :mod:`catalog_builder.catalog.coverage.table`.
    years
        The years to consider; tiles with none of them are omitted.
    region
        Draw only this region, and only the tiles that touch it; its outline is drawn
        unless it is a box. A region across the antimeridian is drawn in one piece.
    others
        Cells to draw faintly where there is no tile, such as those with a landmask.
    title
        Title.
    width
        Approximate width of the map in pixels: a cell gets an integer number of pixels where possible.

    Raises
    ------
    QueryError
        If no year is given, the width is too small or too large, or the region touches no cell.
    """
    if not years:
        raise QueryError("a coverage map needs at least one year")
    if not 200 <= width <= _MAX_SIDE:
        raise QueryError(f"width must be 200..{_MAX_SIDE} pixels, found {width}")
    present = (mask & np.uint32(year_bits(years))) != 0
    cell, mask = cell[present], mask[present]
    window = _Window.world(cell)
    if region is not None:
        runs = cover(region)
        if not runs.n_cells:
            raise QueryError("the region touches no cell of the grid")
        window = _Window.around(runs)
        keep = np.isin(cell, runs.cells())
        cell, mask = cell[keep], mask[keep]
    scale = _Scale.fitting(window, width)
    image = _colored(_code_image(window, cell, coverage_codes(mask, years), others), scale)
    _draw_graticule(image, window, scale)
    if region is not None and not _is_box(region):
        _draw_outline(image, window, scale, region)
    sheet = _with_margins(image, window, scale, title, mask, years)
    with nullcontext(target) if not isinstance(target, str | Path) else write_atomic(target) as file:
        sheet.save(file, "PNG", optimize=True)


@dataclass(frozen=True, slots=True)
class _Window:
    """The part of the grid that is drawn; columns may run past the antimeridian."""

    row0: int
    n_rows: int
    col0: int
    n_cols: int

    @classmethod
    def world(cls, cell: Cells) -> _Window:
        """Return all longitudes, and the latitudes that are inhabited or have data."""
        rows, _ = rows_cols(cell)
        low = min(300, int(rows.min(initial=N_ROWS)) - 20)  # 60 S
        high = max(1740, int(rows.max(initial=0)) + 20)  # 84 N
        low, high = max(low, 0), min(high, N_ROWS)
        return cls(low, high - low, 0, N_COLS)

    @classmethod
    def around(cls, runs: Runs) -> _Window:
        """Return some cells and a margin; across the antimeridian if the widest gap lies elsewhere."""
        used = np.zeros(N_COLS + 1, np.int32)
        np.add.at(used, runs.first_col, 1)
        np.add.at(used, runs.last_col + 1, -1)
        cols = np.flatnonzero(np.cumsum(used[:-1]))
        gaps = np.diff(cols, append=cols[0] + N_COLS)
        first = int(cols[(int(np.argmax(gaps)) + 1) % len(cols)])
        span = N_COLS - int(gaps.max()) + 1
        row0, row1 = int(runs.row.min()), int(runs.row.max())
        margin = max(1, round(0.03 * max(span, row1 - row0 + 1)))
        low, high = max(row0 - margin, 0), min(row1 + margin + 1, N_ROWS)
        if span + 2 * margin >= N_COLS:
            return cls(low, high - low, 0, N_COLS)
        start = first - margin
        if first + span <= N_COLS:  # no need to show anything beyond the antimeridian
            start = max(start, 0)
            return cls(low, high - low, start, min(first + span + margin, N_COLS) - start)
        return cls(low, high - low, start, span + 2 * margin)

    @property
    def west(self) -> float:
        """Degrees; the other edges follow."""
        return self.col0 / 10 - 180

    @property
    def north(self) -> float:
        """Degrees."""
        return (self.row0 + self.n_rows) / 10 - 90

    @property
    def is_regional(self) -> bool:
        """Whether it is small enough to be drawn to scale."""
        return self.n_rows <= 600 and self.n_cols <= 1200


@dataclass(frozen=True, slots=True)
class _Scale:
    """Pixels of the map."""

    width: int
    height: int
    across: float
    """Pixels per degree of longitude."""
    up: float
    """Pixels per degree of latitude."""

    @classmethod
    def fitting(cls, window: _Window, width: int) -> _Scale:
        """Fit a window into a width."""
        stretch = 1.0
        if window.is_regional:  # conformal at its centre, as on a Mercator map
            middle = math.radians((window.row0 + window.n_rows / 2) / 10 - 90)
            stretch = min(1 / math.cos(middle), 6.0)
        per_cell = min(width / window.n_cols, _MAX_SIDE / (window.n_rows * stretch), 60)
        if per_cell >= 2:
            per_cell = int(per_cell)
        up = per_cell * stretch
        up = round(up) if up >= 2 else up
        size = max(round(per_cell * window.n_cols), 1), max(round(up * window.n_rows), 1)
        return cls(*size, size[0] / window.n_cols * 10, size[1] / window.n_rows * 10)


def _code_image(
    window: _Window, cell: Cells, codes: npt.NDArray[np.uint8], others: Cells | None
) -> npt.NDArray[np.uint8]:
    """Return the codes as an image, one pixel per cell, north up."""
    image = np.full((window.n_rows, window.n_cols), _EMPTY, np.uint8)
    layers = [(cell, codes)]
    if others is not None:
        layers.insert(0, (others, np.full(len(others), _OTHER, np.uint8)))
    for some, values in layers:
        row, col = rows_cols(some)
        row, col = row - window.row0, (col - window.col0) % N_COLS
        inside = (row >= 0) & (row < window.n_rows) & (col < window.n_cols)
        image[row[inside], col[inside]] = values[inside]
    return image[::-1]


def _colored(codes: npt.NDArray[np.uint8], scale: _Scale) -> Image.Image:
    """Turn codes into colours at the map's scale."""
    palette = np.zeros((256, 3), np.uint8)
    palette[_EMPTY], palette[_OTHER] = _GROUND, _LAND
    for code, name in enumerate(COVERAGE_NAMES):
        palette[code] = _blend(COLORS[name])
    cells = Image.fromarray(palette[codes])
    size = (scale.width, scale.height)
    if scale.width < codes.shape[1]:
        # Less than a pixel per cell: average, but keep a single tile visible.
        averaged = np.asarray(cells.resize(size, Image.Resampling.BOX), np.float32)
        tiles = Image.fromarray(np.where(codes < _OTHER, 255, 0).astype(np.uint8))
        share = np.asarray(tiles.resize(size, Image.Resampling.BOX), np.float32)[..., None] / 255
        ground = np.array(_GROUND, np.float32)
        pure = ground + (averaged - ground) / np.maximum(share, 1e-3)
        mixed = np.where(share > 0, ground + (pure - ground) * np.sqrt(share), averaged)
        return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))
    picture = cells.resize(size, Image.Resampling.NEAREST)
    if scale.across >= 60:  # 6 pixels per cell: separate the cells by a thin line
        pixels = np.asarray(picture).astype(np.float32)
        lines = np.zeros(pixels.shape[:2], bool)
        lines[np.floor(np.arange(1, codes.shape[0]) * scale.up / 10).astype(int)] = True
        lines[:, np.floor(np.arange(1, codes.shape[1]) * scale.across / 10).astype(int)] = True
        pixels[lines] += (np.array(_GROUND) - pixels[lines]) * 0.35
        picture = Image.fromarray(pixels.astype(np.uint8))
    return picture


def _blend(color: Color) -> list[int]:
    """Return a colour on the ground at upstream's opacity."""
    return [round(c * ALPHA + g * (1 - ALPHA)) for c, g in zip(color, _GROUND, strict=True)]


def _steps(window: _Window) -> tuple[float, float]:
    """Return the degrees between graticule lines, and between labels."""
    span = max(window.n_cols, window.n_rows) / 10
    line = next((step for step in _STEPS if span / step <= 12), 10.0)
    return line, 30.0 if span > 120 else line


def _lines(window: _Window, step: float) -> tuple[list[float], list[float]]:
    """Return longitudes (they may pass 180) and latitudes of lines inside a window."""
    per = round(step * 10)

    def multiples(first: int, count: int, origin: int) -> list[float]:
        low = -(-(first - origin) // per)
        return [k * per / 10 for k in range(low, (first + count - origin) // per + 1)]

    return multiples(window.col0, window.n_cols, 1800), multiples(window.row0, window.n_rows, 900)


def _draw_graticule(image: Image.Image, window: _Window, scale: _Scale) -> None:
    """Draw lines of longitude and latitude under nothing but thin, so that tiles stay visible."""
    pixels = np.asarray(image).copy()
    lons, lats = _lines(window, _steps(window)[0])
    on = np.zeros(pixels.shape[:2], bool)
    for lon in lons:
        on[:, min(round((lon - window.west) * scale.across), scale.width - 1)] = True
    for lat in lats:
        on[min(round((window.north - lat) * scale.up), scale.height - 1)] = True
    bare = (pixels == np.array(_GROUND, np.uint8)).all(axis=-1)
    pixels[on & bare] = _GRATICULE
    tinted = on & ~bare
    pixels[tinted] = (0.75 * pixels[tinted] + 0.25 * np.array(_GRATICULE)).astype(np.uint8)
    image.paste(Image.fromarray(pixels))


def _is_box(region: BaseGeometry) -> bool:
    """Return whether all parts are axis-parallel rectangles or points, without an outline to draw."""
    parts = shapely.get_parts(region)
    return bool((shapely.area(parts) == shapely.area(shapely.envelope(parts))).all())


def _draw_outline(image: Image.Image, window: _Window, scale: _Scale, region: BaseGeometry) -> None:
    """Draw the region's outline, at three times the size and reduced, for smooth lines."""
    fine = 3
    layer = Image.new("L", (scale.width * fine, scale.height * fine))
    pen = ImageDraw.Draw(layer)
    polygons = [p for p in shapely.get_parts(region) if shapely.get_dimensions(p) > 0]
    for part in polygons:
        outline = shapely.boundary(part) if shapely.get_dimensions(part) == 2 else part
        for line in shapely.get_parts(outline):
            lon, lat = shapely.get_coordinates(line).T
            # A part that lies west of the window comes in again on its eastern side.
            lon = lon + 360 * math.ceil((window.west - lon.max()) / 360)
            x = (lon - window.west) * scale.across * fine
            y = (window.north - lat) * scale.up * fine
            pen.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=255, width=4, joint="curve")
    mask = layer.resize((scale.width, scale.height), Image.Resampling.BOX)
    image.paste(Image.new("RGB", image.size, _OUTLINE), mask=mask)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _with_margins(
    image: Image.Image, window: _Window, scale: _Scale, title: str, mask: Masks, years: Sequence[int]
) -> Image.Image:
    """Add title, legend, frame and the graticule's labels around the map."""
    unit = max(13, min(scale.width // 75, 26))  # size of small letters
    left, top, bottom, right = round(3.4 * unit), round(4.6 * unit), round(4.6 * unit), round(1.4 * unit)
    minimum = 34 * unit  # the legend needs that much
    pad = max(0, minimum - (left + scale.width + right)) // 2
    sheet = Image.new("RGB", (left + scale.width + right + 2 * pad, top + scale.height + bottom), _PAPER)
    x0, y0 = left + pad, top
    sheet.paste(image, (x0, y0))
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((x0 - 1, y0 - 1, x0 + scale.width, y0 + scale.height), outline=_FRAME)

    table = coverage_table(mask, years)
    span = str(min(years)) if min(years) == max(years) else f"{min(years)} to {max(years)}"
    pen.text((x0, top - 2.1 * unit), title, _INK, _font(round(1.7 * unit)), anchor="ls")
    note = f"{span}   ·   {table.n_tiles:,} tiles   ·   {table.n_tile_years:,} tile-years"
    pen.text((x0, top - 0.7 * unit), note, _FAINT_INK, _font(unit), anchor="ls")

    small = _font(round(0.85 * unit))
    lons, lats = _lines(window, _steps(window)[1])
    for lon in lons:
        x = x0 + (lon - window.west) * scale.across
        wrapped = (lon + 180) % 360 - 180 if abs(lon) > 180 else lon
        pen.text((x, y0 + scale.height + 0.4 * unit), _degrees(wrapped, "EW"), _FAINT_INK, small, anchor="mt")
    for lat in lats:
        y = y0 + (window.north - lat) * scale.up
        pen.text((x0 - 0.45 * unit, y), _degrees(lat, "NS"), _FAINT_INK, small, anchor="rm")

    every = f"all {len(set(years))} years" if len(set(years)) > 1 else f"{years[0]}"
    labels = {"full": every, "latest": f"only {max(years)}", "partial": "other years"}
    x, y = float(x0), y0 + scale.height + 2.9 * unit
    for name in COVERAGE_NAMES if len(set(years)) > 1 else COVERAGE_NAMES[:1]:
        pen.rectangle(
            (x, y - 0.5 * unit, x + unit, y + 0.5 * unit), tuple(_blend(COLORS[name])), COLORS[name]
        )
        x += 1.6 * unit
        for text, ink in ((labels[name], _INK), (f"{table.classes[name]:,}", _FAINT_INK)):
            pen.text((x, y), text, ink, _font(unit), anchor="lm")
            x += pen.textlength(text, _font(unit)) + 0.6 * unit
        x += 1.4 * unit
    return sheet


def _degrees(value: float, signs: str) -> str:
    """Return ``10°E``, ``0°``, ``51.5°N``."""
    sign = "" if value in (0, 180, -180) else signs[0] if value > 0 else signs[1]
    return f"{abs(value):g}°{sign}"
