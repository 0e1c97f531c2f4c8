"""From manifests to a catalogue: read, merge, compare with the last build, write, swap.

Nothing of the old catalogue is touched: a new version is written beside it and takes its place in
one rename (:mod:`catalog_builder.catalog.folder`). Years whose items did not change are linked, not
written again. A catalogue in S3 is built in a folder of this machine, which begins as a copy of what
a build compares with, and is then published (:mod:`catalog_builder.catalog.bucket`).
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from catalog_builder import storage
from catalog_builder.build.converted import FACTS, as_tiles, stage_ledgers, stage_present
from catalog_builder.build.converted_staging import CogStaging
from catalog_builder.build.merge import MergeReport, Staging
from catalog_builder.build.year_rows import Landmasks, YearRows
from catalog_builder.catalog.bucket import BucketCatalog
from catalog_builder.catalog.collection import (
    api_document,
    make_collection,
    static_document,
    write_catalog,
    write_coverage_picture,
)
from catalog_builder.catalog.digest import STATE, check_digest, write_digest
from catalog_builder.catalog.folder import COGS, INDEX, CatalogFolder
from catalog_builder.catalog.index.reader import Index
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.catalog.index.writer import IndexWriter
from catalog_builder.errors import CatalogError, DatasetError, SchemaVersionError, StorageError
from catalog_builder.item.addresses import Addresses, Bucket, Mirrors
from catalog_builder.item.item import item_template, url_path
from catalog_builder.item.parquet import write_items
from catalog_builder.item.roles import LEDGER
from catalog_builder.manifests import Kind, Part, ProblemLog, read_manifests
from catalog_builder.manifests.part import Selection
from catalog_builder.tile import grid
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.table import cells
from catalog_builder.tile.years import year_bits

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done and of how much (0 if unknown)."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What a build is asked to do."""

    dataset: Dataset
    years: frozenset[int] | None = None
    bounds: grid.Bounds | None = None
    update: bool = False
    """Keep tile-years of the present catalogue that the sources do not list."""
    strict: bool = False
    complete: bool = False
    """Fill what a later source does not say from an earlier one; see :mod:`catalog_builder.build.merge`."""
    url: str = "."
    """Address that the catalogue will be served at, for the addresses in its static files."""
    source_root: str | None = None
    """Where the source files are: a local folder, or an http(s) or s3 address. By default where the
    dataset is published, or the folder that was scanned."""
    landmask_root: str | None = None
    data_root: str | None = None
    """Address of the COGs; by default the catalogue's own ``cogs`` folder: in S3, or through the API."""
    mirrors: Mirrors = ()
    """Other addresses of the COGs, by name: what ``data_root`` is one of."""
    source_mirrors: Mirrors = ()
    """Other addresses of the source files, by name."""
    grid: grid.Grid = "utm"
    ledgers: tuple[str, ...] | None = None
    """Conversion ledgers: which tile-years are COGs. By default the one in the catalogue's own ``cogs``
    folder, if there is one; an empty tuple for none."""


@dataclass(frozen=True, slots=True)
class YearChange:
    """What a build did to one year."""

    year: int
    items: int
    added: int
    changed: int
    removed: int

    @property
    def untouched(self) -> bool:
        """Whether the year is as it was."""
        return not (self.added or self.changed or self.removed)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did."""

    collection: str
    items: int
    tiles: int
    years: tuple[YearChange, ...]
    merge: MergeReport
    problems: ProblemLog
    published: bool
    """False: the catalogue was up to date and is untouched."""

    @property
    def added(self) -> int:
        """Tile-years that are new."""
        return sum(y.added for y in self.years)

    @property
    def changed(self) -> int:
        """Tile-years whose files' sizes, hashes, times or landmask changed."""
        return sum(y.changed for y in self.years)

    @property
    def removed(self) -> int:
        """Tile-years that are gone."""
        return sum(y.removed for y in self.years)


def _ignore(_what: str, _done: int, _of: int) -> None:
    return


