"""Jobs from files and folders, by file names and sidecars."""

from __future__ import annotations

import filecmp
import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalog_builder import storage
from catalog_builder.convert.plan.identify import DEFAULT_DATASET
from catalog_builder.convert.plan.job import Job, Plan, SourceFile, Wanted
from catalog_builder.convert.plan.peek import is_landmask
from catalog_builder.convert.plan.stated import Statement, Statements
from catalog_builder.errors import ConvertError, DatasetError, TesseraError
from catalog_builder.manifests.listing.listing import SIDECAR
from catalog_builder.manifests.part import Subset
from catalog_builder.manifests.paths.names import FileKind, Names, parse_paths
from catalog_builder.storage.local import Oddity
from catalog_builder.tile import grid
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.grid import TileId

RASTER_SUFFIXES = (".tif", ".tiff")
SIDE_SUFFIXES = (".aux.xml", ".msk", ".vat.dbf")
"""Suffixes, after a raster's whole name, of files that belong to it."""
WORLD_SUFFIXES = (".tfw", ".TFW", ".tifw", ".tiffw", ".wld", ".tab", "_rpc.txt", "_RPC.TXT", ".rpb", ".RPB")
"""The same, after its name without the suffix."""
LANDMASK_FOLDERS = ("global_0.1_degree_tiff_all", "landmasks")
"""Folders of landmasks in a download, beside or above the embeddings."""
SUMS = ("SHA256", "SHA256SUM")
"""Files with the SHA-256 of those beside them, of a tile and of all landmasks."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """A file of a listing, or one named by the user."""

    address: str
    size: int | None
    version: str
    sums: str = ""

    @property
    def file(self) -> SourceFile:
        return SourceFile(self.address, self.size, self.version, sums=self.sums or sums_beside(self.address))


def plan_files(paths: Sequence[str], source: str, wanted: Wanted) -> Plan:
    """Plan files given individually."""
    kept = [p for p in paths if len(paths) == 1 or Path(p).name not in (SIDECAR, *SUMS)]
    return _Listing([look(p) for p in kept], [], source, wanted).plan()


def plan_folder(address: str, wanted: Wanted) -> Plan:
    """Plan the files below a folder or prefix.

    What is no file or folder but may be meant as one, such as a pipe that is named like a GeoTIFF, a link
    that leads nowhere or a folder that cannot be read, is a job that fails with the reason.
    """
    remote = bool(storage.scheme(address))
    root = address.rstrip("/") if remote else str(storage.local_path(address).absolute())
    listed: list[_Listed] = []
    sidecars: list[str] = []
    sums: dict[str, str] = {}
    odd: list[Oddity] = []
    for entry in storage.list_files(root if not remote else address, odd.append):
        if entry.path.lower().endswith((".npy", *RASTER_SUFFIXES)):
            where = storage.join(root, entry.path)
            listed.append(_Listed(where, entry.size, str(entry.mtime)) if remote else look(where))
        elif (name := entry.path.rpartition("/")[2]) == SIDECAR and not remote:
            sidecars.append(storage.join(root, entry.path))
        elif name in SUMS and remote:
            where = storage.join(root, entry.path)
            sums[where.rpartition("/")[0]] = where
    faults: list[Job] = []
    for one in odd:
        if one.path.lower().endswith((".npy", *RASTER_SUFFIXES)):
            listed.append(_Listed(one.path, None, one.reason))  # its worker says why
        elif one.is_folder or Path(one.path).is_symlink():
            faults.append(_fault(one.path, one.reason))
    if sums:
        listed = [replace(file, sums=sums.get(file.address.rpartition("/")[0], "")) for file in listed]
    listed.sort(key=lambda file: file.address)
    plan = _Listing(listed, sidecars, address, wanted).plan()
    return replace(plan, faults=(*plan.faults, *faults))


def look(address: str) -> _Listed:
    """Return a file's size and version; a file that is not there fails in its worker, with a reason."""
    if storage.scheme(address):
        try:
            return _Listed(address, storage.size(address), "")
        except TesseraError:
            return _Listed(address, None, "")
    path = storage.local_path(address).absolute()
    try:
        info = path.stat()
    except OSError:
        info = None
    if info is None or not stat.S_ISREG(info.st_mode):
        return _Listed(str(path), None, storage.local.oddity(path))
    return _Listed(str(path), info.st_size, str(info.st_mtime_ns))


