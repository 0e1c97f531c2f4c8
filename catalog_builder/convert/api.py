"""Converting from Python, as used by ``tessera-stac convert`` and the demo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catalog_builder import console, storage
from catalog_builder.catalog.basis import load_basis, store_basis
from catalog_builder.catalog.folder import COGS
from catalog_builder.catalog.open import is_catalog
from catalog_builder.convert import progress
from catalog_builder.convert.fit_colours import fit_visual as fit_bases
from catalog_builder.convert.plan.estimate import Estimate, estimate
from catalog_builder.convert.plan.job import ConvertOptions, Plan, Redo, Wanted
from catalog_builder.convert.plan.sources import plan as make_plan
from catalog_builder.convert.progress import duration, size
from catalog_builder.convert.run import RunReport, run
from catalog_builder.convert.workers import processes
from catalog_builder.convert.workers.dask_start import LOCAL, connect, start_local
from catalog_builder.convert.workers.processes import Workers
from catalog_builder.errors import QueryError
from catalog_builder.item.basis import Basis
from catalog_builder.tile.datasets import DATASETS
from catalog_builder.tile.files import LEDGER

_FAILURES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Conversion:
    """A planned conversion with its workers; created by :func:`prepare`."""

    plan: Plan
    options: ConvertOptions
    pool: Workers
    workers: int
    """Number of tiles converted concurrently."""
    about: str
    """One-line description of the workers."""
    ledger: str
    """Folder of the ledger: a path, or an s3:// URL."""
    shard: tuple[int, int] | None
    quiet: bool
    report: progress.Reporter

    def estimate(self, *, visual: bool = True, force: bool = False, redo: Redo | None = None) -> Estimate:
        """Estimate the number of tiles and bytes and the time; nothing is converted.

        Parameters
        ----------
        visual
            Whether the stored colours are used: tiles without theirs are not done.
        force
            Include tiles that are already done.
        redo
            Which of them to include; see :meth:`run`.
        """
        options = replace(self.options, bases=self._stored_bases() if visual else ())
        return estimate(self.plan, options, self.workers, self.ledger, force=force, redo=redo)

    def run(
        self,
        *,
        visual: bool = True,
        fit_visual: bool = False,
        force: bool = False,
        redo: Redo | None = None,
    ) -> RunReport:
        """Run the conversion.

        Parameters
        ----------
        visual
            Write false-colour images and thumbnails of tiles whose dataset has fitted colours.
        fit_visual
            First fit the colours to a sample of the sources, and store them beside the COGs. Tiles that are
            already done get their images from their COGs.
        force
            Convert tiles again that are already done.
        redo
            ``predictor``: of the tiles that are already done, convert those again whose embeddings have a
            predictor that some readers undo wrongly. ``view``: rewrite those float32 views, and no pixels,
            that GDAL before 3.7 reads wrongly. ``statistics``: read those of the codes from the COGs of
            tiles that have none, and write no file. ``layout``: convert those again whose files have the
            blocks of earlier versions, which cost more requests and bytes.

        Raises
        ------
        StorageError, ClusterError
            See :func:`catalog_builder.convert.run.run`; the failure of a tile is in the report instead.
        """
        if not self.quiet:
            console.say(self.about)
        if fit_visual:
            self._fit()
        bases = self._stored_bases() if visual or fit_visual else ()
        return run(
            self.plan,
            replace(self.options, bases=bases),
            self.pool,
            ledger=self.ledger,
            label=f"shard-{self.shard[0]}-of-{self.shard[1]}" if self.shard else "run",
            report=self.report,
            force=force,
            redo=redo,
        )

    def _fit(self) -> None:
        for basis in fit_bases(self.plan, self.options, self.pool, console.say):
            where = store_basis(self.options.out, basis)
            if not self.quiet:
                share = 100 * sum(basis.explained)
                console.say(
                    f"colours of {basis.dataset}: {basis.pixels:,} pixels of {len(basis.tiles)} tiles,"
                    f" {share:.0f} % of their variance; saved in {where}"
                )

    def _stored_bases(self) -> tuple[Basis, ...]:
        first = next(self.plan.jobs(), None)  # its dataset may be one that is not in the table
        names = {ds.directory: None for ds in DATASETS}
        if first is not None and first.dataset is not None:
            names[first.dataset] = None
        found = (load_basis(self.options.out, name) for name in names)
        return tuple(b for b in found if b is not None)

    def text_of(self, done: RunReport) -> str:
        """Return the report of a run as text."""
        lines = [
            f"{self.options.out}: {done.converted:,} converted, {done.skipped:,} already done,"
            f" {len(done.failed):,} failed of {done.total:,}" + (" (interrupted)" if done.interrupted else "")
        ]
        if done.converted:
            profiles = ", ".join(f"{n:,} {name}" for name, n in sorted(done.profiles.items()))
            lines.append(
                f"  {profiles}; {size(done.bytes_in)} read, {size(done.bytes_out)} written"
                f" in {duration(done.seconds)}"
            )
        if done.renewed:
            lines.append(f"  {done.renewed:,} float32 views written anew, beside second names of their COGs")
        if done.coloured:
            lines.append(f"  {done.coloured:,} tiles got images in the colours of now, made from their COGs")
        if done.described:
            lines.append(f"  {done.described:,} tiles got the statistics of their codes, read from the COGs")
        if done.without_statistics:
            lines.append(f"  {progress.without_statistics(done.without_statistics)}")
        if done.earlier_views:
            lines.append(f"  {progress.earlier_views(done.earlier_views)}")
        if done.earlier_layouts:
            lines.append(f"  {progress.earlier_layouts(done.earlier_layouts)}")
        if done.misread:
            lines.append(f"  {progress.misread(done.misread)}")
        lines += [f"  not kept: {row.job}: {', '.join(row.lost)}" for row in done.lossy[:_FAILURES_SHOWN]]
        if len(done.lossy) > _FAILURES_SHOWN:
            lines.append(f"  … and of {len(done.lossy) - _FAILURES_SHOWN:,} more, see the ledger")
        lines += [f"  failed: {row.job}: {row.reason}" for row in done.failed[:_FAILURES_SHOWN]]
        if len(done.failed) > _FAILURES_SHOWN:
            lines.append(f"  … and {len(done.failed) - _FAILURES_SHOWN:,} more, see the ledger")
        lines.append(f"  ledger: {self.ledger}")
        return "\n".join(lines)

    def data_of(self, done: RunReport) -> dict[str, Any]:
        """Return the report of a run as JSON data."""
        return {
            "out": self.options.out,
            "ledger": self.ledger,
            "total": done.total,
            "converted": done.converted,
            "skipped": done.skipped,
            "misread": done.misread,
            "earlier_views": done.earlier_views,
            "without_statistics": done.without_statistics,
            "earlier_layouts": done.earlier_layouts,
            "renewed": done.renewed,
            "described": done.described,
            "coloured": done.coloured,
            "failed": [{"job": row.job, "reason": row.reason} for row in done.failed],
            "lost": [{"job": row.job, "lost": list(row.lost)} for row in done.lossy],
            "profiles": done.profiles,
            "bytes_in": done.bytes_in,
            "bytes_out": done.bytes_out,
            "seconds": round(done.seconds, 3),
            "interrupted": done.interrupted,
        }


