"""A catalogue folder on the server: checked for new builds on request, at a minimum interval."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from api.catalogue.integrity import Integrity
from api.catalogue.snapshot import IndexSnapshot
from api.catalogue.store import warm_up
from catalog_builder.catalog.digest import check_digest, recorded_digest
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.errors import CatalogError

LOG = logging.getLogger("tessera_stac")

_WAIT_SECONDS = 0.05
"""How long a request waits for a new build to be checked: a small one is in service at once."""


class FolderStore:
    """Provides the current snapshot of a catalogue folder; an :class:`~api.catalogue.store.IndexStore`.

    Parameters
    ----------
    folder
        The catalogue.
    refresh_seconds
        Minimum interval between checks for a new build; with 0, requests wait for a new build.
    failed
        Called whenever a check finds a catalogue that cannot be read.

    Raises
    ------
    CatalogError
        If there is no catalogue, or of another version, or it is damaged.
    """

    refused: str | None = None
    """Why the newest build is not in service; None if it is."""

    def __init__(
        self, folder: Path, refresh_seconds: float, failed: Callable[[], None] = lambda: None
    ) -> None:
        self.folder = CatalogFolder(folder)
        self.home = str(folder)
        self._integrity = Integrity(self.home)
        self._refresh = refresh_seconds
        self._failed = failed
        self._looked = time.monotonic()
        self._identity = self._look()
        self._snapshot = self._open()
        self._opening: threading.Thread | None = None

    @property
    def damage(self) -> str | None:
        """Known damage of the index being served, as of the last check; None if there is none."""
        return self._integrity.damage

    def current(self) -> IndexSnapshot:
        """Return the newest snapshot; checks at most every ``refresh_seconds``.

        While a new build is being opened it is the previous one, unless ``refresh_seconds`` is 0.
        """
        now = time.monotonic()
        if now - self._looked >= self._refresh:
            self._looked = now
            try:
                identity = self._look()
            except (OSError, CatalogError) as exc:
                self._refuse(exc)  # in the middle of a change, or gone: the open build stays in service
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

    def check(self) -> str | None:
        """Check the index being served for damage; None if there is none. Call it from a thread."""
        return self._integrity.check(self._snapshot)

    async def probe(self) -> None:
        """Check whether searches can be served; see :class:`api.catalogue.store.Store`."""
        self._integrity.probe(self.current())

    def health(self) -> dict[str, Any]:
        """Return nothing: a folder has no state to report."""
        return {}

    def metrics(self) -> Iterator[str]:
        """Yield nothing: a folder has no metrics."""
        return iter(())

    def attach(self, app: FastAPI) -> None:
        """Do nothing: a folder needs no preparation."""

    def _renew(self, identity: tuple[int, int, int]) -> None:
        """Put a new build into service, unless it is damaged: then the old one stays."""
        try:
            old, snapshot = self._snapshot, self._open()
            snapshot.follow(old)
            self._snapshot, self.refused = snapshot, None
            self._integrity.renew()
            old.retire()
        except (OSError, CatalogError) as exc:
            self._refuse(exc)
        finally:
            self._identity = identity
            self._opening = None

    def _refuse(self, exc: Exception) -> None:
        """Record why the newest build is not in service; logged once, counted at every check."""
        self._failed()
        reason = self._integrity.told(exc, self._snapshot)
        if reason != self.refused:
            LOG.warning("the current catalogue stays in service; the new one cannot be read: %s", exc)
        self.refused = reason

    def _look(self) -> tuple[int, int, int]:
        try:
            found = os.stat(self.folder.index_path)  # noqa: PTH116 - a third of Path.stat's cost
        except OSError:
            self.folder.open_index()  # says what is wrong
            raise
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _open(self) -> IndexSnapshot:
        index = self.folder.open_index()
        check_digest(index.path)
        found = index.path.stat()
        # Not a time, if possible: clocks go back, and copies on other servers keep their ETags.
        digest = recorded_digest(index.path) or f"{found.st_mtime_ns:x}{found.st_size:x}"
        snapshot = IndexSnapshot(index, digest, found.st_mtime)
        warm_up(snapshot)  # of later builds too: in their thread
        return snapshot
