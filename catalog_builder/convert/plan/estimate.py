"""Estimates of a run: tiles, bytes, time; from the ledger's own measurements if it has some."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import get_args

from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.convert.plan.done import Done
from catalog_builder.convert.plan.job import ConvertOptions, JobKind, Redo
from catalog_builder.convert.plan.sources import Plan

SECONDS_PER_MB = {
    ("npy", "native"): 0.009,
    ("npy", "float32"): 0.03,
    ("geotiff", "native"): 0.012,
    ("geotiff", "float32"): 0.017,
    ("store", "native"): 0.012,
    ("store", "float32"): 0.033,
}
"""Rates of one worker on a core of a 2024 server, from ``tests/bench``; used until the ledger has some."""
OUT_PER_IN = {
    ("npy", "native"): 1.23,
    ("npy", "float32"): 4.7,
    ("geotiff", "native"): 0.36,
    ("geotiff", "float32"): 1.36,
    ("store", "native"): 1.23,
    ("store", "float32"): 4.7,
}
"""Bytes written per byte read, from the same measurements."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimate of a run."""

    total: int
    """Jobs of the plan."""
    to_do: int
    done: int
    """Converted already and unchanged."""
    misread: int
    """Of those done, how many have a predictor that some readers undo wrongly, by the ledger."""
    earlier_views: int
    """Of those done, how many have a float32 view that GDAL before 3.7 reads wrongly."""
    without_statistics: int
    """Of those done, how many have no statistics of their codes."""
    earlier_layouts: int
    """Of those done, how many have the blocks of an earlier version."""
    other_colours: int
    """Of those done, how many get images in the stored colours, from their COGs."""
    bytes_in: int
    bytes_out: int
    seconds: float
    measured: bool
    """Whether rates come from the ledger; otherwise they are documented defaults."""


def estimate(
    plan: Plan,
    options: ConvertOptions,
    workers: int,
    ledger: str,
    *,
    force: bool = False,
    redo: Redo | None = None,
) -> Estimate:
    """Estimate the conversion of a plan; only names, sizes and the ledger are read."""
    done = Done(ledger, options, redo)
    rows = [r for r in done.measured if r.bytes_in and r.profile == options.profile]
    rates = {kind: _rates(rows, kind, options.profile) for kind in get_args(JobKind.__value__)}
    to_do = skipped = misread = earlier_views = without_statistics = earlier_layouts = bytes_in = 0
    other_colours = 0
    seconds = bytes_out = 0.0
    for job in plan.jobs():
        if not force and job in done:
            skipped += 1
            misread += done.is_misread(job)
            earlier_views += done.has_earlier_view(job)
            without_statistics += done.lacks_statistics(job)
            earlier_layouts += done.has_earlier_layout(job)
            other_colours += done.has_other_colours(job)
            continue
        to_do += 1
        n = job.bytes_in
        per_mb, ratio = rates[job.kind]
        bytes_in += n
        bytes_out += n * ratio
        seconds += n / 1e6 * per_mb
    return Estimate(
        total=to_do + skipped,
        to_do=to_do,
        done=skipped,
        misread=misread,
        earlier_views=earlier_views,
        without_statistics=without_statistics,
        earlier_layouts=earlier_layouts,
        other_colours=other_colours,
        bytes_in=bytes_in,
        bytes_out=int(bytes_out),
        seconds=seconds / max(workers, 1),
        measured=bool(rows),
    )


def _rates(rows: list[LedgerRow], kind: str, profile: str) -> tuple[float, float]:
    """Return seconds per MB read and bytes written per byte read."""
    mine = [r for r in rows if r.kind == kind]
    if not mine:
        return SECONDS_PER_MB[kind, profile], OUT_PER_IN[kind, profile]
    return (
        median(r.seconds / (r.bytes_in / 1e6) for r in mine),
        sum(r.bytes_out for r in mine) / sum(r.bytes_in for r in mine),
    )
