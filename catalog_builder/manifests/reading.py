"""The context passed to every reader, and reading of text in chunks of complete lines."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from lzma import LZMAError
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from catalog_builder.manifests.part import Subset
from catalog_builder.manifests.problems import ProblemKind, ProblemLog
from catalog_builder.tile.datasets import DATASETS, Dataset, dataset_in

CHUNK = 8 << 20
"""Bytes of text read at a time."""

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


def dataset_of_address(address: str) -> Dataset | None:
    """Return the dataset named in an http(s) or S3 URL.

    Local paths are not considered: ``~/maps/v1/`` may be any folder, and a wrong dataset is worse
    than none.
    """
    for ds in DATASETS:
        for known in (ds.icechunk, ds.tile_registry):
            if known is not None and f"{address.rstrip('/')}/".startswith(f"{known}/"):
                return ds
    parts = urlsplit(address)
    return dataset_in(parts.path.rpartition("/")[0]) if parts.scheme in ("http", "https", "s3") else None


def text_chunks(file: BinaryIO, reading: Reading, size: int = CHUNK) -> Iterator[tuple[int, bytes]]:
    """Yield chunks of complete lines, each ending with a newline, with the number of their first line.

    A truncated stream is reported; the lines before the break are yielded, the incomplete line
    is not.
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
        if ended and not broken and text and not text.endswith(b"\n"):
            text += b"\n"
        end = text.rfind(b"\n") + 1
        chunk, rest = text[:end], text[end:]
        if chunk:
            yield line, chunk
            line += chunk.count(b"\n")
    if broken:
        reading.problems.add(
            ProblemKind.CORRUPT,
            reading.source,
            f"is truncated or damaged ({why}); the lines before that are used",
            place=f"line {line}",
        )
