"""stac-geoparquet: a collection's items as columns, one file per year.

Rows are in Z-order, so that a row group covers a compact area and a reader with a bbox skips the
rest (GeoParquet 1.1 covering). The columns come from the item template: no item is ever a dict.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from catalog_builder.item.converted import unconverted_slots
from catalog_builder.item.item import TileRows, item_columns
from catalog_builder.item.stored import Store
from catalog_builder.item.template import ArrowRenderer, Columns
from catalog_builder.tile import grid

ROW_GROUP = 20_000
"""Items per row group: the STAC community recommends 10 to 50 thousand."""

_WKB = np.dtype(
    [("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("xy", "<f8", (5, 2))]
)
"""A polygon of one ring of five points, 93 bytes."""


def write_items(
    path: Path,
    cell: npt.NDArray[np.int32],
    rows_at: Callable[[npt.NDArray[np.integer]], TileRows],
    *,
    template: dict[str, Any],
    years: tuple[int, ...],
    collection: dict[str, Any],
    grid_kind: grid.Grid = "utm",
    store: Store | None = None,
) -> None:
    """Write a year's items.

    Parameters
    ----------
    path
        The file to write; not yet visible to readers.
    cell
        Grid cell of each tile-year, row * 3600 + column, any order.
    rows_at
        Returns the tile-years at some positions of ``cell``.
    template
        From :func:`catalog_builder.item.item.item_template`.
    years
        All years of the collection.
    collection
        Its STAC document, stored in the file's metadata.
    grid_kind
        Which raster grid the template describes.
    store
        The collection's store of arrays, if it has one.
    """
    order = np.argsort(z_order(*grid.rows_cols(cell)), kind="stable")
    renderer = ArrowRenderer({k: v for k, v in template.items() if k not in ("geometry", "bbox")})
    writer: pq.ParquetWriter | None = None
    metadata = _metadata(cell, collection)
    try:
        for part in _parts(order):
            batch = rows_at(part)
            columns = unconverted_slots(len(part)) | item_columns(batch, years, grid_kind, store)
            table = _table(renderer.render(columns, batch.has), columns).replace_schema_metadata(metadata)
            if writer is None:
                writer = pq.ParquetWriter(path, table.schema, **_encoding(table.schema))
            writer.write_table(table, row_group_size=ROW_GROUP)
    finally:
        if writer is not None:
            writer.close()


def z_order(row: npt.NDArray[np.integer], col: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """Return the Morton number of grid cells: bits of row and column interleaved (12 each)."""

    def spread(v: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        x = v.astype(np.int32)
        for shift, keep in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
            x = (x | x << shift) & keep
        return x

    result: npt.NDArray[np.int32] = spread(row) << 1 | spread(col)
    return result


_COUNTED = (
    "bbox", "id", "datetime", "proj:code", "tessera:year", "tessera:coverage", "tessera:utm_zone",
    "tessera:cog", "tessera:tile", "tessera:valid_fraction", "tessera:refused_fraction",
)  # fmt: skip
"""Columns with statistics: those that readers filter by."""


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """Choose the encoding of each column: a third less time and size than the defaults.

    Strings that differ in every row share long prefixes with their neighbours (delta encoding);
    hashes share nothing; everything else repeats (dictionaries). Level 1 is as small as level 3 here.
    """
    leaves = [c.path for c in pq.ParquetFile(_empty(schema)).schema]
    hashes = {p for p in leaves if p.endswith("file:checksum")} | {"geometry"}
    texts = {p for p in leaves if p.endswith("href")} | {"id", "title", "tessera:tile"}
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": [p for p in leaves if p not in hashes | texts],
        "column_encoding": dict.fromkeys(sorted(texts), "DELTA_BYTE_ARRAY"),
        "write_statistics": [p for p in leaves if p.split(".")[0] in _COUNTED],
    }


def _empty(schema: pa.Schema) -> pa.BufferReader:
    """Return an empty file of a schema: parquet's own names for the leaves of nested columns."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    return pa.BufferReader(sink.getvalue())


def _parts(order: npt.NDArray[np.integer]) -> Iterator[npt.NDArray[np.integer]]:
    for start in range(0, len(order), ROW_GROUP):
        yield order[start : start + ROW_GROUP]


def _table(item: dict[str, pa.Array], columns: Columns) -> pa.Table:
    """Arrange an item's arrays in stac-geoparquet's layout: properties at the top level, bbox a struct."""
    properties = item.pop("properties")
    west, south, east, north = (columns[k] for k in ("west", "south", "east", "north"))
    bbox = pa.StructArray.from_arrays(
        [pa.array(v) for v in (west, south, east, north)], names=["xmin", "ymin", "xmax", "ymax"]
    )
    fields = {properties.type.field(i).name: properties.field(i) for i in range(properties.type.num_fields)}
    return pa.table({**item, "geometry": pa.array(_wkb(west, south, east, north)), "bbox": bbox, **fields})


def _wkb(
    west: npt.NDArray[np.float64],
    south: npt.NDArray[np.float64],
    east: npt.NDArray[np.float64],
    north: npt.NDArray[np.float64],
) -> pa.Array:
    """Return cells as WKB polygons."""
    out = np.zeros(len(west), dtype=_WKB)
    out["order"], out["type"], out["rings"], out["points"] = 1, 3, 1, 5
    for i, (x, y) in enumerate(((west, south), (east, south), (east, north), (west, north), (west, south))):
        out["xy"][:, i, 0], out["xy"][:, i, 1] = x, y
    offsets = np.arange(len(out) + 1, dtype=np.int32) * _WKB.itemsize
    return pa.BinaryArray.from_buffers(
        pa.binary(), len(out), [None, pa.py_buffer(offsets), pa.py_buffer(out.tobytes())]
    )


def _metadata(cell: npt.NDArray[np.int32], collection: dict[str, Any]) -> dict[str, str]:
    """Return the metadata of the schema: GeoParquet's and stac-geoparquet's.

    Of the Arrow schema, not of the file alone: pyarrow's datasets, and so geopandas on a folder,
    dask-geopandas and lonboard, ask the schema which column is the geometry. A writer puts it into the file's
    footer as well.
    """
    row, col = grid.rows_cols(cell)
    edges = (
        (grid.LON_EDGES, col.min(initial=grid.N_COLS)),
        (grid.LAT_EDGES, row.min(initial=grid.N_ROWS)),
        (grid.LON_EDGES, col.max(initial=-1) + 1),
        (grid.LAT_EDGES, row.max(initial=-1) + 1),
    )
    bounds = [float(of[int(i)]) for of, i in edges]
    stac = {"version": "1.1.0", "collections": {str(collection["id"]): collection}}
    return {"geo": json.dumps(_geo(bounds)), "stac-geoparquet": json.dumps(stac)}


def _geo(bounds: list[float]) -> dict[str, Any]:
    """Return GeoParquet 1.1 metadata; without a crs it is OGC:CRS84."""
    return {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": ["Polygon"],
                "edges": "planar",
                "bbox": bounds,
                "covering": {"bbox": {k: ["bbox", k] for k in ("xmin", "ymin", "xmax", "ymax")}},
            }
        },
    }
