"""The counts per block of each year of an index, read once."""

from __future__ import annotations

import numpy as np

from catalog_builder.catalog.index.blocks import N_BLOCK_COLS, N_BLOCK_ROWS, Blocks
from catalog_builder.catalog.index.keys import rows_cols, year_span
from catalog_builder.catalog.index.search.connection import Connections


class YearBlocks:
    """Counts of tile-years per block of 1 degree, by collection and year."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._made: dict[tuple[int, int], Blocks] = {}

    def of(self, ordinal: int, year: int) -> Blocks:
        """Return the counts per block of a collection's year; read once."""
        made = self._made.get((ordinal, year))
        if made is None:
            counts = np.zeros((N_BLOCK_ROWS, N_BLOCK_COLS), np.int32)
            found = self._connections.rows(
                "SELECT key, n FROM block WHERE key BETWEEN ? AND ?", year_span(ordinal, year)
            )
            if found:
                keys, n = np.array(found, np.int64).T
                counts[rows_cols(keys)] = n
            made = self._made[ordinal, year] = Blocks(counts)
        return made
