"""Converted tile-years in the catalogue: from ledgers into the index and items.

A converted tile's files are named by its tile, year and content
(:mod:`catalog_builder.convert.tile.convert`), so
eight digits determine all paths. This module alone defines which of their metadata is stored.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import batched, repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog_builder.build.staging.cogs import BATCH, CogStaging
from catalog_builder.catalog.index.keys import split_key
from catalog_builder.catalog.index.reader import Index
from catalog_builder.convert.ledger.reader import read_rows
from catalog_builder.convert.ledger.rows import FileRow, LedgerRow
from catalog_builder.item.converted import COG_COLUMNS, cog_slots
from catalog_builder.item.item import Has
from catalog_builder.manifests.part import Subset
from catalog_builder.tile import grid
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.files import ASSET_FACTS
from catalog_builder.tile.grid import TileId
from catalog_builder.tile.table import TILE_SCHEMA

FACTS = ("flags", "valid_fraction", *COG_COLUMNS)
"""Stored metadata of a converted tile-year: :class:`Has` flags, valid fraction, the index's columns."""

COG_FLAGS = int(
    Has.COG
    | Has.COG_NATIVE
    | Has.COG_FLOAT
    | Has.COG_VISUAL
    | Has.COG_STATISTICS
    | Has.COG_SOURCE_GRID
    | Has.COG_CODE_RANGE
    | Has.COG_WINDOW
)


def stage_ledgers(staging: CogStaging, ledgers: Sequence[str], dataset: Dataset, selection: Subset) -> None:
    """Add a dataset's tile-years from ledgers; the last successful row of each is kept.

    Raises
    ------
    StorageError
        If a ledger cannot be read.
    """

    def found() -> Iterator[_Found]:
        for row in read_rows(list(ledgers)):
            if not row.ok or row.dataset != dataset.directory:
                continue
            if row.lat_i is None or row.lon_i is None or row.year is None:
                continue
            yield row.lat_i, row.lon_i, row.year, row.finished, _origin(row), _facts(row)

    _stage(staging, found(), selection)


def stage_present(
    staging: CogStaging, index: Index, ordinal: int, years: Sequence[int], selection: Subset
) -> None:
    """Add a collection's converted tile-years from a catalogue; any row of a ledger replaces them."""

    def found() -> Iterator[_Found]:
        for of_year in years:
            for key, has, *facts in index.cog_rows(ordinal, of_year):
                _, year, row, col = split_key(key)
                tile = TileId.from_row_col(row, col)
                yield tile.lat_i, tile.lon_i, year, "", None, (has & COG_FLAGS, *facts)

    _stage(staging, found(), selection)


_Found = tuple[int, int, int, str, bytes | None, tuple[Any, ...]]
"""Centre latitude and longitude x 100, year, when it finished, hash of its source, facts."""


def _stage(staging: CogStaging, rows: Iterable[_Found], selection: Subset) -> None:
    for batch in batched(rows, BATCH):
        lat_i, lon_i, year = (np.array([row[i] for row in batch], np.int64) for i in range(3))
        keep = selection.keeps(lat_i, lon_i, year)
        cell = grid.cells(*grid.of_centres(lat_i, lon_i))
        staging.add(
            (row[2], at, *row[3:])
            for row, at, wanted in zip(
                batch, cell.tolist(), repeat(True) if keep is None else keep.tolist(), strict=False
            )
            if wanted
        )


def _origin(row: LedgerRow) -> bytes | None:
    """Return what tells the source of a conversion from others; None if that is not known."""
    main = next((s.sha256 for s in row.sources if s.role == "main"), "")
    return bytes.fromhex(main)[:8] or None


def _facts(row: LedgerRow) -> tuple[Any, ...]:
    flags = Has.COG | (Has.COG_NATIVE if row.profile == "native" else Has.COG_FLOAT)
    if row.visual is not None and row.thumbnail is not None:
        flags |= Has.COG_VISUAL
    if row.window is not None and row.gain is not None:
        flags |= Has.COG_WINDOW
    if row.statistics:
        flags |= Has.COG_STATISTICS
    if row.code_range:
        flags |= Has.COG_CODE_RANGE
    if row.grid == "source":
        flags |= Has.COG_SOURCE_GRID
    files = row.files
    main = next((s for s in row.sources if s.role == "main"), None)
    return (
        int(flags),
        row.valid_fraction,
        bytes.fromhex(row.content),
        bytes.fromhex(row.visual_content) or None,
        *(_fact(files.get(role), fact) for role, fact in ASSET_FACTS),
        bytes.fromhex(main.sha256)[:8] if main is not None and row.kind == "npy" else None,
        base64.b64decode(row.statistics) or None,
        base64.b64decode(row.code_range) or None,
    )


def _fact(file: FileRow | None, fact: str) -> int | bytes | None:
    if file is None:
        return None
    if fact == "sha256":
        return bytes.fromhex(file.sha256)
    return file.size if fact == "size" else file.header_size


