"""Tile-years that several places have: one is used, and its worker finds out whether all are alike."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from catalog_builder import storage
from catalog_builder.convert.plan.job import Job, Plan
from catalog_builder.convert.plan.peek import resolved
from catalog_builder.tile.grid import N_CELLS


@dataclass(frozen=True, slots=True)
class _Found:
    """One of several jobs of a tile-year."""

    number: int
    """Where it is in the plans."""
    planned: Job
    resolved: Job
    """With what its tags say, of a local GeoTIFF."""


class Distinct:
    """The jobs of some plans, every tile-year once.

    Rows of several manifests for one file are one place, and the later row counts, as in a build. Of a pair
    and a GeoTIFF that was exported from it the pair is converted.

    Parameters
    ----------
    parts
        The plans, in the order of the sources.
    """

    def __init__(self, parts: Sequence[Plan]) -> None:
        self._parts = parts
        self.notes: list[str] = []
        """What is not converted, and why."""
        alone = len(parts) == 1 and parts[0].distinct
        self._instead: dict[int, Job | None] = {} if alone else self._several()
        faults = {job.id: job for part in parts for job in part.faults}
        self._faults = tuple(faults.values())

    @property
    def total(self) -> int:
        """Number of jobs."""
        dropped = sum(job is None for job in self._instead.values())
        return sum(part.total for part in self._parts) - dropped + len(self._faults)

    def jobs(self) -> Iterator[Job]:
        """Yield the jobs, those with a fault last."""
        for number, planned in enumerate(self._planned()):
            job = self._instead.get(number, planned)
            if job is not None:
                yield job
        yield from self._faults

    def _planned(self) -> Iterator[Job]:
        for part in self._parts:
            yield from part.jobs()

    def _several(self) -> dict[int, Job | None]:
        """Return what becomes of jobs that are not alone, by their places in the plans."""
        counts: Counter[int] = Counter()
        unnamed: dict[int, Job] = {}  # what GeoTIFFs are whose tags alone may say it
        for number, job in enumerate(self._planned()):
            if job.tile is None and (found := resolved(job)).tile is not None:
                unnamed[number] = found
            counts[_key(unnamed.get(number, job))] += 1
        tile_years: dict[int, list[_Found]] = defaultdict(list)
        for number, job in enumerate(self._planned()):
            key = _key(unnamed.get(number, job))
            if counts[key] > 1:
                tile_years[key].append(_Found(number, job, unnamed.get(number) or resolved(job)))
        instead: dict[int, Job | None] = {}
        exported: list[str] = []
        for several in tile_years.values():
            for group in _by_dataset(several).values():
                instead |= _choose(group, exported)
        if exported:
            self.notes.append(
                f"{len(exported)} GeoTIFFs skipped, because their .npy pairs are present too, such as"
                f" {exported[0]}"
            )
        return instead


def _by_dataset(several: Sequence[_Found]) -> dict[str, list[_Found]]:
    """Group the jobs of a tile-year by dataset; those that are no tile are alone."""
    pair = next((one.planned.id for one in several if one.planned.kind == "npy"), "")
    groups: dict[str, list[_Found]] = defaultdict(list)
    for one in several:
        job = one.resolved
        # What only a remote file's tags say is not known yet: it is taken for the export of the pair.
        is_unsaid = job.kind == "geotiff" and job.tile is not None and job.dataset is None and not job.doubt
        groups[pair if pair and is_unsaid else job.id].append(one)
    return groups


def _key(job: Job) -> int:
    """Return a number that jobs of one tile-year share, whatever their dataset."""
    if job.tile is None or job.year is None:
        return -1 - (hash(job.main.address) & 0xFFFF_FFFF_FFFF)
    return job.year * N_CELLS + job.tile.cell


def _choose(group: Sequence[_Found], exported: list[str]) -> dict[int, Job | None]:
    """Return what becomes of the jobs of one tile-year and dataset; note exports of pairs that are there."""
    places = {_place(one.planned.main.address): one for one in group}  # the later of one place
    instead: dict[int, Job | None] = {one.number: None for one in group}
    if any(one.planned.kind == "npy" for one in places.values()):
        exported += [one.planned.main.address for one in places.values() if one.planned.kind == "geotiff"]
        places = {place: one for place, one in places.items() if one.planned.kind != "geotiff"}
    first, *others = places.values()
    job = first.planned if first.planned.tile is None else first.resolved
    instead[first.number] = replace(job, rivals=tuple(one.planned for one in others))
    return instead


def _place(address: str) -> str:
    return address if storage.scheme(address) else os.path.realpath(address)
