"""What is in a file of vectors: geometries or columns of coordinates, attributes, and the CRS."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from catalog_builder.errors import VectorFileError
from catalog_builder.tile.regions.crs import Geometries

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Layer:
    """What is in a file, or in the body of a request."""

    path: str
    """Its name in messages."""
    columns: pa.Table
    crs: Any
    """Anything pyproj takes; None if the file does not say."""
    wkb: pa.Array | None = None
    """Geometries; None if columns have the coordinates."""
    text: Callable[[], TextIO] | None = None
    """Opens a file of lines, so that rows are found by their line."""

    def row(self, i: int) -> str:
        """Return how people find a row in the file."""
        if self.text is None:
            return f"row {i + 1}"
        with self.text() as lines:
            return f"line {_line(lines, i)}"

    def geometries(self) -> Geometries:
        """Return the geometries, None where a row has none; empty if columns have the coordinates.

        Raises
        ------
        VectorFileError
            If one cannot be read, or there are no rows.
        """
        texts = self.wkb.to_numpy(zero_copy_only=False) if self.wkb is not None else np.empty(0, object)
        try:
            found: Geometries = shapely.from_wkb(texts)
        except shapely.errors.ShapelyError as error:
            raise VectorFileError(f"{self.path}: a geometry cannot be read: {error}") from error
        if not len(found):
            raise VectorFileError(f"{self.path}: has no rows")
        return found

    def refuse(self, bad: npt.NDArray[np.bool_], why: Callable[[int], str]) -> None:
        """Reject a file with bad rows, and name the first of them.

        Raises
        ------
        VectorFileError
            If there is one.
        """
        rows = np.flatnonzero(bad).tolist()
        if not rows:
            return
        others = ", ".join(self.row(i) for i in rows[1:_SHOWN])
        more = f" ({len(rows):,} rows, also {others}{', …' if len(rows) > _SHOWN else ''})" if others else ""
        raise VectorFileError(f"{self.path}, {self.row(rows[0])}: {why(rows[0])}{more}")


def delimiter_of(text: TextIO) -> str:
    """Return what is between the fields of a table of text, by its first line."""
    first = text.readline()
    return max(",;\t", key=first.count)


def kind_of(geometry: Any) -> str:
    """Return the type of a geometry in words."""
    return "nothing" if geometry is None else f"a {geometry.geom_type.lower()}"


def _line(text: TextIO, row: int) -> int:
    """Return the line of a row of a CSV file, empty lines counted."""
    delimiter = delimiter_of(text)
    text.seek(0)
    reader = csv.reader(text, delimiter=delimiter)
    seen = -1
    for record in reader:
        seen += bool(record)
        if seen == row + 1:
            return reader.line_num
    return row + 2
