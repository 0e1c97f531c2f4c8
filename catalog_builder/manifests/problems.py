"""Problems in a manifest: counted by kind, with the first of each kind kept in full.

A reader never stops at an invalid line. It adds a problem, skips the row and continues; under
``strict`` the first problem is raised as :class:`~catalog_builder.errors.ManifestError` instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from catalog_builder.errors import ManifestError


class ProblemKind(StrEnum):
    """The kinds of problem; the value is the text that users see."""

    MALFORMED = "malformed line"
    WRONG_YEAR = "wrong year"
    OFF_GRID = "off-grid name"
    NAME_MISMATCH = "directory and file name disagree"
    BAD_HASH = "bad hash"
    BAD_VALUE = "bad value"
    DUPLICATE = "duplicate"
    CONFLICT = "duplicate with different content"
    HALF_PAIR = "half of a pair"
    OUTSIDE_BLOCK = "outside its block"
    MISSING_FILE = "missing file"
    UNKNOWN_DATASET = "unknown dataset"
    UNKNOWN_COLUMNS = "unknown column set"
    UNKNOWN_FORMAT = "unknown format"
    CORRUPT = "corrupt or truncated"
    ENCODING = "not UTF-8"
    MISFIT = "size does not fit the raster"
    EMPTY = "empty"
    NOT_WANTED = "without a tile in the region and years"


UNREAD = frozenset(
    {
        ProblemKind.CORRUPT,
        ProblemKind.ENCODING,
        ProblemKind.UNKNOWN_FORMAT,
        ProblemKind.UNKNOWN_COLUMNS,
        ProblemKind.MISSING_FILE,
        ProblemKind.EMPTY,
    }
)
"""A source, or a file of it, was not read to its end: what it does not list may exist nonetheless."""
LEFT_OUT = frozenset(
    {
        ProblemKind.MALFORMED,
        ProblemKind.WRONG_YEAR,
        ProblemKind.OFF_GRID,
        ProblemKind.NAME_MISMATCH,
        ProblemKind.BAD_HASH,
        ProblemKind.BAD_VALUE,
        ProblemKind.HALF_PAIR,
        ProblemKind.OUTSIDE_BLOCK,
    }
)
"""Rows were left out, or a file is not the one that is listed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem and its location."""

    kind: ProblemKind
    source: str
    """Address of the file, and the member of an archive."""
    place: str
    """``line 17``, ``row 3``, or empty for the whole file."""
    message: str

    def __str__(self) -> str:
        """``registry_2024.txt line 17: expected …, found …``."""
        return (
            f"{self.source} {self.place}: {self.message}" if self.place else f"{self.source}: {self.message}"
        )


class ProblemLog:
    """Counts problems and keeps the first ``keep`` of each kind.

    Parameters
    ----------
    strict
        Raise the first problem instead of keeping it.
    keep
        How many problems of each kind are kept in full; the rest are only counted.
    """

    def __init__(self, *, strict: bool = False, keep: int = 20) -> None:
        self.strict = strict
        self.keep = keep
        self.counts: Counter[ProblemKind] = Counter()
        self.kept: list[Problem] = []
        self.notes: list[str] = []
        """Notes that are not problems: what was ignored, and why."""
        self._kept_of: Counter[ProblemKind] = Counter()

    @property
    def total(self) -> int:
        """Number of problems. Not ``len``: an empty log must not be falsy."""
        return self.counts.total()

    def add(self, kind: ProblemKind, source: str, message: str, *, place: str = "", count: int = 1) -> None:
        """Report one problem, or ``count`` of which this is the first.

        Raises
        ------
        ManifestError
            If the log is strict.
        """
        problem = Problem(kind, source, place, message)
        if self.strict:
            raise ManifestError(str(problem))
        self.counts[kind] += count
        if self._kept_of[kind] < self.keep:
            self._kept_of[kind] += 1
            self.kept.append(problem)

    def add_rows(
        self,
        kind: ProblemKind,
        source: str,
        rows: Iterable[int],
        count: int,
        describe: Callable[[int], tuple[str, str]],
    ) -> None:
        """Report ``count`` problems, of which only the kept ones are described.

        Parameters
        ----------
        rows
            Indices of the bad rows, as many as ``count``.
        describe
            Returns location and message of a row; called only for the few that are kept, so it may be slow.
        """
        if not count:
            return
        described = 0
        for row in islice(rows, 1 if self.strict else max(self.keep - self._kept_of[kind], 0)):
            place, message = describe(int(row))
            self.add(kind, source, message, place=place)
            described += 1
        self.counts[kind] += count - described

    def note(self, message: str) -> None:
        """Add a note that is not a problem; repeated notes are kept once."""
        if message not in self.notes:
            self.notes.append(message)

    def first(self, kinds: Collection[ProblemKind]) -> Problem | None:
        """Return the first problem of some kinds, None if there is none."""
        return next((p for p in self.kept if p.kind in kinds), None)

    def explained(self) -> str:
        """Return the summary with the first problem in full; empty if there is none."""
        return f"{self.summary()}, such as {self.kept[0]}" if self.kept else self.summary()

    def summary(self) -> str:
        """Return a one-line summary: ``3 problems: 2 bad hash, 1 half of a pair``; empty if none."""
        if not self.counts:
            return ""
        total = self.total
        parts = ", ".join(f"{n:,} {kind}" for kind, n in self.counts.most_common())
        return f"{total:,} problem{'s' if total != 1 else ''}: {parts}"
