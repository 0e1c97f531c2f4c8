"""Grouping of files into tile-years: an embedding and its scales are a pair, and only a pair is a tile.

Text registries and listings name files; files of a pair are close to each other there, so pairs
are formed while streaming, and only incomplete pairs are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog_builder.manifests.part import (
    UNKNOWN,
    BoolArray,
    Hashes,
    digests,
    landmask_table,
    sizes,
    tile_table,
    times,
)
from catalog_builder.manifests.paths.names import FileKind
from catalog_builder.manifests.problems import ProblemKind, ProblemLog
from catalog_builder.tile import grid
from catalog_builder.tile.grid import N_CELLS, TileId

IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Files:
    """Files named by a manifest, one array element per file."""

    kind: npt.NDArray[np.uint8]
    """:class:`~catalog_builder.manifests.paths.names.FileKind`."""
    year: npt.NDArray[np.int16]
    cell: npt.NDArray[np.int32]
    size: IndexArray
    """Bytes, or :data:`~catalog_builder.manifests.part.UNKNOWN`."""
    mtime: IndexArray
    """Seconds since 1970, or UNKNOWN."""
    sha256: Hashes
    """Shape (n, 32); zeros where not known."""
    hashed: BoolArray
    """Whether the hash is known."""
    line: IndexArray
    """Line in its source, from 1."""

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.kind)

    def take(self, which: IndexArray | BoolArray) -> Files:
        """Return some of the files."""
        return Files(*(getattr(self, f.name)[which] for f in fields(self)))

    @staticmethod
    def concat(many: Iterable[Files]) -> Files:
        """Join files of several chunks."""
        many = list(many)
        return Files(*(np.concatenate([getattr(m, f.name) for m in many]) for f in fields(Files)))

    def centres(self) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
        """Return the tiles' centres (lat_i, lon_i), hundredths of a degree."""
        return grid.centres(*grid.rows_cols(self.cell))


class Pairer:
    """Pairs embeddings and scales into tile-years while streaming.

    Parameters
    ----------
    source
        Named in problems.
    place
        Formats a file's :attr:`Files.line` for messages, ``line 17``.
    """

    def __init__(
        self, source: str, problems: ProblemLog, place: Callable[[int], str] = "line {}".format
    ) -> None:
        self._source = source
        self._problems = problems
        self._place = place
        self._halves: Files | None = None
        self._paired: list[npt.NDArray[np.int32]] = []

    def add(self, files: Files) -> pa.Table | None:
        """Take files of kind NPY and SCALES; return the tile-years they complete."""
        if self._halves is not None:
            files = Files.concat([self._halves, files])
        slot = (files.year.astype(np.int64) * N_CELLS + files.cell) * 2 + (files.kind == FileKind.SCALES)
        files, slot = drop_repeats(files, slot, self._source, self._problems, self._place)
        tile = slot >> 1
        first = np.flatnonzero(tile[1:] == tile[:-1])
        waiting = np.ones(len(files), dtype=np.bool_)
        waiting[first] = waiting[first + 1] = False
        self._halves = files.take(waiting) if waiting.any() else None
        if not len(first):
            return None
        npy, scales = files.take(first), files.take(first + 1)
        self._paired.append(_compact(npy))
        n = len(npy)
        return tile_table(
            *npy.centres(),
            npy.year,
            npy_size=sizes(npy.size, n),
            npy_sha256=digests(npy.sha256, npy.hashed, n),
            scales_size=sizes(scales.size, n),
            scales_sha256=digests(scales.sha256, scales.hashed, n),
            mtime=times(npy.mtime, n),
        )

    def finish(self) -> None:
        """Report the incomplete pairs."""
        halves = self._halves
        if halves is None:
            return
        paired = np.concatenate(self._paired) if self._paired else np.empty(0, dtype=np.int32)
        done = np.isin(_compact(halves), paired)

        def describe(i: int) -> tuple[str, str]:
            name = TileId.from_cell(int(halves.cell[i])).name
            is_npy = halves.kind[i] == FileKind.NPY
            has, lacks = (".npy", "_scales.npy") if is_npy else ("_scales.npy", ".npy")
            what = f"{halves.year[i]}/{name}/{name}{has}"
            if done[i]:
                return self._place(int(halves.line[i])), f"'{what}' appears again; the first is used"
            return self._place(int(halves.line[i])), f"'{what}' without its {lacks}; the tile is left out"

        for kind, which in ((ProblemKind.DUPLICATE, done), (ProblemKind.HALF_PAIR, ~done)):
            rows = np.flatnonzero(which)
            rows = rows[np.argsort(halves.line[rows])]
            self._problems.add_rows(kind, self._source, rows, len(rows), describe)
        self._halves = None


def _compact(files: Files) -> npt.NDArray[np.int32]:
    """Return year and cell in 32 bits: one is kept for every tile-year of a source."""
    key: npt.NDArray[np.int32] = ((files.year.astype(np.int32) - 2000) * N_CELLS + files.cell).astype(
        np.int32
    )
    return key


def drop_repeats(
    files: Files,
    slot: IndexArray,
    source: str,
    problems: ProblemLog,
    place: Callable[[int], str] = "line {}".format,
) -> tuple[Files, IndexArray]:
    """Sort files by slot and keep the last of each; report duplicates.

    Parameters
    ----------
    slot
        One integer per file, equal for files with the same name, shape (n,).
    """
    if np.any(slot[1:] <= slot[:-1]):
        order = np.argsort(slot, kind="stable")
        files, slot = files.take(order), slot[order]
        again = np.flatnonzero(slot[1:] == slot[:-1]) + 1
        if len(again):
            old, new = files.take(again - 1), files.take(again)
            other = (
                (old.hashed & new.hashed & np.any(old.sha256 != new.sha256, axis=1))
                | ((old.size != new.size) & (old.size != UNKNOWN) & (new.size != UNKNOWN))
            )  # fmt: skip

            def describe(i: int) -> tuple[str, str]:
                name = TileId.from_cell(int(new.cell[i])).name
                what = f"'{name}' ({FileKind(new.kind[i]).name.lower()})"
                how = ", with different content; the later is used" if other[i] else ""
                return place(int(new.line[i])), f"{what} is already listed at {place(int(old.line[i]))}{how}"

            for kind, which in ((ProblemKind.DUPLICATE, ~other), (ProblemKind.CONFLICT, other)):
                problems.add_rows(kind, source, np.flatnonzero(which), int(which.sum()), describe)
            keep = np.append(slot[1:] != slot[:-1], True)
            files, slot = files.take(keep), slot[keep]
    return files, slot


def landmasks_of(
    files: Files, source: str, problems: ProblemLog, place: Callable[[int], str] = "line {}".format
) -> pa.Table:
    """Return the landmask table of files of kind LANDMASK."""
    files, _ = drop_repeats(files, files.cell.astype(np.int64), source, problems, place)
    n = len(files)
    return landmask_table(
        *files.centres(), size=sizes(files.size, n), sha256=digests(files.sha256, files.hashed, n)
    )
