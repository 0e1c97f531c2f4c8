"""Sources of a conversion: files, folders, globs, manifests and catalogues as streams of jobs.

The plan never opens a raster: names and manifests say what a file is, and the worker that reads it
checks that its tags agree. So planning 1.4 million tile-years takes seconds, and a remote file is
fetched once.
"""

from __future__ import annotations

import glob
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalog_builder import storage
from catalog_builder.convert.plan.files import (
    RASTER_SUFFIXES,
    look,
    nearby_landmask,
    plan_files,
    plan_folder,
    sums_beside,
)
from catalog_builder.convert.plan.job import Job, Plan, SourceFile, Wanted
from catalog_builder.convert.plan.twice import Distinct
from catalog_builder.errors import ConvertError, DatasetError, TesseraError
from catalog_builder.manifests.part import Subset
from catalog_builder.stores.open import is_store
from catalog_builder.tile.blocks import order_of_neighbours
from catalog_builder.tile.datasets import Dataset, source_path
from catalog_builder.tile.grid import N_CELLS, TileId
from catalog_builder.tile.table import cells

__all__ = ["Plan", "Wanted", "in_shard", "plan"]

_BATCH = 4096


def plan(sources: Sequence[str], wanted: Wanted) -> Plan:
    """Plan the conversion of some sources.

    Parameters
    ----------
    sources
        Each a catalogue folder, a manifest in any format, a folder or ``s3://`` URL of data, a
        glob pattern, or one file (local, http(s) or s3).

    Raises
    ------
    ConvertError
        If a source has nothing to convert.
    StorageError, ManifestError, CatalogError
        If a source cannot be read.
    """
    parts = [_plan_one(source, wanted) for source in sources]
    distinct = Distinct(parts)

    def jobs() -> Iterator[Job]:
        return (job for job in distinct.jobs() if in_shard(job.id, wanted.shard))

    total = distinct.total if wanted.shard is None else sum(1 for _ in jobs())
    return Plan(total, jobs, (*(note for p in parts for note in p.notes), *distinct.notes))


def in_shard(job: str, shard: tuple[int, int] | None) -> bool:
    """Return whether a job belongs to a shard, by a checksum of its id, so that every machine agrees."""
    return shard is None or zlib.crc32(job.encode()) % shard[1] == shard[0]


def _plan_one(source: str, wanted: Wanted) -> Plan:
    from catalog_builder.catalog.open import is_catalog

    remote = bool(storage.scheme(source))
    if not source.lower().endswith((".npy", *RASTER_SUFFIXES)) and is_catalog(source):
        return _plan_catalogue(source, wanted)
    if not source.lower().endswith((".npy", *RASTER_SUFFIXES)) and is_store(source):
        return _plan_store(source, wanted)
    if wanted.missing:
        raise ConvertError(f"{source}: --missing needs a catalogue, which records what is converted")
    if not remote and glob.has_magic(source) and not Path(source).exists():
        # pathlib has no pattern that may be absolute
        found = sorted(glob.glob(source, recursive=True))  # noqa: PTH207
        files = [p for p in found if not Path(p).is_dir()]  # or pipes and broken links, which fail
        folders = [p for p in found if Path(p).is_dir() and not any(f.startswith(f"{p}/") for f in found)]
        return _joined(
            [plan_files(files, source, wanted), *(plan_folder(f, wanted) for f in folders)], source
        )
    if source.lower().endswith((".npy", *RASTER_SUFFIXES)) and (remote or not Path(source).is_dir()):
        return plan_files([source], source, wanted)
    if storage.is_dir(source):
        return _plan_folder(source, wanted)
    if not remote and not os.path.lexists(source):
        raise ConvertError(f"{source}: no such file or folder, and no file matches it")
    if not remote and not _is_manifest_name(source):
        # The reader will report the error: one failed tile, not a failed run.
        return plan_files([source], source, wanted)
    return _plan_manifest(source, wanted)


def _plan_folder(source: str, wanted: Wanted) -> Plan:
    """Plan a folder of data, or, if it holds none, of manifests."""
    data = plan_folder(source, wanted)
    if data.total:
        return data
    try:
        listed = _plan_manifest(source, wanted)
    except TesseraError:
        if not data.faults:
            raise
        return data
    return replace(listed, faults=data.faults)


def _is_manifest_name(source: str) -> bool:
    name = source.lower()
    known = (".txt", ".parquet", ".csv", ".zip", ".gz", ".bz2", ".xz", ".zst", ".tar")
    return name.endswith(known) or "." not in Path(name).name


