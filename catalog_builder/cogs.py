"""Converted tile-years as the catalogue knows them: from ledgers, into the index, out into items.

A converted tile's files are named by its tile, year and content (:mod:`catalog_builder.convert.tile`), so
eight digits stand for all paths. This module is the one place that says which facts are kept of it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog_builder.convert.ledger import ROLES, LedgerRow, decode_statistics, read_rows
from catalog_builder.datasets import Dataset
from catalog_builder.index import COG_COLUMNS, Index, split_key
from catalog_builder.items import STATISTICS, Has
from catalog_builder.template import BandNumbers
from catalog_builder.tiles import SHA256, TILE_SCHEMA, cells

_FILE_FACTS = tuple(
    (f"{role}_{fact}", kind)
    for role in ROLES
    for fact, kind in (("size", pa.int64()), ("sha256", SHA256), ("header", pa.int32()))
    if fact != "header" or role not in ("vrt", "thumbnail")
)
COG_SCHEMA = pa.schema(
    [
        pa.field("lat_i", pa.int16(), nullable=False),
        pa.field("lon_i", pa.int16(), nullable=False),
        pa.field("year", pa.int16(), nullable=False),
        # Has.COG and the flags beside it
        pa.field("flags", pa.int32(), nullable=False),
        ("valid_fraction", pa.float64()),
        # parts of the files' names
        ("content", pa.binary(4)),
        ("visual_content", pa.binary(4)),
        *_FILE_FACTS,
        # the beginning of the SHA-256 of the .npy it was made from; null if it was a GeoTIFF
        ("source", pa.binary(8)),
        # see convert.ledger.decode_statistics
        ("statistics", pa.binary()),
    ]
)
"""One row per converted tile-year."""

COG_FLAGS = int(
    Has.COG | Has.COG_NATIVE | Has.COG_FLOAT | Has.COG_VISUAL | Has.COG_STATISTICS | Has.COG_SOURCE_GRID
)


def read_cogs(ledgers: Sequence[str], dataset: Dataset) -> pa.Table:
    """Return what ledgers say of a dataset's tile-years, ``COG_SCHEMA``: the last good row of each.

    Raises
    ------
    StorageError
        If a ledger cannot be read.
    """
    found: dict[tuple[int, int, int], tuple[str, tuple[Any, ...]]] = {}
    for row in read_rows(list(ledgers)):
        if not row.ok or row.dataset != dataset.directory:
            continue
        if row.lat_i is None or row.lon_i is None or row.year is None:
            continue
        key = (row.year, row.lat_i, row.lon_i)
        before = found.get(key)
        if before is None or row.finished >= before[0]:
            found[key] = (row.finished, _facts(row))
    return _table([facts for _, (_, facts) in sorted(found.items())])


def present_cogs(index: Index, ordinal: int, years: Sequence[int]) -> pa.Table:
    """Return what a catalogue knows of a collection's converted tile-years, ``COG_SCHEMA``."""
    found: list[tuple[Any, ...]] = []
    for of_year in years:
        for key, has, valid, *facts in index.cog_rows(ordinal, of_year):
            _, year, row, col = split_key(key)
            found.append((row * 10 - 8995, col * 10 - 17995, year, has & COG_FLAGS, valid, *facts))
    return _table(found)


def later_wins(*tables: pa.Table) -> pa.Table:
    """Return tables of ``COG_SCHEMA`` as one, a tile-year's row from the last table that has it."""
    table = pa.concat_tables(tables)
    slot = table["year"].to_numpy().astype(np.int64) << 32 | cells(table)
    _, last = np.unique(slot[::-1], return_index=True)
    return table.take(pa.array(len(slot) - 1 - last))


