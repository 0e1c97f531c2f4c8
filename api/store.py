"""The catalogue as the server holds it: an open index, and what is made from it once.

A build replaces the catalogue by renaming a link. :class:`Store` looks at it now and then and hands
out a new :class:`Snapshot`; requests under way keep the one they started with.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from catalog_builder import grid
from catalog_builder.catalog import CatalogFolder
from catalog_builder.digest import check_digest, recorded_digest
from catalog_builder.errors import CatalogError
from catalog_builder.index import CollectionRecord, Index

T = TypeVar("T")
LOG = logging.getLogger("tessera_stac")

REMEMBERED = 256
"""Derived things kept per snapshot; links hold the client's host name, so there is no natural bound."""


_WAIT_SECONDS = 0.05
"""How long a request waits for a new build to be checked: a small one is in force at once."""
_RECHECK_SECONDS = 60.0
"""Between two checks of an index that was found good."""


class Snapshot:
    """One build of the catalogue, open for reading."""

    def __init__(self, index: Index, generation: str) -> None:
        self.index = index
        self.generation = generation
        """Differs between builds; part of every ETag."""
        self.collections: dict[str, CollectionRecord] = index.collections
        self.years: tuple[int, ...] = tuple(
            sorted({year for record in self.collections.values() for year in record.years})
        )
        """Of all collections."""
        self._made: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what ``make`` returned for this key before, or now; the least recently used are dropped."""
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                found: T = self._made[key]
                return found
        made = make()
        with self._lock:
            self._made[key] = made
            if len(self._made) > REMEMBERED:
                self._made.popitem(last=False)
        return made


class Store:
    """Gives the current snapshot of a catalogue folder.

    Raises
    ------
    CatalogError
        If there is no catalogue, or of another version, or it is damaged.
    """

    def __init__(self, folder: Path, refresh_seconds: float) -> None:
        self.folder = CatalogFolder(folder)
        self._refresh = refresh_seconds
        self._looked = time.monotonic()
        self._identity = self._look()
        self._snapshot = self._open()
        self._opening: threading.Thread | None = None
        self._checking = threading.Lock()
        self._good_until = 0.0
        self.refused: str | None = None
        """Why the newest build is not in force; None if it is."""
        self.damage: str | None = None
        """What is wrong with the index in force, since it was last looked at; None if nothing is."""
        # The raster table costs 0.2 s once: not in the first request.
        grid.rasters(np.zeros(1, np.int64), np.zeros(1, np.int64))

    def current(self) -> Snapshot:
        """Return the newest snapshot; looks at most every ``refresh_seconds``."""
        now = time.monotonic()
        if now - self._looked >= self._refresh:
            self._looked = now
            try:
                identity = self._look()
            except (OSError, CatalogError):
                return self._snapshot  # in the middle of a change, or gone: what is open stays good
            if identity != self._identity and self._opening is None:
                # Not here: reading a large index for its digest takes a second or two.
                self._opening = opening = threading.Thread(target=self._renew, args=(identity,), daemon=True)
                opening.start()
                opening.join(_WAIT_SECONDS)
        return self._snapshot

    def _renew(self, identity: tuple[int, int, int]) -> None:
        """Put a new build in force, unless something is wrong with it: then the old one stays."""
        try:
            snapshot = self._open()
            self._snapshot, self.refused, self.damage, self._good_until = snapshot, None, None, 0.0
        except (OSError, CatalogError) as exc:
            self.refused = self._told(exc)
            LOG.warning("the catalogue in force stays: %s", exc)
        finally:
            self._identity = identity
            self._opening = None

    def check(self) -> str | None:
        """Return what is wrong with the index in force, None if nothing is; call it from a thread.

        It reads the whole file, so an index that was found good is not looked at again for a minute.
        """
        with self._checking:
            if self.damage is None and time.monotonic() >= self._good_until:
                index = self._snapshot.index
                try:
                    check_digest(index.path)
                    self._good_until = time.monotonic() + _RECHECK_SECONDS
                except CatalogError as exc:
                    if index is self._snapshot.index:
                        self.damage = self._told(exc)
                    LOG.error("%s", exc)  # noqa: TRY400 - the message says all
            return self.damage

    def _told(self, exc: Exception) -> str:
        """Return a message for clients, who need not know where the catalogue lies."""
        return str(exc).replace(f"{self.folder.path.resolve()}/", "").replace(f"{self.folder.path}/", "")

    def _look(self) -> tuple[int, int, int]:
        try:
            found = os.stat(self.folder.index_path)  # noqa: PTH116 - a third of Path.stat's cost
        except OSError:
            self.folder.open_index()  # says what is wrong
            raise
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _open(self) -> Snapshot:
        index = self.folder.open_index()
        check_digest(index.path)
        digest = recorded_digest(index.path)
        if digest is None:  # a catalogue of an earlier version
            found = index.path.stat()
            digest = f"{found.st_mtime_ns:x}{found.st_size:x}"
        # Not a time: clocks go back, and copies on other servers keep their ETags.
        return Snapshot(index, digest)
