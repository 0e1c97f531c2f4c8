"""Validation of a catalogue: index, parquet, STAC documents, converted tiles.

Each check compares two things that were written separately, so that one reveals what the other lost.
"""

from __future__ import annotations

import json
import posixpath
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from catalog_builder import storage
from catalog_builder.catalog.digest import check_digest
from catalog_builder.catalog.extract import Extract
from catalog_builder.catalog.folder import CATALOG_JSON, COGS
from catalog_builder.catalog.index.reader import Index
from catalog_builder.catalog.index.search.selection import Selection
from catalog_builder.catalog.open import open_index
from catalog_builder.convert.tile.verify import (
    EarlierViews,
    MisreadFiles,
    TileCheck,
    ValidationReport,
    WithoutStatistics,
    validate_results,
)
from catalog_builder.errors import CatalogError, StorageError
from catalog_builder.tile import grid
from catalog_builder.tile.files import LEDGER

if TYPE_CHECKING:
    from concurrent.futures import Executor

_SAMPLE = 10
"""Approximate number of items per collection and year that are validated as STAC."""
_SHOWN = 20
"""Number of notes, and of files with a warning, that are listed in the text."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and its problems."""

    what: str
    problems: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether there are no problems."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class CatalogReport:
    """The result of :func:`validate_catalog`."""

    findings: tuple[Finding, ...]
    tiles: ValidationReport | None
    """Of the converted tiles; None if there are none."""

    @property
    def sound(self) -> bool:
        """Whether all checks passed."""
        return all(f.sound for f in self.findings) and (self.tiles is None or self.tiles.sound)


def validate_catalog(
    address: Path | str,
    *,
    pixels: bool = True,
    executor: Executor | None = None,
    progress: Callable[[int, int, TileCheck], None] | None = None,
) -> CatalogReport:
    """Check a catalogue.

    Parameters
    ----------
    address
        Its folder, or its s3 URL.
    pixels
        Whether to compare every pixel of the converted tiles with their sources; their files' sizes
        and SHA-256 are checked either way.
    executor, progress
        See :func:`catalog_builder.convert.tile.verify.validate_results`.

    Raises
    ------
    CatalogError
        If it is not a catalogue, or of another version.
    """
    address = str(address)
    index = open_index(address)
    findings = [_integrity(index), _documents(address, index)]
    for record in index.collections.values():
        for year, n in zip(record.years, record.counts, strict=True):
            findings.append(_year(address, Extract(index, record, record.years, "http://localhost"), year, n))
    cogs = storage.join(address, COGS)
    tiles = (
        validate_results(cogs, pixels=pixels, executor=executor, progress=progress)
        if storage.is_dir(storage.join(cogs, LEDGER))
        else None
    )
    return CatalogReport(tuple(findings), tiles)


def _integrity(index: Index) -> Finding:
    """Check the file: SQLite's own check, and the SHA-256 that its build recorded."""
    try:
        with index.lend(None, Selection(())) as db:
            problems = [r[0] for r in db.execute("PRAGMA integrity_check(10)") if r[0] != "ok"]
    except sqlite3.DatabaseError as exc:
        problems = [f"{index.path}: {exc}"]
    try:
        check_digest(index.path)
    except CatalogError as exc:
        problems.append(str(exc))
    return Finding("index: integrity", tuple(problems))


def _documents(address: str, index: Index) -> Finding:
    """Check the static documents against the STAC schemas, and that their links lead to files."""
    problems = []
    for name in (CATALOG_JSON, *(f"{c}/collection.json" for c in index.collections)):
        try:
            document = json.loads(storage.read_bytes(storage.join(address, name)))
        except (StorageError, ValueError) as exc:
            problems.append(f"{name}: {exc}")
            continue
        problems += [f"{name}: {p}" for p in _stac_problems(document)]
        hrefs = [x["href"] for x in (*document["links"], *document.get("assets", {}).values())]
        problems += [
            f"{name}: {h} is missing"
            for h in hrefs
            if h.startswith(".")
            and not storage.exists(
                storage.join(address, posixpath.normpath(posixpath.join(posixpath.dirname(name), h)))
            )
        ]
    return Finding("catalog.json and collections: STAC, links", tuple(problems))


def _stac_problems(document: dict[str, Any]) -> Iterator[str]:
    """Validate a document against the core schemas in pystac; those of extensions are only online."""
    from pystac.errors import STACError, STACValidationError
    from pystac.validation import validate_dict

    try:
        validate_dict(document, extensions=[])
    except (STACError, STACValidationError) as exc:
        reason = getattr(exc.__cause__, "message", None) or str(exc)
        yield str(reason).splitlines()[0]