def _table(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ((),) * len(COG_SCHEMA)
    arrays = [pa.array(values, f.type) for f, values in zip(COG_SCHEMA, columns, strict=True)]
    return pa.Table.from_arrays(arrays, schema=COG_SCHEMA)


def _facts(row: LedgerRow) -> tuple[Any, ...]:
    flags = Has.COG | (Has.COG_NATIVE if row.profile == "native" else Has.COG_FLOAT)
    if row.visual is not None and row.thumbnail is not None:
        flags |= Has.COG_VISUAL
    if row.statistics:
        flags |= Has.COG_STATISTICS
    if row.grid == "source":
        flags |= Has.COG_SOURCE_GRID
    files: list[Any] = []
    for role in ROLES:
        file = row.files.get(role)
        files += [file.size, bytes.fromhex(file.sha256)] if file is not None else [None, None]
        if role not in ("vrt", "thumbnail"):
            files.append(file.header_size if file is not None else None)
    main = next((s for s in row.sources if s.role == "main"), None)
    return (
        row.lat_i,
        row.lon_i,
        row.year,
        int(flags),
        row.valid_fraction,
        bytes.fromhex(row.content),
        bytes.fromhex(row.visual_content) or None,
        *files,
        bytes.fromhex(main.sha256)[:8] if main is not None and row.kind == "npy" else None,
        base64.b64decode(row.statistics) or None,
    )


def as_tiles(cogs: pa.Table) -> pa.Table:
    """Return converted tile-years as a TileTable that says nothing of their sources."""
    n = cogs.num_rows
    columns = {name: cogs[name] for name in ("lat_i", "lon_i", "year")} | {"has_npy": pa.repeat(False, n)}
    return pa.Table.from_arrays(
        [columns[f.name] if f.name in columns else pa.nulls(n, f.type) for f in TILE_SCHEMA],
        schema=TILE_SCHEMA,
    )


@dataclass(frozen=True, slots=True)
class YearCogs:
    """The converted tile-years of one year, and where each row of a year's table finds its own."""

    table: pa.Table
    """``COG_SCHEMA``, sorted by cell."""
    at: npt.NDArray[np.int64]
    """For each tile-year its row in ``table``, -1 if it is not converted."""

    @classmethod
    def join(cls, cogs: pa.Table, year: int, cell: npt.NDArray[np.int32], npy_sha256: pa.Array) -> YearCogs:
        """Join on (cell, year); what was made from another ``.npy`` than the manifest's is left out.

        Parameters
        ----------
        cell
            Grid cells of the year's tile-years, ascending.
        npy_sha256
            SHA-256 that the manifests give, null where they do not.
        """
        table = cogs.filter(pa.array(cogs["year"].to_numpy() == year)).combine_chunks()
        own = cells(table)
        order = np.argsort(own, kind="stable")
        table, own = table.take(pa.array(order)), own[order]
        at = np.full(len(cell), -1, dtype=np.int64)
        if len(own):
            place = np.minimum(np.searchsorted(own, cell), len(own) - 1)
            hit = own[place] == cell
            at[hit] = place[hit]
            made_from = table["source"].to_pylist()
            for i in np.flatnonzero(at >= 0).tolist():
                known = npy_sha256[i].as_py() if made_from[at[i]] is not None else None
                if known is not None and known[:8] != made_from[at[i]]:
                    at[i] = -1
        return cls(table, at)

    @property
    def stale(self) -> npt.NDArray[np.int64]:
        """Rows of ``table`` that no tile-year may use: made from another version of the source."""
        unused = np.ones(self.table.num_rows, dtype=np.bool_)
        unused[self.at[self.at >= 0]] = False
        return np.flatnonzero(unused)

    def flags(self) -> npt.NDArray[np.int32]:
        """Return the :class:`Has` flags that conversion adds to each tile-year."""
        values = np.append(self.table["flags"].to_numpy(), np.int32(0)).astype(np.int32)
        flags: npt.NDArray[np.int32] = values[self.at]
        return flags

    def valid_fraction(self) -> npt.NDArray[np.float64]:
        """Return the valid fraction of each tile-year, NaN where it is not converted."""
        values: npt.NDArray[np.float64] = np.append(self.table["valid_fraction"].to_numpy(), np.nan)[self.at]
        return values

    def fingerprint(self) -> npt.NDArray[np.uint64]:
        """Return a number per tile-year that changes when any fact of its conversion changes; else 0."""
        names = [n for n in COG_SCHEMA.names if n not in ("lat_i", "lon_i", "year")]
        prints = [
            int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=8).digest(), "little")
            for row in zip(*(self.table[n].to_pylist() for n in names), strict=True)
        ]
        result: npt.NDArray[np.uint64] = np.array([*prints, 0], dtype=np.uint64)[self.at]
        return result

    def index_facts(self) -> list[tuple[npt.NDArray[np.int64], list[tuple[Any, ...]]]]:
        """Return positions and facts for :class:`~catalog_builder.index.IndexRows`."""
        (positions,) = np.nonzero(self.at >= 0)
        if not len(positions):
            return []
        rows = self.table.take(pa.array(self.at[positions]))
        return [(positions, list(zip(*(rows[n].to_pylist() for n in COG_COLUMNS), strict=True)))]

    def slots(self, at: npt.NDArray[np.integer]) -> dict[str, Any]:
        """Return the item's slots for the tile-years at some positions."""
        where = self.at[at]
        rows = self.table.take(pa.array(where, mask=where < 0))
        columns = {n: rows[n].to_pylist() for n in (*COG_COLUMNS, "valid_fraction")}
        return cog_slots(columns, self.flags()[at])


def cog_slots(columns: Mapping[str, Sequence[Any]], flags: npt.NDArray[np.integer]) -> dict[str, Any]:
    """Return the item's slots that come from conversion.

    Parameters
    ----------
    columns
        :data:`COG_COLUMNS` and ``valid_fraction``, None where a tile-year is not converted.
    flags
        :class:`Has` of each.
    """
    slots: dict[str, Any] = {
        "cog": _hex(columns["content"]),
        "visual": _hex(columns["visual_content"]),
        "valid_fraction": [np.nan if v is None else v for v in columns["valid_fraction"]],
        "band_statistics": [_statistics(v) for v in columns["statistics"]],
    }
    for name, kind in _FILE_FACTS:
        slots[f"cog_{name}"] = _hex(columns[name]) if kind == SHA256 else [v or 0 for v in columns[name]]
    # The float32 view is a VRT beside a native pair, and the COG itself in the float32 profile.
    floats = (flags & int(Has.COG_FLOAT)) != 0
    for fact in ("size", "sha256"):
        pairs = zip(floats.tolist(), slots[f"cog_embeddings_{fact}"], slots[f"cog_vrt_{fact}"], strict=True)
        slots[f"cog_f32_{fact}"] = [own if is_float else view for is_float, own, view in pairs]
    slots["cog_f32_header"] = slots["cog_embeddings_header"]
    return slots


def _hex(values: Sequence[bytes | None]) -> list[str]:
    return [v.hex() if v else "" for v in values]


def _statistics(blob: bytes | None) -> BandNumbers | None:
    return None if blob is None else BandNumbers(STATISTICS, lambda: decode_statistics(blob))
