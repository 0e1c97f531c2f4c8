r"""Saved listings: the output of a command that lists files, as text.

==========================================  ==================================================
command                                     gives
==========================================  ==================================================
``aws s3 ls --recursive``                   time, size, path
``rclone lsl``                              size, time, path
``find -printf '%s %T@ %p\n'``               size, seconds, path
``find -ls``                                inode, blocks, mode, …, size, date, path
``find``, ``rclone lsf -R``, ``tar -tf``    path
==========================================  ==================================================

Only seconds since 1970 are used as times: the others print the local time of an unknown
know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from catalog_builder.manifests.part import UNKNOWN
from catalog_builder.manifests.problems import ProblemKind
from catalog_builder.manifests.reading import Reading, text_chunks
from catalog_builder.storage import Entry

_DATE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
_ENTRY = re.compile(
    rf"(?:{_DATE} +(?P<size>\d+) "  # aws s3 ls
    rf"|(?P<size2>\d+) {_DATE}(?:\.\d+)? "  # rclone lsl
    r"|(?P<size3>\d+) (?P<seconds>\d{9,11})(?:\.\d+)? "  # find -printf
    # find -ls
    r"|\d+ +\d+ +[-a-z][-a-zA-Z]{9}\S* +\d+ +\S+ +\S+ +(?P<size4>\d+) +[A-Z][a-z]{2} +\d+ +[\d:]+ )?"
    r"(?P<path>\S+)"
)
_TILE = re.compile(r"(?:^|/)(?:grid_-?\d|tessera_\d{4}_)[^/]*\.(?:npy|tiff?)$")


def looks_like_tile(path: str) -> bool:
    """Return whether a path has, or nearly has, the form of a tile's file."""
    return _TILE.search(path) is not None


def looks_like_entry(line: str) -> bool:
    """Return whether a line lists a tile's file."""
    match = _ENTRY.fullmatch(line)
    return match is not None and looks_like_tile(match["path"])


def saved_entries(file: BinaryIO, reading: Reading) -> Iterator[tuple[int, Entry]]:
    """Yield line number and entry of every line that lists a file."""
    for first_line, chunk in text_chunks(file, reading):
        for number, line in enumerate(chunk.split(b"\n"), first_line):
            text = line.decode("utf-8", "replace").strip()
            if not text or text.startswith("#"):
                continue
            match = _ENTRY.fullmatch(text)
            if match is None:
                if looks_like_tile(text):
                    reading.problems.add(
                        ProblemKind.MALFORMED,
                        reading.source,
                        f"expected a line of a listing, found '{text[:120]}'",
                        place=f"line {number}",
                    )
                continue
            size = match["size"] or match["size2"] or match["size3"] or match["size4"] or UNKNOWN
            path = match["path"].removeprefix("./")
            yield number, Entry(path, int(size), int(match["seconds"] or UNKNOWN))
