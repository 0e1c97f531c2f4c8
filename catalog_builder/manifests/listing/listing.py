"""The data itself as a manifest: a folder, an S3 prefix, or a saved listing of either.

All layouts that upstream has used are recognised (:mod:`~catalog_builder.manifests.paths.names`), with or
without the ``global_0.1_degree_representation`` level and below any number of other folders. The dataset is
determined by, in this order, the ``tessera_metadata.json`` that geotessera 0.9 and later write beside the
data, and the folder names (``npy/v1.1-cam/…``). Hashes are read from the ``SHA256`` files that upstream's
server keeps beside the tiles, and from ``SHA256SUM`` beside the landmasks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from catalog_builder import storage
from catalog_builder.errors import DatasetError, StorageError
from catalog_builder.manifests.part import BoolArray, Hashes, ManifestPart, sizes, tile_table, times
from catalog_builder.manifests.paths.files import Files, Pairer, landmasks_of
from catalog_builder.manifests.paths.names import FileKind, Names, flaw, parse_paths
from catalog_builder.manifests.problems import ProblemKind
from catalog_builder.manifests.reading import Reading
from catalog_builder.manifests.text import read_sums, read_text
from catalog_builder.storage import Entry
from catalog_builder.tile.datasets import Dataset, dataset_of, folder_says
from catalog_builder.tile.table import cells

SIDECAR = "tessera_metadata.json"
BATCH_FILES = 1 << 16


def read_listing(
    entries: Iterable[tuple[int, Entry]], reading: Reading, *, root: str | None = None
) -> Iterator[ManifestPart]:
    """Read the files of a listing.

    Parameters
    ----------
    entries
        Line (or running number) and file.
    root
        Address of the listed folder, if it is readable: sidecars and hashes are looked for there.
    """
    state = _Listing(reading, root)
    batch: list[tuple[int, Entry]] = []
    folder = ""
    for number, entry in entries:
        # a folder's files stay together, so that a tile's SHA256 meets its tile; but not if they are
        # a million landmasks
        if len(batch) >= BATCH_FILES and (
            len(batch) >= 4 * BATCH_FILES or entry.path.rpartition("/")[0] != folder
        ):
            yield from state.read(batch)
            batch = []
        batch.append((number, entry))
        folder = entry.path.rpartition("/")[0]
    if batch:
        yield from state.read(batch)
    state.finish()


class _Listing:
    """State kept between the batches of a listing."""

    def __init__(self, reading: Reading, root: str | None) -> None:
        self._reading = reading
        self._root = root
        self._place = ("line {}" if root is None else "file {}").format
        self._pairers: dict[str, Pairer] = {}
        self._datasets: dict[str, Dataset | None] = {}
        self._left_out: set[str] = set()
        self._sums: dict[str, tuple[npt.NDArray[np.int32], Hashes]] = {}

    def finish(self) -> None:
        for pairer in self._pairers.values():
            pairer.finish()

    def read(self, batch: list[tuple[int, Entry]]) -> Iterator[ManifestPart]:
        reading = self._reading
        paths = pa.array([entry.path for _, entry in batch], pa.string())
        names = parse_paths(paths)
        self._report_flaws(batch, names)
        files = self._files(batch, names, paths)
        keep = (names.kind != FileKind.OTHER) & self._in_range(files, paths)
        is_mask = names.kind == FileKind.LANDMASK
        selected = reading.selection.keeps(*files.centres())
        if selected is not None:
            keep &= selected
        if reading.selection.years is not None:
            keep &= is_mask | np.isin(files.year, sorted(reading.selection.years))
        codes = names.prefix.indices.to_numpy()
        for code in np.unique(codes[keep]).tolist():
            prefix = names.prefix.dictionary[code].as_py()
            mine = keep & (codes == code)
            yield from self._parts(prefix, files, mine, paths)

    def _parts(self, prefix: str, files: Files, mine: BoolArray, paths: pa.Array) -> Iterator[ManifestPart]:
        reading = replace(self._reading, dataset=self._dataset(prefix))
        if prefix in self._left_out:
            return
        root = None if self._root is None else storage.join(self._root, *([prefix] if prefix else []))
        masks = mine & (files.kind == FileKind.LANDMASK)
        if masks.any():
            of_masks = self._summed(prefix, files.take(masks))
            table = landmasks_of(of_masks, reading.source, reading.problems, self._place)
            yield ManifestPart(reading.source, reading.dataset, landmasks=table)
        halves = mine & ((files.kind == FileKind.NPY) | (files.kind == FileKind.SCALES))
        if halves.any():
            pairer = self._pairers.setdefault(prefix, Pairer(reading.source, reading.problems, self._place))
            table = pairer.add(files.take(halves))
            if table is not None:
                yield ManifestPart(reading.source, reading.dataset, tiles=table, root=root)
        tiffs = mine & (files.kind == FileKind.GEOTIFF)
        if tiffs.any():
            of_tiffs = files.take(tiffs)
            n = len(of_tiffs)
            table = tile_table(
                *of_tiffs.centres(),
                of_tiffs.year,
                has_npy=pa.repeat(False, n),
                mtime=times(of_tiffs.mtime, n),
                geotiff=paths.filter(pa.array(tiffs)),
                geotiff_size=sizes(of_tiffs.size, n),
            )
            # their paths are below what was listed, wherever in it they lie
            yield ManifestPart(reading.source, reading.dataset, tiles=table, root=self._root)

    def _files(self, batch: list[tuple[int, Entry]], names: Names, paths: pa.Array) -> Files:
        n = len(batch)
        sha256, hashed = self._tile_hashes(batch, names, paths)
        return Files(
            names.kind,
            names.year,
            names.cell,
            np.fromiter((e.size for _, e in batch), dtype=np.int64, count=n),
            np.fromiter((e.mtime for _, e in batch), dtype=np.int64, count=n),
            sha256,
            hashed,
            np.fromiter((number for number, _ in batch), dtype=np.int64, count=n),
        )

    def _in_range(self, files: Files, paths: pa.Array) -> BoolArray:
        """Return the mask of files whose year the dataset can have; report the others."""
        first, last = self._reading.years
        off = (files.year >= 0) & ((files.year < first) | (files.year > last))

        def describe(i: int) -> tuple[str, str]:
            return self._place(
                int(files.line[i])
            ), f"expected a year from {first} to {last}, found '{paths[i]}'"

        rows = np.flatnonzero(off)
        self._reading.problems.add_rows(
            ProblemKind.WRONG_YEAR, self._reading.source, rows, len(rows), describe
        )
        kept: BoolArray = ~off
        return kept

    def _report_flaws(self, batch: list[tuple[int, Entry]], names: Names) -> None:
        """Report files that look like a tile's but are not; other files are ignored."""
        for i in np.flatnonzero(names.kind == FileKind.OTHER).tolist():
            number, entry = batch[i]
            found = flaw(entry.path)
            if found is not None:
                why = (
                    found[1] if "'" in found[1] and entry.path in found[1] else f"{found[1]} ('{entry.path}')"
                )
                self._reading.problems.add(found[0], self._reading.source, why, place=self._place(number))

    def _dataset(self, prefix: str) -> Dataset | None:
        if prefix not in self._datasets:
            self._datasets[prefix] = self._stated(prefix)
        return self._datasets[prefix]

    def _stated(self, prefix: str) -> Dataset | None:
        """Return the dataset that is stated nearest to the data, by a sidecar or the name of a folder."""
        folders = prefix.split("/") if prefix else []
        for depth in range(len(folders), -1, -1):
            if self._root is not None:
                address = storage.join(self._root, *folders[:depth], SIDECAR)
                if storage.exists(address):
                    found = read_sidecar(address, self._reading)
                    if found is None and not self._reading.is_said:
                        self._left_out.add(prefix)
                    return found
            if depth and (says := folder_says(folders[depth - 1], folders[depth - 2] if depth > 1 else "")):
                if self._reading.leaves_out("/".join(folders[:depth])):
                    self._left_out.add(prefix)
                return says[0] or self._reading.dataset
        return self._reading.dataset

    def _tile_hashes(
        self, batch: list[tuple[int, Entry]], names: Names, paths: pa.Array
    ) -> tuple[Hashes, BoolArray]:
        """Return the digests that ``SHA256`` files give the batch, shape (n, 32), and which are known."""
        digests = np.zeros((len(batch), 32), dtype=np.uint8)
        known = np.zeros(len(batch), dtype=np.bool_)
        if self._root is None or storage.scheme(self._root):
            return digests, known  # a request for each tile would cost more than the hashes are worth
        sums: dict[str, str] = {}
        for i in np.flatnonzero(names.kind == FileKind.OTHER).tolist():
            path = batch[i][1].path
            folder, _, name = path.rpartition("/")
            if name == "SHA256SUM":
                self._read_sum(folder, path)
            elif name == "SHA256":
                address = storage.join(self._root, path)
                found, others = read_sums(storage.read_bytes(address))
                sums |= {f"{folder}/{file}": digest for file, digest in found.items()}
                for number, line in others:
                    self._reading.problems.add(
                        ProblemKind.BAD_HASH,
                        address,
                        f"expected '<SHA-256>  <file>', found '{line[:120]}'",
                        place=f"line {number}",
                    )
        if not sums:
            return digests, known
        raw = np.frombuffer(bytes.fromhex("".join(sums.values())), dtype=np.uint8).reshape(-1, 32)
        owners = list(sums)
        at = pc.fill_null(pc.index_in(paths, value_set=pa.array(owners)), -1).to_numpy()
        known = at >= 0
        digests[known] = raw[at[known]]
        return digests, known

    def _read_sum(self, folder: str, path: str) -> None:
        address = storage.join(self._root or "", path)
        with storage.open_binary(address) as file:
            parts = list(read_text(file, replace(self._reading, source=address)))
        tables = [p.landmasks for p in parts if p.landmasks is not None]
        if not tables:
            return
        table = pa.concat_tables(tables).combine_chunks()
        column = table["sha256"].combine_chunks()
        digests = np.frombuffer(column.buffers()[1], dtype=np.uint8).reshape(-1, 32)
        cell = cells(table)
        order = np.argsort(cell, kind="stable")
        self._sums[folder] = (cell[order], digests[order])

    def _summed(self, folder: str, files: Files) -> Files:
        """Return landmasks with the hashes in the folder's SHA256SUM."""
        if folder not in self._sums:
            return files
        cell, digests = self._sums[folder]
        at = np.searchsorted(cell, files.cell).clip(max=len(cell) - 1)
        found = cell[at] == files.cell
        return replace(files, sha256=np.where(found[:, None], digests[at], files.sha256), hashed=found)


