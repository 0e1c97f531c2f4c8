"""One year of a collection: merged manifest rows joined with landmasks and the conversion ledger.

:class:`YearRows` turns this data into an item's flags and slots; the index, the parquet file and the
comparison with the last build all take their rows from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog_builder.build.converted import YearCogs
from catalog_builder.build.staging.cogs import CogStaging
from catalog_builder.catalog.index.schema import NO_TIME, SOURCE_COLUMNS
from catalog_builder.catalog.index.writer import IndexRows
from catalog_builder.item.item import Has, TileRows, url_path
from catalog_builder.tile import grid
from catalog_builder.tile.files import npy_size, scales_size
from catalog_builder.tile.table import cells

_BATCH = 1 << 16
"""Rows turned into Python objects at a time."""


class YearRows:
    """One year's merged rows, sorted by cell, with the flags of their items.

    Parameters
    ----------
    table
        The year's tile-years, ``TILE_SCHEMA``, sorted by cell.
    masks
        Years of every cell of the grid (6,480,000), bit i = year 2000 + i.
    landmasks
        Of the collection.
    cogs
        Converted tile-years of all years.
    direct_from_store
        Whether direct access reads the store, and not .npy files.
    """

    def __init__(
        self,
        table: pa.Table,
        masks: npt.NDArray[np.uint32],
        landmasks: Landmasks,
        cogs: CogStaging | None = None,
        *,
        direct_from_store: bool = False,
    ) -> None:
        self.table = table.combine_chunks()
        self.cell = cells(table)
        self.cogs: YearCogs | None = None
        if cogs is not None and cogs.num_rows and len(self.cell):
            self.cogs = YearCogs.join(
                cogs, int(table["year"][0].as_py()), self.cell, self.table["npy_sha256"].combine_chunks()
            )
        self.mask = masks[self.cell]
        self.landmask_at = landmasks.position[self.cell]
        self.landmasks = landmasks
        row, col = grid.rows_cols(self.cell)
        raster = grid.rasters(row, col)
        size, scales = npy_size(raster.height, raster.width), scales_size(raster.height, raster.width)
        column = self.column
        known = column("npy_size") > 0, column("scales_size") > 0
        self.misfit = (known[0] & (column("npy_size") != size)) | (
            known[1] & (column("scales_size") != scales)
        )
        """Whether sizes contradict the raster's shape by formula."""
        has_npy = self.table["has_npy"].to_numpy(zero_copy_only=False)
        landmask = self.landmask_at >= 0
        in_store = self.table["in_store"].to_numpy(zero_copy_only=False)
        flags = (
            (Has.NPY, has_npy),
            (Has.RAW_LANE, in_store if direct_from_store else has_npy & ~self.misfit),
            (Has.SIZES, known[0] & known[1]),
            (Has.HASHES, self.valid("npy_sha256") & self.valid("scales_sha256")),
            (Has.MTIME, self.valid("mtime")),
            (Has.GEOTIFF, self.valid("geotiff")),
            (Has.GEOTIFF_SIZE, self.valid("geotiff_size")),
            (Has.LANDMASK, landmask),
            (Has.LANDMASK_SIZE, landmask & landmasks.has_size[self.landmask_at]),
            (Has.LANDMASK_HASH, landmask & landmasks.has_hash[self.landmask_at]),
            (Has.STORE, in_store),
            (Has.REFUSED, in_store & self.valid("refused_fraction")),
        )
        self.has = np.zeros(len(self.cell), dtype=np.int32)
        for flag, where in flags:
            self.has[where] |= int(flag)
        if self.cogs is not None:
            self.has |= self.cogs.flags()

    def column(self, name: str) -> npt.NDArray[np.int64]:
        """Return an integer column, 0 where null."""
        values: npt.NDArray[np.int64] = self.table[name].fill_null(0).to_numpy()
        return values

    def valid(self, name: str) -> npt.NDArray[np.bool_]:
        """Return which rows have a value."""
        valid: npt.NDArray[np.bool_] = self.table[name].is_valid().to_numpy()
        return valid

    def _refused(self) -> npt.NDArray[np.float64] | None:
        """Return the shares of refused pixels, NaN where unknown; None if none is known."""
        column = self.table["refused_fraction"]
        if column.null_count == len(column):
            return None
        shares: npt.NDArray[np.float64] = column.fill_null(np.nan).to_numpy()
        return shares

    def fingerprint(self) -> npt.NDArray[np.uint64]:
        """Return a number per row that changes with any value of the tile-year."""
        result = np.zeros(len(self.cell), dtype=np.uint64)
        parts = [
            self.has.astype(np.uint64),
            self.column("npy_size").view(np.uint64),
            self.column("scales_size").view(np.uint64),
            self.column("geotiff_size").view(np.uint64),
            self.table["mtime"].cast(pa.int64()).fill_null(0).to_numpy().view(np.uint64),
            *_words(self.table["npy_sha256"]),
            *_words(self.table["scales_sha256"]),
            *(words[self.landmask_at] for words in self.landmasks.words),
        ]
        if self.cogs is not None:
            parts.append(self.cogs.fingerprint())
        if (refused := self._refused()) is not None:
            parts.append(refused.view(np.uint64))
        if self.table["geotiff"].null_count < len(self.table):
            texts = self.table["geotiff"].to_pylist()
            parts.append(np.array([_hash_text(t) for t in texts], dtype=np.uint64))
        for words in parts:
            # multiply-xorshift: every bit of every value affects the result
            result = (result ^ words) * np.uint64(0x9E3779B97F4A7C15)
            result ^= result >> np.uint64(29)
        return result

    def rows_at(self, at: npt.NDArray[np.integer]) -> TileRows:
        """Return the tile-years at some positions."""
        table = self.table.take(pa.array(at)).combine_chunks()
        row, col = grid.rows_cols(self.cell[at])
        landmask = self.landmask_at[at]
        year = int(self.table["year"][0].as_py())

        def numbers(name: str) -> npt.NDArray[np.int64]:
            values: npt.NDArray[np.int64] = table[name].fill_null(0).to_numpy()
            return values

        return TileRows(
            row=row,
            col=col,
            year=np.full(len(at), year, dtype=np.int32),
            mask=self.mask[at],
            has=self.has[at],
            facts={
                "npy_size": numbers("npy_size"),
                "scales_size": numbers("scales_size"),
                "npy_sha256": _hex(table["npy_sha256"]),
                "scales_sha256": _hex(table["scales_sha256"]),
                "mtime": pa.compute.strftime(table["mtime"], format="%Y-%m-%dT%H:%M:%SZ").combine_chunks(),
                "geotiff": [url_path(t) if t else "" for t in table["geotiff"].to_pylist()],
                "geotiff_size": numbers("geotiff_size"),
                "refused_fraction": table["refused_fraction"].fill_null(0.0).to_numpy(),
                "landmask_size": self.landmasks.size[landmask],
                "landmask_sha256": _hex(self.landmasks.sha256.take(pa.array(np.maximum(landmask, 0)))),
                **(self.cogs.slots(at) if self.cogs is not None else {}),
            },
        )

    def index_rows(self) -> IndexRows:
        """Return the rows for the index; only what the template cannot derive is stored."""
        (odd,) = np.nonzero((self.has & int(Has.HASHES | Has.GEOTIFF) != 0) | self.misfit)
        mtime = self.table["mtime"].cast(pa.int64()).fill_null(NO_TIME).to_numpy()
        rows = IndexRows(
            self.cell,
            self.mask,
            self.has,
            mtime,
            self._source_facts(odd),
            refused_fraction=self._refused(),
        )
        if self.cogs is None:
            return rows
        return replace(rows, valid_fraction=self.cogs.valid_fraction(), cogs=self.cogs.index_facts())

    def _source_facts(
        self, at: npt.NDArray[np.integer]
    ) -> Iterable[tuple[npt.NDArray[np.integer], Iterable[tuple[Any, ...]]]]:
        for start in range(0, len(at), _BATCH):
            part = at[start : start + _BATCH]
            facts = self.table.take(pa.array(part))
            yield part, zip(*(facts[n].to_pylist() for n in SOURCE_COLUMNS), strict=True)


