"""Ledgers as an Arrow table."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalog_builder.convert.ledger.reader import latest, read_rows
from catalog_builder.convert.ledger.rows import FileRow, LedgerRow
from catalog_builder.tile.files import ROLES

_FILE = pa.struct(
    [("path", pa.string()), ("size", pa.int64()), ("sha256", pa.binary(32)), ("header_size", pa.int32())]
)
_SOURCE = pa.struct(
    [
        ("role", pa.string()),
        ("address", pa.string()),
        ("size", pa.int64()),
        ("sha256", pa.binary(32)),
        ("verified", pa.bool_()),
    ]
)
LEDGER_SCHEMA = pa.schema(
    [
        pa.field("job", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        ("reason", pa.string()),
        ("dataset", pa.string()),
        ("lat_i", pa.int16()),
        ("lon_i", pa.int16()),
        ("year", pa.int16()),
        ("kind", pa.string()),
        ("profile", pa.string()),
        ("grid", pa.string()),
        ("lossless", pa.bool_()),
        # what of a raster was compared with its source; null for tiles
        ("compared", pa.list_(pa.string())),
        ("lost", pa.list_(pa.string())),
        ("note", pa.string()),
        ("content", pa.string()),
        ("visual_content", pa.string()),
        *((role, _FILE) for role in ROLES),
        ("sources", pa.list_(_SOURCE)),
        ("fingerprint", pa.string()),
        ("options", pa.string()),
        ("valid_fraction", pa.float64()),
        ("land_fraction", pa.float64()),
        ("minimum", pa.float64()),
        ("maximum", pa.float64()),
        # encoded as in the index: decode_statistics() gives float32 (4, bands)
        ("statistics", pa.binary()),
        # int8 (2, bands): minima and maxima of the codes
        ("code_range", pa.binary()),
        ("dtype", pa.string()),
        ("bands", pa.int32()),
        ("interleave", pa.string()),
        ("predictor", pa.int32()),
        ("view", pa.int32()),
        ("only", pa.string()),
        ("epsg", pa.int32()),
        ("wkt2", pa.string()),
        ("transform", pa.list_(pa.float64())),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("overviews", pa.string()),
        ("levels", pa.int32()),
        ("verified", pa.bool_()),
        ("versions", pa.map_(pa.string(), pa.string())),
        ("finished", pa.timestamp("ms", tz="UTC")),
        ("seconds", pa.float64()),
    ]
)
"""One row per job, in the order of :class:`LedgerRow`; hashes are binary."""


def read_table(ledgers: str | Path | Sequence[str | Path], *, ok_only: bool = False) -> pa.Table:
    """Return ledgers, merged, as an Arrow table with :data:`LEDGER_SCHEMA`, sorted by job."""
    rows = sorted(latest(read_rows(ledgers), ok_only=ok_only).values(), key=lambda r: r.job)
    return to_table(rows)


def to_table(rows: Sequence[LedgerRow]) -> pa.Table:
    """Return rows as an Arrow table with :data:`LEDGER_SCHEMA`."""
    columns: dict[str, list[Any]] = {name: [] for name in LEDGER_SCHEMA.names}
    for row in rows:
        for name, values in columns.items():
            values.append(_ARROW.get(name, _same)(getattr(row, _FIELDS.get(name, name))))
    return pa.table({f.name: pa.array(columns[f.name], f.type) for f in LEDGER_SCHEMA}, schema=LEDGER_SCHEMA)


_FIELDS = {"compared": "lossless"}
"""Fields of columns that are called otherwise."""


def _same(value: Any) -> Any:
    return value


def _file_struct(file: FileRow | None) -> dict[str, Any] | None:
    return None if file is None else {**asdict(file), "sha256": bytes.fromhex(file.sha256)}


_ARROW: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(ROLES, _file_struct),
    "sources": lambda sources: [{**asdict(s), "sha256": bytes.fromhex(s.sha256) or None} for s in sources],
    **dict.fromkeys(("statistics", "code_range"), lambda text: base64.b64decode(text) if text else None),
    "finished": lambda text: datetime.fromisoformat(text) if text else None,
    "lossless": bool,
    "compared": lambda value: None if isinstance(value, bool) else list(value),
    "lost": list,
    "transform": list,
    "versions": list,
}