def read_sidecar(address: str, reading: Reading) -> Dataset | None:
    """Return the dataset stated in a ``tessera_metadata.json``; report one that states none."""
    try:
        return sidecar_dataset(address)
    except DatasetError as error:
        reading.problems.add(ProblemKind.UNKNOWN_DATASET, address, str(error))
        return None


def sidecar_dataset(address: str) -> Dataset:
    """Return the dataset that a ``tessera_metadata.json`` states.

    Raises
    ------
    DatasetError
        If it states none that is known; the message does not repeat the address.
    """
    try:
        content = json.loads(storage.read_bytes(address))
    except StorageError as error:
        raise DatasetError(f"cannot be read ({str(error).removeprefix(f'{address}: ')})") from None
    except json.JSONDecodeError as error:
        raise DatasetError(f"is not JSON (line {error.lineno}, column {error.colno})") from None
    except (ValueError, RecursionError):  # not UTF-8; nested too deeply
        raise DatasetError("is not JSON") from None
    version = content.get("dataset_version") if isinstance(content, dict) else None
    if not isinstance(version, str | int | float) or isinstance(version, bool):
        raise DatasetError("states no dataset: it has no dataset_version")
    variant = content.get("dataset_variant")
    return dataset_of(str(version), None if variant is None else str(variant))
