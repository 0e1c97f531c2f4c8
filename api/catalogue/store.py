"""The catalogue as the server holds it: an open index, and what is made from it once.

A build replaces the catalogue by renaming a link. :class:`Store` looks at it now and then and hands
out a new :class:`Snapshot`; requests under way keep the one they started with.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI

from api.access import Access
from api.catalogue.memory import forget_soon
from catalog_builder.catalog.digest import check_digest, recorded_digest
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.catalog.index.reader import Index
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.catalog.index.selection import Selection
from catalog_builder.errors import CatalogError, QueryTimeoutError, UnavailableError
from catalog_builder.tile import grid

LOG = logging.getLogger("tessera_stac")
T = TypeVar("T")

REMEMBERED = 256
"""Answers to requests kept per snapshot: clients choose what they ask and by which host name."""
_WAIT_SECONDS = 0.05
"""How long a request waits for a new build to be checked: a small one is in force at once."""
_RECHECK_SECONDS = 60.0
"""Between two checks of an index that was found good."""


class Renewable(ABC):
    """Something made of a build that takes seconds, see :meth:`Snapshot.once`."""

    @abstractmethod
    def renew(self, snapshot: Snapshot) -> None:
        """Make the same of another build."""


class Snapshot:
    """One build of the catalogue, open for reading."""

    def __init__(
        self,
        index: Index,
        generation: str,
        built: float | None = None,
        home: str = "",
        access: Access = "https",
    ) -> None:
        self.index = index
        self.access: Access = access
        """How the server answers for files below ``home``."""
        self.home = home
        """s3 address of the catalogue; empty if it is a folder."""
        self.generation = generation
        """Differs between builds; part of every ETag."""
        self.built = built
        """When the index was written, in seconds since 1970; None if that is not known."""
        self.collections: dict[str, CollectionRecord] = index.collections
        """Of tiles, by id."""
        self.documents: Mapping[str, str] = index.documents
        """Every collection's STAC document, by id, with ``{root}`` for the address of the service."""
        self.years: tuple[int, ...] = tuple(
            sorted({year for record in self.collections.values() for year in record.years})
        )
        """Of all collections."""
        self._made: dict[Hashable, Any] = {}
        self._asked: OrderedDict[Hashable, Any] = OrderedDict()
        self._retired = False
        self._lock = threading.Lock()

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what ``make`` returned for this key before, or now, kept as long as the build is in force.

        For what the catalogue bounds: a thing of its own, or one a collection.
        """
        with self._lock:
            if key in self._made:
                found: T = self._made[key]
                return found
        made = make()
        with self._lock:
            # two may have made it at the same time: all go on with the same one
            return made if self._retired else self._made.setdefault(key, made)

    def remember(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what ``make`` returned for this key before, or now; the least recently used are dropped.

        For what requests bound: apart from :meth:`once`, so that many small answers do not push out a map.
        """
        with self._lock:
            if key in self._asked:
                self._asked.move_to_end(key)
                found: T = self._asked[key]
                return found
        made = make()
        with self._lock:
            if not self._retired:
                self._asked[key] = made
                if len(self._asked) > REMEMBERED:
                    self._asked.popitem(last=False)
        return made

    def follow(self, old: Snapshot) -> None:
        """Make what was made of another build and takes seconds: call it before this one is in force.

        Else every request that needs it would wait, each in a thread with a connection of its own.
        """
        with old._lock:
            made = [each for each in old._made.values() if isinstance(each, Renewable)]
        for each in made:
            each.renew(self)

    def retire(self) -> None:
        """Forget what was made; what is made from now on is not kept.

        Some of it holds the snapshot. Without it the index is closed as soon as the last request that
        uses it ends, not whenever the garbage collector looks.
        """
        with self._lock:
            self._made.clear()
            self._asked.clear()
            self._retired = True
        forget_soon()


