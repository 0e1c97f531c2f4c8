"""Statistics of vectors in polygons, year by year."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from catalog_builder.console import Progress, no_progress
from catalog_builder.errors import QueryError
from catalog_builder.storage import Meter
from catalog_builder.tile.files import ALL_BANDS, N_BANDS
from catalog_builder.vectors.find import Listed, find_cells
from catalog_builder.vectors.points.options import MAX_SCALE
from catalog_builder.vectors.points.reading import Context, Pool, SitesRead, read_sites
from catalog_builder.vectors.points.vectors import Floats, Indices, Outcome
from catalog_builder.vectors.zonal.pieces import (
    Geometries,
    Piece,
    PiecePixels,
    batched_pieces,
    cells_of,
    pieces_of,
    pixels_of,
)
from catalog_builder.vectors.zonal.statistics import STATISTICS, Moments, Statistic, median
from catalog_builder.vectors.zonal.weights import COVERAGES, Coverage

MOST_FOR_MEDIAN = 4_000_000
"""Pixels of a polygon of which a median is computed: all its vectors are in memory."""


@dataclass(frozen=True, slots=True)
class ZonalOptions:
    """What is computed in polygons.

    Raises
    ------
    QueryError
        If one is out of range.
    """

    years: tuple[int, ...] | None = None
    """Years, in the order of the result; None: all of the collection."""
    dataset: str | None = None
    """Directory name or collection id; None: the only one, or the first real one."""
    bands: tuple[int, ...] = ALL_BANDS
    """Dimensions, counted from 0."""
    statistics: tuple[Statistic, ...] = ("mean",)
    """In the order of the result; ``count``, the sum of weights, is always there."""
    coverage: Coverage = "exact"
    """How much pixels at the edge count."""
    max_scale: float | None = MAX_SCALE
    """Pixels whose scale is at least this, infinite or negative have no data; None: whatever is stored."""

    def __post_init__(self) -> None:
        """Reject what cannot be done."""
        unknown = [name for name in self.statistics if name not in STATISTICS]
        if unknown or not self.statistics:
            raise QueryError(
                f"statistics: expected some of {', '.join(STATISTICS)}, found {', '.join(unknown) or 'none'}"
            )
        if self.coverage not in COVERAGES:
            raise QueryError(f"coverage: expected one of {', '.join(COVERAGES)}, found '{self.coverage}'")
        if not self.bands or not all(0 <= band < N_BANDS for band in self.bands):
            raise QueryError(f"bands: expected some of 0 to {N_BANDS - 1}, found {self.bands}")
        if self.max_scale is not None and not self.max_scale > 0:
            raise QueryError(f"max_scale: expected a number above 0, found {self.max_scale}")
        if self.years is not None and (not self.years or len(set(self.years)) < len(self.years)):
            raise QueryError(f"years: expected at least one, and each once, found {list(self.years)}")

    @property
    def vectors(self) -> tuple[Statistic, ...]:
        """The statistics that have a number for each band."""
        return tuple(dict.fromkeys(name for name in self.statistics if name != "count"))


@dataclass(slots=True)
class ZonalYear:
    """Statistics of polygons in one year."""

    year: int
    at: Indices
    """Which polygons, by their number; n of them."""
    statistics: dict[Statistic, Floats]
    """float32 (n, bands) each; NaN where the outcome is not valid."""
    outcome: npt.NDArray[np.uint8]
    """uint8 (n,) of :class:`~catalog_builder.vectors.points.vectors.Outcome`."""
    pixels: npt.NDArray[np.int64]
    """Number of pixels with data, (n,)."""
    count: npt.NDArray[np.float64]
    """Sum of their weights, (n,)."""
    valid_fraction: npt.NDArray[np.float64]
    """Of the weights of all pixels of the polygon, (n,)."""
    reasons: dict[int, str] = field(default_factory=dict)
    """Why unreadable ones are, by position in ``at``."""
    corrupt: int = 0
    """Pixels that were taken for no data because of their scales."""


@dataclass(slots=True)
class _Sum:
    """What is known of a polygon so far."""

    left: int
    """Pieces that are still to come."""
    weights: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(Outcome)))
    """Sums of weights by outcome."""
    pixels: int = 0
    moments: Moments | None = None
    parts: list[tuple[Floats, npt.NDArray[np.float64]]] = field(default_factory=list)
    """Values and weights, for the median."""
    reason: str | None = None


@dataclass(slots=True)
class Zonal:
    """Polygons of a catalogue: the years they have, and their statistics, one year after the other."""

    options: ZonalOptions
    geometry: Geometries
    context: Context
    _pieces: list[Piece]

    @classmethod
    def of(
        cls,
        catalog: str,
        geometry: Geometries,
        options: ZonalOptions,
        pool: Pool,
        progress: Progress = no_progress,
    ) -> Zonal:
        """Find the tiles of polygons.

        Parameters
        ----------
        catalog
            A catalogue folder, its s3 URL, or the URL of a tessera-stac API.
        geometry
            Valid shapely polygons and multipolygons in degrees (OGC:CRS84), (n,).
        options
            What is computed.
        pool
            Who reads, see :func:`catalog_builder.vectors.points.run.pool_of`.
        progress
            Told of tile-years.

        Raises
        ------
        QueryError
            If there are no polygons, or a median is asked for of one that is too large.
        CatalogError, DatasetError
            As :func:`catalog_builder.vectors.find.find_cells`.
        """
        if not len(geometry):
            raise QueryError("expected polygons, found none")
        cells = cells_of(geometry)
        pieces = pieces_of(geometry, cells)
        if "median" in options.statistics:
            sizes = np.bincount([p.polygon for p in pieces], [p.pixels for p in pieces], len(geometry))
            if sizes.max() > MOST_FOR_MEDIAN:
                raise QueryError(
                    f"polygon {int(sizes.argmax()) + 1} has about {int(sizes.max()):,} pixels: a median is"
                    f" computed of at most {MOST_FOR_MEDIAN:,}; other statistics of any number"
                )
        listed = find_cells(catalog, np.unique(np.concatenate(cells)), options.years, options.dataset)
        context = Context(listed, pool, progress=progress)
        return cls(options, geometry, context, pieces)

    def __len__(self) -> int:
        return len(self.geometry)

    @property
    def listed(self) -> Listed:
        """What the catalogue has of the cells of the polygons."""
        return self.context.listed

    @property
    def years(self) -> tuple[int, ...]:
        """The years of the result, in order."""
        return self.options.years or self.listed.years

    @property
    def meter(self) -> Meter:
        """What was read so far."""
        return self.context.meter

    def read(self, only: Mapping[int, Indices] | None = None) -> Iterator[ZonalYear]:
        """Yield the statistics of each year.

        Parameters
        ----------
        only
            Which polygons to read, by year; None: all.
        """
        everything = np.arange(len(self.geometry))
        for year in self.years:
            yield self._year(year, everything if only is None else only.get(year, everything[:0]))

    def _year(self, year: int, at: Indices) -> ZonalYear:
        n, bands, options = len(at), len(self.options.bands), self.options
        found = ZonalYear(
            year,
            at,
            {name: np.full((n, bands), np.nan, np.float32) for name in options.vectors},
            np.full(n, Outcome.OUTSIDE, np.uint8),
            np.zeros(n, np.int64),
            np.zeros(n),
            np.zeros(n),
        )
        position = {int(polygon): i for i, polygon in enumerate(at)}
        pieces = [piece for piece in self._pieces if piece.polygon in position]
        sums: dict[int, _Sum] = defaultdict(lambda: _Sum(0))
        for piece in pieces:
            sums[piece.polygon].left += 1
        for batch in batched_pieces(pieces):
            pixels = pixels_of(batch, self.listed, year, options.coverage)
            read = read_sites(self.context, year, pixels.sites, options.bands)
            if options.max_scale is not None:
                corrupt = read.vectors.corrupt(options.max_scale)
                found.corrupt += int(corrupt.sum())
                read.status[corrupt & (read.status == Outcome.VALID)] = Outcome.NODATA
            self._add(pixels, read, sums)
            for piece in batch:
                sums[piece.polygon].left -= 1
                if not sums[piece.polygon].left:
                    self._finish(found, position[piece.polygon], sums.pop(piece.polygon))
        return found

    def _add(self, pixels: PiecePixels, read: SitesRead, sums: dict[int, _Sum]) -> None:
        """Add pixels to what is known of their polygons."""
        for polygon, at in pixels.of():
            known, status, weight = sums[polygon], read.status[at], pixels.weight[at]
            known.weights += np.bincount(status, weight, len(Outcome))
            broken = np.flatnonzero(status == Outcome.UNREADABLE)
            if len(broken):
                known.reason = known.reason or read.reasons[int(pixels.sites.cell[at][broken[0]])]
            valid = np.flatnonzero(status == Outcome.VALID)
            if not len(valid) or not self.options.vectors:
                known.pixels += len(valid)
                continue
            known.pixels += len(valid)
            values, weight = read.vectors.dequantized(valid + at.start), weight[valid]
            moments = Moments.of(values, weight)
            known.moments = moments if known.moments is None else known.moments + moments
            if "median" in self.options.statistics:
                known.parts.append((values, weight))

    def _finish(self, found: ZonalYear, i: int, known: _Sum) -> None:
        """Put what is known of a polygon into a year."""
        total = float(known.weights.sum())
        found.pixels[i] = known.pixels
        found.count[i] = known.weights[Outcome.VALID]
        found.valid_fraction[i] = found.count[i] / total if total else 0.0
        if known.reason is not None:
            found.outcome[i], found.reasons[i] = Outcome.UNREADABLE, known.reason
            return
        found.outcome[i] = (
            Outcome.VALID if known.pixels else int(known.weights.argmax()) if total else Outcome.OUTSIDE
        )
        if known.moments is None:
            return
        for name, vector in known.moments.statistics(self.options.vectors).items():
            found.statistics[name][i] = vector
        if known.parts:
            values = np.concatenate([part for part, _ in known.parts])
            weight = np.concatenate([part for _, part in known.parts])
            found.statistics["median"][i] = median(values, weight)
