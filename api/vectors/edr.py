"""Positions and areas of OGC API - Environmental Data Retrieval 1.1, read as everything else is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from api.http.work.waiting import Deadline
from api.settings import Settings
from api.vectors.asked import crs_of, parameters_of, years_of
from api.vectors.coverages import Chosen, Grid, GridYear, grids, series
from api.vectors.formats import EdrFormat
from api.vectors.reading import Asked, batches, check, check_boxes, context_of, read_all, sampled
from catalog_builder.errors import QueryError
from catalog_builder.item.bands_view import band_key
from catalog_builder.tile.grid import PIXEL, Cells, epsg_codes, rows_cols
from catalog_builder.tile.regions.crs import CRS84
from catalog_builder.tile.regions.layer import Layer
from catalog_builder.vectors.points.options import PointOptions, PointYear
from catalog_builder.vectors.points.reading import Context, Sites
from catalog_builder.vectors.points.rows import RowOptions, Rows
from catalog_builder.vectors.points.sample import Sampling
from catalog_builder.vectors.points.sites import degrees_of, lattice_of
from catalog_builder.vectors.points.vectors import Indices
from catalog_builder.vectors.tables.read import Points, points_of, polygons_of
from catalog_builder.vectors.tables.write import streamed
from catalog_builder.vectors.zonal.pieces import Piece, PiecePixels, cells_of, pieces_of, pixels_of

_KIND = re.compile(r"\s*([A-Za-z]{1,20})\b")


@dataclass(frozen=True, slots=True)
class Queried(Asked):
    """An EDR query."""

    wanted: EdrFormat


def read_position(asked: Queried, settings: Settings, deadline: Deadline) -> Iterator[bytes]:
    """Read the vectors at a point or several, over years, and return the parts of the response.

    Raises
    ------
    QueryError
        If a parameter is malformed, or more is asked for than a request may.
    QueryTimeoutError
        If the deadline passes.
    """
    texts, years = asked.texts, years_of(asked.texts, asked.record)
    shape = _geometry(texts.get("coords"), "POINT", "MULTIPOINT")
    parts = shapely.get_parts(shape)
    crs = crs_of(texts) or CRS84
    points = points_of(_layer(parts, crs))
    check("rows (points times years)", len(parts) * len(years), settings.vector_rows)
    chosen, options = _chosen(asked, years)
    found = read_all(sampled(asked, points.lon, points.lat, options, settings, deadline), deadline)
    if asked.wanted == "GeoJSON":
        return _features(((points, year) for year in found), options, chosen)
    is_single = shape.geom_type == "Point"
    return series(found, chosen, crs, shapely.get_x(parts), shapely.get_y(parts), single=is_single)


def read_area(asked: Queried, settings: Settings, deadline: Deadline) -> Iterator[bytes]:
    """Read the vectors of the pixels whose centre is in an area. Parameters and errors as above.

    An area that contains no centre has the pixels that it touches.
    """
    texts, years = asked.texts, years_of(asked.texts, asked.record)
    shape = _geometry(texts.get("coords"), "POLYGON", "MULTIPOLYGON")
    area = polygons_of(_layer(np.array([shape], object), crs_of(texts) or CRS84), most=settings.max_vertices)
    check_boxes(area.geometry, len(years), settings)
    chosen, options = _chosen(asked, years)
    cells = cells_of(area.geometry)
    context = context_of(asked, np.unique(np.concatenate(cells)), years, settings, deadline)
    pixels = _pixels(pieces_of(area.geometry, cells), context, years)
    deadline.check()
    of = "pixels (in the area, times years)"
    check(of, sum(len(year.sites) for year in pixels), settings.vector_rows)
    lattices = [_lattices(context, year, of_year.sites) for year, of_year in zip(years, pixels, strict=True)]
    if asked.wanted == "CoverageJSON":
        # around an area that is thin, or in several places, a grid has more pixels than the area
        size = sum(height * width for _, _, height, width in _boxes(lattices).values())
        check("pixels (in the grids around the area, times years)", size * len(years), settings.vector_rows)
    found = [
        read_all(Sampling(replace(options, years=(year,)), of_year.sites, context), deadline)[0]
        for year, of_year in zip(years, pixels, strict=True)
    ]
    if asked.wanted == "GeoJSON":
        places = (degrees_of(of_year.sites) for of_year in pixels)
        points = (Points(lon, lat, _rows(len(lon))) for lon, lat in places)
        return _features(zip(points, found, strict=True), options, chosen)
    return grids(_grids(lattices, found), chosen)


# ------------------------------------------------------------------------------------------- parameters


def _geometry(text: str | None, *kinds: str) -> Any:
    """Return a geometry of WKT, two dimensional. Nested collections are not parsed, however deep they are."""
    expected = f"coords: expected WKT, {' or '.join(kinds)}"
    if text is None:
        raise QueryError(f"{expected}, found nothing")
    kind = _KIND.match(text)
    if kind is None or kind[1].upper() not in kinds:
        raise QueryError(f"{expected}, found '{text[:60]}'")
    try:
        return shapely.force_2d(shapely.from_wkt(text))
    except shapely.errors.ShapelyError as error:
        raise QueryError(f"{expected}, found '{text[:60]}' ({' '.join(str(error).split())[:120]})") from error


def _layer(geometry: Any, crs: str) -> Layer:
    return Layer("coords", _rows(len(geometry)), crs, pa.array(shapely.to_wkb(geometry), pa.binary()))


def _rows(n: int) -> pa.Table:
    """Return numbers of rows: a table without columns has no rows."""
    return pa.table({"row": np.arange(1, n + 1)})


def _chosen(asked: Asked, years: tuple[int, ...]) -> tuple[Chosen, PointOptions]:
    bands, has_status = parameters_of(asked.texts)
    # the status alone takes a dimension to see it by
    return Chosen(bands, has_status), PointOptions(years, bands=bands or (0,))


# ----------------------------------------------------------------------------------------------- pixels

Lattice = tuple[int, float, float]
"""EPSG code of a zone, and where its pixels begin, metres within 10."""


@dataclass(frozen=True, slots=True)
class _OnLattice:
    """The pixels of a year that are on one lattice."""

    at: Indices
    row: Indices
    """From the lattice's origin on, southwards."""
    col: Indices