def _year(address: str, extract: Extract, year: int, n: int) -> Finding:
    """Compare a year's parquet file with the index, and check a sample of its items as STAC."""
    what = f"{extract.id} {year}: {n:,} items"
    file = storage.join(address, extract.id, "items", f"year={year}", "items.parquet")
    problems: list[str] = []
    try:
        with storage.local_copy(file) as path:
            bbox = pq.ParquetFile(path).read(["bbox"])["bbox"].combine_chunks().flatten()
    except (OSError, ValueError, StorageError) as exc:
        return Finding(what, (f"{file}: {exc}" if file not in str(exc) else str(exc),))
    west, south = (np.rint(bbox[i].to_numpy() * 10).astype(np.int64) for i in (0, 1))
    in_parquet = np.sort(grid.cells(south + grid.N_ROWS // 2, west + grid.N_COLS // 2))
    try:
        in_index = extract.cells(year)
        page = next(extract.pages(year), [])
        texts = extract.texts(page[:: max(len(page) // _SAMPLE, 1)])
    except Exception as exc:  # damaged rows can cause any error
        return Finding(what, (f"{extract.index.path}: cannot be read ({exc})",))
    if len(in_index) != n:
        problems.append(f"the index holds {len(in_index):,} tile-years, its record says {n:,}")
    if not np.array_equal(in_parquet, in_index):
        problems.append(
            f"{file}: {len(np.setdiff1d(in_parquet, in_index)):,} items are not in the index,"
            f" {len(np.setdiff1d(in_index, in_parquet)):,} of the index are missing"
        )
    for text in texts:
        item = json.loads(text)
        problems += [f"{item['id']}: {p}" for p in _stac_problems(item)]
    return Finding(what, tuple(problems[:20]))


def report_text(found: CatalogReport) -> str:
    """Return the report as text: one line per check, with its problems below it."""
    lines = []
    for each in found.findings:
        lines.append(f"{'ok  ' if each.sound else 'FAIL'} {each.what}")
        lines += [f"       {p}" for p in each.problems]
    if found.tiles is not None:
        tiles = found.tiles
        nothing = tiles.asked and tiles.checked > 0 and not tiles.pixels
        word = "FAIL" if not tiles.sound else "warn" if nothing else "ok  "
        lines.append(
            f"{word} {tiles.checked:,} converted tiles: {tiles.files:,} files by checksum,"
            f" {_pixels_text(tiles)}"
        )
        lines += [f"       {t.job}: {p}" for t in tiles.failed for p in t.problems]
        lines += [f"       note: {t.job}: {t.note}" for t in tiles.notes[:_SHOWN]]
        if tiles.misread is not None:
            lines += _misread_lines(tiles.misread)
        if tiles.earlier_views is not None:
            lines += _earlier_view_lines(tiles.earlier_views)
        if tiles.without_statistics is not None:
            lines += _without_statistics_lines(tiles.without_statistics)
    return "\n".join(lines)


def _pixels_text(tiles: ValidationReport) -> str:
    """Return what was compared with the sources, and what was not."""
    if not tiles.asked:
        return "no pixels, as --no-pixels says"
    damaged = sum(not t.pixels for t in tiles.failed)
    parts = [f"{tiles.pixels:,} tiles by every pixel"] if tiles.pixels or not tiles.checked else []
    if tiles.notes:
        parts.append(
            f"{len(tiles.notes):,} not compared with their sources, which cannot be read as they were"
        )
    if damaged:
        parts.append(f"{damaged:,} not compared with their sources, since their files are not as written")
    return "; ".join(parts)


def _misread_lines(found: MisreadFiles) -> Iterator[str]:
    """Yield what is said of sound files that some readers misread."""
    n = len(found.files)
    yield (
        f"warn {n:,} {'file has' if n == 1 else 'files have'} a predictor that some readers undo wrongly,"
        f" without an error: {'; '.join(found.readers)}. GDAL (rasterio, QGIS) and tifffile read them exactly"
    )
    for each in found.files[:_SHOWN]:
        yield f"       {each.file}: predictor {each.predictor}"
    if n > _SHOWN:
        yield f"       … and {n - _SHOWN:,} more, see --json"
    yield f"       converts them again, with the sources and options of before: {found.command}"


def _earlier_view_lines(found: EarlierViews) -> Iterator[str]:
    """Yield what is said of float32 views of an earlier form."""
    n = len(found.files)
    yield (
        f"warn {n:,} {'float32 view is' if n == 1 else 'float32 views are'} of an earlier form:"
        " in a mosaic (STACIT, gdalbuildvrt) GDAL before 3.12.3 puts zeros beside it, without an error; those"
        " of version 0.1 lack the one for windows, and are read wrongly by GDAL before 3.7 (codes below zero"
        " come out as 128 to 255)"
    )
    yield from (f"       {path}" for path in found.files[:_SHOWN])
    if n > _SHOWN:
        yield f"       … and {n - _SHOWN:,} more, see --json"
    yield f"       writes them anew, no pixels; then build again: {found.command}"


def _without_statistics_lines(found: WithoutStatistics) -> Iterator[str]:
    """Yield what is said of tile-years without statistics of their codes."""
    have, their = ("tile has", "its item") if found.tiles == 1 else ("tiles have", "their items")
    yield f"note {found.tiles:,} converted {have} no statistics of the codes in {their}, for rio-tiler"
    yield f"       reads them from the COGs; then build again: {found.command}"


def report_data(found: CatalogReport) -> dict[str, Any]:
    """Return the report as JSON data."""
    return {
        "sound": found.sound,
        "findings": [asdict(f) for f in found.findings],
        "tiles": asdict(found.tiles) if found.tiles is not None else None,
    }
