"""Pixels of many tile-years: grouped by tile, read in parts by threads of this machine or by a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from catalog_builder.console import Progress, no_progress, say
from catalog_builder.errors import QueryTimeoutError, TesseraError
from catalog_builder.pixels.read import read_pixels
from catalog_builder.pixels.values import Picked
from catalog_builder.storage import Meter
from catalog_builder.tile.grid import PIXEL, Raster
from catalog_builder.vectors.find import Listed, TileYear
from catalog_builder.vectors.points.vectors import OUTCOME_OF, Indices, Outcome, Vectors

Coordinates = npt.NDArray[np.float64]
TILES, PIXELS = 16, 100_000
"""Tile-years and pixels of a part, at most, unless one tile-year has more pixels."""


@dataclass(frozen=True, slots=True)
class Part:
    """Pixels of some tile-years that are read in one go."""

    sources: tuple[TileYear, ...]
    first: Indices
    """Which pixel is the first of each tile-year, and their number: (n + 1,)."""
    x: Coordinates
    """Metres in the CRS of the tile: the pixel that contains it is read, at the raster's edge the nearest."""
    y: Coordinates
    bands: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PartRead:
    """What was read of a part."""

    vectors: Vectors
    status: npt.NDArray[np.uint8]
    """uint8 (n,) of :class:`~catalog_builder.vectors.points.vectors.Outcome`."""
    reasons: dict[int, str]
    """Why tile-years could not be read, by their number in the part."""
    bytes: int
    requests: int


def read_part(part: Part, meter: Meter | None = None) -> PartRead:
    """Read a part. A tile-year that cannot be read costs its own pixels.

    Parameters
    ----------
    part
        What is read.
    meter
        Counts what is read, from 0; if it raises QueryTimeoutError, reading ends there.
    """
    n, meter = len(part.x), meter or Meter()
    vectors = Vectors.empty(n, len(part.bands))
    status = np.full(n, Outcome.UNREADABLE, np.uint8)
    reasons: dict[int, str] = {}

    def read(numbers: list[int]) -> None:
        at = slice(int(part.first[numbers[0]]), int(part.first[numbers[-1] + 1]))
        try:
            found = _read([part.sources[i] for i in numbers], part, numbers, meter)
        except QueryTimeoutError:
            raise
        except TesseraError as error:
            if len(numbers) == 1:
                reasons[numbers[0]] = str(error)
                return
            for number in numbers:
                read([number])
            return
        vectors.put(np.arange(at.start, at.stop), found.pixels)
        status[at] = OUTCOME_OF[found.status]

    # neighbours in a store share chunks, which are read once
    for _, group in groupby(range(len(part.sources)), key=lambda i: _array_of(part.sources[i], i)):
        read(list(group))
    return PartRead(vectors, status, reasons, meter.bytes, meter.requests)


def _array_of(source: TileYear, number: int) -> tuple[object, ...]:
    """Return what tile-years that are read together have in common."""
    inside = source.place.inside
    return (number,) if inside is None else (source.place.main, inside.group, inside.time)


def _read(sources: list[TileYear], part: Part, numbers: list[int], meter: Meter) -> Picked:
    rows, cols = [], []
    for source, number in zip(sources, numbers, strict=True):
        at = slice(int(part.first[number]), int(part.first[number + 1]))
        found = pixels_at(source.place.raster, part.x[at], part.y[at])
        rows.append(found[0])
        cols.append(found[1])
    if len(sources) == 1:
        return read_pixels(sources[0].place, rows[0], cols[0], part.bands, meter=meter)
    windows = [source.place.inside for source in sources]
    tops = [w.row for w in windows if w is not None]
    lefts = [w.col for w in windows if w is not None]
    first = sources[0].place
    bottom = max(top + s.place.raster.height for top, s in zip(tops, sources, strict=True))
    right = max(left + s.place.raster.width for left, s in zip(lefts, sources, strict=True))
    raster = replace(first.raster, height=bottom - min(tops), width=right - min(lefts))
    inside = None if first.inside is None else replace(first.inside, row=min(tops), col=min(lefts))
    return read_pixels(
        replace(first, raster=raster, inside=inside),
        np.concatenate([r + top - min(tops) for r, top in zip(rows, tops, strict=True)]),
        np.concatenate([c + left - min(lefts) for c, left in zip(cols, lefts, strict=True)]),
        part.bands,
        meter=meter,
    )


def pixels_at(raster: Raster, x: Coordinates, y: Coordinates) -> tuple[Indices, Indices]:
    """Return rows and columns of the pixels that contain points; at the raster's edge the nearest."""
    row = np.floor((raster.transform.f - y) / PIXEL)
    col = np.floor((x - raster.transform.c) / PIXEL)
    return (
        np.clip(row, 0, raster.height - 1).astype(np.int64),
        np.clip(col, 0, raster.width - 1).astype(np.int64),
    )


# ------------------------------------------------------------------------------------------ who reads


class Pool(Protocol):
    """Who reads parts: threads of this process, or a Dask cluster."""

    @property
    def window(self) -> int:
        """Number of parts that may be waiting or in progress."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a function."""

    def watch(self) -> list[str]:
        """Return what is new, in lines."""