def _pixels(pieces: Sequence[Piece], context: Context, years: Sequence[int]) -> list[PiecePixels]:
    by_centre = [pixels_of(pieces, context.listed, year, "centre") for year in years]
    if all(len(found.sites) for found in by_centre):
        return by_centre
    return [pixels_of(pieces, context.listed, year, "all-touched") for year in years]


def _lattices(context: Context, year: int, sites: Sites) -> dict[Lattice, _OnLattice]:
    left, top = lattice_of(context.listed, year, sites.cell)
    keys = np.column_stack([_epsg(sites.cell), left, top])
    found: dict[Lattice, _OnLattice] = {}
    for epsg, west, north in np.unique(keys, axis=0).tolist():
        at = np.flatnonzero((keys == (epsg, west, north)).all(axis=1))
        col = np.floor((sites.x[at] - west) / PIXEL).astype(np.int64)
        row = np.floor((north - sites.y[at]) / PIXEL).astype(np.int64)
        found[int(epsg), west, north] = _OnLattice(at, row, col)
    return found


def _epsg(cell: Cells) -> Any:
    return epsg_codes(*rows_cols(cell))


def _boxes(years: Sequence[dict[Lattice, _OnLattice]]) -> dict[Lattice, tuple[int, int, int, int]]:
    """Return the first row and column of each lattice, and how many there are, in all years."""
    found = {}
    for lattice in sorted({lattice for year in years for lattice in year}):
        mine = [year[lattice] for year in years if lattice in year]
        row = np.concatenate([each.row for each in mine])
        col = np.concatenate([each.col for each in mine])
        top, left = int(row.min()), int(col.min())
        found[lattice] = top, left, int(row.max()) - top + 1, int(col.max()) - left + 1
    return found


def _grids(years: Sequence[dict[Lattice, _OnLattice]], found: Sequence[PointYear]) -> list[Grid]:
    nothing: Indices = np.empty(0, np.int64)
    made = []
    for lattice, (top, left, height, width) in _boxes(years).items():
        epsg, west, north = lattice
        parts = []
        for of_year, pixels in zip(years, found, strict=True):
            mine = of_year.get(lattice, _OnLattice(nothing, nothing, nothing))
            parts.append(GridYear(pixels, mine.at, mine.row - top, mine.col - left))
        west, north = west + (left + 0.5) * PIXEL, north - (top + 0.5) * PIXEL
        made.append(Grid(epsg, west, north, height, width, tuple(parts)))
    return made


# ------------------------------------------------------------------------------------------------- rows


def _features(
    years: Iterable[tuple[Points, PointYear]], options: PointOptions, chosen: Chosen
) -> Iterator[bytes]:
    """Yield GeoJSON with a property for each parameter."""
    unwanted = [] if chosen.bands else [band_key(band) for band in options.bands]

    def rows() -> Iterator[pa.RecordBatch]:
        for points, year in years:
            maker = Rows(points, options, RowOptions(columns=True), "parquet")
            for batch in batches([year], maker):
                yield batch.drop_columns(unwanted)

    return streamed(rows(), pa.schema([]), "geojson")
