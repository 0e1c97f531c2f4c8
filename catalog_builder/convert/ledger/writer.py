"""Writing a ledger: complete lines, flushed to disk, to a separate file per writer."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from catalog_builder import storage
from catalog_builder.convert.ledger.rows import SUFFIX, LedgerRow
from catalog_builder.errors import StorageError

_PUT_EVERY = 30.0
"""Seconds between uploads of a ledger in S3."""


class LedgerWriter:
    """Appends rows to a new file of a ledger; one per run and shard.

    Parameters
    ----------
    address
        The ledger: a folder or ``s3://`` URL, created if missing.
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
            If it cannot be written completely; nothing of it remains then.
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
            # A failure now loses nothing: the rows are stored locally, and the next upload has all of them.
            with suppress(StorageError):
                self._put()

    def _put(self) -> None:
        storage.put_file(self._path, self.address)
        self._put_at = time.monotonic()

    def close(self) -> None:
        """Close; a file without rows is removed.

        Raises
        ------
        StorageError
            If a ledger in S3 cannot be uploaded; the message says where its rows are kept.
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
                    f"{error}; its rows are kept in {self._path}: upload that file, or convert again"
                ) from error
        if self._remote:
            shutil.rmtree(self._path.parent, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