def as_tiles(cell: npt.NDArray[np.int32], year: int) -> pa.Table:
    """Return converted tile-years as a TileTable without their sources."""
    lat_i, lon_i = grid.centres(*grid.rows_cols(cell))
    columns = {
        "lat_i": pa.array(lat_i),
        "lon_i": pa.array(lon_i),
        "year": pa.array(np.full(len(cell), year), pa.int16()),
        "has_npy": pa.repeat(False, len(cell)),
        "in_store": pa.repeat(False, len(cell)),
    }
    return pa.Table.from_arrays(
        [columns[f.name] if f.name in columns else pa.nulls(len(cell), f.type) for f in TILE_SCHEMA],
        schema=TILE_SCHEMA,
    )


@dataclass(frozen=True, slots=True)
class YearCogs:
    """The converted tile-years of one year, matched to the rows of a year's table."""

    staging: CogStaging
    year: int
    own: npt.NDArray[np.int32]
    """Cells that are converted, ascending."""
    own_flags: npt.NDArray[np.int32]
    own_valid: npt.NDArray[np.float64]
    at: npt.NDArray[np.int64]
    """For each tile-year its position in ``own``, -1 if it is not converted."""

    @classmethod
    def join(
        cls, staging: CogStaging, year: int, cell: npt.NDArray[np.int32], npy_sha256: pa.Array
    ) -> YearCogs:
        """Join on (cell, year); tiles converted from a different ``.npy`` than the manifest's are omitted.

        Parameters
        ----------
        cell
            Grid cells of the year's tile-years, ascending.
        npy_sha256
            SHA-256 from the manifests, null if unknown.
        """
        own = staging.cells(year)
        flags, valid = np.zeros(len(own), np.int32), np.full(len(own), np.nan)
        made_from = np.zeros(len(own), np.uint64)  # 0 if from a GeoTIFF
        done = 0
        for batch in staging.rows(year, ("flags", "valid_fraction", "source")):
            part = slice(done, done + len(batch))
            flags[part] = [has for has, _, _ in batch]
            valid[part] = [np.nan if v is None else v for _, v, _ in batch]
            made_from[part] = [_number(source) for _, _, source in batch]
            done += len(batch)
        at = np.full(len(cell), -1, dtype=np.int64)
        if len(own):
            place = np.minimum(np.searchsorted(own, cell), len(own) - 1)
            hit = own[place] == cell
            at[hit] = place[hit]
            known = npy_sha256.is_valid().to_numpy(zero_copy_only=False)
            for i in np.flatnonzero(hit & known & (made_from[place] != 0)).tolist():
                if _number(npy_sha256[i].as_py()) != made_from[at[i]]:
                    at[i] = -1
        return cls(staging, year, own, flags, valid, at)

    @property
    def stale(self) -> npt.NDArray[np.int32]:
        """Cells that no tile-year may use: converted from another version of the source."""
        unused = np.ones(len(self.own), dtype=np.bool_)
        unused[self.at[self.at >= 0]] = False
        return self.own[unused]

    def flags(self) -> npt.NDArray[np.int32]:
        """Return the :class:`Has` flags that conversion adds to each tile-year."""
        flags: npt.NDArray[np.int32] = np.append(self.own_flags, np.int32(0))[self.at]
        return flags

    def valid_fraction(self) -> npt.NDArray[np.float64]:
        """Return the valid fraction of each tile-year, NaN where it is not converted."""
        values: npt.NDArray[np.float64] = np.append(self.own_valid, np.nan)[self.at]
        return values

    def fingerprint(self) -> npt.NDArray[np.uint64]:
        """Return a number per tile-year that changes with its conversion metadata; 0 if not converted."""
        prints = [
            int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=8).digest(), "little")
            for batch in self.staging.rows(self.year)
            for row in batch
        ]
        result: npt.NDArray[np.uint64] = np.array([*prints, 0], dtype=np.uint64)[self.at]
        return result

    def index_facts(self) -> Iterator[tuple[npt.NDArray[np.int64], list[tuple[Any, ...]]]]:
        """Yield positions and facts for :class:`~catalog_builder.catalog.index.writer.IndexRows`."""
        (positions,) = np.nonzero(self.at >= 0)
        for start in range(0, len(positions), BATCH):
            part = positions[start : start + BATCH]
            rows = self.staging.rows_of(self.year, self.own[self.at[part]])
            yield part, [row[_BESIDE:] for row in rows]

    def slots(self, at: npt.NDArray[np.integer]) -> dict[str, Any]:
        """Return the item's slots for the tile-years at some positions."""
        where = self.at[at]
        found = iter(self.staging.rows_of(self.year, self.own[where[where >= 0]]))
        rows = [next(found) if place >= 0 else _NOTHING for place in where.tolist()]
        columns = dict(zip(FACTS, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(FACTS, ())
        return cog_slots(columns, self.flags()[at])


def _number(sha256: bytes | None) -> int:
    """Return the first eight bytes of a hash as a number, 0 for none."""
    return int.from_bytes((sha256 or b"")[:8], "little")


_BESIDE = len(FACTS) - len(COG_COLUMNS)
"""Metadata that the index stores with the tile, not with its COGs."""
_NOTHING = (None,) * len(FACTS)
