"""A catalogue in S3 on the server: its index in a local cache, refreshed in the background.

No request waits for S3. A thread checks periodically whether a new build was published; if so it
downloads the index and provides a new snapshot. If S3 is unreachable, the open build stays in service, and
the log, the health page and the metrics say so.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from api.access import Access
from api.catalogue.integrity import Integrity
from api.catalogue.snapshot import IndexSnapshot
from api.catalogue.store import warm_up
from catalog_builder.catalog.bucket import POINTER, BucketCatalog, Pointer
from catalog_builder.catalog.index.reader import Index
from catalog_builder.errors import CatalogError, StorageError

LOG = logging.getLogger("tessera_stac")


class BucketStore:
    """Provides the current snapshot of a catalogue in S3; an :class:`~api.catalogue.store.IndexStore`.

    Parameters
    ----------
    address
        ``s3://bucket/prefix``.
    refresh_seconds
        Interval between checks for a new build; 0 disables them.
    cache
        Folder for indexes, which other processes may share; None: the user's cache folder.
    access
        How the server serves the catalogue's files.
    failed
        Called when S3 could not be checked.

    Raises
    ------
    CatalogError
        If there is no catalogue, or of another version.
    StorageError
        If S3 does not respond: without an index nothing can be served.
    """

    refused: str | None = None
    """Always None: a newer build that cannot be opened is reported by :meth:`health`."""

    def __init__(
        self,
        address: str,
        refresh_seconds: float,
        cache: Path | None = None,
        access: Access = "https",
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._failed = failed
        self._access: Access = access
        self.home = address.rstrip("/")
        self._integrity = Integrity(self.home)
        self._catalog = BucketCatalog(self.home, cache)
        found = self._catalog.pointer()
        if found is None:
            raise CatalogError(f"{self.home}: no catalogue ({POINTER} is missing); see 'tessera-stac build'")
        self._tag = found.tag
        self._snapshot = self._open(found)
        self._looked = time.time()
        self._failures = 0
        self._trouble = ""
        self._stop = threading.Event()
        warm_up(self._snapshot)
        if refresh_seconds:
            thread = threading.Thread(target=self._watch, args=(refresh_seconds,), daemon=True)
            thread.name = "catalogue in S3"
            thread.start()

    @property
    def damage(self) -> str | None:
        """Known damage of the index being served, as of the last check; None if there is none."""
        return self._integrity.damage

    def current(self) -> IndexSnapshot:
        """Return the newest snapshot, without waiting."""
        return self._snapshot

    def check(self) -> str | None:
        """Check the index being served for damage; None if there is none. Call it from a thread."""
        return self._integrity.check(self._snapshot)

    async def probe(self) -> None:
        """Check whether searches can be served; see :class:`api.catalogue.store.Store`."""
        self._integrity.probe(self._snapshot)

    def attach(self, app: FastAPI) -> None:
        """Do nothing: the background thread is already running."""

    def close(self) -> None:
        """Stop checking."""
        self._stop.set()

    def look(self) -> None:
        """Check S3 for a new build, and provide it if there is one. Never raises: see :meth:`health`."""
        try:
            found = self._catalog.pointer(self._tag)
            if found is not None:
                self._take(found)
                LOG.info("%s: serving build %s", self.home, found.generation)
        except (StorageError, CatalogError, sqlite3.Error, OSError) as error:
            self._failures += 1
            self._failed()
            if not self._trouble:
                LOG.warning("the open build stays in service, but S3 cannot be checked: %s", error)
            self._trouble = str(error)
            return
        if self._trouble:
            LOG.warning("%s: reachable again", self.home)
        self._looked, self._trouble = time.time(), ""

    def health(self) -> dict[str, Any]:
        """Return the catalogue's location, when it was last compared with S3, and the error if that fails."""
        said: dict[str, Any] = {"address": self.home, "checked": round(time.time() - self._looked, 1)}
        return {**said, "failures": self._failures, **({"problem": self._trouble} if self._trouble else {})}

    def metrics(self) -> Iterator[str]:
        """Yield metrics in Prometheus' format."""
        name = "tessera_catalogue_checked_timestamp_seconds"
        yield f"# HELP {name} When S3 last answered."
        yield f"# TYPE {name} gauge"
        yield f"{name} {self._looked:.0f}"

    def _open(self, pointer: Pointer) -> IndexSnapshot:
        index = Index(self._catalog.fetch_index(pointer))
        return IndexSnapshot(index, pointer.generation, pointer.made, self.home, self._access)

    def _take(self, pointer: Pointer) -> None:
        """Put a new build into service."""
        old, snapshot = self._snapshot, self._open(pointer)
        snapshot.follow(old)
        self._snapshot = snapshot
        self._integrity.renew()
        old.retire()
        self._tag = pointer.tag

    def _watch(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            self.look()
