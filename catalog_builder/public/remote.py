"""Points and polygons that a server reads: sent in parts, several at a time, each as large as it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import shapely

from catalog_builder import storage
from catalog_builder.errors import CatalogError, QueryError
from catalog_builder.item.bands_view import bands_text
from catalog_builder.storage import web
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.grid import cells_containing
from catalog_builder.vectors.find import choose, collections_of
from catalog_builder.vectors.points.options import PointOptions, PointYear
from catalog_builder.vectors.points.rows import OUTCOMES, VectorType
from catalog_builder.vectors.points.vectors import Floats, Indices, Vectors
from catalog_builder.vectors.tables.read import Points, Polygons
from catalog_builder.vectors.tables.write import VECTOR, dense, geo_metadata
from catalog_builder.vectors.zonal.zonal import ZonalOptions, ZonalYear

ROWS = 20_000
"""Rows of a request, a response of 10 MB; where a server takes fewer, they are halved until it does."""
ARROW = "application/vnd.apache.arrow.stream"


@dataclass(frozen=True, slots=True)
class _Server:
    """A collection of a tessera-stac API."""

    url: str
    dataset: Dataset
    years: tuple[int, ...]
    """Those to read, in their order."""

    @classmethod
    def of(cls, catalog: str, dataset: str | None, years: tuple[int, ...] | None) -> _Server:
        if storage.scheme(catalog) not in ("http", "https"):
            raise QueryError(f"{catalog}: is no server, which is needed to read at one: leave out 'reader'")
        found = {each.collection_id: (each, has) for each, has in collections_of(catalog)}
        chosen, has = found[choose(found, dataset).collection_id]
        missing = sorted(set(years or ()) - set(has))
        if missing:
            have = ", ".join(map(str, has))
            raise QueryError(f"years: the collection has {have}, found {', '.join(map(str, missing))}")
        return cls(catalog.rstrip("/"), chosen, years or has)

    def read(
        self, verb: str, texts: Mapping[str, object], rows: pa.Table, near: npt.NDArray[Any], workers: int
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yield each year, and a row for each row that is sent.

        Parameters
        ----------
        verb, texts
            Which route, and its parameters.
        rows
            What is sent, n rows.
        near
            Sorts what is near each other together, (n,): a request should touch few tiles.
        workers
            Number of requests at a time.
        """
        order = np.argsort(near, kind="stable")
        size = max(1, ROWS // len(self.years))
        parts = [order[at : at + size] for at in range(0, len(order), size)]
        runs = [[year for _, year in run] for _, run in groupby(enumerate(sorted(self.years)), _step)]

        def ask(part: Indices, run: Sequence[int]) -> list[pa.Table]:
            when = f"{run[0]}-01-01T00:00:00Z/{run[-1]}-12-31T23:59:59Z"
            query = urlencode({**texts, "f": "arrow", "datetime": when})
            url = f"{self.url}/collections/{self.dataset.collection_id}/{verb}?{query}"
            status, body = web.post(url, _stream(rows.take(pa.array(part))), {"Content-Type": ARROW})
            if status == 413 and len(part) > 1:
                half = len(part) // 2
                return [*ask(part[:half], run), *ask(part[half:], run)]
            return [_table(url, status, body)]

        with ThreadPoolExecutor(workers) as pool:
            asked = {(n, run[0]): pool.submit(ask, part, run) for n, part in enumerate(parts) for run in runs}
            try:
                found = [table for future in asked.values() for table in future.result()]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        whole = pa.concat_tables(found)
        said = whole["year"].to_numpy()
        for year in self.years:
            mine = whole.filter(pa.array(said == year))
            if len(mine) != len(rows):
                raise CatalogError(f"{self.url}: gave {len(mine)} of {len(rows)} rows of {year}")
            yield year, mine.take(pa.array(np.argsort(mine["row"].to_numpy()))).combine_chunks()


def _step(pair: tuple[int, int]) -> int:
    """Return what years that follow each other have in common, of their place and number."""
    return pair[1] - pair[0]


def _stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue())


