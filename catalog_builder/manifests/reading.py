"""The context passed to every reader, and reading of text in chunks of complete lines."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from lzma import LZMAError
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from catalog_builder.manifests.part import Subset
from catalog_builder.manifests.problems import ProblemKind, ProblemLog
from catalog_builder.storage.address import local_path
from catalog_builder.tile.datasets import DATASETS, Dataset, dataset_in, unknown_dataset, unknown_dataset_in

CHUNK = 8 << 20
"""Bytes of text read at a time."""
LONGEST_LINE = 1 << 20
"""Bytes of a line; a file with a longer one is no manifest."""

DECOMPRESSION_ERRORS = (EOFError, OSError, zlib.error, LZMAError)
"""Errors that the decompressors raise for a truncated or damaged stream."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One manifest being read: its name, the problem log, and the selection."""

    source: str
    """Address; a member of an archive follows an exclamation mark, ``blocks.tar.xz!a/b.txt``."""
    problems: ProblemLog
    selection: Subset
    hint: Dataset | None = None
    """The dataset according to the user."""
    dataset: Dataset | None = None
    """The dataset according to the source."""
    is_said: bool = False
    """Whether the user said that what is of no known dataset is of :attr:`hint`; else it is left out."""
    reported: set[tuple[str, str]] = field(default_factory=set)
    """Sources and paths in them that were reported to be of no known dataset; shared by all members."""

    def member(self, name: str) -> Reading:
        """Return the context for a member of this archive."""
        return replace(self, source=f"{self.source}!{name}")

    @property
    def years(self) -> tuple[int, int]:
        """First and last year a tile may have."""
        known = self.dataset or self.hint
        if known is not None:
            return known.years
        return min(d.years[0] for d in DATASETS), max(d.years[1] for d in DATASETS)

    def dataset_of_path(self, prefix: str) -> Dataset | None:
        """Return the dataset named by a path's folders, otherwise that of the source."""
        return dataset_in(prefix) or self.dataset

    def leaves_out(self, path: str) -> bool:
        """Whether files below a path are of a dataset that is not known; reported once for each path."""
        folder = "" if self.is_said else unknown_dataset_in(path)
        if folder and (self.source, path) not in self.reported:
            self.reported.add((self.source, path))
            self.problems.add(
                ProblemKind.UNKNOWN_DATASET,
                self.source,
                f"{path}: {unknown_dataset(folder)}; its files are left out, --dataset says which it is",
            )
        return bool(folder)


def dataset_of_address(address: str) -> Dataset | None:
    """Return the dataset named in an http(s) or S3 URL.

    Local paths are not considered: ``~/maps/v1/`` may be any folder, and a wrong dataset is worse
    than none.
    """
    for ds in DATASETS:
        for known in (ds.icechunk, ds.tile_registry):
            if known is not None and f"{address.rstrip('/')}/".startswith(f"{known}/"):
                return ds
    is_remote = urlsplit(address).scheme in ("http", "https", "s3")
    return dataset_in(dataset_path(address)) if is_remote else None


def dataset_path(address: str) -> str:
    """Return the folders of an address whose names may be a dataset's.

    Of local paths only the folder that is given itself, or that the file is in: ``~/v1/maps/`` may be any.

    >>> dataset_path("s3://tessera/npy/v2/manifest.parquet"), dataset_path("v1/data/npy/v2/")
    ('/npy/v2', 'v2')
    """
    parts = urlsplit(address)
    if parts.scheme in ("http", "https", "s3"):
        return parts.path.rpartition("/")[0]
    path = local_path(address).absolute()
    return path.name if path.is_dir() else path.parent.name


def text_chunks(file: BinaryIO, reading: Reading, size: int = CHUNK) -> Iterator[tuple[int, bytes]]:
    """Yield chunks of complete lines, each ending with a newline, with the number of their first line.

    A truncated stream is reported; the lines before the break are yielded, the incomplete line
    is not. So is one with a line longer than :data:`LONGEST_LINE`, of which no more is read, and a text that
    ends without a newline in a line with a problem.
    """
    rest = b""
    line = 1
    broken = ended = False
    while not ended:
        parts = [rest]
        length = 0
        try:
            while length < size:
                # read1: data before a break must not be lost with it
                block: bytes = cast(Any, file).read1(size - length)
                if not block:
                    ended = True
                    break
                parts.append(block)
                length += len(block)
        except DECOMPRESSION_ERRORS as error:
            broken = ended = True
            why = str(error) or type(error).__name__
        text = b"".join(parts)
        if line == 1 and text.startswith(b"\xef\xbb\xbf"):
            text = text[3:]
        torn = b""
        if ended and not broken and text and not text.endswith(b"\n"):
            text, torn = text[: text.rfind(b"\n") + 1], text[text.rfind(b"\n") + 1 :]
        end = text.rfind(b"\n") + 1
        chunk, rest = text[:end], text[end:]
        if chunk:
            yield line, chunk
            line += chunk.count(b"\n")
        if torn:
            before = reading.problems.total
            yield line, torn + b"\n"
            if reading.problems.total > before:
                reading.problems.add(
                    ProblemKind.CORRUPT, reading.source, "ends in the middle of a line", place=f"line {line}"
                )
        if len(rest) > LONGEST_LINE:
            reading.problems.add(
                ProblemKind.MALFORMED,
                reading.source,
                f"the line is longer than {LONGEST_LINE} bytes; only the lines before it are used",
                place=f"line {line}",
            )
            return
    if broken:
        reading.problems.add(
            ProblemKind.CORRUPT,
            reading.source,
            f"is truncated or damaged ({why}); the lines before that are used",
            place=f"line {line}",
        )