class Threads:
    """Threads of this process."""

    def __init__(self, workers: int) -> None:
        self._executor, self.window = ThreadPoolExecutor(workers), 2 * workers

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a function in a thread."""
        return self._executor.submit(function, *args)

    def watch(self) -> list[str]:
        """Return nothing: there is never any news."""
        return []

    def close(self) -> None:
        """Drop what has not begun, and wait for the rest."""
        self._executor.shutdown(cancel_futures=True)


def read_parts(pool: Pool, parts: Iterable[Part]) -> Iterator[tuple[int, PartRead]]:
    """Yield parts by their number, in any order, as they are read; few are waiting at a time."""
    waiting: dict[Future[PartRead], int] = {}
    try:
        for number, part in enumerate(parts):
            waiting[pool.submit(read_part, part)] = number
            while len(waiting) >= pool.window:
                yield from _done(pool, waiting)
        while waiting:
            yield from _done(pool, waiting)
    finally:
        for future in waiting:
            future.cancel()


def _done(pool: Pool, waiting: dict[Future[PartRead], int]) -> Iterator[tuple[int, PartRead]]:
    for line in pool.watch():
        say(line)
    for future in wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED).done:
        yield waiting.pop(future), future.result()


# ------------------------------------------------------------------------------------------------ sites


@dataclass(slots=True)
class Sites:
    """Places whose pixels are read: a cell, and metres in the CRS of its tile."""

    cell: npt.NDArray[np.int32]
    x: Coordinates
    y: Coordinates

    def __len__(self) -> int:
        return len(self.cell)

    def take(self, at: Indices) -> Sites:
        """Return some of them."""
        return Sites(self.cell[at], self.x[at], self.y[at])


@dataclass(slots=True)
class SitesRead:
    """Pixels of sites in a year."""

    vectors: Vectors
    status: npt.NDArray[np.uint8]
    """uint8 (n,) of :class:`~catalog_builder.vectors.points.vectors.Outcome`."""
    reasons: dict[int, str] = field(default_factory=dict)
    """Why cells could not be read."""


@dataclass(slots=True)
class Context:
    """What all reads of a run have in common."""

    listed: Listed
    pool: Pool
    meter: Meter = field(default_factory=Meter)
    progress: Progress = no_progress
    tile_years: int = 0
    """Tile-years read so far."""
    of_tile_years: int = field(init=False)
    """Tile-years to read, as far as that is known."""
    together: int = TILES
    """Tile-years of a part, at most."""

    def __post_init__(self) -> None:
        """Count what can be read."""
        self.of_tile_years = sum(isinstance(t, TileYear) for t in self.listed.tile_years.values())


def read_sites(context: Context, year: int, sites: Sites, bands: tuple[int, ...]) -> SitesRead:
    """Read the pixels of sites in a year, each tile once."""
    listed = context.listed
    found = SitesRead(Vectors.empty(len(sites), len(bands)), np.full(len(sites), Outcome.OUTSIDE, np.uint8))
    if not len(sites):
        return found
    order = np.argsort(sites.cell, kind="stable")
    cells, first = np.unique(sites.cell[order], return_index=True)
    groups: list[tuple[TileYear, Indices]] = []
    for cell, at in zip(cells.tolist(), np.split(order, first[1:]), strict=True):
        source = listed.tile_years.get((cell, year))
        if isinstance(source, TileYear):
            groups.append((source, at))
        elif source is not None:
            found.status[at], found.reasons[cell] = Outcome.UNREADABLE, source
        elif cell in listed.cells:
            found.status[at] = Outcome.MISSING_YEAR
    parted = list(_parted(groups, context.together))
    parts = (_part(part, sites, bands) for part in parted)
    for number, read in read_parts(context.pool, parts):
        part = parted[number]
        at = np.concatenate([at for _, at in part])
        found.vectors.put_vectors(at, read.vectors)
        found.status[at] = read.status
        found.reasons |= {part[i][0].tile.cell: reason for i, reason in read.reasons.items()}
        context.meter.bytes += read.bytes
        context.meter.requests += read.requests
        context.tile_years += len(part)
        context.progress("reading", context.tile_years, max(context.of_tile_years, context.tile_years))
    return found


def _parted(
    groups: Iterable[tuple[TileYear, Indices]], together: int
) -> Iterator[list[tuple[TileYear, Indices]]]:
    part: list[tuple[TileYear, Indices]] = []
    pixels = 0
    for group in groups:
        if part and (len(part) == together or pixels + len(group[1]) > PIXELS):
            yield part
            part, pixels = [], 0
        part.append(group)
        pixels += len(group[1])
    if part:
        yield part


def _part(part: list[tuple[TileYear, Indices]], sites: Sites, bands: tuple[int, ...]) -> Part:
    at = np.concatenate([at for _, at in part])
    first = np.cumsum([0, *(len(at) for _, at in part)])
    return Part(tuple(source for source, _ in part), first, sites.x[at], sites.y[at], bands)