def build(
    sources: Sequence[str], out: Path | str, options: BuildOptions, progress: Progress = _ignore
) -> BuildReport:
    """Build or rebuild a collection of a catalogue; its other collections are kept.

    Parameters
    ----------
    sources
        Manifests, folders or addresses, see :func:`catalog_builder.manifests.read_manifests`. They
        are merged in order; later wins. Without ``update`` they are the whole truth: what they do
        not list is removed.
    out
        The catalogue: a folder, made if missing, or an s3 address.

    Raises
    ------
    ManifestError, StorageError
        If a source cannot be read, or at its first problem when strict; if the catalogue cannot be
        written, or was built by somebody else meanwhile.
    DatasetError
        If a source states another dataset than ``options.dataset``.
    CatalogError
        If no tile-year remains, or another build is at work, or the present catalogue is of a newer
        version, or damaged where it has to be kept.
    StorageError
        Also if the catalogue cannot be written; the present one is then as it was.
    """
    kind = storage.scheme(out)
    if not kind:
        return _told(out, lambda: _build(sources, storage.local_path(out), str(out), options, progress))
    if kind != "s3":
        raise CatalogError(f"{out}: a catalogue is built into a folder or an s3:// address")
    bucket = BucketCatalog(str(out))
    storage.s3.put.check_conditions(bucket.address)
    with tempfile.TemporaryDirectory(prefix="tessera-build-") as temporary:
        folder = Path(temporary)
        progress("fetching the present catalogue", 0, 0)
        before = bucket.check_out(folder)
        report = _told(out, lambda: _build(sources, folder, bucket.address, options, progress))
        current = CatalogFolder(folder).current
        if report.published and current is not None:
            bucket.publish(current, before, progress)
        # Also of a build that was stopped after its last step but this.
        bucket.promote()
    return report


def _told(out: Path | str, work: Callable[[], BuildReport]) -> BuildReport:
    """Build, and say what is wrong with a disk in our words."""
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
    """Build in a folder; ``home`` is the address that the catalogue has or will have."""
    out.mkdir(parents=True, exist_ok=True)
    folder = CatalogFolder(out)
    problems = ProblemLog(strict=options.strict)
    old = _old_index(folder, options, problems)
    with (
        folder.new_version() as version,
        Staging(version.path, problems=problems, complete=options.complete) as staging,
        CogStaging(version.path, FACTS) as cogs,
    ):
        _stage_cogs(cogs, home, options, old)
        roots = _read(sources, staging, options, problems, old, progress)
        for year in cogs.years():
            # A tile-year that only the ledger knows is one too: it has COGs.
            tiles = as_tiles(cogs.cells(year), year)
            staging.add(Part(source="conversion ledger", dataset=options.dataset, tiles=tiles))
        builder = _Builder(
            version.path, folder.current, home, old, staging, options, problems, progress, cogs
        )
        report = builder.run(_source_root(options, roots))
        version.wanted = report.published
    return report


def _old_index(folder: CatalogFolder, options: BuildOptions, problems: ProblemLog) -> Index | None:
    """Open the present catalogue; None if there is none, or one of another version that may be replaced."""
    if not folder.index_path.exists():
        return None
    try:
        index = folder.open_index()
        if options.update or set(index.collections) != {options.dataset.collection_id}:
            check_digest(index.path)  # its rows are taken over: damage must not come with them
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
        problems.note(f"{exc}. It is written anew")
        return None
    return index


def _stage_cogs(cogs: CogStaging, home: str, options: BuildOptions, old: Index | None) -> None:
    """Gather the converted tile-years."""
    ds, selection = options.dataset, Selection(options.years, options.bounds)
    if options.update and old is not None and ds.collection_id in old.collections:
        record = old.collections[ds.collection_id]
        stage_present(cogs, old, record.ordinal, record.years, selection)
    own = storage.join(home, COGS, LEDGER)
    ledgers = options.ledgers if options.ledgers is not None else (own,) if storage.is_dir(own) else ()
    if ledgers:
        stage_ledgers(cogs, ledgers, ds, selection)


