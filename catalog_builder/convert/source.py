"""What is to be converted: files, folders, globs, manifests and catalogues as streams of jobs.

The plan never opens a raster: names and manifests say what a file is, and the worker that reads it
checks that its tags agree. So planning 1.4 million tile-years takes seconds, and a remote file is
fetched once.
"""

from __future__ import annotations

import glob
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalog_builder import storage
from catalog_builder.convert.job import Job, SourceFile
from catalog_builder.datasets import Dataset, dataset, dataset_of, source_path
from catalog_builder.errors import ConvertError, DatasetError, TesseraError
from catalog_builder.grid import N_COLS, Bounds, TileId
from catalog_builder.manifests.names import FileKind, parse_paths
from catalog_builder.manifests.part import Selection

RASTER_SUFFIXES = (".tif", ".tiff")
SIDECAR = "tessera_metadata.json"
LANDMASK_FOLDERS = ("global_0.1_degree_tiff_all", "landmasks")
"""Where landmasks lie in a download, beside or above the embeddings."""
_CATALOG_INDEX = "index.sqlite"
_BATCH = 4096


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asks for; everything by default."""

    dataset: Dataset | None = None
    """What the sources hold, where they do not say."""
    years: frozenset[int] | None = None
    bounds: Bounds | None = None
    missing: bool = False
    """Of a catalogue: only tile-years that are not converted."""
    source_root: str | None = None
    """Where the files of a manifest or catalogue are; by default where they are published."""
    landmask_root: str | None = None
    """Where ``<grid>.tiff`` landmasks are."""
    year: int | None = None
    """Year of ``.npy`` files whose folder does not say it."""
    shard: tuple[int, int] | None = None
    """(i, N): the i-th of N parts, i from 0; parts are disjoint and together everything."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The jobs of some sources."""

    total: int
    """How many tile-years and files there are, before what is done already is left out."""
    jobs: Callable[[], Iterator[Job]]
    """Gives the jobs, as often as it is called, in a stable order."""
    notes: tuple[str, ...] = ()
    """What was left out, and why."""


def plan(sources: Sequence[str], wanted: Wanted) -> Plan:
    """Find what there is to convert.

    Parameters
    ----------
    sources
        Each a catalogue folder, a manifest in any format, a folder or ``s3://`` address of data, a
        glob pattern, or one file (local, http(s) or s3).

    Raises
    ------
    ConvertError
        If a source holds nothing that can be converted.
    StorageError, ManifestError, CatalogError
        If a source cannot be read.
    """
    parts = [_plan_one(source, wanted) for source in sources]

    def jobs() -> Iterator[Job]:
        seen: set[int] = set()
        for part in parts:
            for job in part.jobs():
                # 64 bits of a name instead of the name: a set of 1.4 million stays small
                key = hash(job.id)
                if key not in seen and in_shard(job.id, wanted.shard):
                    seen.add(key)
                    yield job

    total = sum(p.total for p in parts)
    if wanted.shard is not None or len(parts) > 1:
        total = sum(1 for _ in jobs())
    return Plan(total, jobs, tuple(note for p in parts for note in p.notes))


def in_shard(job: str, shard: tuple[int, int] | None) -> bool:
    """Whether a job belongs to a shard: by a checksum of its id, so every machine agrees."""
    return shard is None or zlib.crc32(job.encode()) % shard[1] == shard[0]


