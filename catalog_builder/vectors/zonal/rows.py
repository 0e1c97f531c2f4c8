"""Statistics of polygons as rows of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import shapely

from catalog_builder.errors import QueryError
from catalog_builder.vectors.points.rows import OUTCOMES, carried
from catalog_builder.vectors.points.vectors import Indices, Outcome
from catalog_builder.vectors.tables.read import Polygons
from catalog_builder.vectors.tables.write import TableFormat, geo_metadata, lists
from catalog_builder.vectors.zonal.zonal import ZonalOptions, ZonalYear

ZonalType = Literal["float32", "float16"]
ZONAL_TYPES: tuple[ZonalType, ...] = ("float32", "float16")


@dataclass(frozen=True, slots=True)
class ZonalRowOptions:
    """How statistics stand in a table.

    Raises
    ------
    QueryError
        If there is no such type.
    """

    dtype: ZonalType = "float32"
    columns: bool = False
    """A column for each statistic and dimension, ``mean_b000`` and so on, instead of lists."""

    def __post_init__(self) -> None:
        """Reject other types."""
        if self.dtype not in ZONAL_TYPES:
            raise QueryError(f"dtype: expected one of {', '.join(ZONAL_TYPES)}, found '{self.dtype}'")


class ZonalRows:
    """The rows of polygons: one for each polygon and year.

    Parameters
    ----------
    polygons
        The polygons.
    options
        What is computed.
    row_options
        How it is written.
    kind
        Where it is written: CSV has no lists, and only Parquet has geometries.
    """

    def __init__(
        self, polygons: Polygons, options: ZonalOptions, row_options: ZonalRowOptions, kind: TableFormat
    ) -> None:
        if kind == "npy" and (row_options.columns or not options.vectors):
            raise QueryError("a .npy is one array: it has no columns, and needs a statistic of vectors")
        self._options, self._dtype = options, row_options.dtype
        self._columns = row_options.columns or kind == "csv"
        self._polygons, self._has_geometry = polygons, kind == "parquet"
        self._carried = carried(polygons.columns, flat=kind in ("csv", "npy"))
        taken = set(self._carried.column_names)
        self.status = "tessera_status" if "status" in taken else "status"
        """Name of the column of statuses."""
        self.schema = self._schema(taken)

    def _schema(self, taken: set[str]) -> pa.Schema:
        """Return the schema; a name that the polygons have is ours with ``tessera_`` before it."""
        value = pa.from_numpy_dtype(np.dtype(self._dtype))
        ours = [("year", pa.int32()), ("status", pa.string()), ("reason", pa.string())]
        ours += [("pixels", pa.int64()), ("count", pa.float64()), ("valid_fraction", pa.float64())]
        for name in self._options.vectors:
            if self._columns:
                ours += [(f"{name}_b{band:03d}", value) for band in self._options.bands]
            else:
                ours.append((name, pa.list_(value, len(self._options.bands))))
        if "geometry" in taken and self._has_geometry:
            raise QueryError("the polygons have a column 'geometry': name it otherwise")
        ours += [("geometry", pa.binary())] * self._has_geometry
        fields = [pa.field(f"tessera_{n}" if n in taken else n, kind) for n, kind in ours]
        schema = pa.schema([*self._carried.schema.remove_metadata(), *fields])
        if not self._has_geometry:
            return schema
        west, south, east, north = shapely.total_bounds(self._polygons.geometry).tolist()
        kinds = sorted({geometry.geom_type for geometry in self._polygons.geometry})
        return schema.with_metadata(geo_metadata(kinds, (west, south, east, north)))

    def batch(self, found: ZonalYear, part: Indices) -> pa.RecordBatch:
        """Return rows of a year.

        Parameters
        ----------
        found
            A year.
        part
            Which of its polygons, by position.
        """
        numbers = found.at[part]
        valid = found.outcome[part] == Outcome.VALID
        reasons = [found.reasons.get(int(i)) for i in part] if found.reasons else [None] * len(part)
        arrays: list[Any] = [
            *(column.combine_chunks() for column in self._carried.take(pa.array(numbers)).columns),
            pa.array(np.full(len(part), found.year, np.int32)),
            pa.array(OUTCOMES[found.outcome[part]], pa.string()),
            pa.array(reasons, pa.string()),
            pa.array(found.pixels[part]),
            pa.array(found.count[part]),
            pa.array(found.valid_fraction[part]),
        ]
        for name in self._options.vectors:
            vectors = found.statistics[name][part].astype(self._dtype, copy=False)
            if self._columns:
                arrays += [pa.array(np.ascontiguousarray(column), mask=~valid) for column in vectors.T]
            else:
                arrays.append(lists(vectors, valid))
        if self._has_geometry:
            arrays.append(pa.array(shapely.to_wkb(self._polygons.geometry[numbers]), pa.binary()))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)
