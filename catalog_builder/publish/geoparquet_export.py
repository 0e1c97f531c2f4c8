"""stac-geoparquet of part of a catalogue: a file per collection and year, as in the catalogue itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from catalog_builder import storage
from catalog_builder.catalog.extract import Extract
from catalog_builder.console import Progress, no_progress
from catalog_builder.item.parquet import write_items


def write_geoparquet(out: Path | str, parts: Sequence[Extract], report: Progress = no_progress) -> int:
    """Write ``<collection>/year=YYYY/items.parquet`` below a folder or an s3 URL; return the number of items.

    Each file is replaced atomically. Files of other years are left unchanged.
    """
    of, done = sum(p.count() for p in parts), 0
    for part in parts:
        for year in part.years:
            cell = part.cells(year)
            if not len(cell):
                continue
            target = storage.join(out, part.id, f"year={year}", "items.parquet")
            with storage.write_atomic(target, lone=True) as path:
                write_items(
                    path,
                    cell,
                    lambda at, part=part, cell=cell, year=year: part.rows_of(cell[at], year),  # type: ignore[misc]
                    template=part.template,
                    years=part.record.years,
                    collection=part.document(),
                    grid_kind=part.record.grid,
                    store=part.record.addresses.store,
                )
            done += len(cell)
            report("writing items", done, of)
    return done