def sums_beside(address: str) -> str:
    """Return the file with the SHA-256 of a local file that lies beside it; empty if there is none."""
    return "" if storage.scheme(address) else _sums_in(address.rpartition("/")[0])


@lru_cache(maxsize=4096)
def _sums_in(folder: str) -> str:
    return next((path for name in SUMS if os.path.lexists(path := f"{folder}/{name}")), "")


def _fault(path: str, reason: str) -> Job:
    return Job("geotiff", SourceFile(path), fault=f"{path}: {reason}")


class _Listing:
    """The files of one source, and what each is."""

    def __init__(
        self, listed: Sequence[_Listed], sidecars: Sequence[str], source: str, wanted: Wanted
    ) -> None:
        self._listed, self._sidecars, self._source, self._wanted = listed, sidecars, source, wanted
        self._names: Names = parse_paths(pa.array([f.address for f in listed], pa.string()))
        self._by_address = {f.address: f for f in listed}
        remote = bool(storage.scheme(source))
        root = source if remote else str(storage.local_path(source).absolute())
        self._statements = Statements(root)
        self._masks: dict[int, list[_Listed]] = defaultdict(list)
        self._notes: list[str] = []
        # where others say theirs, one that says none is not guessed
        years = wanted.years if not (self._names.year >= 0).any() else None
        self._only_year = next(iter(years)) if years is not None and len(years) == 1 else None

    def plan(self) -> Plan:
        """Return the jobs.

        Raises
        ------
        ConvertError
            If the only file is the scales of a pair.
        DatasetError
            If there are only files of other datasets than the wanted one.
        """
        rows = self._of_dataset(self._rows())
        kept = [r for r in rows if self._is_wanted(*r)]
        tiles = [i for i, kind in kept if kind != FileKind.OTHER]
        keys = {(int(self._names.cell[i]), int(self._names.year[i])) for i in tiles}

        def jobs() -> Iterator[Job]:
            for i, kind in kept:
                yield self._job(i, kind)

        # A tile-year twice, or files that only their tags tell apart: the plan of all sources looks at them.
        distinct = len(keys) == len(kept) and all(year >= 0 for _, year in keys)
        return Plan(len(kept), jobs, tuple(self._notes), tuple(self._faults(kept)), distinct=distinct)

    def _rows(self) -> list[tuple[int, FileKind]]:
        """Return what is a source of its own, in the order of the addresses."""
        rows: list[tuple[int, FileKind]] = []
        alone = len(self._listed) == 1
        for i, kind in enumerate(self._names.kind.tolist()):
            address = self._listed[i].address
            if kind == FileKind.LANDMASK and not alone and self._is_landmask(i):
                self._masks[int(self._names.cell[i])].append(self._listed[i])
            elif kind == FileKind.NPY or (kind == FileKind.OTHER and _is_loose_npy(address)):
                rows.append((i, FileKind.NPY))
            elif kind == FileKind.GEOTIFF:
                rows.append((i, FileKind.GEOTIFF))
            elif kind == FileKind.LANDMASK or (kind == FileKind.OTHER and not _is_npy(address)):
                # A single file that is named like a landmask is intended as a source.
                rows.append((i, FileKind.OTHER))
            elif address.lower().endswith("_scales.npy") and alone:
                raise ConvertError(
                    f"{address}: this is the scales file; give the embedding, the .npy file beside it"
                )
        rows.sort(key=lambda r: self._listed[r[0]].address)
        return rows

    def _is_landmask(self, i: int) -> bool:
        """Whether a file that is named like a landmask, ``grid_X_Y.tiff``, is one and not an export."""
        file = self._listed[i]
        folders = Path(file.address).parent.parts[-2:]
        among = any(name in folders for name in LANDMASK_FOLDERS)
        return is_landmask(file.address, file.size, is_among_landmasks=among)

    def _of_dataset(self, rows: list[tuple[int, FileKind]]) -> list[tuple[int, FileKind]]:
        """Return the rows without those that are said to be of another dataset than the wanted one."""
        wanted = self._wanted.dataset
        if wanted is None:
            unsaid = sum(k == FileKind.NPY and self._statement(i) == Statement() for i, k in rows)
            if unsaid:
                self._notes.append(
                    f"{self._source}: {unsaid} .npy pairs do not state their dataset; assumed to be v1, the"
                    " only one before geotessera 0.9 (--dataset names another)"
                )
            return rows
        kept, others = [], dict[Dataset, str]()
        for i, kind in rows:
            said = self._statement(i)
            if said.is_firm and said.dataset not in (None, wanted) and kind != FileKind.OTHER:
                others.setdefault(said.dataset, said.place)
            else:
                kept.append((i, kind))
        if others:
            listed = ", ".join(f"{d.directory} (by {place})" for d, place in others.items())
            if not kept:
                raise DatasetError(
                    f"{self._source}: holds dataset {listed}, not {wanted.directory}: datasets are never"
                    " mixed; choose with --dataset"
                )
            self._notes.append(
                f"{self._source}: also holds dataset {listed}, left out: --dataset {wanted.directory} is"
                " what is read"
            )
        return kept

    def _statement(self, i: int) -> Statement:
        return self._statements.of(self._listed[i].address)

    def _is_wanted(self, i: int, kind: FileKind) -> bool:
        year = int(self._names.year[i])
        if kind == FileKind.OTHER or year < 0:
            return True
        where = grid.centres(*grid.rows_cols(np.array([self._names.cell[i]])))
        keeps = Subset(self._wanted.years, self._wanted.bounds).keeps(*where, np.array([year]))
        return keeps is None or bool(keeps[0])

    def _faults(self, kept: Sequence[tuple[int, FileKind]]) -> Iterator[Job]:
        """Yield what is broken and belongs to no job, which would say so."""
        cells = {int(self._names.cell[i]) for i, kind in kept if kind != FileKind.OTHER}
        for cell, masks in self._masks.items():
            for mask in masks:
                if cell not in cells and mask.size is None and mask.version:
                    yield _fault(mask.address, mask.version)
        if self._sidecars and self._wanted.dataset is None:
            said = {self._statement(i).place for i, kind in kept if kind != FileKind.OTHER}
            for path in self._sidecars:
                statement = self._statements.sidecar(path.rpartition("/")[0])
                if statement is not None and statement.doubt and path not in said:
                    yield Job("geotiff", SourceFile(path), fault=statement.doubt)

    def _job(self, i: int, kind: FileKind) -> Job:
        here, cell, year = self._listed[i], self._names.cell[i], self._names.year[i]
        said = self._statement(i)
        named = self._wanted.dataset or said.dataset
        doubt = said.doubt if self._wanted.dataset is None else ""
        tile: TileId | None = None
        its_year: int | None = None
        if kind == FileKind.GEOTIFF or (kind == FileKind.NPY and year >= 0):
            tile, its_year = TileId.from_cell(int(cell)), int(year)
        elif kind == FileKind.NPY:
            # A loose file: its name must be a tile's; anything else is refused by the worker.
            name = here.address.rpartition("/")[2][: -len(".npy")]
            try:
                tile, its_year = TileId.from_name(name), self._only_year
            except TesseraError:
                tile = None
        landmask, problem = self._landmask(here.address, tile, named) if tile is not None else (None, "")
        directory = named.directory if named is not None else None
        if kind != FileKind.NPY:
            beside = tuple(_beside(here.address)) if kind == FileKind.OTHER else ()
            which = (landmask, directory, tile, its_year)
            return Job("geotiff", here.file, None, *which, doubt=doubt, fault=problem, beside=beside)
        stem, _, suffix = here.address.rpartition(".")  # .NPY, as some systems write it, has _scales.NPY
        scales = f"{stem}_scales.{suffix}"
        pair = self._file(scales) or SourceFile(scales)
        if not doubt:
            # .npy files do not state their dataset: without any hint they are v1, the first dataset
            directory = directory or DEFAULT_DATASET
        fault = problem or (doubt and f"{here.address}: {doubt}")
        return Job("npy", here.file, pair, landmask, directory, tile, its_year, fault=fault)

    def _file(self, address: str) -> SourceFile | None:
        found = self._by_address.get(address) or look(address)
        if found.size is None and not (self._by_address.get(address) or os.path.lexists(address)):
            return None
        return found.file

    def _landmask(self, address: str, tile: TileId, named: Dataset | None) -> tuple[SourceFile | None, str]:
        """Return a tile's landmask, the nearest one; or why it cannot be told which of several it is."""
        masks = [m for m in self._masks.get(tile.cell, []) if _is_landmask_of(m.address, named)]
        if not masks:
            near = (self._file(p) for p in _landmask_places(address, tile, self._wanted))
            return next(filter(None, near), None), ""
        shared = [len(os.path.commonpath([address, m.address])) for m in masks]
        first, *others = [m for m, n in zip(masks, shared, strict=True) if n == max(shared)]
        for other in others:
            if not _are_alike(first, other):
                both = f"{first.address} and {other.address}"
                return None, f"{both} are both the landmask of {tile.name}, with different content: keep one"
        return first.file, ""


