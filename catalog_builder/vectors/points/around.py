"""Pixels around points: the mean of a window, and the nearest one that has data."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from catalog_builder.tile.grid import PIXEL
from catalog_builder.vectors.points.options import PointOptions, PointYear
from catalog_builder.vectors.points.reading import Context, Sites, SitesRead, read_sites
from catalog_builder.vectors.points.sites import around
from catalog_builder.vectors.points.vectors import Indices, Outcome, Vectors

AT_ONCE = 200_000
"""Pixels that are read together, so that memory does not grow with the window."""


def window_means(context: Context, year: int, at: Indices, sites: Sites, options: PointOptions) -> PointYear:
    """Return the means of windows around points, over the pixels that have data.

    A window with a pixel that cannot be read is unreadable; one with no data at all has the outcome of the
    pixel that contains the point.
    """
    half = options.window // 2
    offsets = np.arange(-half, half + 1)
    dx, dy = (part.ravel() for part in np.meshgrid(offsets, offsets))
    n, k, middle = len(sites), len(dx), len(dx) // 2
    means = np.full((n, len(options.bands)), np.nan, np.float32)
    found = PointYear(year, at, Vectors.of_values(means), np.zeros(n, np.uint8))
    found.pixels = np.zeros(n, np.int32)
    for part in _in_order(sites, k):
        near, _ = around(context.listed, year, sites.take(part), dx, dy)
        read = read_sites(context, year, near, options.bands)
        found.corrupt += _drop_corrupt(read, options)
        status = read.status.reshape(len(part), k)
        is_valid = status == Outcome.VALID
        values = read.vectors.dequantized().reshape(len(part), k, -1)
        values[~is_valid] = 0
        count = is_valid.sum(axis=1)
        with np.errstate(invalid="ignore"):
            mean = values.sum(axis=1, dtype=np.float64) / count[:, None]
        broken = status == Outcome.UNREADABLE
        outcome = np.where(count > 0, Outcome.VALID, status[:, middle])
        outcome[broken.any(axis=1)] = Outcome.UNREADABLE
        mean[outcome != Outcome.VALID] = np.nan
        means[part], found.outcome[part], found.pixels[part] = mean, outcome, count
        for i in np.flatnonzero(broken.any(axis=1)).tolist():
            cell = near.cell[i * k + int(broken[i].argmax())]
            found.reasons[int(part[i])] = read.reasons[int(cell)]
    return found


def nearest_pixels(context: Context, sites: Sites, options: PointOptions, found: PointYear) -> None:
    """Give points without data the vector of the nearest pixel that has data, and all points a distance.

    Where a pixel that might be nearer cannot be read, the point is unreadable.
    """
    found.distance = np.where(found.outcome == Outcome.VALID, 0.0, np.nan).astype(np.float32)
    empty = np.flatnonzero(~np.isin(found.outcome, (Outcome.VALID, Outcome.UNREADABLE)))
    reach = math.ceil(options.nearest / PIXEL) + 1
    offsets = np.arange(-reach, reach + 1)
    dx, dy = (part.ravel() for part in np.meshgrid(offsets, offsets))
    near = np.hypot(np.maximum(np.abs(dx) - 1, 0), np.maximum(np.abs(dy) - 1, 0)) * PIXEL <= options.nearest
    dx, dy = dx[near], dy[near]
    k = len(dx)
    for part in _in_order(sites.take(empty), k):
        mine = empty[part]
        candidates, distance = around(context.listed, found.year, sites.take(mine), dx, dy)
        within = np.flatnonzero((distance <= options.nearest).ravel())
        read = read_sites(context, found.year, candidates.take(within), ())
        _drop_corrupt(read, options)
        flat = np.full(len(mine) * k, Outcome.OUTSIDE, np.uint8)
        flat[within] = read.status
        status = flat.reshape(len(mine), k)
        by_valid = np.where(status == Outcome.VALID, distance, np.inf)
        broken = np.where(status == Outcome.UNREADABLE, distance, np.inf)
        best, rows = by_valid.argmin(axis=1), np.arange(len(mine))
        is_broken = broken.min(axis=1) < by_valid.min(axis=1)
        for i in np.flatnonzero(is_broken).tolist():
            cell = candidates.cell[i * k + int(broken[i].argmin())]
            found.outcome[mine[i]], found.reasons[int(mine[i])] = (
                Outcome.UNREADABLE,
                read.reasons[int(cell)],
            )
        won = np.flatnonzero(np.isfinite(by_valid[rows, best]) & ~is_broken)
        if not len(won):
            continue
        chosen = read_sites(context, found.year, candidates.take(won * k + best[won]), options.bands)
        found.vectors.put_vectors(mine[won], chosen.vectors)
        found.outcome[mine[won]] = chosen.status
        found.distance[mine[won]] = distance[won, best[won]]
        for i in np.flatnonzero(chosen.status == Outcome.UNREADABLE).tolist():  # read a moment ago
            found.reasons[int(mine[won[i]])] = next(iter(chosen.reasons.values()))


def _drop_corrupt(read: SitesRead, options: PointOptions) -> int:
    """Take pixels with corrupt scales for no data; return their number."""
    if options.max_scale is None:
        return 0
    corrupt = read.vectors.corrupt(options.max_scale)
    read.status[corrupt & (read.status == Outcome.VALID)] = Outcome.NODATA
    return int(corrupt.sum())


def _in_order(sites: Sites, k: int) -> Iterator[Indices]:
    """Yield which sites to expand together, in the order of their tiles."""
    order = np.argsort(sites.cell, kind="stable")
    step = max(1, AT_ONCE // k)
    for start in range(0, len(order), step):
        yield order[start : start + step]