@contextmanager
def prepare(
    sources: Sequence[str],
    options: ConvertOptions,
    wanted: Wanted | None = None,
    *,
    workers: int | None = None,
    dask: str | None = None,
    ledger: str | None = None,
    quiet: bool = False,
) -> Iterator[Conversion]:
    """Plan a conversion and start its workers, which stop when the block ends.

    Parameters
    ----------
    sources
        GeoTIFFs or .npy pairs: files, folders, glob patterns, s3:// or http(s) URLs, manifests, or a
        catalogue.
    options
        Conversion options and output; see :func:`target_of`.
    wanted
        Selection among the sources; all by default.
    workers
        Number of processes; None: as many as cores and memory allow; 0: convert in this process.
    dask
        Dask cluster: its scheduler's address or scheduler file; ``local`` starts one.
    ledger
        Folder of the ledger; None: ``ledger`` below the output.
    quiet
        Print only failures to standard error.

    Raises
    ------
    TesseraError
        If a source cannot be read, arguments conflict, or the cluster cannot be reached.

    Examples
    --------
    >>> with prepare(["catalog"], ConvertOptions(out="cogs"), workers=0) as conversion:  # doctest: +SKIP
    ...     done = conversion.run()
    """
    wanted = wanted or Wanted()
    if dask is not None and not storage.scheme(options.out):
        # workers have folders of their own
        options = replace(options, out=str(storage.local_path(options.out).absolute()))
    plan = make_plan(list(sources), wanted)
    report = progress.reporter(quiet=quiet)
    if not quiet:
        for note in plan.notes:
            console.say(f"note: {note}")
    where = ledger or storage.join(options.out, LEDGER)
    pool, count, about = _workers(plan, options, workers, dask)
    try:
        yield Conversion(plan, options, pool, count, about, where, wanted.shard, quiet, report)
    finally:
        pool.close()


def target_of(sources: Sequence[str], out: str | None = None) -> str:
    """Return the output: the given one, or the cogs folder of the only catalogue among the sources.

    Raises
    ------
    QueryError
        If none is given and the sources are not one catalogue.
    """
    if out is not None:
        return out.rstrip("/") or "/"
    if len(sources) == 1 and is_catalog(sources[0]):
        source = sources[0]
        return storage.join(source if storage.scheme(source) else str(Path(source).absolute()), COGS)
    raise QueryError("--out: give the output folder for the COGs; only a catalogue has a default")


def _workers(
    plan: Plan, options: ConvertOptions, asked: int | None, dask: str | None
) -> tuple[Workers, int, str]:
    """Return the workers, their number, and a one-line description."""
    if dask is not None and dask != LOCAL:
        if asked is not None:
            raise QueryError("--workers and --dask: give only one of the two; a cluster has its own workers")
        cluster, about = connect(dask)
        return cluster, max(1, cluster.live), about
    first = next(plan.jobs(), None)
    geotiff = first is not None and first.kind == "geotiff"
    if asked == 0:
        if dask is not None:
            raise QueryError("--workers: a local Dask cluster needs at least one")
        return processes.ExecutorWorkers(processes.Inline(), 1), 1, "working in this process"
    count = asked or min(processes.default_workers(options, geotiff=geotiff), max(plan.total, 1))
    need = processes.memory_per_worker(options, geotiff=geotiff)
    about = f"{count} worker{'s' if count != 1 else ''}, each one thread and at most {size(need)}"
    free = processes.available_memory()
    if free is not None and count * need > free:
        about += f"; together that may exceed the {size(free)} that are free: use fewer --workers"
    if dask is not None:
        # A raster that is not a tile may need more than a tile: the free memory is divided among the workers.
        local, where = start_local(count, max(need * 5 // 4, (free or 0) * 4 // 5 // count))
        return local, count, f"Dask on this machine: {about}; {where}"
    return processes.ProcessWorkers(count), count, about
