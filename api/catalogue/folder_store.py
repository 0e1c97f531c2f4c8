"""A catalogue in a folder as the server holds it: looked at when somebody asks, at most every so often."""

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
"""How long a request waits for a new build to be checked: a small one is in force at once."""


class FolderStore:
    """Gives the current snapshot of a catalogue folder; an :class:`~api.catalogue.store.IndexStore`.

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
        warm_up()

    @property
    def damage(self) -> str | None:
        """What is wrong with the index in force, since it was last looked at; None if nothing is."""
        return self._integrity.damage

    def current(self) -> IndexSnapshot:
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

    def check(self) -> str | None:
        """Return what is wrong with the index in force, None if nothing is; call it from a thread."""
        return self._integrity.check(self._snapshot)

    async def probe(self) -> None:
        """Try whether searches can be answered; see :class:`api.catalogue.store.Store`."""
        self._integrity.probe(self.current())

    def health(self) -> dict[str, Any]:
        """Say nothing of the folder."""
        return {}

    def metrics(self) -> Iterator[str]:
        """Yield nothing: a folder has no figures."""
        return iter(())

    def attach(self, app: FastAPI) -> None:
        """Do nothing: a folder needs no preparation."""

    def _renew(self, identity: tuple[int, int, int]) -> None:
        """Put a new build in force, unless something is wrong with it: then the old one stays."""
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
        """Note why the newest build is not in force; said once, counted whenever it is found."""
        self._failed()
        reason = self._integrity.told(exc, self._snapshot)
        if reason != self.refused:
            LOG.warning("the catalogue in use stays, the new one cannot be read: %s", exc)
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
        # Not a time, if it can be: clocks go back, and copies on other servers keep their ETags.
        digest = recorded_digest(index.path) or f"{found.st_mtime_ns:x}{found.st_size:x}"
        return IndexSnapshot(index, digest, found.st_mtime)
