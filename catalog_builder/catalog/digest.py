"""The SHA-256 of an index, which its build writes beside it: SQLite does not detect a flipped bit.

SQLite detects damage to the structure of a page when it reads that page; a changed value is a
wrong result. An index is never written again once it is published, so one digest is enough (1 s for
1.4 GB): when a server starts or takes a new build, and in ``validate``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from catalog_builder.errors import CatalogError, DamagedIndexError

STATE = ".state"
"""Folder of a version with records of its rows and its index."""
_NAME = "index.sha256"


def write_digest(index: Path) -> None:
    """Record the digest of a new index, in the format of ``sha256sum``."""
    note_digest(index, _digest(index))


def note_digest(index: Path, sha256: str) -> None:
    """Record the expected digest of an index."""
    path = index.parent / STATE / _NAME
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{sha256}  {index.name}\n")


def recorded_digest(index: Path) -> str | None:
    """Return the digest that the build recorded; None if there is none, as in older catalogues."""
    try:
        return (index.parent / STATE / _NAME).read_text().split()[0]
    except (OSError, ValueError, IndexError):
        return None


def check_digest(index: Path) -> bool:
    """Compare an index with its recorded digest; return whether there was one.

    Raises
    ------
    DamagedIndexError
        If the index differs from what the build wrote.
    CatalogError
        If it cannot be read.
    """
    expected = recorded_digest(index)
    if expected is None:
        return False
    try:
        found = _digest(index)
    except OSError as exc:
        raise CatalogError(f"{index}: cannot be read ({exc.strerror or exc})") from exc
    if found != expected:
        raise DamagedIndexError(
            f"{index}: damaged: its SHA-256 is {found[:16]}..., but its build wrote {expected[:16]}...;"
            " run 'tessera-stac build' again, or restore it"
        )
    return True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