def _read(
    sources: Sequence[str],
    staging: Staging,
    options: BuildOptions,
    problems: ProblemLog,
    old: Index | None,
    progress: Progress,
) -> set[str]:
    """Fill the staging area; return the roots of the data folders among the sources."""
    roots: set[str] = set()
    ds = options.dataset
    if options.update and old is not None and ds.collection_id in old.collections:
        for part in _present(old, old.collections[ds.collection_id]):
            staging.add(part)
    n = 0
    for source in sources:
        for part in read_manifests(
            source, problems=problems, years=options.years, bounds=options.bounds, dataset_hint=ds
        ):
            if part.dataset is not None and part.dataset != ds:
                raise DatasetError(
                    f"{part.source} holds dataset {part.dataset.directory} (version {part.dataset.version},"
                    f" variant {part.dataset.variant}), not {ds.directory}: datasets are never mixed in one"
                    " collection; build each with its own --dataset"
                )
            staging.add(part)
            if part.root is not None and part.tiles is not None:
                roots.add(part.root)
            n += part.tiles.num_rows if part.tiles is not None else 0
            progress("reading manifests", n, 0)
    return roots


def _source_root(options: BuildOptions, roots: set[str]) -> str:
    if options.source_root is not None:
        return options.source_root.rstrip("/")
    if len(roots) == 1:
        return roots.pop().rstrip("/")
    if options.dataset.published_root is None:
        raise DatasetError(
            f"dataset {options.dataset.directory} is not published anywhere:"
            " say with --source-root where its files are"
        )
    return options.dataset.published_root


def is_remote(address: str) -> bool:
    """Whether an address is not a local path."""
    return address.startswith(("http://", "https://", "s3://"))


def _buckets(*addresses: str) -> tuple[Bucket, ...]:
    """Return how to reach the buckets of addresses, with the settings of now."""
    found = {}
    for address in addresses:
        if address.startswith("s3://"):
            name, _ = storage.bucket_key(address)
            settings = storage.S3Settings.from_environment()
            found[name] = Bucket(name, *storage.platform(address), settings.requester_pays)
    return tuple(found.values())


def _present(old: Index, record: CollectionRecord) -> Iterable[Part]:
    """Return what a catalogue holds of a collection, as if it were a manifest."""
    source = f"{old.path} ({record.id})"
    for year in record.years:
        tiles = old.tile_table(record.ordinal, year)
        yield Part(source=source, dataset=record.dataset, tiles=tiles)
    yield Part(source=source, dataset=record.dataset, landmasks=old.landmask_table(record.ordinal))