class Landmasks:
    """The landmasks, found by cell; the last element of each array stands for "none"."""

    def __init__(self, table: pa.Table) -> None:
        table = table.combine_chunks()
        self.cell = cells(table)
        self.position = np.full(grid.N_CELLS, -1, dtype=np.int32)
        self.position[self.cell] = np.arange(len(self.cell), dtype=np.int32)
        self.size = np.append(table["size"].fill_null(0).to_numpy(), 0)
        self.has_size = np.append(table["size"].is_valid().to_numpy(), False)
        self.has_hash = np.append(table["sha256"].is_valid().to_numpy(), False)
        none = pa.array([None], table["sha256"].type)
        self.sha256 = pa.chunked_array([*table["sha256"].chunks, none]).combine_chunks()
        self.words = [self.size.view(np.uint64), *_words(self.sha256)]


def _bytes(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.uint8]:
    """Return a column of 32-byte values as (n, 32); nulls are zeros."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if not len(array):
        return np.empty((0, 32), dtype=np.uint8)
    data = np.frombuffer(array.buffers()[1], dtype=np.uint8)
    result = data[array.offset * 32 : (array.offset + len(array)) * 32].reshape(-1, 32)
    if array.null_count:
        result = np.where(array.is_valid().to_numpy(zero_copy_only=False)[:, None], result, 0)
    return result


def _words(column: pa.ChunkedArray | pa.Array) -> list[npt.NDArray[np.uint64]]:
    words = np.ascontiguousarray(_bytes(column)).view(np.uint64)
    return [words[:, i] for i in range(4)]


_HEX = np.array([f"{i:02x}".encode() for i in range(256)]).view("<u2")


def _hex(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return 32-byte values as 64 hexadecimal digits."""
    raw = _bytes(column)
    offsets = np.arange(len(raw) + 1, dtype=np.int32) * 64
    return pa.StringArray.from_buffers(
        len(raw), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(_HEX[raw]).tobytes())
    )


def _hash_text(text: str | None) -> int:
    return int.from_bytes(hashlib.blake2b((text or "").encode(), digest_size=8).digest(), "little")
