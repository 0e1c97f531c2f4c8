"""Blocks of a store, spilled to disk by year, and the tile-years that lie in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog_builder.build.staging.merge import Spill
from catalog_builder.manifests.part import Subset, tile_table
from catalog_builder.tile import grid
from catalog_builder.tile.blocks import BlockGrid, tiles_in_blocks

_ROW_BITS = _COL_BITS = 20


class BlockStaging:
    """A folder of spilled blocks: memory holds those of one year at a time.

    Parameters
    ----------
    directory
        Where to spill; a private folder is created in it and removed by :meth:`close`.
    grid_of
        Returns the grid of an EPSG code.
    """

    def __init__(self, directory: Path | None, grid_of: Callable[[int], BlockGrid]) -> None:
        self._dir = TemporaryDirectory(prefix="tessera-blocks-", dir=directory)
        self._grid_of = grid_of
        self._spills: dict[int, Spill] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for spill in self._spills.values():
            spill.close()
        self._dir.cleanup()

    def add(self, blocks: pa.Table) -> None:
        """Spill blocks, :data:`~catalog_builder.tile.blocks.BLOCK_SCHEMA`."""
        of_row = blocks["year"].to_numpy()
        found = np.unique(of_row)
        for year in found.tolist():
            rows = blocks if len(found) == 1 else blocks.filter(pa.array(of_row == year))
            if year not in self._spills:
                self._spills[year] = Spill(Path(self._dir.name) / f"{year}.arrow")
            self._spills[year].add(rows)

    def years(self) -> list[int]:
        """Return the years that have blocks, ascending."""
        return sorted(self._spills)

    def tiles(self, year: int, land: npt.NDArray[np.bool_], subset: Subset) -> pa.Table:
        """Return the tile-years of a year that have pixels in an embedded block, ``TILE_SCHEMA``.

        Parameters
        ----------
        land
            Cells that are on the list of land, (6,480,000).
        subset
            Which of them are wanted.
        """
        blocks = _newest(self._spills[year].read())
        epsg = blocks["epsg"].to_numpy()
        edges = np.flatnonzero(np.diff(epsg, prepend=-1, append=-1))
        cells, shares = [], []
        world = land.reshape(grid.N_ROWS, grid.N_COLS)
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            of = self._grid_of(int(epsg[start]))
            rows, cols = of.tiles()
            row, col = np.nonzero(world[rows, cols])
            cell = grid.cells((row + rows.start).astype(np.int32), (col + cols.start).astype(np.int32))
            found, share = tiles_in_blocks(blocks.slice(start, stop - start), of, cell)
            cells.append(found)
            shares.append(share)
        cell = np.concatenate(cells) if cells else np.zeros(0, np.int32)
        share = np.concatenate(shares) if shares else np.zeros(0)
        order = np.argsort(cell)
        return store_tiles(cell[order], year, share[order], subset)


def store_tiles(
    cell: grid.Cells, year: int, refused: npt.NDArray[np.float64] | None, subset: Subset
) -> pa.Table:
    """Return tile-years that are windows of a store, as far as they are wanted.

    Parameters
    ----------
    refused
        Share of refused pixels, at most, (n,); NaN where unknown. None if nothing is known.
    """
    lat_i, lon_i = grid.centres(*grid.rows_cols(cell))
    n = len(cell)
    table = tile_table(
        lat_i,
        lon_i,
        np.full(n, year, np.int16),
        has_npy=pa.repeat(False, n),
        in_store=pa.repeat(True, n),
        **({} if refused is None else {"refused_fraction": pa.array(refused, mask=np.isnan(refused))}),
    )
    keep = subset.keeps(lat_i, lon_i)
    return table if keep is None else table.filter(pa.array(keep))


def _newest(blocks: pa.Table) -> pa.Table:
    """Return each block as its newest row says, sorted by grid; of rows of one time the last one counts."""
    epsg, row, col = (blocks[name].to_numpy().astype(np.int64) for name in ("epsg", "row", "col"))
    key = (epsg << _ROW_BITS | row) << _COL_BITS | col
    time = blocks["assembled_at"].cast(pa.int64()).to_numpy()
    order = np.lexsort((time, key))  # stable: what came later stays later
    last = np.append(key[order][1:] != key[order][:-1], True)
    return blocks.take(pa.array(order[last])).combine_chunks()