def _joined(parts: Sequence[Plan], source: str) -> Plan:
    total = sum(p.total for p in parts)
    faults = tuple(fault for p in parts for fault in p.faults)
    if not total and not faults:
        raise ConvertError(f"{source}: nothing to convert: expected .npy pairs or GeoTIFFs")

    def jobs() -> Iterator[Job]:
        for part in parts:
            yield from part.jobs()

    return Plan(total, jobs, tuple(n for p in parts for n in p.notes), faults)


# --- manifests and catalogues -----------------------------------------------------------------------


def _plan_manifest(source: str, wanted: Wanted) -> Plan:
    """Plan the tile-years that manifests list."""
    from catalog_builder.manifests import ProblemKind, ProblemLog, read_dataset, read_manifests

    tables: list[tuple[pa.Table, Dataset, str]] = []
    masks: list[pa.Table] = []
    problems = ProblemLog()
    years, bounds = wanted.years, wanted.bounds
    if wanted.dataset is None:
        parts = read_manifests(source, problems=problems, years=years, bounds=bounds)
    else:
        parts = read_dataset(source, wanted.dataset, problems=problems, years=years, bounds=bounds)
    for part in parts:
        if part.landmasks is not None:
            masks.append(part.landmasks)
        if part.tiles is None:
            continue
        ds = part.dataset or wanted.dataset
        if ds is None:
            raise DatasetError(
                f"{part.source}: does not state which dataset it lists; specify it with --dataset"
            )
        root = wanted.source_root or part.root or ds.published_root
        if root is None:
            raise DatasetError(
                f"dataset {ds.directory} is not published: give its location with --source-root"
            )
        tables.append((part.tiles, ds, root.rstrip("/")))
    total = sum(t.num_rows for t, _, _ in tables)
    if not total:
        reason = problems.explained() or "it lists none of the requested tile-years"
        raise ConvertError(f"{source}: nothing to convert: {reason}")
    landmasks = _Landmasks(masks)

    def jobs() -> Iterator[Job]:
        for table, ds, root in tables:
            where = wanted.landmask_root or _published_landmasks(ds, root)
            yield from _table_jobs(table, ds, root, where, landmasks)

    notes = tuple(note for note in (problems.summary(), *problems.notes) if note)
    unknown = (p for p in problems.kept if p.kind is ProblemKind.UNKNOWN_DATASET)
    faults = tuple(Job("geotiff", SourceFile(f"{p.source} {p.place}".strip()), fault=str(p)) for p in unknown)
    return Plan(total, jobs, notes, faults, distinct=_are_distinct(tables))


def _are_distinct(tables: Sequence[tuple[pa.Table, Dataset, str]]) -> bool:
    """Whether no tile-year is in two rows of some tables."""
    numbers = {ds: n for n, ds in enumerate({ds for _, ds, _ in tables})}
    keys = []
    for table, ds, _ in tables:
        year = table["year"].to_numpy().astype(np.int64)
        keys.append((numbers[ds] << 48) + year * N_CELLS + cells(table))
    return len(np.unique(np.concatenate(keys))) == sum(map(len, keys))


def _published_landmasks(ds: Dataset, root: str) -> str | None:
    """Return where landmasks are when the files are where they are published."""
    return ds.published_landmasks if root == ds.published_root else None


def _plan_catalogue(address: str, wanted: Wanted) -> Plan:
    """Plan the tile-years of a catalogue."""
    from catalog_builder.catalog.open import open_index

    index = open_index(address)
    records = [r for r in index.collections.values() if wanted.dataset is None or r.dataset == wanted.dataset]
    parts: list[tuple[pa.Table, Dataset, str, str | None, _Landmasks, str | None]] = []
    for record in records:
        landmasks = _Landmasks([index.landmask_table(record.ordinal)])
        root = wanted.source_root or record.source_root
        mask_root = wanted.landmask_root or record.landmask_root or None
        for year in record.years:
            if wanted.years is not None and year not in wanted.years:
                continue
            table = index.tile_table(record.ordinal, year)
            lat_i, lon_i = table["lat_i"].to_numpy(), table["lon_i"].to_numpy()
            keeps = Subset(None, wanted.bounds).keeps(lat_i, lon_i)
            keep = np.ones(len(lat_i), dtype=np.bool_) if keeps is None else keeps.copy()
            in_store = table["in_store"].to_numpy()
            keep &= table["has_npy"].to_numpy() | table["geotiff"].is_valid().to_numpy() | in_store
            if wanted.missing:
                keep &= ~index.converted(record.ordinal, year)
            store = record.addresses.store
            of_store = None if store is None else store.address
            table = table.filter(pa.array(keep))
            parts.append((table, record.dataset, root, mask_root, landmasks, of_store))

    def jobs() -> Iterator[Job]:
        for table, ds, root, mask_root, landmasks, store in parts:
            yield from _table_jobs(table, ds, root, mask_root, landmasks, store)

    return Plan(sum(p[0].num_rows for p in parts), jobs, distinct=True)


