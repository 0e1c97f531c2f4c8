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
from typing import Literal

import numpy as np

from catalog_builder import storage
from catalog_builder.convert.encode.predictor import is_misread
from catalog_builder.convert.ledger.encoding import encoding_of
from catalog_builder.convert.ledger.reader import ledger_files
from catalog_builder.convert.ledger.rows import LedgerRow, said
from catalog_builder.convert.plan.job import EARLIER_BLOCK_SIZE, ConvertOptions, Job, Profile, Redo
from catalog_builder.errors import QueryError, StorageError
from catalog_builder.raster.gdal import gdal_environment, gdal_path

_SAMPLE = 10_000
"""Number of latest successful rows that are kept in full, for their measurements."""
_SOUND, _MISREAD, _UNKNOWN = range(3)
"""Whether some readers misread a result, as far as its row tells."""
_EARLIER_VIEW, _NO_STATISTICS, _EARLIER_LAYOUT, _OTHER_COLOURS = 1, 2, 4, 8
"""Bits of what a result lacks that can be renewed by itself."""
_RENEWED: dict[Redo | None, int] = {"view": _EARLIER_VIEW, "statistics": _NO_STATISTICS}


class Done:
    """The jobs that are done according to a ledger, with these options.

    A result of an earlier version is done as well where its defaults were others, so that no new version
    converts everything again; ``redo`` asks for it. So is one with other colours than are wanted, or none:
    :meth:`to_renew` gives the job of making the images alone. Where none are wanted, any are right.

    Of each job 64 bits of its name and of its fingerprint are kept, when its last row was written, and
    where in the ledger that is: it is read again when its files are looked for.

    Parameters
    ----------
    ledger
        Its folder: a path, or an s3:// URL.
    options
        What results are wanted.
    redo
        ``predictor``: jobs whose embeddings have a predictor that some readers undo wrongly
        (:mod:`catalog_builder.convert.encode.predictor`) are not done. ``layout``: jobs whose files have the
        blocks of earlier versions are not done. ``view``: of jobs that are done, :meth:`to_renew` gives
        those whose float32 view is of an earlier form. ``statistics``: it gives those that have no
        statistics of their codes.

    Raises
    ------
    QueryError
        If what is to be done again would come out as it is.
    StorageError
        If the ledger cannot be read.
    """

    def __init__(self, ledger: str, options: ConvertOptions, redo: Redo | None = None) -> None:
        self._wants_misread = is_misread(options.interleave, 2, options.predictor or 1)
        if redo == "predictor" and self._wants_misread:
            raise QueryError(
                f"--redo predictor: with --predictor {options.predictor} files would be written as they are;"
                " leave it out"
            )
        self._options, self._redo = options, redo
        self._old_digests: dict[tuple[str, str, str], frozenset[str]] = {}
        self._digests: dict[str, tuple[str, frozenset[str]]] = {}
        self._plain = replace(options, bases=())
        self._plain_digests: dict[str, frozenset[str]] = {}
        self.measured: deque[LedgerRow] = deque(maxlen=_SAMPLE)
        self._looks = not storage.scheme(options.out)
        self._files: list[Path] = []
        self._fetched: tempfile.TemporaryDirectory[str] | None = None
        self._jobs = np.empty(0, np.uint64)
        self._prints = self._places = self._named = self._jobs
        self._encodings = self._renewable = np.empty(0, np.int8)
        self._times = np.empty(0, np.float64)
        # A missing folder means that there is no ledger yet; a store that does not respond may have one.
        with suppress(StorageError) if not storage.scheme(ledger) else nullcontext():
            self._read(ledger_files(ledger))

    def _read(self, addresses: list[str]) -> None:
        jobs, prints, places = array("Q"), array("Q"), array("Q")
        finished, good, encodings, renewable = array("d"), array("b"), array("b"), array("b")
        for number, address in enumerate(addresses):
            for start, row in self._rows(address):
                if row.only and not row.ok:
                    continue  # no view was written: the result of before is what it was
                jobs.append(_number(row.job))
                prints.append(_number(row.fingerprint))
                places.append(number << 40 | start)
                finished.append(_seconds(row.finished))
                good.append(self._is_good(row))
                encodings.append(self._said_encoding(row))
                renewable.append(
                    _EARLIER_VIEW * row.has_earlier_view
                    | _NO_STATISTICS * row.lacks_code_range
                    | _EARLIER_LAYOUT * self._has_earlier_layout(row)
                    | _OTHER_COLOURS * self._has_other_colours(row)
                )
                if row.ok and not row.only:
                    self.measured.append(row)
        # The last row of a job counts; of rows of one time the one that is read later.
        order = np.lexsort((np.arange(len(jobs)), np.asarray(finished), np.asarray(jobs)))
        sorted_jobs = np.asarray(jobs)[order]
        last = np.ones(len(order), np.bool_)
        last[:-1] = sorted_jobs[1:] != sorted_jobs[:-1]
        self._named = sorted_jobs[last]
        self._times = np.asarray(finished)[order][last]
        keep = order[last & np.asarray(good, dtype=np.bool_)[order]]
        self._jobs, self._prints, self._places, self._encodings, self._renewable = (
            np.asarray(a)[keep] for a in (jobs, prints, places, encodings, renewable)
        )

    def _rows(self, address: str) -> Iterator[tuple[int, LedgerRow]]:
        """Yield the rows of a file with their places; a remote file is kept if rows are read again."""
        if storage.scheme(address) and (self._looks or self._redo or self._options.bases):
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
        if not row.ok or not self._has_pixels(row):
            return False
        if row.profile == "raster":
            return row.lossless is not True  # of an earlier version, which compared nothing
        return row.verified or not self._options.verify

    def _has_pixels(self, row: LedgerRow) -> bool:
        """Return whether a result was written with these options, but for the colours."""
        now, earlier = self._digests_for(row.dataset)
        if row.options == now or row.options in earlier:
            return True
        plain = self._plain_digests_for(row.dataset)
        return row.options in plain or row.pixel_options in plain

    def _has_other_colours(self, row: LedgerRow) -> bool:
        """Return whether the images that are wanted are not there."""
        now, earlier = self._digests_for(row.dataset)
        wanted = row.tile is not None and self._options.basis_for(row.dataset) is not None
        return wanted and row.options != now and row.options not in earlier

    def _has_earlier_layout(self, row: LedgerRow) -> bool:
        """Return whether a result was written with the blocks of earlier versions, by its options."""
        # rasters of a few bands have blocks of their own
        ours = row.tile is not None or row.interleave == "tile"
        earlier = self._digests_for(row.dataset)[1] | self._plain.earlier_digests_for(row.dataset)
        return ours and row.options in earlier

    def _digests_for(self, dataset: str) -> tuple[str, frozenset[str]]:
        """Return the digest of the options as it is now, and as earlier versions made it."""
        if dataset not in self._digests:
            options = self._options
            self._digests[dataset] = options.digest_for(dataset), options.earlier_digests_for(dataset)
        return self._digests[dataset]

    def _plain_digests_for(self, dataset: str) -> frozenset[str]:
        """Return the digests, of now and of earlier versions, of the same options without colours."""
        if dataset not in self._plain_digests:
            now = self._plain.digest_for(dataset)
            self._plain_digests[dataset] = self._plain.earlier_digests_for(dataset) | {now}
        return self._plain_digests[dataset]

    def _said_encoding(self, row: LedgerRow) -> int:
        """Return what a row says of its embeddings, itself or by options that were defaults before."""
        if row.predictor is not None:
            return _MISREAD if is_misread(row.interleave, row.bands or 1, row.predictor) else _SOUND
        if row.tile is not None and row.options in self._digests_before(row):
            return _MISREAD  # 2 for codes, 3 for floats, always planar
        return _UNKNOWN

    def _digests_before(self, row: LedgerRow) -> frozenset[str]:
        """Return the digests of the defaults of versions whose rows do not say the predictor."""
        key = (row.dataset, row.grid, row.overviews)
        if key not in self._old_digests:
            before = ConvertOptions(
                "",
                grid=row.grid,  # type: ignore[arg-type]
                overviews=row.overviews,  # type: ignore[arg-type]
                block_size=EARLIER_BLOCK_SIZE,
                interleave="tile",
                compression="zstd",
                level=1,
                predictor=None,
            )
            asked: tuple[Profile, ...] = ("native", "float32")
            old = [
                replace(before, profile=profile, bases=bases)
                for profile in asked
                for bases in {(), self._options.bases}
            ]
            self._old_digests[key] = frozenset().union(*(o.earlier_digests_for(row.dataset) for o in old))
        return self._old_digests[key]

    def __contains__(self, job: Job) -> bool:
        """Return whether a job is done, from these sources with these options, and its files exist."""
        at = self._at(job)
        if at is None or self._prints[at] != np.uint64(_number(job.fingerprint)):
            return False
        if self._redo == "predictor" and self._is_to_redo(at):
            return False
        if self._redo == "layout" and self._renewable[at] & _EARLIER_LAYOUT:
            return False
        if not self._looks:
            return True  # asking for five objects a tile-year costs more than it finds; `validate` does
        root = storage.local_path(self._options.out)
        row = self._row(int(self._places[at]))
        return row is not None and all(_size(root / file.path) == file.size for file in row.files.values())

    def has_earlier_view(self, job: Job) -> bool:
        """Whether a job that is done has a float32 view of an earlier form."""
        return self._can_renew(job, _EARLIER_VIEW)

    def lacks_statistics(self, job: Job) -> bool:
        """Whether a job that is done has no statistics of its codes."""
        return self._can_renew(job, _NO_STATISTICS)

    def _can_renew(self, job: Job, bit: int) -> bool:
        at = self._at(job)
        return at is not None and bool(self._renewable[at] & bit)

    def has_other_colours(self, job: Job) -> bool:
        """Whether a job that is done has not the images that are wanted."""
        return self._can_renew(job, _OTHER_COLOURS)

    def has_earlier_layout(self, job: Job) -> bool:
        """Whether a job that is done has the blocks of an earlier version."""
        return self._can_renew(job, _EARLIER_LAYOUT)

    def to_renew(self, job: Job) -> Job | None:
        """Return the job of doing again the part of one that is done that is asked for, if it needs it."""
        at = self._at(job)
        if at is None:
            return None
        only: Literal["view", "visual", "statistics"]
        if self._renewable[at] & _RENEWED.get(self._redo, 0):
            only = "view" if self._redo == "view" else "statistics"
        elif self._renewable[at] & _OTHER_COLOURS:
            only = "visual"
        else:
            return None
        row = self._row(int(self._places[at]))
        return None if row is None else replace(job, renews=replace(row, only=only))

    def is_misread(self, job: Job) -> bool:
        """Whether the ledger says of a job that is done that some readers misread its embeddings.

        False where the options ask for just that.
        """
        at = self._at(job)
        return at is not None and not self._wants_misread and bool(self._encodings[at] == _MISREAD)

    def _at(self, job: Job) -> int | None:
        number = np.uint64(_number(job.id))
        at = int(np.searchsorted(self._jobs, number))
        return at if at < len(self._jobs) and self._jobs[at] == number else None

    def _is_to_redo(self, at: int) -> bool:
        """Whether a result is misread; by its file's header where no row says it."""
        if self._encodings[at] != _UNKNOWN:
            return bool(self._encodings[at] == _MISREAD)
        from rasterio.errors import RasterioIOError

        row = self._row(int(self._places[at]))
        if row is None or row.embeddings is None:
            return True
        address = storage.join(self._options.out, row.embeddings.path)
        try:
            with gdal_environment(address):
                return encoding_of(gdal_path(address)).is_misread
        except RasterioIOError:
            return True  # what cannot be opened is done again

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
