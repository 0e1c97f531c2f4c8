"""The report of commands that write a table of vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from catalog_builder import console

if TYPE_CHECKING:
    from catalog_builder.vectors.points.table import TableReport

_SHOWN = 10


def finish(report: TableReport, *, as_json: bool) -> None:
    """Print a report; exit with 1 if something could not be read."""
    for reason, rows in report.reasons.most_common(_SHOWN):
        console.say(f"unreadable: {reason} ({rows:,} rows)")
    if len(report.reasons) > _SHOWN:
        console.say(f"unreadable: {len(report.reasons) - _SHOWN:,} more reasons, in the table")
    console.result(
        _text(report),
        {
            "dataset": report.dataset.directory,
            "synthetic": report.dataset.is_synthetic,
            "years": list(report.years),
            "rows": report.rows,
            "status": dict(report.outcomes),
            "unreadable": dict(report.reasons),
            "corrupt_pixels": report.corrupt,
            "read_again": report.again,
            "read_bytes": report.meter.bytes,
            "requests": report.meter.requests,
            "files": [str(path) for path in report.files],
        },
        as_json=as_json,
    )
    if report.unreadable:
        raise typer.Exit(1)


def _text(report: TableReport) -> str:
    out = report.files[0]
    by_status = ", ".join(f"{n:,} {status}" for status, n in report.outcomes.most_common())
    lines = [f"{out}: {report.rows:,} rows of {report.dataset.title}: {by_status}"]
    if report.again is not None:
        lines.append(f"{report.again:,} rows that could not be read before were read again")
    lines.append(f"read {report.meter.bytes:,} bytes in {report.meter.requests:,} reads")
    if report.corrupt:
        lines.append(f"{report.corrupt:,} pixels had corrupt scales and were taken for no data (--max-scale)")
    if report.unreadable:
        lines.append(f"{report.unreadable:,} rows could not be read: the same command again reads only those")
    if report.dataset.is_synthetic:
        lines.append("SYNTHETIC pixels, not TESSERA data")
    return "\n".join(lines)
