"""Whether the index in force is what its build wrote, and whether it can be read."""

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
"""Between two checks of an index that was found good."""


class Integrity:
    """What is known of the index in force; for threads.

    Parameters
    ----------
    home
        Where the catalogue lies: a folder, or ``s3://bucket/prefix``. Clients are not told.
    """

    def __init__(self, home: str) -> None:
        self._home = home
        self._good_until = 0.0
        self._renewed = 0
        self._checking = threading.Lock()
        self.damage: str | None = None
        """What is wrong with the index in force, since it was last looked at; None if nothing is."""

    def renew(self) -> None:
        """Forget what was found: another index is in force."""
        self._renewed += 1
        self.damage, self._good_until = None, 0.0

    def check(self, snapshot: IndexSnapshot) -> str | None:
        """Return what is wrong with the index in force, None if nothing is.

        It reads the whole file, so an index that was found good is not looked at again for a minute.
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
        """Return a message for clients, who need not know where the catalogue lies."""
        said = str(exc)
        for place in (Path(self._home).resolve(), self._home, snapshot.index.path.parent):
            said = said.replace(f"{place}/", "")
        return said

    def probe(self, snapshot: IndexSnapshot) -> None:
        """Try whether searches can be answered.

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
