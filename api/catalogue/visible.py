"""The catalogue as the reader who is asking may see it: the one place where visibility enters.

Every endpoint takes the catalogue from a store. With access control it is this one, whose snapshot has the
visible collections only: searches, counts, pages and files of others find nothing, as if there were none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from fastapi import FastAPI

from api.catalogue.snapshot import Snapshot
from api.catalogue.store import Store
from api.readers.reader import ASKING, Privacy


class _Source[S: Snapshot](Store, Protocol):
    """A store of one kind of snapshots."""

    def current(self) -> S:  # type: ignore[override]
        """Return the newest snapshot."""


class VisibleStore[S: Snapshot]:
    """A :class:`~api.catalogue.store.Store` that shows what :data:`~api.readers.reader.ASKING` may see."""

    def __init__(self, store: _Source[S], privacy: Privacy) -> None:
        self._store = store
        self._privacy = privacy

    def current(self) -> S:
        """Return the newest snapshot, with the collections that the reader may see."""
        whole = self._store.current()
        return whole.only(self._privacy.seen(whole.documents, ASKING.get()))

    @property
    def home(self) -> str:
        """Location of the catalogue's files."""
        return self._store.home

    @property
    def refused(self) -> str | None:
        """Why the newest build is not in service."""
        return self._store.refused

    @property
    def damage(self) -> str | None:
        """Known damage of the index being served."""
        return self._store.damage

    def check(self) -> str | None:
        """Check the index being served for damage."""
        return self._store.check()

    async def probe(self) -> None:
        """Check whether searches can be served."""
        await self._store.probe()

    def health(self) -> dict[str, Any]:
        """Return the state of the catalogue's location."""
        return self._store.health()

    def metrics(self) -> Iterator[str]:
        """Yield metrics of the catalogue's location."""
        return self._store.metrics()

    def attach(self, app: FastAPI) -> None:
        """Prepare the store in the running application."""
        self._store.attach(app)
