"""The catalogue folder: its layout, and how a new build replaces the old one.

::

    CATALOG/
      catalog.json      -> .current/catalog.json
      index.sqlite      -> .current/index.sqlite
      tessera-v1        -> .current/tessera-v1     collection.json, items/year=2024/items.parquet
      cogs/                                        what `convert` writes; immutable files
      .current          -> .versions/7             the one link that a build replaces
      .versions/7/                                 everything that one build wrote

A build writes a new version beside the old one and then renames one symbolic link over
``.current``: readers see the complete old or new catalogue, whenever the build is killed.
Files that did not change are hard links to the previous version's. The previous version stays, for
readers that have it open, and so does every one that was replaced within the last minute; older ones
are removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from catalog_builder.catalog.index.reader import Index
from catalog_builder.errors import CatalogError
from catalog_builder.storage.local import sync

INDEX = "index.sqlite"
CATALOG_JSON = "catalog.json"
COGS = "cogs"
"""Folder of converted tiles; not versioned, its files never change once written."""
"""Folder with records of a version's rows, for comparison by the next build."""
_CURRENT = ".current"
_VERSIONS = ".versions"
GRACE = 60.0
"""Minimum time in seconds for which a replaced version is kept. A server follows within a second, but a
search that started before may open the index once more, in another thread, while builds follow each other."""


@dataclass(slots=True)
class NewVersion:
    """A version being written."""

    path: Path
    wanted: bool = True
    """Set to False to leave the catalogue unchanged."""


class CatalogFolder:
    """A catalogue on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def index_path(self) -> Path:
        """Path of the index that follows new builds."""
        return self.path / INDEX

    def open_index(self) -> Index:
        """Open the current index.

        Raises
        ------
        CatalogError
            If the folder does not contain a catalogue, or one of another version.
        """
        if not self.path.is_dir():
            raise CatalogError(f"{self.path}: no such folder; make a catalogue with 'tessera-stac build'")
        if not self.index_path.exists():
            raise CatalogError(f"{self.path}: not a catalogue ({INDEX} is missing); see 'tessera-stac build'")
        # The version's own path: a later build must not change the file under an open index.
        return Index(self.index_path.resolve())

    @property
    def current(self) -> Path | None:
        """Folder of the current version; None before the first build."""
        link = self.path / _CURRENT
        return link.resolve() if link.exists() else None

    def adopt(self, version: Path) -> None:
        """Make a folder below this one, a copy of another catalogue's, the current version."""
        versions = self.path / _VERSIONS
        versions.mkdir(parents=True, exist_ok=True)
        self._publish(version, versions / "1")

    @contextlib.contextmanager
    def new_version(self) -> Iterator[NewVersion]:
        """Yield an empty folder for a new version; publish it when the block ends without an error.

        Raises
        ------
        CatalogError
            If another build is running on this catalogue.
        """
        versions = self.path / _VERSIONS
        versions.mkdir(parents=True, exist_ok=True)
        with (versions / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CatalogError(f"{self.path}: another build is running on this catalogue") from None
            numbers = [int(p.name) for p in versions.iterdir() if p.name.isdigit()]
            self._remove_all_but(versions, self._number_in_force())
            work = versions / f".building-{max(numbers, default=0) + 1}"
            work.mkdir()
            try:
                version = NewVersion(work)
                yield version
                if version.wanted:
                    self._publish(work, versions / work.name.removeprefix(".building-"))
            finally:
                if work.exists():
                    shutil.rmtree(work, ignore_errors=True)
                # Closing is not enough: a process that another thread is just starting has the file open too.
                fcntl.flock(lock, fcntl.LOCK_UN)

    def _number_in_force(self) -> int | None:
        current = self.current
        return int(current.name) if current else None

    def _publish(self, work: Path, version: Path) -> None:
        previous = self._number_in_force()
        for top in work.rglob("*"):
            if top.is_file():
                sync(top)
        work.rename(version)
        # Links of new collections first: they point through .current and dangle until it is swapped.
        names = [p.name for p in version.iterdir() if not p.name.startswith(".")]
        for name in names:
            _replace_link(self.path / name, f"{_CURRENT}/{name}")
        if previous is not None:
            os.utime(version.parent / str(previous))  # when it was replaced: see GRACE
        _replace_link(self.path / _CURRENT, f"{_VERSIONS}/{version.name}")
        sync(self.path)
        for entry in self.path.iterdir():
            if entry.is_symlink() and entry.name != _CURRENT and entry.name not in names:
                entry.unlink()
        self._remove_all_but(version.parent, previous, int(version.name))

    @staticmethod
    def _remove_all_but(versions: Path, *kept: int | None) -> None:
        for entry in versions.iterdir():
            if not entry.is_dir() or entry.name in {str(k) for k in kept}:
                continue
            if entry.name.isdigit() and time.time() - entry.stat().st_mtime < GRACE:
                continue
            shutil.rmtree(entry, ignore_errors=True)


def _replace_link(link: Path, target: str) -> None:
    if link.is_symlink() and str(link.readlink()) == target:
        return
    new = link.with_name(f".{link.name.lstrip('.')}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)
