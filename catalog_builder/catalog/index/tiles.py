"""Protocol of what knows the tile-years: an index, or a database whose loaded tiles are in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from catalog_builder.catalog.index.blocks import Blocks
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.tile import grid
from catalog_builder.tile.cover import Runs


class Tiles(Protocol):
    """Collections, and the years of their tiles.

    :class:`~catalog_builder.catalog.index.reader.Index` is an implementation that also has their rows.
    """

    @property
    def collections(self) -> Mapping[str, CollectionRecord]:
        """Records of the collections of tiles, by id."""

    @property
    def by_ordinal(self) -> Mapping[int, CollectionRecord]:
        """The same by ordinal."""

    @property
    def documents(self) -> Mapping[str, str]:
        """STAC documents (JSON) of all collections, by id, with ``{root}`` for the URL of the service."""

    def has_tile(self, key: int) -> int:
        """Return a non-zero number if the tile-year exists."""

    def first_tiles(
        self, ordinal: int, limit: int, *, year: int | None = None, runs: Runs | None = None
    ) -> list[tuple[int, grid.TileId]]:
        """Return (year, tile) of the first tile-years of a collection, of a year and of some cells."""

    def blocks(self, ordinal: int, year: int) -> Blocks:
        """Return the counts per block of 1 degree of a collection's year."""

    def coverage(self, ordinal: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint32]]:
        """Return the distinct cells of a collection (row * 3600 + column, ascending) and their years."""