def _table(url: str, status: int, body: bytes) -> pa.Table:
    """Return the rows of a response.

    Raises
    ------
    QueryError, CatalogError
        If it is none.
    """
    if status == 200:
        return pa.ipc.open_stream(body).read_all()
    try:
        said = str(orjson.loads(body)["description"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        said = f"HTTP {status}"
    if status in (400, 413):
        raise QueryError(said)
    raise CatalogError(f"{url.partition('?')[0]}: HTTP {status}: {said}")


def _outcomes(table: pa.Table) -> tuple[npt.NDArray[np.uint8], dict[int, str]]:
    """Return what became of rows, and why some are unreadable."""
    numbers = {text: number for number, text in enumerate(OUTCOMES.tolist())}
    outcome = np.array([numbers[text] for text in table["status"].to_pylist()], np.uint8)
    reasons = {i: reason for i, reason in enumerate(table["reason"].to_pylist()) if reason is not None}
    return outcome, reasons


def _array(column: pa.ChunkedArray) -> pa.Array:
    found = column.combine_chunks()
    return found.chunk(0) if isinstance(found, pa.ChunkedArray) else found


def _columns(bands: tuple[int, ...]) -> tuple[str, Callable[[Any], Any]]:
    """Return bands as the server takes them, which is ascending, and what puts them in order again."""
    ascending = tuple(sorted(set(bands)))
    at = [ascending.index(band) for band in bands]
    in_order = at == list(range(len(ascending)))
    return bands_text(ascending), lambda vectors: vectors if in_order else vectors[:, at]


def _max_scale(options: PointOptions | ZonalOptions) -> float:
    if options.max_scale is None:
        raise QueryError("max_scale: expected a number: a server does not return corrupt pixels")
    return options.max_scale


# --------------------------------------------------------------------------------------------- sources


class PointsAtServer:
    """Points that a server reads, year by year, as :class:`~catalog_builder.vectors.points.sample.Sampling`.

    Parameters
    ----------
    catalog
        URL of a tessera-stac API.
    points, options
        What is read.
    dtype
        ``int8`` for codes and scales, else values are sent.
    workers
        Number of requests at a time.
    """

    def __init__(
        self, catalog: str, points: Points, options: PointOptions, dtype: VectorType, workers: int
    ) -> None:
        self._server = _Server.of(catalog, options.dataset, options.years)
        self._points, self._options, self._workers = points, options, workers
        self._is_codes = dtype == "int8"
        self.years, self.dataset = self._server.years, self._server.dataset

    def read(self) -> Iterator[PointYear]:
        """Yield the vectors of each year."""
        lon, lat, options = self._points.lon, self._points.lat, self._options
        bands, in_order = _columns(options.bands)
        texts: dict[str, object] = {"bands": bands, "max-scale": _max_scale(options)}
        texts |= {"dtype": "int8"} if self._is_codes else {}
        texts |= {"nearest": options.nearest} if options.nearest else {}
        texts |= {"window": options.window} if options.window > 1 else {}
        rows = pa.table({"row": np.arange(len(lon)), "lon": lon, "lat": lat})
        for year, table in self._server.read(
            "points", texts, rows, cells_containing(lon, lat), self._workers
        ):
            outcome, reasons = _outcomes(table)
            read = in_order(dense(_array(table[VECTOR])))
            vectors = Vectors.of_values(read)
            if self._is_codes:
                scales = _array(table["scale"]).to_numpy(zero_copy_only=False)
                vectors = Vectors(read.shape[1], read, scales.astype(np.float32))
            found = PointYear(year, np.arange(len(lon)), vectors, outcome, reasons)
            if options.nearest:
                found.distance = _array(table["distance"]).to_numpy(zero_copy_only=False)
            if options.window > 1:
                found.pixels = _array(table["pixels"]).to_numpy()
            yield found


class PolygonsAtServer:
    """Polygons that a server reads, year by year, as :class:`~catalog_builder.vectors.zonal.zonal.Zonal`.

    Parameters
    ----------
    catalog
        URL of a tessera-stac API.
    polygons, options
        What is computed.
    workers
        Number of requests at a time.
    """

    def __init__(self, catalog: str, polygons: Polygons, options: ZonalOptions, workers: int) -> None:
        self._server = _Server.of(catalog, options.dataset, options.years)
        self._geometry, self._options, self._workers = polygons.geometry, options, workers

    def read(self) -> Iterator[ZonalYear]:
        """Yield the statistics of each year."""
        options, n = self._options, len(self._geometry)
        bands, in_order = _columns(options.bands)
        texts = {
            "bands": bands,
            "max-scale": _max_scale(options),
            "stat": ",".join(options.statistics),
            "coverage": options.coverage,
        }
        bounds = shapely.bounds(self._geometry)
        west, south, east, north = shapely.total_bounds(self._geometry).tolist()
        kinds = sorted({geometry.geom_type for geometry in self._geometry})
        wkb = pa.array(shapely.to_wkb(self._geometry), pa.binary())
        rows = pa.table({"row": np.arange(n), "geometry": wkb})
        rows = rows.replace_schema_metadata(geo_metadata(kinds, (west, south, east, north)))
        near = cells_containing(bounds[:, 0], bounds[:, 1])
        for year, table in self._server.read("zonal", texts, rows, near, self._workers):
            outcome, reasons = _outcomes(table)
            statistics: dict[Any, Floats] = {
                name: in_order(dense(_array(table[name]))) for name in options.vectors
            }
            pixels, count, fraction = (
                _array(table[name]).to_numpy() for name in ("pixels", "count", "valid_fraction")
            )
            yield ZonalYear(year, np.arange(n), statistics, outcome, pixels, count, fraction, reasons)