def _is_landmask_of(address: str, named: Dataset | None) -> bool:
    """Whether a landmask may be of a dataset, by upstream's folders ``landmasks/v1``, ``landmasks/v1.1``."""
    above, folder = ("", *address.split("/"))[-3:-1]
    return named is None or above != "landmasks" or folder == named.landmask_directory


def _are_alike(one: _Listed, other: _Listed) -> bool:
    if one.size is None or one.size != other.size:
        return False
    if storage.scheme(one.address):
        return True
    try:
        return filecmp.cmp(one.address, other.address, shallow=False)
    except OSError:
        return False


def _is_loose_npy(address: str) -> bool:
    """Whether a file is an embedding outside of upstream's folders."""
    return _is_npy(address) and not address.lower().endswith("_scales.npy")


def _is_npy(address: str) -> bool:
    return address.lower().endswith(".npy")


def _beside(address: str) -> Iterator[SourceFile]:
    """Yield the files that belong to a local raster and change what it says."""
    if storage.scheme(address):
        return  # each would cost a request; the worker asks for them
    stem = address.rpartition(".")[0]
    for place in (*(address + s for s in SIDE_SUFFIXES), *(stem + s for s in WORLD_SUFFIXES)):
        found = look(place)
        if found.size is not None:
            yield found.file


def nearby_landmask(address: str, tile: TileId) -> SourceFile | None:
    """Return the landmask that lies where a download has it, beside or above a local file."""
    for place in _landmask_places(address, tile, Wanted()):
        found = look(place)
        if found.size is not None or os.path.lexists(place):
            return found.file
    return None


def _landmask_places(address: str, tile: TileId, wanted: Wanted) -> Iterator[str]:
    """Yield where a tile's landmask may lie, the most likely first."""
    if wanted.landmask_root is not None:
        yield storage.join(wanted.landmask_root, f"{tile.name}.tiff")
        return
    if storage.scheme(address):
        return  # guessing would cost requests; listings and --landmask-root tell
    folder = Path(address).parent
    beside = folder / f"{tile.name}.tiff"
    if is_landmask(str(beside), look(str(beside)).size, is_among_landmasks=False):
        yield str(beside)
    for up in (folder, *list(folder.parents)[:4]):
        for name in LANDMASK_FOLDERS:
            if _is_folder(str(up / name)):
                yield str(up / name / f"{tile.name}.tiff")


@lru_cache(maxsize=4096)
def _is_folder(path: str) -> bool:
    return Path(path).is_dir()
