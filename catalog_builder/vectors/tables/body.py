"""Points and polygons from the body of a request: whoever sent it is not trusted.

GDAL is not asked: it opens what a file names. What is compressed must say how large it becomes, or be in a
codec whose output is at most some ten times its input.
"""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Callable
from typing import Any, Literal, TextIO

import pyarrow as pa

from catalog_builder.errors import QueryError, StorageError, TooLargeError
from catalog_builder.tile.regions.crs import CRS84
from catalog_builder.tile.regions.files import csv_layer, table_layer
from catalog_builder.tile.regions.geojson import geojson_features, geojson_layer
from catalog_builder.tile.regions.layer import Layer

BodyFormat = Literal["geojson", "csv", "arrow", "parquet"]
NAME = "body"
"""Of the body in messages."""
MOST_COLUMNS = 200
_CODECS = {"UNCOMPRESSED", "SNAPPY"}
_CODES = (
    re.compile(r"(?:urn:ogc:def:crs:)?([A-Za-z]{3,5}):(?:[\w.]*:)?(\w{2,8})", re.ASCII),
    re.compile(r"https?://www\.opengis\.net/def/crs/([A-Za-z]{3,5})/[\w.]+/(\w{2,8})", re.ASCII),
    re.compile(r"()(CRS84)", re.ASCII),
)
"""A CRS by authority and code, also as a URN or URI."""
_RECORD_BATCH, _DICTIONARY_BATCH = 3, 2


def layer_of(body: bytes, kind: BodyFormat, rows: int, *, wants_columns: bool = False) -> Layer:
    """Return what is in a body.

    Parameters
    ----------
    body
        GeoJSON, CSV, an Arrow IPC stream or file without compression, or Parquet without any or with Snappy.
    kind
        Which of them.
    rows
        At most.
    wants_columns
        Columns have the coordinates, whatever the geometries are.

    Raises
    ------
    TooLargeError
        If it has more rows.
    QueryError
        If it cannot be read; the message names the row, where it is one.
    """
    try:
        return _READERS[kind](body, rows, wants_columns)
    except QueryError:
        raise
    except (
        pa.ArrowException,
        StorageError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise QueryError(f"{NAME}: is no {kind}: {' '.join(str(error).split())[:200]}") from error


def crs_code(text: str) -> str:
    """Return a CRS by its code, ``EPSG:27700``: no definition that a client writes reaches PROJ.

    >>> crs_code("urn:ogc:def:crs:EPSG::27700")
    'EPSG:27700'
    >>> crs_code("http://www.opengis.net/def/crs/OGC/1.3/CRS84")
    'OGC:CRS84'

    Raises
    ------
    QueryError
        If it is not given so.
    """
    found = next(filter(None, (code.fullmatch(text) for code in _CODES)), None)
    if found is None:
        raise QueryError(f"crs: expected one such as EPSG:27700, found '{text[:60]}'")
    return f"{found[1].upper() or 'OGC'}:{found[2]}"


def _check_size(rows: int, columns: int, most: int) -> None:
    if rows > most:
        raise TooLargeError(f"{NAME}: has {rows:,} rows, expected at most {most:,}")
    if columns > MOST_COLUMNS:
        raise QueryError(f"{NAME}: has {columns} columns, expected at most {MOST_COLUMNS}")


def _geojson(body: bytes, rows: int, _wants_columns: bool) -> Layer:
    features, crs = geojson_features(NAME, body)
    _check_size(len(features), 0, rows)
    return geojson_layer(NAME, features, crs if crs == CRS84 else crs_code(crs), MOST_COLUMNS)


# ----------------------------------------------------------------------------------------------- tables


def _csv(body: bytes, rows: int, _wants_columns: bool) -> Layer:
    lines = body.count(b"\n") + body.count(b"\r")
    if lines > 2 * rows + 2:  # before it is parsed; a quoted text may have line breaks
        raise TooLargeError(f"{NAME}: has more than {rows:,} rows")

    def text() -> TextIO:
        return io.TextIOWrapper(io.BytesIO(body), "utf-8-sig", "replace", newline="")

    layer = csv_layer(NAME, pa.BufferReader(body), text)
    _check_size(len(layer.columns), layer.columns.num_columns, rows)
    return layer


def _parquet(body: bytes, rows: int, wants_columns: bool) -> Layer:
    from pyarrow import parquet

    file = parquet.ParquetFile(pa.BufferReader(body))
    about = file.metadata
    _check_size(about.num_rows, about.num_columns, rows)
    for group in range(about.num_row_groups):
        for column in range(about.num_columns):
            codec = about.row_group(group).column(column).compression
            if codec not in _CODECS:
                raise QueryError(f"{NAME}: is compressed by {codec}: write it with snappy, or without")
    return _of_batches(file.iter_batches(8192), file.schema_arrow, rows, wants_columns)


def _arrow(body: bytes, rows: int, wants_columns: bool) -> Layer:
    # a file is a stream between its first eight bytes and its index
    stream = body[8:] if body.startswith(b"ARROW1") else body
    for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(stream)):
        if _is_compressed(message.metadata.to_pybytes()):
            raise QueryError(f"{NAME}: is a compressed Arrow stream: write it without compression")
    with pa.ipc.open_stream(pa.BufferReader(stream)) as reader:
        return _of_batches(iter(reader), reader.schema, rows, wants_columns)


def _of_batches(batches: Any, schema: pa.Schema, rows: int, wants_columns: bool) -> Layer:
    found, n = [], 0
    for batch in batches:
        n += len(batch)
        _check_size(n, len(schema), rows)
        batch.validate(full=True)
        found.append(batch)
    layer = table_layer(NAME, pa.Table.from_batches(found, schema), wants_columns=wants_columns)
    if layer.crs is None or layer.crs == CRS84:
        return layer
    said = json.loads(layer.crs)["id"]
    return Layer(NAME, layer.columns, crs_code(f"{said['authority']}:{said['code']}"), layer.wkb)


def _is_compressed(message: bytes) -> bool:
    """Return whether a message is a compressed batch, which says itself how large it becomes.

    pyarrow does not tell. A table of FlatBuffers has its fields at offsets that its vtable lists.
    """

    def at(table: int, number: int) -> int | None:
        vtable = table - struct.unpack_from("<i", message, table)[0]
        size = struct.unpack_from("<H", message, vtable)[0]
        offset = struct.unpack_from("<H", message, vtable + 4 + 2 * number)[0] if 4 + 2 * number < size else 0
        return table + offset if offset else None

    def follow(place: int) -> int:
        return place + int(struct.unpack_from("<I", message, place)[0])

    try:
        top = follow(0)
        kind, header = at(top, 1), at(top, 2)
        if kind is None or header is None or message[kind] not in (_RECORD_BATCH, _DICTIONARY_BATCH):
            return False
        batch: int | None = follow(header)
        if message[kind] == _DICTIONARY_BATCH:
            data = at(follow(header), 1)
            batch = None if data is None else follow(data)
        return batch is not None and at(batch, 3) is not None
    except (struct.error, IndexError) as error:
        raise QueryError(f"{NAME}: is no arrow: a message is malformed") from error


_READERS: dict[BodyFormat, Callable[[bytes, int, bool], Layer]] = {
    "geojson": _geojson,
    "csv": _csv,
    "arrow": _arrow,
    "parquet": _parquet,
}
