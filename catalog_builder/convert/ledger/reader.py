"""Reading ledgers: every row of every file, and the current row of each job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from catalog_builder import storage
from catalog_builder.convert.ledger.rows import SUFFIX, LedgerRow
from catalog_builder.errors import StorageError


def read_rows(ledgers: str | Path | Sequence[str | Path]) -> Iterator[LedgerRow]:
    """Yield every row of some ledgers, file by file in the order of their names.

    Incomplete and foreign lines are skipped. A ledger is a folder, an ``s3://`` URL, or one file.

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
        The last *successful* row: files that a later, failed attempt did not replace still exist.
    """
    found: dict[str, LedgerRow] = {}
    for row in rows:
        if ok_only and not row.ok:
            continue
        before = found.get(row.job)
        if before is None or row.finished >= before.finished:
            found[row.job] = row
    return found