def _plan_one(source: str, wanted: Wanted) -> Plan:
    remote = bool(storage.scheme(source))
    if not remote and (storage.local_path(source) / _CATALOG_INDEX).exists():
        return _plan_catalogue(storage.local_path(source), wanted)
    if not remote and glob.has_magic(source) and not Path(source).exists():
        # pathlib has no pattern that may be absolute
        found = sorted(glob.glob(source, recursive=True))  # noqa: PTH207
        files = [p for p in found if Path(p).is_file()]
        folders = [p for p in found if Path(p).is_dir() and not any(f.startswith(f"{p}/") for f in found)]
        return _joined(
            [_plan_files(files, source, wanted), *(_plan_folder(f, wanted) for f in folders)], source
        )
    if source.lower().endswith((".npy", *RASTER_SUFFIXES)):
        return _plan_files([source], source, wanted)
    if storage.is_dir(source):
        data = _plan_folder(source, wanted)
        return data if data.total else _plan_manifest(source, wanted)
    if not remote and not Path(source).exists():
        raise ConvertError(f"{source}: no such file or folder, and no file matches it")
    if not remote and not _is_manifest_name(source):
        # Let the reader say what is wrong with it: one failed tile, not a failed run.
        return _plan_files([source], source, wanted)
    return _plan_manifest(source, wanted)


def _is_manifest_name(source: str) -> bool:
    name = source.lower()
    known = (".txt", ".parquet", ".csv", ".zip", ".gz", ".bz2", ".xz", ".zst", ".tar")
    return name.endswith(known) or "." not in Path(name).name


def _joined(parts: Sequence[Plan], source: str) -> Plan:
    total = sum(p.total for p in parts)
    if not total:
        raise ConvertError(f"{source}: nothing that can be converted: expected .npy pairs or GeoTIFFs")

    def jobs() -> Iterator[Job]:
        for part in parts:
            yield from part.jobs()

    return Plan(total, jobs, tuple(n for p in parts for n in p.notes))


# --- files and folders ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Listed:
    """A file of a listing, or one named by the user."""

    address: str
    size: int | None
    version: str


def _plan_files(paths: Sequence[str], source: str, wanted: Wanted) -> Plan:
    """Plan files given by name."""
    return _plan_listed([_look(p) for p in paths], source, wanted, landmasks=True)


def _plan_folder(address: str, wanted: Wanted) -> Plan:
    """Plan what lies below a folder or prefix."""
    remote = bool(storage.scheme(address))
    root = address.rstrip("/") if remote else str(storage.local_path(address).absolute())
    listed = []
    for entry in storage.list_files(address):
        if entry.path.lower().endswith((".npy", *RASTER_SUFFIXES)):
            where = storage.join(root, entry.path)
            listed.append(_Listed(where, entry.size, str(entry.mtime)) if remote else _look(where))
    return _plan_listed(listed, address, wanted, landmasks=False)


def _look(address: str) -> _Listed:
    """Return a file's size and version; a file that is not there fails in its worker, with a reason."""
    kind = storage.scheme(address)
    if kind:
        try:
            return _Listed(address, storage.size(address), "")
        except TesseraError:
            return _Listed(address, None, "")
    path = storage.local_path(address).absolute()
    try:
        info = path.stat()
    except OSError:
        return _Listed(str(path), None, "missing")
    return _Listed(str(path), info.st_size, str(info.st_mtime_ns))


