"""The conversion ledger: what was converted from what, with sizes, hashes and statistics.

A ledger is a folder of JSON-lines files, **one per run and shard**, so any number of processes on any
number of machines write at once without a lock: each appends to a file of its own, one whole line per
tile-year in one ``write``, flushed to the disk. A process killed at any moment leaves at most one torn
last line, which readers pass over. Readers merge all files; of several rows for one job the latest
``finished`` wins, and a failed row never hides the files of an earlier good one from anybody but the
next run, which tries again.

:func:`read_table` gives it as an Arrow table with :data:`LEDGER_SCHEMA`.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from catalog_builder import storage
from catalog_builder.convert.ledger.rows import FileRow, LedgerRow
from catalog_builder.errors import StorageError
from catalog_builder.item.roles import ROLES

SUFFIX = ".jsonl"
_PUT_EVERY = 30.0
"""Seconds between copies of a ledger that lives on S3."""
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
        ("dtype", pa.string()),
        ("bands", pa.int32()),
        ("epsg", pa.int32()),
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


# --------------------------------------------------------------------------------------- writing


class LedgerWriter:
    """Appends rows to a new file of a ledger; one per run and shard.

    Parameters
    ----------
    address
        The ledger: a folder or ``s3://`` address, made if missing.
    label
        Part of the file's name, such as ``shard-3-of-8``.

    Raises
    ------
    StorageError
        If the file cannot be made.
    """

    def __init__(self, address: str | Path, label: str = "run") -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        name = f"{stamp}-{label}-{secrets.token_hex(4)}{SUFFIX}"
        self.address = storage.join(address, name)
        self._remote = bool(storage.scheme(address))
        if self._remote:
            self._path = Path(tempfile.mkdtemp(prefix="tessera-ledger-")) / name
        else:
            self._path = storage.local_path(self.address)
        self._put_at = time.monotonic()
        self._good = 0
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror or error}") from error

    def append(self, row: LedgerRow) -> None:
        """Append a row, durably.

        Raises
        ------
        StorageError
            If it cannot be written whole; nothing of it stays then.
        """
        line = row.to_json() + b"\n"
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(28, "No space left on device")  # noqa: TRY301
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._good)
            raise StorageError(f"{self._path}: {error.strerror or error}") from error
        self._good += len(line)
        if self._remote and time.monotonic() - self._put_at > _PUT_EVERY:
            # A failure now is no loss: the rows are here, and the next put takes all of them.
            with suppress(StorageError):
                self._put()

    def _put(self) -> None:
        storage.put_file(self._path, self.address, content_type="application/x-ndjson")
        self._put_at = time.monotonic()

    def close(self) -> None:
        """Close; a file without rows is removed.

        Raises
        ------
        StorageError
            If a ledger on S3 cannot be put; then the message says where its rows are kept.
        """
        os.close(self._file)
        if not self._good:
            with suppress(OSError):
                self._path.unlink()
        elif self._remote:
            try:
                self._put()
            except StorageError as error:
                raise StorageError(
                    f"{error}; its rows are kept in {self._path}: put that file there, or convert again"
                ) from error
        if self._remote:
            shutil.rmtree(self._path.parent, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# --------------------------------------------------------------------------------------- reading


def read_rows(ledgers: str | Path | Sequence[str | Path]) -> Iterator[LedgerRow]:
    """Yield every row of some ledgers, file by file in the order of their names.

    Torn and foreign lines are passed over. A ledger is a folder, an ``s3://`` address, or one file.

    Raises
    ------
    StorageError
        If a ledger does not exist or cannot be read.
    """
    for ledger in [ledgers] if isinstance(ledgers, str | Path) else ledgers:
        for address in ledger_files(ledger):
            with storage.open_binary(address) as file:
                for line in file:
                    with suppress(ValueError, TypeError):
                        yield LedgerRow.from_json(line)


def ledger_files(ledger: str | Path) -> list[str]:
    """Return the addresses of a ledger's files, in the order of their names.

    Raises
    ------
    StorageError
        If there is no such ledger.
    """
    if str(ledger).endswith(SUFFIX):
        return [str(ledger)]
    if not storage.is_dir(ledger):
        if storage.scheme(ledger) == "s3":
            return []
        raise StorageError(f"{ledger}: no such ledger")
    return sorted(storage.join(ledger, e.path) for e in storage.list_files(ledger) if e.path.endswith(SUFFIX))


def latest(rows: Iterable[LedgerRow], *, ok_only: bool = False) -> dict[str, LedgerRow]:
    """Return the last row of every job, by the time it finished.

    Parameters
    ----------
    ok_only
        The last *good* row: files that a later, failed attempt did not replace are still there.
    """
    found: dict[str, LedgerRow] = {}
    for row in rows:
        if ok_only and not row.ok:
            continue
        before = found.get(row.job)
        if before is None or row.finished >= before.finished:
            found[row.job] = row
    return found


def read_table(ledgers: str | Path | Sequence[str | Path], *, ok_only: bool = False) -> pa.Table:
    """Return ledgers, merged, as an Arrow table with :data:`LEDGER_SCHEMA`, sorted by job."""
    rows = sorted(latest(read_rows(ledgers), ok_only=ok_only).values(), key=lambda r: r.job)
    return to_table(rows)


def to_table(rows: Sequence[LedgerRow]) -> pa.Table:
    """Return rows as an Arrow table with :data:`LEDGER_SCHEMA`."""
    columns: dict[str, list[Any]] = {name: [] for name in LEDGER_SCHEMA.names}
    for row in rows:
        for name, values in columns.items():
            values.append(_ARROW.get(name, _same)(getattr(row, name)))
    return pa.table({f.name: pa.array(columns[f.name], f.type) for f in LEDGER_SCHEMA}, schema=LEDGER_SCHEMA)


def _same(value: Any) -> Any:
    return value


def _file_struct(file: FileRow | None) -> dict[str, Any] | None:
    return None if file is None else {**asdict(file), "sha256": bytes.fromhex(file.sha256)}


_ARROW: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(ROLES, _file_struct),
    "sources": lambda sources: [{**asdict(s), "sha256": bytes.fromhex(s.sha256) or None} for s in sources],
    "statistics": lambda text: base64.b64decode(text) if text else None,
    "finished": lambda text: datetime.fromisoformat(text) if text else None,
    "transform": list,
    "versions": list,
}
