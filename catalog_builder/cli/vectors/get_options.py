"""Parses the options of the command ``get`` and formats its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast, get_args

from shapely.geometry.base import BaseGeometry

from catalog_builder.errors import QueryError
from catalog_builder.item.bands_view import parse_bands
from catalog_builder.vectors.regions.run import Options, Report
from catalog_builder.vectors.regions.warp import Resampling, Warp
from catalog_builder.vectors.regions.write import FORMATS, Dtype


def options_from(region: BaseGeometry, kind: str, dtype: str, bands: str, **others: Any) -> Options:
    """Parse the arguments of the command.

    Parameters
    ----------
    region, kind, dtype, bands
        As given.
    **others
        Attributes of the options as they are.

    Raises
    ------
    QueryError
        If a choice is unknown.
    """
    if kind not in FORMATS:
        raise QueryError(f"--format: expected one of {', '.join(FORMATS)}, found '{kind}'")
    if dtype not in get_args(Dtype):
        raise QueryError(f"--dtype: expected float32 or int8, found '{dtype}'")
    return Options(
        region=region,
        format=kind,
        dtype=cast(Dtype, dtype),
        bands=parse_bands(bands),
        **others,
    )


def warp_from(
    crs: str | None, resolution: float | None, like: Path | None, resampling: str | None, *, one_file: bool
) -> Warp | None:
    """Return the grid that was asked for; None if tiles stay on their lattices.

    Raises
    ------
    QueryError
        If options contradict each other, or one does nothing.
    """
    is_asked = crs is not None or resolution is not None or like is not None
    if not is_asked and (resampling is None or not one_file):
        if resampling is not None:
            raise QueryError("--resampling: does nothing without --crs, --resolution, --like or --one-file")
        return None
    return Warp(crs, resolution, like, cast(Resampling, resampling or "nearest"))


def report_text(done: Report, out: Path, *, dry_run: bool) -> str:
    """Return the report as text."""
    about = "about " if not done.planned_exact else ""
    title = done.dataset.title if done.dataset else ""
    lines = [f"{title}: {done.pixels:,} pixels of {done.tile_years} tile-years"]
    if done.missing:
        lines.append(done.missing)
    if dry_run:
        lines.append(
            f"would read {about}{done.planned_bytes:,} bytes; the whole tiles are {done.whole_bytes:,}"
            + (f"; {done.kept} outputs already exist" if done.kept else "")
        )
        return "\n".join(lines)
    lines.append(
        f"read {about}{done.read_bytes:,} bytes; the whole tiles are {done.whole_bytes:,}"
        if done.written
        else "nothing to read"
    )
    if done.corrupt:
        lines.append(
            f"{done.corrupt:,} pixels have corrupt scales (negative, infinite, or too large: --max-scale)"
        )
    lines += [f"  {path}" for path in done.files]
    lines.append(
        f"{out}: {done.written} written, {done.kept} already there, {len(done.failed)} failed"
        + (f"; {len(done.skipped)} tile-years skipped, which are not in these files" if done.skipped else "")
        + ("; SYNTHETIC pixels, not TESSERA data" if done.is_synthetic else "")
    )
    return "\n".join(lines)


def report_data(done: Report, *, dry_run: bool) -> dict[str, Any]:
    """Return the report as JSON data."""
    return {
        "dry_run": dry_run,
        "dataset": done.dataset.directory if done.dataset else None,
        "synthetic": done.is_synthetic,
        "tile_years": done.tile_years,
        "pixels": done.pixels,
        "planned_bytes": done.planned_bytes,
        "planned_exact": done.planned_exact,
        "read_bytes": done.read_bytes,
        "whole_bytes": done.whole_bytes,
        "written": done.written,
        "kept": done.kept,
        "failed": done.failed,
        "skipped": done.skipped,
        "missing": done.missing,
        "corrupt_pixels": done.corrupt,
        "files": [str(p) for p in done.files],
    }