def _plan_listed(listed: Sequence[_Listed], source: str, wanted: Wanted, *, landmasks: bool) -> Plan:
    names = parse_paths(pa.array([f.address for f in listed], pa.string()))
    by_address = {f.address: i for i, f in enumerate(listed)}
    masks = {int(names.cell[i]): i for i in np.flatnonzero(names.kind == FileKind.LANDMASK).tolist()}
    rows: list[tuple[int, FileKind]] = []
    notes: list[str] = []
    pairs: set[tuple[int, int]] = set()
    for i, kind in enumerate(names.kind.tolist()):
        if kind == FileKind.NPY or (kind == FileKind.OTHER and _loose_npy(listed[i].address, wanted)):
            rows.append((i, FileKind.NPY))
            pairs.add((int(names.cell[i]), int(names.year[i])))
    twice = 0
    for i, kind in enumerate(names.kind.tolist()):
        address = listed[i].address
        if kind == FileKind.GEOTIFF:
            if (int(names.cell[i]), int(names.year[i])) in pairs:
                twice += 1
            else:
                rows.append((i, FileKind.GEOTIFF))
        elif (kind == FileKind.OTHER and not address.endswith(".npy")) or (
            # A lone file that is named like a landmask was meant.
            kind == FileKind.LANDMASK and landmasks and len(listed) == 1
        ):
            rows.append((i, FileKind.OTHER))
        elif address.endswith("_scales.npy") and len(listed) == 1:
            raise ConvertError(f"{address}: these are the scales; give the embedding, the .npy beside it")
    if twice:
        notes.append(f"{source}: {twice} GeoTIFFs left out, their .npy pairs are there too")
    if wanted.dataset is None:
        unsaid = sum(k == FileKind.NPY and _dataset_near(listed[i].address) is None for i, k in rows)
        if unsaid:
            notes.append(
                f"{source}: {unsaid} .npy pairs do not say which dataset they are; taken for v1, the only one"
                " before geotessera 0.9 (--dataset names another)"
            )
    rows.sort(key=lambda r: listed[r[0]].address)
    kept = [r for r in rows if _is_wanted(names.cell[r[0]], names.year[r[0]], r[1], wanted)]

    def jobs() -> Iterator[Job]:
        for i, kind in kept:
            yield _job_of(listed, i, kind, names.cell[i], names.year[i], by_address, masks, wanted)

    return Plan(len(kept), jobs, tuple(notes))


def _loose_npy(address: str, wanted: Wanted) -> bool:
    """Whether a file is an embedding outside of upstream's folders."""
    name = address.rpartition("/")[2]
    return name.endswith(".npy") and not name.endswith("_scales.npy")


def _is_wanted(cell: np.integer, year: np.integer, kind: FileKind, wanted: Wanted) -> bool:
    if kind == FileKind.OTHER or year < 0:
        return True
    row, col = divmod(int(cell), N_COLS)
    where = np.array([row * 10 - 8995]), np.array([col * 10 - 17995])
    keeps = Selection(wanted.years, wanted.bounds).keeps(*where, np.array([int(year)]))
    return keeps is None or bool(keeps[0])


def _job_of(
    listed: Sequence[_Listed],
    i: int,
    kind: FileKind,
    cell: np.integer,
    year: np.integer,
    by_address: dict[str, int],
    masks: dict[int, int],
    wanted: Wanted,
) -> Job:
    def file(address: str) -> SourceFile | None:
        at = by_address.get(address)
        found = listed[at] if at is not None else _look(address)
        if at is None and found.size is None:
            return None
        return SourceFile(found.address, found.size, found.version)

    here = listed[i]
    main = SourceFile(here.address, here.size, here.version)
    directory = wanted.dataset or _dataset_near(here.address)
    tile: TileId | None = None
    its_year: int | None = None
    if kind == FileKind.GEOTIFF or (kind == FileKind.NPY and year >= 0):
        tile, its_year = TileId.from_row_col(*divmod(int(cell), N_COLS)), int(year)
    elif kind == FileKind.NPY:
        # A loose file: its name must be a tile's; anything else is refused by the worker.
        name = here.address.rpartition("/")[2].removesuffix(".npy")
        try:
            tile, its_year = TileId.from_name(name), wanted.year
        except TesseraError:
            tile = None
    landmask: SourceFile | None = None
    if tile is not None:
        at = masks.get(tile.row * N_COLS + tile.col)
        landmask = (
            SourceFile(listed[at].address, listed[at].size, listed[at].version)
            if at is not None
            else next(filter(None, map(file, _landmask_places(here.address, tile, wanted))), None)
        )
    named = directory.directory if directory is not None else None
    if kind == FileKind.NPY:
        scales = here.address.removesuffix(".npy") + "_scales.npy"
        pair = file(scales) or SourceFile(scales)
        # .npy files say nothing of themselves: without any hint they are v1, the first dataset
        return Job("npy", main, pair, landmask, named or "v1", tile, its_year)
    return Job("geotiff", main, None, landmask, named, tile, its_year)


