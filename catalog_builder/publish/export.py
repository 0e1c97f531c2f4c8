"""The formats of ``tessera-stac export --to``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catalog_builder.catalog.extract import Extract
from catalog_builder.console import Progress, no_progress
from catalog_builder.errors import QueryError

FORMATS = ("ndjson", "geoparquet", "static", "pgstac")


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export."""

    items: int
    note: str = ""
    """Additional text for the report."""


def export(
    to: str,
    parts: Sequence[Extract],
    out: str | None,
    dsn: str | None = None,
    *,
    max_items: int,
    method: str = "upsert",
    migrate: bool = False,
    force: bool = False,
    report: Progress = no_progress,
) -> Exported:
    """Write items in one of :data:`FORMATS`.

    Raises
    ------
    QueryError
        If there is no such format, or no output is given.
    StorageError
        If it cannot be written.
    """
    if to == "pgstac":
        from catalog_builder.publish.pgstac.load import load_pgstac

        if out is not None:
            raise QueryError("--out: pgstac loads into a database; give it with --dsn")
        done = load_pgstac(dsn or "", parts, method=method, migrate=migrate, force=force, report=report)
        return Exported(done.items, str(done))
    if to not in FORMATS:
        raise QueryError(f"--to: expected one of {', '.join(FORMATS)}, found '{to}'")
    if out is None:
        raise QueryError(f"--out: give the output for {to}")
    if to == "ndjson":
        from catalog_builder.publish.ndjson import write_ndjson

        return Exported(write_ndjson(out, parts, report))
    if to == "static":
        from catalog_builder.publish.static import write_static

        return Exported(write_static(out, parts, max_items=max_items, report=report))
    from catalog_builder.publish.geoparquet_export import write_geoparquet

    return Exported(write_geoparquet(out, parts, report))