@dataclass(slots=True)
class _Builder:
    """One build: the new version's files from the staged rows and the old version."""

    work: Path
    current: Path | None
    home: str
    old: Index | None
    staging: Staging
    options: BuildOptions
    problems: ProblemLog
    progress: Progress
    cogs: CogStaging
    changes: list[YearChange] = field(default_factory=list)

    def run(self, source_root: str) -> BuildReport:
        years = tuple(self.staging.years())
        if not years:
            reason = self.problems.summary() or "they are empty, or --years and --bbox exclude everything"
            raise CatalogError(f"no tile-year in the sources: {reason}")
        landmasks = Landmasks(self.staging.landmasks())
        masks = np.zeros(grid.N_CELLS, dtype=np.uint32)
        counts = []
        for year in years:
            cell = cells(self.staging.year(year))
            masks[cell] |= np.uint32(year_bits([year]))
            counts.append(len(cell))
            self.progress("merging", sum(counts), 0)
        (tiles,) = np.nonzero(masks)
        record = self._record(years, tuple(counts), len(tiles), source_root)
        collection = make_collection(record, tiles.astype(np.int32), masks[tiles])
        document = api_document(collection)
        parquet_document = {
            k: v for k, v in static_document(collection).items() if k not in ("tessera:coverage", "assets")
        }
        folder = self.work / record.id
        folder.mkdir()
        write_coverage_picture(folder, record, tiles.astype(np.int32), masks[tiles])
        with IndexWriter(self.work / INDEX) as writer, ThreadPoolExecutor(1) as pool:
            writing: list[Future[None]] = []
            done = 0
            for year in years:
                # Every year, or none: the columns of the parquet files must be the same.
                rows = YearRows(self.staging.year(year), masks, landmasks, self.cogs)
                self._report_misfits(rows, year)
                self._note_stale(rows, year)
                writing += self._write_parquet(pool, record, parquet_document, year, rows)
                writer.tiles(record.ordinal, year, rows.index_rows())
                done += len(rows.cell)
                for future in writing:  # one year in memory at a time
                    future.result()
                writing.clear()
                self.progress("writing", done, sum(counts))
            writer.landmasks(
                record.ordinal,
                landmasks.cell,
                [s or None for s in landmasks.size[:-1].tolist()],
                landmasks.sha256.to_pylist()[:-1],
            )
            writer.collection(record, json.dumps(document))
            self._keep_others(writer, record)
            writer.meta("url", self.options.url)
        write_digest(self.work / INDEX)
        (folder / "collection.json").write_text(json.dumps(static_document(collection), indent=2))
        others = [c for c in (self.old.collections if self.old else {}) if c != record.id]
        documents = [json.loads((self.work / c / "collection.json").read_text()) for c in others]
        write_catalog(
            self.work, sorted([*documents, static_document(collection)], key=lambda c: str(c["id"]))
        )
        self._note_removed_years(record)
        return BuildReport(
            collection=record.id,
            items=record.n_items,
            tiles=record.n_tiles,
            years=tuple(self.changes),
            merge=self.staging.report(),
            problems=self.problems,
            published=self._differs(record, document),
        )

    def _record(
        self, years: tuple[int, ...], counts: tuple[int, ...], n_tiles: int, source_root: str
    ) -> CollectionRecord:
        ds, options = self.options.dataset, self.options
        present = self.old.collections if self.old else {}
        taken = [r.ordinal for r in present.values()]
        ordinal = (
            present[ds.collection_id].ordinal if ds.collection_id in present else max(taken, default=0) + 1
        )
        landmask_root = options.landmask_root or ds.published_landmasks or ""
        lane = f"{{root}}/source/{url_path(ds.directory)}"
        own = f"{self.home if is_remote(self.home) else '{root}/data'}/{COGS}/{url_path(ds.directory)}"
        source = source_root if is_remote(source_root) else lane
        masks = landmask_root if is_remote(landmask_root) else f"{lane}/{{year}}/grid_{{lon}}_{{lat}}"
        data = (options.data_root or own).rstrip("/")
        return CollectionRecord(
            ordinal=ordinal,
            dataset=ds,
            years=years,
            addresses=Addresses(
                source=source,
                landmasks=masks,
                lane=lane,
                data=data,
                cogs=self.cogs.num_rows > 0,
                mirrors=options.mirrors,
                source_mirrors=options.source_mirrors,
                buckets=_buckets(source, masks, data),
            ),
            grid=options.grid,
            source_root=source_root if is_remote(source_root) else str(Path(source_root).absolute()),
            landmask_root=landmask_root
            if is_remote(landmask_root) or not landmask_root
            else str(Path(landmask_root).absolute()),
            counts=counts,
            n_tiles=n_tiles,
        )

    def _report_misfits(self, rows: YearRows, year: int) -> None:
        """Report tiles whose file is not the size that the raster's formula gives."""
        (bad,) = np.nonzero(rows.misfit)

        def describe(i: int) -> tuple[str, str]:
            name = grid.TileId.from_cell(int(rows.cell[i])).name
            sizes = f"{rows.column('npy_size')[i]} and {rows.column('scales_size')[i]} bytes"
            return "", f"{year}/{name}: {sizes} do not fit the tile's raster; it cannot be read in place"

        self.problems.add_rows(Kind.MISFIT, self.options.dataset.collection_id, bad, len(bad), describe)

    def _note_stale(self, rows: YearRows, year: int) -> None:
        """Say which converted tiles are left out because their source is another one now."""
        if rows.cogs is None:
            return
        stale = rows.cogs.stale
        if len(stale):
            tile = grid.TileId.from_cell(int(stale[0]))
            self.problems.note(
                f"{year}: {len(stale):,} converted tiles are left out, their source has changed since"
                f" ({tile.name} is the first): convert them again"
            )

    def _write_parquet(
        self,
        pool: ThreadPoolExecutor,
        record: CollectionRecord,
        document: dict[str, Any],
        year: int,
        rows: YearRows,
    ) -> list[Future[None]]:
        """Compare a year with the old version; link its parquet file if nothing changed, else write it."""
        template = item_template(record.dataset, record.addresses, self.options.url.rstrip("/"), record.grid)
        fingerprint = rows.fingerprint()
        digest = hashlib.blake2b(digest_size=16)
        for part in (repr(template), json.dumps(document), repr(record.years)):
            digest.update(part.encode())
        for array in (rows.cell, fingerprint, rows.mask):
            digest.update(np.ascontiguousarray(array).data)
        state = self.work / STATE / record.id / f"{year}.npz"
        state.parent.mkdir(parents=True, exist_ok=True)
        np.savez(state, cell=rows.cell, fingerprint=fingerprint, digest=np.array(digest.hexdigest()))
        self.changes.append(self._compare(record, year, rows.cell, fingerprint))
        path = self.work / record.id / "items" / f"year={year}" / "items.parquet"
        path.parent.mkdir(parents=True)
        before = self._old_state(record.id, year)
        if before is not None and self.current is not None and str(before["digest"]) == digest.hexdigest():
            os.link(self.current / path.relative_to(self.work), path)
            return []
        return [
            pool.submit(
                write_items,
                path,
                rows.cell,
                rows.rows_at,
                template=template,
                years=record.years,
                collection=document,
                grid_kind=record.grid,
            )
        ]

    def _old_state(self, collection: str, year: int) -> Any:
        if self.current is None:
            return None
        path = self.current / STATE / collection / f"{year}.npz"
        try:
            return np.load(path)
        except (OSError, ValueError, BadZipFile):  # not there, or damaged: then the year is written anew
            return None

    def _compare(
        self,
        record: CollectionRecord,
        year: int,
        cell: npt.NDArray[np.int32],
        fingerprint: npt.NDArray[np.uint64],
    ) -> YearChange:
        before = self._old_state(record.id, year)
        if before is None:
            return YearChange(year, len(cell), len(cell), 0, 0)
        old_cell, old_print = before["cell"], before["fingerprint"]
        common, at, old_at = np.intersect1d(cell, old_cell, assume_unique=True, return_indices=True)
        changed = int((fingerprint[at] != old_print[old_at]).sum())
        return YearChange(year, len(cell), len(cell) - len(common), changed, len(old_cell) - len(common))

    def _note_removed_years(self, record: CollectionRecord) -> None:
        if self.old is None or record.id not in self.old.collections:
            return
        before = self.old.collections[record.id]
        for year, n in zip(before.years, before.counts, strict=True):
            if year not in record.years:
                self.changes.append(YearChange(year, 0, 0, 0, n))

    def _keep_others(self, writer: IndexWriter, record: CollectionRecord) -> None:
        """Bring the other collections over from the old version."""
        if self.old is None or self.current is None:
            return
        for other in self.old.collections.values():
            if other.id == record.id:
                continue
            writer.copy_collection(self.old.path, other, self.old.documents[other.id])
            for name in (other.id, f"{STATE}/{other.id}"):
                _link_tree(self.current / name, self.work / name)

    def _differs(self, record: CollectionRecord, document: dict[str, Any]) -> bool:
        """Whether the new version says anything that the old one does not."""
        if self.old is None or record.id not in self.old.collections:
            return True
        same = (
            self.old.collections[record.id] == record
            and json.loads(self.old.documents[record.id]) == document
            and self.old.meta.get("url") == self.options.url
            and all(change.untouched for change in self.changes)
        )
        if not same:
            return True
        for year in record.years:
            new = np.load(self.work / STATE / record.id / f"{year}.npz")
            before = self._old_state(record.id, year)
            if before is None or str(before["digest"]) != str(new["digest"]):
                return True
        try:
            return not check_digest(self.old.path)
        except CatalogError as exc:
            self.problems.note(f"{exc.args[0].partition(';')[0]}. It is written anew")
            return True


def _link_tree(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            new = target / path.relative_to(source)
            new.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, new)