def _landmask_places(address: str, tile: TileId, wanted: Wanted) -> Iterator[str]:
    """Yield where a tile's landmask may lie, the most likely first."""
    if wanted.landmask_root is not None:
        yield storage.join(wanted.landmask_root, f"{tile.name}.tiff")
        return
    if storage.scheme(address):
        return  # guessing would cost requests; listings and --landmask-root tell
    folder = Path(address).parent
    yield str(folder / f"{tile.name}.tiff")
    for up in (folder, *list(folder.parents)[:4]):
        for name in LANDMASK_FOLDERS:
            if _is_folder(str(up / name)):
                yield str(up / name / f"{tile.name}.tiff")


@lru_cache(maxsize=4096)
def _is_folder(path: str) -> bool:
    return Path(path).is_dir()


def _dataset_near(address: str) -> Dataset | None:
    """Return the dataset that a download's sidecar names, or that is a folder of the path."""
    if not storage.scheme(address):
        for folder in list(Path(address).parents)[:6]:
            found = _sidecar(str(folder))
            if found is not None:
                return found
    return _dataset_in_path(address.rpartition("/")[0])


@lru_cache(maxsize=65536)
def _sidecar(folder: str) -> Dataset | None:
    """Read ``tessera_metadata.json`` (geotessera 0.9 and later)."""
    path = Path(folder) / SIDECAR
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConvertError(f"{path}: {error}") from error
    return _dataset_named(
        str(facts.get("dataset_path") or ""), facts.get("dataset_version"), facts.get("dataset_variant")
    )


@lru_cache(maxsize=65536)
def _dataset_in_path(folder: str) -> Dataset | None:
    for part in reversed(folder.split("/")):
        try:
            return dataset(part)
        except DatasetError:
            continue
    return None


def _dataset_named(directory: str, version: str | None, variant: str | None) -> Dataset | None:
    try:
        return dataset(directory)
    except DatasetError:
        pass
    try:
        return dataset_of(str(version), variant)
    except DatasetError:
        return None


# --- manifests and catalogues -----------------------------------------------------------------------


def _plan_manifest(source: str, wanted: Wanted) -> Plan:
    """Plan the tile-years that manifests list."""
    from catalog_builder.manifests import ProblemLog, read_manifests

    tables: list[tuple[pa.Table, Dataset, str]] = []
    masks: list[pa.Table] = []
    problems = ProblemLog()
    for part in read_manifests(
        source, problems=problems, years=wanted.years, bounds=wanted.bounds, dataset_hint=wanted.dataset
    ):
        if part.landmasks is not None:
            masks.append(part.landmasks)
        if part.tiles is None:
            continue
        ds = part.dataset or wanted.dataset
        if ds is None:
            raise DatasetError(f"{part.source}: does not say which dataset it lists; say it with --dataset")
        if wanted.dataset is not None and ds != wanted.dataset:
            raise DatasetError(f"{part.source}: lists dataset {ds.directory}, not {wanted.dataset.directory}")
        root = wanted.source_root or part.root or ds.published_root
        if root is None:
            raise DatasetError(f"dataset {ds.directory} is not published: say with --source-root where it is")
        tables.append((part.tiles, ds, root.rstrip("/")))
    total = sum(t.num_rows for t, _, _ in tables)
    if not total:
        reason = problems.summary() or "it lists no tile-year that is wanted"
        raise ConvertError(f"{source}: nothing to convert: {reason}")
    landmasks = _Landmasks(masks)

    def jobs() -> Iterator[Job]:
        for table, ds, root in tables:
            where = wanted.landmask_root or _published_landmasks(ds, root)
            yield from _table_jobs(table, ds, root, where, landmasks)

    return Plan(total, jobs, (problems.summary(),) if problems.summary() else ())


def _published_landmasks(ds: Dataset, root: str) -> str | None:
    """Return where landmasks are when the files are where they are published."""
    return ds.published_landmasks if root == ds.published_root else None


