"""Integrity of the index being served: whether it is readable and what its build wrote."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from pathlib import Path

from api.catalogue.snapshot import IndexSnapshot
from catalog_builder.catalog.digest import check_digest
from catalog_builder.catalog.index.search.selection import Selection
from catalog_builder.errors import CatalogError, QueryTimeoutError, UnavailableError

LOG = logging.getLogger("tessera_stac")

_RECHECK_SECONDS = 60.0
"""Seconds between two checks of an index that was found intact."""


class Integrity:
    """The known state of the index being served; thread-safe.

    Parameters
    ----------
    home
        Location of the catalogue: a folder, or ``s3://bucket/prefix``. Not disclosed to clients.
    """

    def __init__(self, home: str) -> None:
        self._home = home
        self._good_until = 0.0
        self._renewed = 0
        self._checking = threading.Lock()
        self.damage: str | None = None
        """Known damage of the index being served, as of the last check; None if there is none."""

    def renew(self) -> None:
        """Reset: another index is in service."""
        self._renewed += 1
        self.damage, self._good_until = None, 0.0

    def check(self, snapshot: IndexSnapshot) -> str | None:
        """Check the index being served for damage; None if there is none.

        It reads the whole file, so an index that was found intact is not checked again for a minute.
        """
        with self._checking:
            if self.damage is None and time.monotonic() >= self._good_until:
                renewed = self._renewed
                try:
                    check_digest(snapshot.index.path)
                    self._good_until = time.monotonic() + _RECHECK_SECONDS
                except CatalogError as exc:
                    if renewed == self._renewed:  # else it is out of force already
                        self.damage = self.told(exc, snapshot)
                    LOG.error("%s", exc)  # noqa: TRY400 - the message says all
            return self.damage

    def told(self, exc: Exception, snapshot: IndexSnapshot) -> str:
        """Return a message for clients, without the location of the catalogue."""
        said = str(exc)
        for place in (Path(self._home).resolve(), self._home, snapshot.index.path.parent):
            said = said.replace(f"{place}/", "")
        return said

    def probe(self, snapshot: IndexSnapshot) -> None:
        """Check whether searches can be served.

        Raises
        ------
        UnavailableError
            If the index cannot be read, or was found damaged.
        """
        try:
            first = next(iter(snapshot.collections.values()))
            snapshot.index.page(Selection([first.ordinal]), 1, seconds=1.0)
        except (sqlite3.Error, QueryTimeoutError, StopIteration) as exc:
            raise UnavailableError(f"the index cannot be read ({exc})") from exc
        if self.damage is not None:
            raise UnavailableError(self.damage)
