"""Vectors of a request, read in one thread of a pool within limits and until a deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from api.catalogue.snapshot import AnySnapshot
from api.http.work.waiting import Deadline
from api.settings import Settings
from api.vectors.asked import crs_of, point_options, years_of, zonal_options
from api.vectors.listed import list_cells, reason_for_clients
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.errors import TooLargeError
from catalog_builder.storage import Meter
from catalog_builder.tile.grid import PIXEL, Cells
from catalog_builder.vectors.points.options import PointOptions
from catalog_builder.vectors.points.reading import Context
from catalog_builder.vectors.points.rows import Rows
from catalog_builder.vectors.points.sample import Sampling
from catalog_builder.vectors.points.sites import cells_near, sites_of
from catalog_builder.vectors.points.table import OfYear, RowMaker, Source
from catalog_builder.vectors.points.vectors import Indices
from catalog_builder.vectors.tables.body import BodyFormat, layer_of
from catalog_builder.vectors.tables.read import points_of, polygons_of
from catalog_builder.vectors.tables.write import StreamFormat, TableFormat, streamed
from catalog_builder.vectors.zonal.pieces import SQUARE_METRES, cells_of, pieces_of
from catalog_builder.vectors.zonal.rows import ZonalRows
from catalog_builder.vectors.zonal.zonal import Zonal

_TILES = 4
"""Tile-years between two looks at the deadline; neighbours share chunks of a store."""
_BATCH = 2_048
"""Rows that are encoded and sent together."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for vectors of a collection."""

    snapshot: AnySnapshot
    """As its reader may see it."""
    home: str
    record: CollectionRecord
    texts: Mapping[str, str]
    """Its parameters."""


@dataclass(frozen=True, slots=True)
class Posted(Asked):
    """Points or polygons that are sent."""

    body: bytes
    kind: BodyFormat
    wanted: StreamFormat


class _Watched(Meter):
    """Looks at a deadline whenever something was read: a part of a large tile takes thousands of requests."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def add(self, n: int) -> None:
        """Count one read of ``n`` bytes."""
        super().add(n)
        self._deadline.check()


class _Here:
    """A pool that reads at once, in the thread of the request, as long as somebody waits for it."""

    window = 1

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a function that reads, with a meter that stops it."""
        self._deadline.check()
        done: Future[Any] = Future()
        done.set_result(function(*args, _Watched(self._deadline)))
        return done

    def watch(self) -> list[str]:
        """Return nothing: there is never any news."""
        return []


def read_points(asked: Posted, settings: Settings, deadline: Deadline) -> Iterator[bytes]:
    """Read the vectors at points, and return the parts of the response: rows are encoded as they are sent.

    Raises
    ------
    QueryError
        If the body or a parameter is malformed, or more is asked for than a request may.
    QueryTimeoutError
        If the deadline passes.
    """
    texts, years = asked.texts, years_of(asked.texts, asked.record)
    options, row_options = point_options(texts, years)
    names = texts.get("lon"), texts.get("lat")
    layer = layer_of(asked.body, asked.kind, settings.vector_rows, wants_columns=any(names))
    labels = points_of(layer, *names, crs_of(texts))
    check("rows (points times years)", len(labels.lon) * len(years), settings.vector_rows)
    around = max(options.window, 2 * options.nearest / PIXEL + 1) ** 2
    check(
        "pixels (around points, times years)", len(labels.lon) * len(years) * around, settings.vector_pixels
    )
    rows = Rows(labels, options, row_options, _table_format(asked.wanted))
    sampling = sampled(asked, labels.lon, labels.lat, options, settings, deadline)
    return _table(read_all(sampling, deadline), rows, asked.wanted)


def sampled(
    asked: Asked, lon: Any, lat: Any, options: PointOptions, settings: Settings, deadline: Deadline
) -> Sampling:
    """Return points of the catalogue, still to be read."""
    context = context_of(asked, cells_near(lon, lat, options.reach), options.years or (), settings, deadline)
    return Sampling(options, sites_of(lon, lat), context)


def read_zonal(asked: Posted, settings: Settings, deadline: Deadline) -> Iterator[bytes]:
    """Read the statistics of polygons. Raises as :func:`read_points`."""
    texts, years = asked.texts, years_of(asked.texts, asked.record)
    options, row_options = zonal_options(texts, years)
    layer = layer_of(asked.body, asked.kind, settings.vector_rows)
    polygons = polygons_of(layer, crs_of(texts), settings.max_vertices)
    check("rows (polygons times years)", len(polygons.geometry) * len(years), settings.vector_rows)
    check_boxes(polygons.geometry, len(years), settings)
    rows = ZonalRows(polygons, options, row_options, _table_format(asked.wanted))
    cells = cells_of(polygons.geometry)
    context = context_of(asked, np.unique(np.concatenate(cells)), years, settings, deadline)
    zonal = Zonal(options, polygons.geometry, context, pieces_of(polygons.geometry, cells))
    return _table(read_all(zonal, deadline), rows, asked.wanted)


def check_boxes(geometry: Any, years: int, settings: Settings) -> None:
    """Reject polygons whose bounding boxes have too many pixels: the lattice in them is laid out.

    Raises
    ------
    TooLargeError
        If they do.
    """
    west, south, east, north = shapely.bounds(geometry).T
    nearest = np.where(south * north <= 0, 0.0, np.minimum(np.abs(south), np.abs(north)))
    area = (east - west) * np.cos(np.radians(nearest)) * (north - south) * SQUARE_METRES
    pixels = float((area / PIXEL**2 + 1).sum()) * years
    check("pixels (in the boxes of polygons, times years)", pixels, settings.vector_pixels)


def check(of: str, found: float, most: int) -> None:
    """Reject a request beyond a limit.

    Raises
    ------
    TooLargeError
        If ``found`` is more than ``most``.
    """
    if found > most:
        raise TooLargeError(f"the request asks for {found:,.0f} {of}, expected at most {most:,}")


def _table_format(wanted: StreamFormat) -> TableFormat:
    """Return how rows are made: those of GeoJSON have a geometry, as those of GeoParquet."""
    return "parquet" if wanted == "geojson" else wanted


def context_of(
    asked: Asked, cells: Cells, years: tuple[int, ...], settings: Settings, deadline: Deadline
) -> Context:
    """Return what a collection has of some cells, and who reads it: the thread that calls."""
    listed = list_cells(
        asked.snapshot, asked.home, asked.record, cells, years, settings.vector_tiles, deadline
    )
    return Context(listed, _Here(deadline), together=_TILES)


def read_all[Y: OfYear](source: Source[Y], deadline: Deadline) -> list[Y]:
    """Read everything: what fails or takes too long fails before the first byte is sent."""
    found = []
    for year in source.read():
        deadline.check()
        year.reasons = {i: reason_for_clients(reason) for i, reason in year.reasons.items()}
        found.append(year)
    return found


def batches[Y: OfYear](found: Iterable[Y], rows: RowMaker[Y]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of years, some at a time."""
    for year in found:
        for start in range(0, len(year.at), _BATCH):
            part: Indices = np.arange(start, min(start + _BATCH, len(year.at)))
            yield rows.batch(year, part)


def _table[Y: OfYear](found: Iterable[Y], rows: RowMaker[Y], wanted: StreamFormat) -> Iterator[bytes]:
    return streamed(batches(found, rows), rows.schema, wanted)