def _plan_catalogue(path: Path, wanted: Wanted) -> Plan:
    """Plan the tile-years of a catalogue."""
    from catalog_builder.catalog import CatalogFolder

    index = CatalogFolder(path).open_index()
    records = [r for r in index.collections.values() if wanted.dataset is None or r.dataset == wanted.dataset]
    parts: list[tuple[pa.Table, Dataset, str, str | None, _Landmasks]] = []
    for record in records:
        landmasks = _Landmasks([index.landmask_table(record.ordinal)])
        root = wanted.source_root or record.source_root
        mask_root = wanted.landmask_root or record.landmask_root or None
        for year in record.years:
            if wanted.years is not None and year not in wanted.years:
                continue
            table = index.tile_table(record.ordinal, year)
            lat_i, lon_i = table["lat_i"].to_numpy(), table["lon_i"].to_numpy()
            keeps = Selection(None, wanted.bounds).keeps(lat_i, lon_i)
            keep = np.ones(len(lat_i), dtype=np.bool_) if keeps is None else keeps.copy()
            keep &= table["has_npy"].to_numpy() | table["geotiff"].is_valid().to_numpy()
            if wanted.missing:
                keep &= ~index.converted(record.ordinal, year)
            parts.append((table.filter(pa.array(keep)), record.dataset, root, mask_root, landmasks))

    def jobs() -> Iterator[Job]:
        for table, ds, root, mask_root, landmasks in parts:
            yield from _table_jobs(table, ds, root, mask_root, landmasks)

    return Plan(sum(p[0].num_rows for p in parts), jobs)


class _Landmasks:
    """Which cells have a landmask, with its size and hash where the manifest says them."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self.known: dict[tuple[int, int], tuple[int | None, str]] = {}
        for table in tables:
            columns = (table[n].to_pylist() for n in ("lat_i", "lon_i", "size", "sha256"))
            for lat_i, lon_i, size, sha in zip(*columns, strict=True):
                self.known[lat_i, lon_i] = (size, sha.hex() if sha else "")

    def file(self, tile: TileId, root: str | None) -> SourceFile | None:
        """Return a tile's landmask below a root, if there is one."""
        if root is None:
            return None
        address = storage.join(root, f"{tile.name}.tiff")
        facts = self.known.get((tile.lat_i, tile.lon_i))
        if facts is not None:
            return SourceFile(address, facts[0], "", facts[1])
        if self.known or storage.scheme(address):
            return None  # the manifest lists landmasks, and this tile has none
        return SourceFile(address, *_size_version(address)) if Path(address).is_file() else None


def _size_version(path: str) -> tuple[int | None, str]:
    found = _look(path)
    return found.size, found.version


def _table_jobs(
    table: pa.Table, ds: Dataset, root: str, landmask_root: str | None, landmasks: _Landmasks
) -> Iterator[Job]:
    """Yield the jobs of a TileTable, a batch of rows in Python objects at a time."""
    for batch in table.to_batches(max_chunksize=_BATCH):
        for row in batch.to_pylist():
            tile, year = TileId(row["lat_i"], row["lon_i"]), row["year"]
            landmask = landmasks.file(tile, landmask_root)
            mtime = row["mtime"].isoformat() if row["mtime"] else ""

            def file(address: str, size: int | None, sha: bytes | None, when: str = mtime) -> SourceFile:
                return SourceFile(address, size, when, sha.hex() if sha else "")

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


def stat_again(job: Job) -> Job:
    """Return the job with its local files as they are now, for comparing with what was planned."""

    def now(file: SourceFile | None) -> SourceFile | None:
        if file is None or storage.scheme(file.address):
            return file
        size, version = _size_version(file.address)
        return replace(file, size=size, version=version)

    return replace(job, main=now(job.main) or job.main, scales=now(job.scales), landmask=now(job.landmask))
