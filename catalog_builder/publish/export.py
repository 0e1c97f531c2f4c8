"""What ``tessera-stac export --to`` can mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catalog_builder.catalog.extract import Extract, Progress, quiet
from catalog_builder.errors import QueryError

FORMATS = ("ndjson", "geoparquet", "static", "pgstac")


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did."""

    items: int
    note: str = ""
    """More about it, in words."""


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
    report: Progress = quiet,
) -> Exported:
    """Write items in one of :data:`FORMATS`.

    Raises
    ------
    QueryError
        If there is no such format, or it is not said where to write.
    StorageError
        If it cannot be written.
    """
    if to == "pgstac":
        from catalog_builder.publish.pgstac.load import load_pgstac

        if out is not None:
            raise QueryError("--out: pgstac is loaded into a database; say which with --dsn")
        done = load_pgstac(dsn or "", parts, method=method, migrate=migrate, force=force, report=report)
        return Exported(done.items, str(done))
    if to not in FORMATS:
        raise QueryError(f"--to: expected one of {', '.join(FORMATS)}, found '{to}'")
    if out is None:
        raise QueryError(f"--out: say where to write {to}")
    if to == "ndjson":
        from catalog_builder.publish.ndjson import write_ndjson

        return Exported(write_ndjson(out, parts, report))
    if to == "static":
        from catalog_builder.publish.static import write_static

        return Exported(write_static(out, parts, max_items=max_items, report=report))
    from catalog_builder.publish.geoparquet_export import write_geoparquet

    return Exported(write_geoparquet(out, parts, report))
