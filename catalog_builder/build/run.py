"""Building a catalogue from manifests: read, merge, compare with the last build, write, swap.

The old catalogue is not modified: a new version is written beside it and replaces it with
one rename (:mod:`catalog_builder.catalog.folder`). Years whose items did not change are linked, not
written again. A catalogue in S3 is built in a local folder, which starts as a copy of what
a build compares with, and is then published (:mod:`catalog_builder.catalog.bucket`).
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from catalog_builder import storage
from catalog_builder.build.converted import FACTS, as_tiles, stage_ledgers, stage_present
from catalog_builder.build.options import BuildOptions
from catalog_builder.build.report import BuildReport, check_sources
from catalog_builder.build.staging.cogs import CogStaging
from catalog_builder.build.staging.merge import Staging
from catalog_builder.build.staging.reader import Reader
from catalog_builder.build.version import NewVersion
from catalog_builder.catalog.bucket import BucketCatalog
from catalog_builder.catalog.digest import check_digest
from catalog_builder.catalog.folder import COGS, CatalogFolder
from catalog_builder.catalog.index.reader import Index
from catalog_builder.console import Progress, no_progress
from catalog_builder.errors import CatalogError, SchemaVersionError, StorageError
from catalog_builder.manifests import ManifestPart, ProblemLog, read_dataset
from catalog_builder.manifests.part import Subset
from catalog_builder.stores.open import is_store
from catalog_builder.tile.datasets import DATASETS
from catalog_builder.tile.files import LEDGER


def build(
    sources: Sequence[str], out: Path | str, options: BuildOptions, progress: Progress = no_progress
) -> BuildReport:
    """Build or rebuild a collection of a catalogue; its other collections are kept.

    Parameters
    ----------
    sources
        Manifests, folders or URLs, see :func:`catalog_builder.manifests.read_dataset`; at most one of them a
        Zarr store or an Icechunk repository. They are merged in order; later wins. Without ``update`` they
        are complete: what they do not list is removed.
    out
        The catalogue: a folder, created if missing, or an s3 URL.

    Raises
    ------
    ManifestError, StorageError
        If a source cannot be read, or at its first problem when strict; if the catalogue cannot be
        written, or was built by another process in the meantime.
    DatasetError
        If a source states another dataset than ``options.dataset``.
    CatalogError
        If no tile-year remains, another build is running, or the existing catalogue is of a newer
        version, or damaged where it has to be kept.
    StorageError
        Also if the catalogue cannot be written; the existing one is then unchanged.
    """
    kind = storage.scheme(out)
    if not kind:
        return _told(out, lambda: _build(sources, storage.local_path(out), str(out), options, progress))
    if kind != "s3":
        raise CatalogError(f"{out}: a catalogue is built into a folder or an s3:// URL")
    bucket = BucketCatalog(str(out))
    storage.s3.put.check_conditions(bucket.address)
    with tempfile.TemporaryDirectory(prefix="tessera-build-") as temporary:
        folder = Path(temporary)
        progress("fetching the existing catalogue", 0, 0)
        before = bucket.check_out(folder)
        report = _told(out, lambda: _build(sources, folder, bucket.address, options, progress))
        current = CatalogFolder(folder).current
        if report.published and current is not None:
            bucket.publish(current, before, progress)
        # Also of a build that was stopped after its last step but this.
        bucket.promote()
    return report


def _told(out: Path | str, work: Callable[[], BuildReport]) -> BuildReport:
    """Build, and convert OS and SQLite errors to StorageError."""
    try:
        return work()
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        raise StorageError(f"{exc.filename or out}: cannot be written ({reason})") from exc
    except sqlite3.DatabaseError as exc:
        if exc.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise StorageError(f"{out}: cannot be written (No space left on device)") from exc
        raise CatalogError(f"{out}: the index cannot be read or written ({exc})") from exc


def _build(
    sources: Sequence[str], out: Path, home: str, options: BuildOptions, progress: Progress
) -> BuildReport:
    """Build in a folder; ``home`` is the location that the catalogue has or will have."""
    out.mkdir(parents=True, exist_ok=True)
    folder = CatalogFolder(out)
    problems = ProblemLog(strict=options.strict)
    if options.dataset.by_rule:
        known = ", ".join(d.directory for d in DATASETS)
        problems.note(
            f"dataset {options.dataset.directory} is none of {known}: its files are looked for by upstream's"
            " naming rule"
        )
    old = _old_index(folder, options, problems)
    with (
        folder.new_version() as version,
        Staging(version.path, problems=problems, complete=options.complete) as staging,
        CogStaging(version.path, FACTS) as cogs,
    ):
        _stage_cogs(cogs, home, options, old)
        found = Reader(version.path, staging, options, problems, old, progress).read(sources)
        check_sources(folder, options, problems)
        if not staging.years() and not cogs.years() and Subset(options.years, options.bounds) != Subset():
            raise CatalogError(_nothing_wanted(sources, options))
        for year in cogs.years():
            # A tile-year that is only in the ledger counts too: it has COGs.
            tiles = as_tiles(cogs.cells(year), year)
            staging.add(ManifestPart(source="conversion ledger", dataset=options.dataset, tiles=tiles))
        new = NewVersion(version.path, folder.current, home, old, staging, options, problems, progress, cogs)
        report = new.write(found)
        version.wanted = report.published
    return report


def _nothing_wanted(sources: Sequence[str], options: BuildOptions) -> str:
    """Return what the sources list, none of which was asked for: they are read once more, all of them."""
    per_year: Counter[int] = Counter()
    west, south, east, north = 180.0, 90.0, -180.0, -90.0
    for source in (s for s in sources if not is_store(s)):
        log = ProblemLog()
        for part in read_dataset(source, options.dataset, problems=log, is_said=options.is_dataset_said):
            if part.tiles is None or not part.tiles.num_rows:
                continue
            per_year.update(part.tiles["year"].to_pylist())
            lon, lat = (part.tiles[name].to_numpy() / 100 for name in ("lon_i", "lat_i"))
            west, east = min(west, float(lon.min()) - 0.05), max(east, float(lon.max()) + 0.05)
            south, north = min(south, float(lat.min()) - 0.05), max(north, float(lat.max()) + 0.05)
    if not per_year:
        return "no tile-year in the sources"
    years = ", ".join(f"{year}: {n:,}" for year, n in sorted(per_year.items()))
    return (
        "no tile-year in the requested years and bounding box: the sources list"
        f" {per_year.total():,} in {west:.1f},{south:.1f},{east:.1f},{north:.1f}"
        f" (west,south,east,north; {years})"
    )


def _old_index(folder: CatalogFolder, options: BuildOptions, problems: ProblemLog) -> Index | None:
    """Open the existing catalogue; None if there is none, or one of another version that may be replaced."""
    if not folder.index_path.exists():
        return None
    try:
        index = folder.open_index()
        if options.update or set(index.collections) != {options.dataset.collection_id}:
            check_digest(index.path)  # its rows are copied: damage must not be copied with them
    except CatalogError as exc:
        if isinstance(exc, SchemaVersionError) and exc.newer:
            raise CatalogError(f"{exc}, or build into a new folder") from exc
        # Of an older version, or damaged: its rows cannot be brought over. What the sources say is all
        # of this collection, but others would be lost, and so would what --update is to keep.
        present = sorted(p.parent.name for p in folder.path.glob("*/collection.json"))
        if options.update or present != [options.dataset.collection_id]:
            raise CatalogError(
                f"{exc}. It holds {', '.join(present) or 'no collection'}, which cannot be kept: build"
                " each into a new folder, without --update"
            ) from exc
        problems.note(f"{exc}. It is rewritten")
        return None
    return index


def _stage_cogs(cogs: CogStaging, home: str, options: BuildOptions, old: Index | None) -> None:
    """Gather the converted tile-years."""
    ds, selection = options.dataset, Subset(options.years, options.bounds)
    if options.update and old is not None and ds.collection_id in old.collections:
        record = old.collections[ds.collection_id]
        stage_present(cogs, old, record.ordinal, record.years, selection)
    own = storage.join(home, COGS, LEDGER)
    ledgers = options.ledgers if options.ledgers is not None else (own,) if storage.is_dir(own) else ()
    if ledgers:
        stage_ledgers(cogs, ledgers, ds, selection)
