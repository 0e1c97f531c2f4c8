"""What ``tessera-stac export --to`` can mean."""

from __future__ import annotations

from collections.abc import Sequence

from catalog_builder.errors import QueryError
from catalog_builder.publish.extract import Extract, Progress, quiet

FORMATS = ("ndjson", "geoparquet", "static", "pgstac")


def export(
    to: str,
    parts: Sequence[Extract],
    out: str | None,
    dsn: str | None = None,
    *,
    max_items: int,
    method: str = "upsert",
    migrate: bool = False,
    report: Progress = quiet,
) -> int:
    """Write items in one of :data:`FORMATS`; return how many.

    Raises
    ------
    QueryError
        If there is no such format, or it is not said where to write.
    StorageError
        If it cannot be written.
    """
    if to == "pgstac":
        from catalog_builder.publish.pgstac import load_pgstac

        if out is not None:
            raise QueryError("--out: pgstac is loaded into a database; say which with --dsn")
        return load_pgstac(dsn or "", parts, method=method, migrate=migrate, report=report)
    if to not in FORMATS:
        raise QueryError(f"--to: expected one of {', '.join(FORMATS)}, found '{to}'")
    if out is None:
        raise QueryError(f"--out: say where to write {to}")
    if to == "ndjson":
        from catalog_builder.publish.ndjson import write_ndjson

        return write_ndjson(out, parts, report)
    if to == "static":
        from catalog_builder.publish.static import write_static

        return write_static(out, parts, max_items=max_items, report=report)
    from catalog_builder.publish.geoparquet_export import write_geoparquet

    return write_geoparquet(out, parts, report)
