"""Vectors as rows of a table: the columns of the labels, a status, and the vector."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from catalog_builder.convert.encode.quantize import quantize
from catalog_builder.errors import QueryError
from catalog_builder.vectors.points.options import PointOptions, PointYear
from catalog_builder.vectors.points.vectors import Indices, Outcome
from catalog_builder.vectors.tables.read import Points
from catalog_builder.vectors.tables.write import VECTOR, TableFormat, geo_metadata, lists

VectorType = Literal["float32", "float16", "int8"]
VECTOR_TYPES: tuple[VectorType, ...] = ("float32", "float16", "int8")
OUTCOMES = np.array([outcome.text for outcome in Outcome])


@dataclass(frozen=True, slots=True)
class RowOptions:
    """How vectors stand in a table.

    Raises
    ------
    QueryError
        If there is no such type.
    """

    dtype: VectorType = "float32"
    """``int8``: codes, which times the column ``scale`` are values."""
    columns: bool = False
    """A column for each dimension, ``b000`` and so on, instead of one column of lists."""

    def __post_init__(self) -> None:
        """Reject other types."""
        if self.dtype not in VECTOR_TYPES:
            raise QueryError(f"dtype: expected one of {', '.join(VECTOR_TYPES)}, found '{self.dtype}'")


class Rows:
    """The rows of labelled points: one for each point and year.

    Parameters
    ----------
    labels
        The points.
    options
        What is read.
    row_options
        How it is written.
    kind
        Where it is written: CSV has no lists, and only Parquet has geometries.
    """

    def __init__(
        self, labels: Points, options: PointOptions, row_options: RowOptions, kind: TableFormat
    ) -> None:
        self._options, self._dtype = options, row_options.dtype
        self._columns = row_options.columns or kind == "csv"
        if row_options.columns and kind == "npy":
            raise QueryError("columns: a .npy is one array and has no columns")
        self._labels, self._has_geometry = labels, kind == "parquet"
        self._carried = carried(labels.columns, flat=kind in ("csv", "npy"))
        self.schema = self._schema()
        taken = "status" in self._carried.column_names
        self.status = "tessera_status" if taken else "status"
        """Name of the column of statuses."""

    def _schema(self) -> pa.Schema:
        """Return the schema; a name that the labels have is ours with ``tessera_`` before it."""
        taken = set(self._carried.column_names)
        value = pa.from_numpy_dtype(np.dtype(self._dtype))
        ours = [] if self._labels.has_degrees else [("lon", pa.float64()), ("lat", pa.float64())]
        ours += [("year", pa.int32()), ("status", pa.string()), ("reason", pa.string())]
        ours += [("distance", pa.float32())] * bool(self._options.nearest)
        ours += [("pixels", pa.int32())] * (self._options.window > 1)
        ours += [("scale", pa.float32())] * (self._dtype == "int8")
        if self._columns:
            ours += [(f"b{band:03d}", value) for band in self._options.bands]
        else:
            ours.append((VECTOR, pa.list_(value, len(self._options.bands))))
        ours += [("geometry", pa.binary())] * self._has_geometry
        reserved = {VECTOR, "geometry"} & taken
        if reserved:
            raise QueryError(f"the labels have a column '{reserved.pop()}': name it otherwise")
        fields = [pa.field(f"tessera_{n}" if n in taken else n, kind) for n, kind in ours]
        schema = pa.schema([*self._carried.schema.remove_metadata(), *fields])
        if not self._has_geometry:
            return schema
        lon, lat = self._labels.lon, self._labels.lat
        bounds = (float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max()))
        return schema.with_metadata(geo_metadata(["Point"], bounds))

    def batch(self, found: PointYear, part: Indices) -> pa.RecordBatch:
        """Return rows of a year.

        Parameters
        ----------
        found
            A year.
        part
            Which of its points, by position.
        """
        points = found.at[part]
        valid = found.outcome[part] == Outcome.VALID
        reasons = [found.reasons.get(int(i)) for i in part] if found.reasons else [None] * len(part)
        lon, lat = self._labels.lon[points], self._labels.lat[points]
        arrays: list[Any] = [
            *(column.combine_chunks() for column in self._carried.take(pa.array(points)).columns),
            *(() if self._labels.has_degrees else (pa.array(lon), pa.array(lat))),
            pa.array(np.full(len(part), found.year, np.int32)),
            pa.array(OUTCOMES[found.outcome[part]], pa.string()),
            pa.array(reasons, pa.string()),
        ]
        if found.distance is not None:
            arrays.append(pa.array(found.distance[part], mask=~valid))
        if found.pixels is not None:
            arrays.append(pa.array(found.pixels[part]))
        vectors, scales = self._vectors(found, part)
        if scales is not None:
            arrays.append(pa.array(scales, mask=~valid))
        if self._columns:
            arrays += [pa.array(np.ascontiguousarray(column), mask=~valid) for column in vectors.T]
        else:
            arrays.append(lists(vectors, valid))
        if self._has_geometry:
            arrays.append(pa.array(shapely.to_wkb(shapely.points(lon, lat)), pa.binary()))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _vectors(
        self, found: PointYear, part: Indices
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]:
        """Return vectors (n, bands) of the type asked for, and scales of codes."""
        if self._dtype != "int8":
            return found.vectors.dequantized(part).astype(self._dtype, copy=False), None
        if found.vectors.codes is not None:
            return found.vectors.codes[part], found.vectors.scales[part]
        return quantize(found.vectors.dequantized(part))


def carried(columns: pa.Table, *, flat: bool) -> pa.Table:
    """Return the columns of labels as they are written; in a text file what is nested as JSON."""
    for i, field in enumerate(columns.schema):
        column = columns.column(i)
        if pa.types.is_dictionary(field.type):
            columns = columns.set_column(i, field.name, column.cast(field.type.value_type))
        elif flat and pa.types.is_nested(field.type):
            texts = [None if v is None else json.dumps(v, default=str) for v in column.to_pylist()]
            columns = columns.set_column(i, field.name, pa.array(texts, pa.string()))
        elif flat and pa.types.is_binary(field.type):
            texts = [None if v is None else v.hex() for v in column.to_pylist()]
            columns = columns.set_column(i, field.name, pa.array(texts, pa.string()))
    return columns
