"""The context passed to every reader, and reading of text in chunks of complete lines."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from lzma import LZMAError
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from catalog_builder.errors import DatasetError
from catalog_builder.manifests.part import Subset
from catalog_builder.manifests.problems import ProblemKind, ProblemLog
from catalog_builder.tile.datasets import DATASETS, Dataset, dataset, dataset_of

CHUNK = 8 << 20
"""Bytes of text read at a time."""

DECOMPRESSION_ERRORS = (EOFError, OSError, zlib.error, LZMAError)
"""Errors that the decompressors raise for a truncated or damaged stream."""

_DATASET_FOLDER = re.compile(r"v\d[^/]*-[^/]+", re.ASCII)
"""Folders that may be named by upstream's rule; collection ids and ``version/variant`` are no folders."""
_EMBEDDINGS = "global_0.1_degree_representation"


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


def dataset_in(path: str) -> Dataset | None:
    """Return the dataset named by a path's folders, ``npy/v1.1-cam/…``; None if there is none.

    Folders named by upstream's rule are of datasets that are not in the table. geotessera 0.9 appended the
    variant to the embeddings folder instead: ``v1.1/global_0.1_degree_representation.cambridge/…``.
    """
    folders = path.split("/")
    for i in range(len(folders) - 1, -1, -1):
        folder = folders[i]
        variant = folder.removeprefix(f"{_EMBEDDINGS}.")
        if variant != folder and i and (found := _known(dataset_of, folders[i - 1], variant)):
            return found
        if i and folders[i - 1] == "landmasks":
            # the variants of a version share landmasks: these name a dataset only if there is one variant
            sharing = [d for d in DATASETS if d.landmask_directory == folder]
            return sharing[0] if len(sharing) == 1 else None
        if i and folders[i - 1] == "zarr":  # their names are not all those of the .npy files: v1.1
            stores = [d for d in DATASETS if d.zarr == folder]
            return stores[0] if stores else _by_folder(folder)
        if found := _by_folder(folder):
            return found
    return None


def _by_folder(folder: str) -> Dataset | None:
    """Return the dataset with a directory name; None if it is no such name."""
    for ds in DATASETS:
        if folder == ds.directory:
            return ds
    return _known(dataset, folder) if _DATASET_FOLDER.fullmatch(folder) else None


def _known(find: Callable[..., Dataset], *names: str) -> Dataset | None:
    """Return the dataset that names mean; None if they mean none."""
    try:
        return find(*names)
    except DatasetError:
        return None


def dataset_of_address(address: str) -> Dataset | None:
    """Return the dataset named in an http(s) or S3 URL.

    Local paths are not considered: ``~/maps/v1/`` may be any folder, and a wrong dataset is worse
    than none.
    """
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
