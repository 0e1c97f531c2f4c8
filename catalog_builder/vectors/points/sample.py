"""Vectors at arrays of points, year by year."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalog_builder.console import Progress, no_progress
from catalog_builder.errors import QueryError, StorageError
from catalog_builder.storage import Meter
from catalog_builder.tile.files import ALL_BANDS
from catalog_builder.tile.grid import cells_containing
from catalog_builder.vectors.find import Listed, TileYear, find_cells
from catalog_builder.vectors.points.around import nearest_pixels, window_means
from catalog_builder.vectors.points.options import PointOptions, PointYear
from catalog_builder.vectors.points.reading import Context, Pool, Sites, Threads, read_sites
from catalog_builder.vectors.points.sites import cells_near, sites_of
from catalog_builder.vectors.points.vectors import Indices, Outcome


@dataclass(slots=True)
class Sampling:
    """Points of a catalogue: the years they have, and their vectors, one year after the other.

    >>> sampling = Sampling.of("catalog", lon, lat, PointOptions())  # doctest: +SKIP
    >>> for found in sampling.read():  # doctest: +SKIP
    ...     found.vectors.dequantized()
    """

    options: PointOptions
    sites: Sites
    context: Context

    @classmethod
    def of(
        cls,
        catalog: str,
        lon: npt.ArrayLike,
        lat: npt.ArrayLike,
        options: PointOptions,
        pool: Pool,
        progress: Progress = no_progress,
    ) -> Sampling:
        """Find the tiles of points.

        Parameters
        ----------
        catalog
            A catalogue folder, its s3 URL, or the URL of a tessera-stac API.
        lon, lat
            Degrees (OGC:CRS84), (n,).
        options
            What is read.
        pool
            Who reads, see :func:`.run.pool_of`.
        progress
            Told of tile-years.

        Raises
        ------
        QueryError
            If there are no points, or one of them is not on the globe.
        CatalogError, DatasetError
            As :func:`catalog_builder.vectors.find.find_cells`.
        """
        x, y = np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)
        if x.ndim != 1 or x.shape != y.shape or not len(x):
            raise QueryError(
                f"expected longitudes and latitudes of equal length, found {x.shape} and {y.shape}"
            )
        astray = np.flatnonzero(cells_containing(x, y) < 0)
        if len(astray):
            i = int(astray[0])
            raise QueryError(
                f"point {i} of {len(x)} is ({x[i]}, {y[i]}): expected lon -180..180, lat -90..90"
                + (f"; {len(astray) - 1} more are not on the globe" if len(astray) > 1 else "")
            )
        listed = find_cells(catalog, cells_near(x, y, options.reach), options.years, options.dataset)
        context = Context(listed, pool, progress=progress)
        return cls(options, sites_of(x, y), context)

    def __len__(self) -> int:
        return len(self.sites)

    @property
    def listed(self) -> Listed:
        """What the catalogue has of the cells around the points."""
        return self.context.listed

    @property
    def years(self) -> tuple[int, ...]:
        """The years of the result, in order."""
        return self.options.years or self.listed.years

    @property
    def meter(self) -> Meter:
        """What was read so far."""
        return self.context.meter

    def read(self, only: Mapping[int, Indices] | None = None) -> Iterator[PointYear]:
        """Yield the vectors of each year.

        Parameters
        ----------
        only
            Which points to read, by year; None: all.
        """
        everything = np.arange(len(self.sites))
        for year in self.years:
            at = everything if only is None else only.get(year, everything[:0])
            yield self._year(year, at)

    def _year(self, year: int, at: Indices) -> PointYear:
        sites = self.sites if len(at) == len(self.sites) else self.sites.take(at)
        options, context = self.options, self.context
        if options.window > 1:
            return window_means(context, year, at, sites, options)
        read = read_sites(context, year, sites, options.bands)
        found = PointYear(year, at, read.vectors, read.status)
        unreadable = np.flatnonzero(found.outcome == Outcome.UNREADABLE)
        found.reasons = {int(i): read.reasons[int(sites.cell[i])] for i in unreadable}
        if options.max_scale is not None:
            corrupt = found.vectors.corrupt(options.max_scale)
            found.corrupt = int(corrupt.sum())
            found.outcome[corrupt & (found.outcome == Outcome.VALID)] = Outcome.NODATA
            found.vectors.blank(found.outcome != Outcome.VALID)
        if options.nearest:
            nearest_pixels(context, sites, options, found)
        return found


# ---------------------------------------------------------------------------------------- the function


@dataclass(frozen=True, slots=True)
class Samples:
    """Embeddings at points."""

    values: npt.NDArray[np.float32]
    """float32 (points, years, bands); NaN where a year has no tile or a pixel has no data."""
    years: tuple[int, ...]
    requests: int
    """Number of pixel reads: for published arrays, each is one range request."""
    read_bytes: int
    """Bytes read; estimated for converted tiles, from their sizes."""
    whole_bytes: int
    """Bytes that downloading the same tile-years in full would take."""
    is_synthetic: bool
    outcome: npt.NDArray[np.uint8]
    """uint8 (points, years) of :class:`~catalog_builder.vectors.points.vectors.Outcome`."""


def sample_points(
    catalog: str,
    lon: npt.ArrayLike,
    lat: npt.ArrayLike,
    years: Sequence[int],
    *,
    dataset: str | None = None,
    bands: Collection[int] = ALL_BANDS,
    workers: int = 4,
) -> Samples:
    """Return the embeddings of the pixels that contain some points, as they are stored.

    Parameters
    ----------
    catalog
        A catalogue folder, or the URL of a tessera-stac API.
    lon, lat
        Degrees (OGC:CRS84), of equal length.
    years
        Years, in the order of the result.
    dataset
        Directory name or collection id; None: the only one, or the first real one.
    bands
        Dimensions, counted from 0.
    workers
        Number of threads that read tile-years.

    Raises
    ------
    QueryError
        If there are no points, or no tiles at them.
    StorageError
        If a tile-year cannot be read.
    CatalogError, DatasetError
        As for :func:`catalog_builder.vectors.regions.run.get`.
    """
    wanted = tuple(dict.fromkeys(years))
    options = PointOptions(wanted or None, dataset, tuple(bands), max_scale=None)
    threads = Threads(workers)
    try:
        sampling = Sampling.of(catalog, lon, lat, options, threads)
        sources = [s for s in sampling.listed.tile_years.values() if isinstance(s, TileYear)]
        if not sources:
            raise QueryError("there are no tiles at these points in these years")
        shape = len(sampling.sites), len(years)
        values = np.full((*shape, len(options.bands)), np.nan, dtype=np.float32)
        outcome = np.full(shape, Outcome.OUTSIDE, dtype=np.uint8)
        for found in sampling.read():
            if found.reasons:
                raise StorageError(next(iter(found.reasons.values())))
            read = found.vectors.dequantized()
            for i, year in enumerate(years):
                if year == found.year:
                    values[:, i], outcome[:, i] = read, found.outcome
    finally:
        threads.close()
    meter, whole = sampling.meter, sum(s.place.whole_bytes for s in sources)
    synthetic = sampling.listed.dataset.is_synthetic
    return Samples(values, tuple(years), meter.requests, meter.bytes, whole, synthetic, outcome)
