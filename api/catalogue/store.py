"""Protocol of what provides the state of a catalogue, in a folder, in S3, or in a database.

A build replaces the catalogue atomically. A store notices it and provides a new
:class:`~api.catalogue.snapshot.Snapshot`; requests in progress keep the one they started with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from fastapi import FastAPI

from api.catalogue.snapshot import AnySnapshot, IndexSnapshot
from catalog_builder import storage
from catalog_builder.errors import StorageError
from catalog_builder.tile import grid


class Store(Protocol):
    """Provides the current snapshot of a catalogue, and its state of health."""

    @property
    def home(self) -> str:
        """Location of the catalogue's files: a folder, or ``s3://bucket/prefix``."""

    @property
    def refused(self) -> str | None:
        """Why the newest build is not in service; None if it is."""

    @property
    def damage(self) -> str | None:
        """Known damage of the index being served, as of the last check; None if there is none."""

    def current(self) -> AnySnapshot:
        """Return the newest snapshot.

        Raises
        ------
        UnavailableError
            If there is none yet.
        """

    def check(self) -> str | None:
        """Check the index being served for damage; None if there is none. Call it from a thread."""

    async def probe(self) -> None:
        """Check whether searches can be served.

        Raises
        ------
        UnavailableError
            If they cannot.
        """

    def health(self) -> dict[str, Any]:
        """Return the state of the catalogue's location, for the health page."""

    def metrics(self) -> Iterator[str]:
        """Yield metrics of the catalogue's location in Prometheus' format."""

    def attach(self, app: FastAPI) -> None:
        """Context of the running application."""


class IndexStore(Store, Protocol):
    """A store whose snapshots have an index to search in."""

    def current(self) -> IndexSnapshot:
        """Return the newest snapshot."""


def warm_up(snapshot: AnySnapshot) -> None:
    """Do what takes long once before the first request: it would hold up the event loop.

    The raster table takes 0.2 s. Where files are in S3, their URLs need boto3, whose import takes a second.
    """
    grid.rasters(np.zeros(1, np.int64), np.zeros(1, np.int64))
    for record in snapshot.collections.values():
        of = record.addresses
        for root in (of.source, of.landmasks, of.data, record.source_root, record.landmask_root):
            if storage.scheme(root) == "s3":
                with contextlib.suppress(StorageError):  # said when it is asked for
                    storage.https_address(root)
