"""Fitting of a dataset's colours to a sample of many tiles, read by the workers."""

from __future__ import annotations

import zlib
from collections import defaultdict
from concurrent.futures import Future, wait
from heapq import nsmallest
from typing import TYPE_CHECKING

import numpy as np

from catalog_builder.convert.encode.colours import (
    SAMPLE_PIXELS,
    SAMPLE_TILES,
    Sample,
    fit_basis,
    sample_pixels,
)
from catalog_builder.convert.plan.job import ConvertOptions, Job
from catalog_builder.convert.tile.convert import reason_of
from catalog_builder.convert.tile.source import NotATileError, read_source
from catalog_builder.convert.workers.processes import WorkerDiedError
from catalog_builder.errors import ConvertError, TesseraError
from catalog_builder.item.basis import Basis

if TYPE_CHECKING:
    from collections.abc import Callable

    from catalog_builder.convert.plan.sources import Plan
    from catalog_builder.convert.workers.processes import Workers


def fit_visual(
    plan: Plan, options: ConvertOptions, workers: Workers, say: Callable[[str], None] = lambda line: None
) -> list[Basis]:
    """Fit a basis per dataset of a plan, to up to 64 tiles chosen by a checksum of their names.

    Tiles that cannot be read are skipped; converting them will report why. Messages about the
    workers are printed.

    Raises
    ------
    ConvertError
        If no tile can be read.
    ClusterError
        If the workers cannot continue.
    """
    chosen = nsmallest(SAMPLE_TILES, plan.jobs(), key=lambda job: (zlib.crc32(job.id.encode()), job.id))
    waiting = list(reversed(chosen))
    running: set[Future[Sample | str]] = set()
    samples: dict[str, list[Sample]] = defaultdict(list)
    reason = "there are none"
    while waiting or running:
        while waiting and len(running) < workers.window:
            running.add(workers.submit(sample_job, waiting.pop(), options))
        finished, running = wait(running, timeout=0.5, return_when="FIRST_COMPLETED")
        for line in workers.watch():
            say(line)
        for future in finished:
            try:
                found = future.result()
            except WorkerDiedError as error:
                found = str(error)
            if isinstance(found, str):
                reason = found
            else:
                samples[found.dataset].append(found)
    if not samples:
        raise ConvertError(f"no tile to fit colours to: {reason}")
    return [fit_basis(found) for _, found in sorted(samples.items())]


def sample_job(job: Job, options: ConvertOptions) -> Sample | str:
    """Return some pixels of a job's source, or the reason why there are none; runs in a worker."""
    try:
        source = read_source(job, options)
    except NotATileError:
        return f"{job.main.address}: not a tile"
    except (TesseraError, OSError) as error:
        return reason_of(error, job.main.address)
    if source.values is None:
        vectors = sample_pixels(*source.pair)
    else:
        at = np.flatnonzero(source.valid)
        picked = at[:: max(1, len(at) // SAMPLE_PIXELS)][:SAMPLE_PIXELS]
        vectors = source.values.reshape(-1, source.values.shape[-1])[picked]
        vectors = vectors[np.isfinite(vectors).all(axis=1)]
    return Sample(job.id, source.dataset.directory, vectors)