def _plan_store(address: str, wanted: Wanted) -> Plan:
    """Plan the tile-years of a store that have data."""
    from catalog_builder.manifests.reading import dataset_of_address
    from catalog_builder.stores.open import open_store
    from catalog_builder.stores.written import filled_tiles

    store = open_store(address)
    ds = wanted.dataset or dataset_of_address(f"{store.address}/")
    if ds is None:
        raise DatasetError(f"{address}: does not state which dataset it holds; specify it with --dataset")
    keeps = Subset(None, wanted.bounds).keeps
    filled = filled_tiles(store, wanted.years, keeps)
    if not filled.tiles:
        raise ConvertError(f"{address}: nothing to convert: no requested tile-year has data")
    notes = []
    if filled.edges:
        notes.append(
            f"{address}: {filled.edges} tile-years are left out: they have data at their edges only, in"
            " pixels of their neighbours"
        )
    main = SourceFile(storage.absolute(store.address), None, store.snapshot)
    landmasks = _Landmasks([])

    def jobs() -> Iterator[Job]:
        for tile, year in filled.tiles:
            mask = None
            if wanted.landmask_root is not None:
                mask = landmasks.file(tile, wanted.landmask_root, main.address)
            yield Job("store", main, None, mask, ds.directory, tile, year)

    return Plan(len(filled.tiles), jobs, tuple(notes), distinct=True)


class _Landmasks:
    """Which cells have a landmask, with its size and hash where the manifest says them."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self.known: dict[tuple[int, int], tuple[int | None, str]] = {}
        for table in tables:
            columns = (table[n].to_pylist() for n in ("lat_i", "lon_i", "size", "sha256"))
            for lat_i, lon_i, size, sha in zip(*columns, strict=True):
                self.known[lat_i, lon_i] = (size, sha.hex() if sha else "")

    def file(self, tile: TileId, root: str | None, main: str) -> SourceFile | None:
        """Return a tile's landmask below a root, or near its embedding, if there is one."""
        if root is None:
            # Nobody said where landmasks are: take the one that a download has beside the tile.
            return None if self.known else nearby_landmask(main, tile)
        address = storage.join(root, f"{tile.name}.tiff")
        facts = self.known.get((tile.lat_i, tile.lon_i))
        if facts is not None:
            return SourceFile(address, facts[0], "", facts[1], sums_beside(address))
        if self.known or storage.scheme(address):
            return None  # the manifest lists landmasks, and this tile has none
        return look(address).file if Path(address).is_file() else None


def _table_jobs(
    table: pa.Table,
    ds: Dataset,
    root: str,
    landmask_root: str | None,
    landmasks: _Landmasks,
    store: str | None = None,
) -> Iterator[Job]:
    """Yield the jobs of a TileTable, a batch of rows in Python objects at a time."""
    if store is not None:  # neighbours have chunks in common
        table = table.take(pa.array(order_of_neighbours(cells(table))))
    for batch in table.to_batches(max_chunksize=_BATCH):
        for row in batch.to_pylist():
            tile, year = TileId(row["lat_i"], row["lon_i"]), row["year"]
            path = source_path(year, tile.name) if row["has_npy"] else row["geotiff"] or ""
            landmask = landmasks.file(tile, landmask_root, storage.join(root, path))
            mtime = row["mtime"].isoformat() if row["mtime"] else ""

            def file(address: str, size: int | None, sha: bytes | None, when: str = mtime) -> SourceFile:
                return SourceFile(address, size, when, sha.hex() if sha else "", sums_beside(address))

            if row["has_npy"]:
                npy, scales = (
                    storage.join(root, source_path(year, tile.name, s)) for s in (".npy", "_scales.npy")
                )
                yield Job(
                    "npy",
                    file(npy, row["npy_size"], row["npy_sha256"]),
                    file(scales, row["scales_size"], row["scales_sha256"]),
                    landmask,
                    ds.directory,
                    tile,
                    year,
                )
            elif row["geotiff"]:
                main = file(storage.join(root, row["geotiff"]), row["geotiff_size"], None)
                yield Job("geotiff", main, None, landmask, ds.directory, tile, year)
            elif store is not None and row["in_store"]:
                # the store says what is water
                yield Job("store", file(store, None, None), None, None, ds.directory, tile, year)
