"""Results of earlier runs, to skip completed jobs: some 40 bytes per job, so that millions fit in memory."""

from __future__ import annotations

import hashlib
import tempfile
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from catalog_builder import storage
from catalog_builder.convert.ledger.reader import ledger_files
from catalog_builder.convert.ledger.rows import LedgerRow, said
from catalog_builder.convert.plan.job import ConvertOptions, Job
from catalog_builder.errors import StorageError

_SAMPLE = 10_000
"""Number of latest successful rows that are kept in full, for their measurements."""


class Done:
    """The jobs that are done according to a ledger, with these options.

    Of each job 64 bits of its name and of its fingerprint are kept, when its last row was written, and
    where in the ledger that is: it is read again when its files are looked for.
    """

    def __init__(self, ledger: str, options: ConvertOptions) -> None:
        self._options = options
        self.measured: deque[LedgerRow] = deque(maxlen=_SAMPLE)
        self._looks = not storage.scheme(options.out)
        self._files: list[Path] = []
        self._fetched: tempfile.TemporaryDirectory[str] | None = None
        self._jobs = np.empty(0, np.uint64)
        self._prints = self._places = self._named = self._jobs
        self._times = np.empty(0, np.float64)
        # A missing folder means that there is no ledger yet; a store that does not respond may have one.
        with suppress(StorageError) if not storage.scheme(ledger) else nullcontext():
            self._read(ledger_files(ledger))

    def _read(self, addresses: list[str]) -> None:
        jobs, prints, places = array("Q"), array("Q"), array("Q")
        finished, good = array("d"), array("b")
        for number, address in enumerate(addresses):
            for start, row in self._rows(address):
                jobs.append(_number(row.job))
                prints.append(_number(row.fingerprint))
                places.append(number << 40 | start)
                finished.append(_seconds(row.finished))
                good.append(self._is_good(row))
                if row.ok:
                    self.measured.append(row)
        # The last row of a job counts; of rows of one time the one that is read later.
        order = np.lexsort((np.arange(len(jobs)), np.asarray(finished), np.asarray(jobs)))
        sorted_jobs = np.asarray(jobs)[order]
        last = np.ones(len(order), np.bool_)
        last[:-1] = sorted_jobs[1:] != sorted_jobs[:-1]
        self._named = sorted_jobs[last]
        self._times = np.asarray(finished)[order][last]
        keep = order[last & np.asarray(good, dtype=np.bool_)[order]]
        self._jobs, self._prints, self._places = (np.asarray(a)[keep] for a in (jobs, prints, places))

    def _rows(self, address: str) -> Iterator[tuple[int, LedgerRow]]:
        """Yield the rows of a file with their places; a remote file is kept if rows are read again."""
        if storage.scheme(address) and self._looks:
            self._fetched = self._fetched or tempfile.TemporaryDirectory(prefix="tessera-ledger-")
            path = Path(self._fetched.name) / str(len(self._files))
            storage.fetch_to(address, path)
            address = str(path)
        self._files.append(storage.local_path(address))
        start = 0
        with storage.open_binary(address) as file:
            for line in file:
                with suppress(ValueError, TypeError):
                    yield start, LedgerRow.from_json(line)
                start += len(line)

    def _is_good(self, row: LedgerRow) -> bool:
        if not row.ok or row.options != self._options.digest_for(row.dataset):
            return False
        return row.verified or not self._options.verify

    def __contains__(self, job: Job) -> bool:
        """Return whether a job is done, from these sources with these options, and its files exist."""
        number = np.uint64(_number(job.id))
        at = int(np.searchsorted(self._jobs, number))
        if at == len(self._jobs) or self._jobs[at] != number:
            return False
        if self._prints[at] != np.uint64(_number(job.fingerprint)):
            return False
        if not self._looks:
            return True  # asking for five objects a tile-year costs more than it finds; `validate` does
        root = storage.local_path(self._options.out)
        row = self._row(int(self._places[at]))
        return row is not None and all(_size(root / file.path) == file.size for file in row.files.values())

    def after(self, row: LedgerRow) -> LedgerRow:
        """Return a row with a time after the job's row before: the later wins, and clocks go back."""
        number = np.uint64(_number(row.job))
        at = int(np.searchsorted(self._named, number))
        if at == len(self._named) or self._named[at] != number:
            return row
        before = float(self._times[at])
        if _seconds(row.finished) > before:
            return row
        return replace(row, finished=said(datetime.fromtimestamp(before, UTC) + timedelta(milliseconds=1)))

    def _row(self, place: int) -> LedgerRow | None:
        with suppress(OSError, ValueError, TypeError), self._files[place >> 40].open("rb") as file:
            file.seek(place & (1 << 40) - 1)
            return LedgerRow.from_json(file.readline())
        return None


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _seconds(finished: str) -> float:
    try:
        return datetime.fromisoformat(finished).timestamp()
    except ValueError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
