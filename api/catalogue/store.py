"""What gives the state of a catalogue, wherever it lies: in a folder, in S3, or in a database.

A build replaces the catalogue in one step. A store notices it and hands out a new
:class:`~api.catalogue.snapshot.Snapshot`; requests under way keep the one they started with.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from fastapi import FastAPI

from api.catalogue.snapshot import AnySnapshot, IndexSnapshot
from catalog_builder.tile import grid


class Store(Protocol):
    """Gives the current snapshot of a catalogue, and says how it is."""

    @property
    def home(self) -> str:
        """Where the catalogue's files are: a folder, or ``s3://bucket/prefix``."""

    @property
    def refused(self) -> str | None:
        """Why the newest build is not in force; None if it is."""

    @property
    def damage(self) -> str | None:
        """What is wrong with the index in force, since it was last looked at; None if nothing is."""

    def current(self) -> AnySnapshot:
        """Return the newest snapshot.

        Raises
        ------
        UnavailableError
            If there is none yet.
        """

    def check(self) -> str | None:
        """Look what is wrong with the index in force, None if nothing is; call it from a thread."""

    async def probe(self) -> None:
        """Try whether searches can be answered.

        Raises
        ------
        UnavailableError
            If they cannot.
        """

    def health(self) -> dict[str, Any]:
        """Return what is to be said of the catalogue's place."""

    def metrics(self) -> Iterator[str]:
        """Yield figures of the catalogue's place in Prometheus' format."""

    def attach(self, app: FastAPI) -> None:
        """Do what is to be done when the application starts and stops."""


class IndexStore(Store, Protocol):
    """A store whose snapshots have an index to search in."""

    def current(self) -> IndexSnapshot:
        """Return the newest snapshot."""


def warm_up() -> None:
    """Make the raster table, which costs 0.2 s once: not in the first request."""
    grid.rasters(np.zeros(1, np.int64), np.zeros(1, np.int64))