class Store:
    """Gives the current snapshot of a catalogue folder.

    Parameters
    ----------
    folder
        The catalogue.
    refresh_seconds
        How often, at most, to look whether it was built anew; with 0 whoever asks waits for a new build.
    failed
        Called whenever a look finds a catalogue that cannot be read.

    Raises
    ------
    CatalogError
        If there is no catalogue, or of another version, or it is damaged.
    """

    refused: str | None = None
    """Why the newest build is not in force; None if it is."""
    damage: str | None = None
    """What is wrong with the index in force, since it was last looked at; None if nothing is."""
    _good_until = 0.0
    _checking = threading.Lock()

    def __init__(
        self, folder: Path, refresh_seconds: float, failed: Callable[[], None] = lambda: None
    ) -> None:
        self.folder = CatalogFolder(folder)
        self.home = str(folder)
        """Address of the catalogue: its folder, or ``s3://bucket/prefix``."""
        self._refresh = refresh_seconds
        self._failed = failed
        self._looked = time.monotonic()
        self._identity = self._look()
        self._snapshot = self._open()
        self._opening: threading.Thread | None = None
        warm_up()

    def current(self) -> Snapshot:
        """Return the newest snapshot; looks at most every ``refresh_seconds``.

        While a new build is being opened it is the one before, unless ``refresh_seconds`` is 0.
        """
        now = time.monotonic()
        if now - self._looked >= self._refresh:
            self._looked = now
            try:
                identity = self._look()
            except (OSError, CatalogError) as exc:
                self._refuse(exc)  # in the middle of a change, or gone: what is open stays good
                return self._snapshot
            opening = self._opening
            begun = opening is None and identity != self._identity
            if begun:
                # Not here: reading a large index for its digest takes a second or two.
                self._opening = opening = threading.Thread(target=self._renew, args=(identity,), daemon=True)
                opening.start()
            if opening is not None and (begun or not self._refresh):
                opening.join(_WAIT_SECONDS if self._refresh else None)
        return self._snapshot

    def health(self) -> dict[str, Any]:
        """Return what is to be said of the catalogue's place."""
        return {}

    def metrics(self) -> Iterator[str]:
        """Yield figures of the catalogue's place in Prometheus' format."""
        return iter(())

    def _renew(self, identity: tuple[int, int, int]) -> None:
        """Put a new build in force, unless something is wrong with it: then the old one stays."""
        try:
            old, snapshot = self._snapshot, self._open()
            snapshot.follow(old)
            self._snapshot, self.refused, self.damage, self._good_until = snapshot, None, None, 0.0
            old.retire()
        except (OSError, CatalogError) as exc:
            self._refuse(exc)
        finally:
            self._identity = identity
            self._opening = None

    def _refuse(self, exc: Exception) -> None:
        """Note why the newest build is not in force; said once, counted whenever it is found."""
        self._failed()
        reason = self._told(exc)
        if reason != self.refused:
            LOG.warning("the catalogue in use stays, the new one cannot be read: %s", exc)
        self.refused = reason

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
        said = str(exc)
        for place in (Path(self.home).resolve(), self.home, self._snapshot.index.path.parent):
            said = said.replace(f"{place}/", "")
        return said

    def attach(self, app: FastAPI) -> None:
        """Do what is to be done when the application starts and stops: nothing, here."""

    async def probe(self) -> None:
        """Try whether searches can be answered.

        Raises
        ------
        UnavailableError
            If the index cannot be read.
        """
        try:
            snapshot = self.current()
            first = next(iter(snapshot.collections.values()))
            snapshot.index.page(Selection([first.ordinal]), 1, seconds=1.0)
        except (sqlite3.Error, QueryTimeoutError, StopIteration) as exc:
            raise UnavailableError(f"the index cannot be read ({exc})") from exc
        if self.damage is not None:
            raise UnavailableError(self.damage)

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
        found = index.path.stat()
        # Not a time, if it can be: clocks go back, and copies on other servers keep their ETags.
        digest = recorded_digest(index.path) or f"{found.st_mtime_ns:x}{found.st_size:x}"
        return Snapshot(index, digest, found.st_mtime)


def warm_up() -> None:
    """Make the raster table, which costs 0.2 s once: not in the first request."""
    grid.rasters(np.zeros(1, np.int64), np.zeros(1, np.int64))
