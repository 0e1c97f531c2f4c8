"""The raster of an output, in any CRS."""

from __future__ import annotations

from dataclasses import dataclass

from affine import Affine

from catalog_builder.pixels.window import Window
from catalog_builder.tile.grid import Raster


@dataclass(frozen=True, slots=True)
class Grid:
    """A north-up raster in any CRS."""

    crs: str
    """``EPSG:32633``, or WKT if it has no code."""
    transform: Affine
    height: int
    width: int

    @classmethod
    def of(cls, raster: Raster) -> Grid:
        """Return the grid of a raster in a UTM zone."""
        return cls(f"EPSG:{raster.epsg}", raster.transform, *raster.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.height, self.width

    @property
    def whole(self) -> Window:
        """All of it."""
        return Window(0, 0, self.height, self.width)

    def windows(self, rows: int, cols: int) -> list[Window]:
        """Return windows that cover it, row by row, of at most so many rows and columns."""
        return [
            Window(row, col, min(rows, self.height - row), min(cols, self.width - col))
            for row in range(0, self.height, rows)
            for col in range(0, self.width, cols)
        ]
