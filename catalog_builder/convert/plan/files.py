"""Jobs from files and folders, by file names and sidecars."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalog_builder import storage
from catalog_builder.convert.plan.job import Job, Plan, SourceFile, Wanted
from catalog_builder.errors import ConvertError, DatasetError, TesseraError
from catalog_builder.manifests.part import Subset
from catalog_builder.manifests.paths.names import FileKind, parse_paths
from catalog_builder.tile import grid
from catalog_builder.tile.datasets import Dataset, dataset, dataset_of
from catalog_builder.tile.grid import TileId

RASTER_SUFFIXES = (".tif", ".tiff")
SIDECAR = "tessera_metadata.json"
LANDMASK_FOLDERS = ("global_0.1_degree_tiff_all", "landmasks")
"""Folders of landmasks in a download, beside or above the embeddings."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """A file of a listing, or one named by the user."""

    address: str
    size: int | None
    version: str


def plan_files(paths: Sequence[str], source: str, wanted: Wanted) -> Plan:
    """Plan files given individually."""
    return _plan_listed([look(p) for p in paths], source, wanted, landmasks=True)


def plan_folder(address: str, wanted: Wanted) -> Plan:
    """Plan the files below a folder or prefix."""
    remote = bool(storage.scheme(address))
    root = address.rstrip("/") if remote else str(storage.local_path(address).absolute())
    listed = []
    for entry in storage.list_files(address):
        if entry.path.lower().endswith((".npy", *RASTER_SUFFIXES)):
            where = storage.join(root, entry.path)
            listed.append(_Listed(where, entry.size, str(entry.mtime)) if remote else look(where))
    return _plan_listed(listed, address, wanted, landmasks=False)


def look(address: str) -> _Listed:
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
            # A single file that is named like a landmask is intended as a source.
            kind == FileKind.LANDMASK and landmasks and len(listed) == 1
        ):
            rows.append((i, FileKind.OTHER))
        elif address.endswith("_scales.npy") and len(listed) == 1:
            raise ConvertError(
                f"{address}: this is the scales file; give the embedding, the .npy file beside it"
            )
    if twice:
        notes.append(f"{source}: {twice} GeoTIFFs skipped, because their .npy pairs are present too")
    if wanted.dataset is None:
        unsaid = sum(k == FileKind.NPY and _dataset_near(listed[i].address) is None for i, k in rows)
        if unsaid:
            notes.append(
                f"{source}: {unsaid} .npy pairs do not state their dataset; assumed to be v1, the only one"
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
    where = grid.centres(*grid.rows_cols(np.array([cell])))
    keeps = Subset(wanted.years, wanted.bounds).keeps(*where, np.array([int(year)]))
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
        found = listed[at] if at is not None else look(address)
        if at is None and found.size is None:
            return None
        return SourceFile(found.address, found.size, found.version)

    here = listed[i]
    main = SourceFile(here.address, here.size, here.version)
    directory = wanted.dataset or _dataset_near(here.address)
    tile: TileId | None = None
    its_year: int | None = None
    if kind == FileKind.GEOTIFF or (kind == FileKind.NPY and year >= 0):
        tile, its_year = TileId.from_cell(int(cell)), int(year)
    elif kind == FileKind.NPY:
        # A loose file: its name must be a tile's; anything else is refused by the worker.
        name = here.address.rpartition("/")[2].removesuffix(".npy")
        try:
            tile, its_year = TileId.from_name(name), wanted.year
        except TesseraError:
            tile = None
    landmask: SourceFile | None = None
    if tile is not None:
        at = masks.get(tile.cell)
        landmask = (
            SourceFile(listed[at].address, listed[at].size, listed[at].version)
            if at is not None
            else next(filter(None, map(file, _landmask_places(here.address, tile, wanted))), None)
        )
    named = directory.directory if directory is not None else None
    if kind == FileKind.NPY:
        scales = here.address.removesuffix(".npy") + "_scales.npy"
        pair = file(scales) or SourceFile(scales)
        # .npy files do not state their dataset: without any hint they are v1, the first dataset
        return Job("npy", main, pair, landmask, named or "v1", tile, its_year)
    return Job("geotiff", main, None, landmask, named, tile, its_year)


def nearby_landmask(address: str, tile: TileId) -> SourceFile | None:
    """Return the landmask that lies where a download has it, beside or above a local file."""
    for place in _landmask_places(address, tile, Wanted()):
        found = look(place)
        if found.size is not None:
            return SourceFile(found.address, found.size, found.version)
    return None


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
