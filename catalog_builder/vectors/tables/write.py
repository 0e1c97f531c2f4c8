"""Tables of vectors as files: Parquet and GeoParquet, Arrow, CSV, and .npy with its rows in a CSV beside it.

Rows come in batches of one schema, so that memory does not grow with the file, and a file appears when it is
complete. What was written can be read again, batch by batch.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import shapely

from catalog_builder.errors import QueryError, StorageError
from catalog_builder.storage import write_atomic

TableFormat = Literal["parquet", "arrow", "csv", "npy"]
StreamFormat = Literal["parquet", "arrow", "csv", "geojson"]
FORMATS: dict[str, TableFormat] = {
    ".parquet": "parquet",
    ".geoparquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".csv": "csv",
    ".npy": "npy",
}
"""By what a file's name ends with."""
VECTOR = "embedding"
"""Name of the column of vectors, a fixed-size list."""
Write = Callable[[pa.RecordBatch], None]


def format_of(out: Path) -> TableFormat:
    """Return the format that a file's name says.

    Raises
    ------
    QueryError
        If it says none.
    """
    found = FORMATS.get(out.suffix.lower())
    if found is None:
        raise QueryError(f"{out}: expected a name that ends with {', '.join(FORMATS)}")
    return found


def rows_of_npy(out: Path) -> Path:
    """Return the file of the rows of a ``.npy``: everything but the vectors, in the same order."""
    return out.with_suffix(".rows.csv")


def files_of(out: Path) -> list[Path]:
    """Return the files of a table."""
    return [out, rows_of_npy(out)] if format_of(out) == "npy" else [out]


@contextmanager
def table_writer(out: Path, schema: pa.Schema, rows: int) -> Iterator[Write]:
    """Yield a function that appends a batch to a file, which appears at the end.

    Parameters
    ----------
    out
        Path; its ending says the format.
    schema
        Of all batches.
    rows
        Of all batches.

    Raises
    ------
    StorageError
        If it cannot be written; an existing file is unchanged.
    """
    kind = format_of(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            paths = [stack.enter_context(write_atomic(path)) for path in files_of(out)]
            if kind == "npy":
                yield stack.enter_context(_npy(paths[0], paths[1], schema, rows))
            else:
                yield stack.enter_context(_arrow(paths[0], schema, kind))
    except OSError as error:
        raise StorageError(f"{out}: cannot be written: {error}") from error


@contextmanager
def _arrow(path: Path, schema: pa.Schema, kind: TableFormat) -> Iterator[Write]:
    """Yield the writer of a format that pyarrow writes."""
    with _writer(path, schema, kind) as writer:
        yield writer.write_batch


def _writer(to: Any, schema: pa.Schema, kind: TableFormat) -> Any:
    """Return pyarrow's writer to a path or a file."""
    if kind == "parquet":
        from pyarrow import parquet

        texts = [f.name for f in schema if not _is_number(f.type)]
        return parquet.ParquetWriter(to, schema, compression="zstd", use_dictionary=texts)
    if kind == "arrow":
        from pyarrow import ipc

        return ipc.new_file(to, schema)
    from pyarrow import csv

    return csv.CSVWriter(to, schema)


def streamed(batches: Iterable[pa.RecordBatch], schema: pa.Schema, kind: StreamFormat) -> Iterator[bytes]:
    """Yield a table as the bytes of a file, batch by batch.

    Parameters
    ----------
    batches, schema
        The rows; as GeoJSON those with a column ``geometry``.
    kind
        ``arrow`` is an IPC stream here, which can be read while it comes.
    """
    if kind == "geojson":
        yield from _geojson(batches)
        return
    part = _Sink()
    sink = pa.PythonFile(part, mode="w")
    with pa.ipc.new_stream(sink, schema) if kind == "arrow" else _writer(sink, schema, kind) as writer:
        for batch in batches:
            writer.write_batch(batch)
            yield part.take()
    yield part.take()


class _Sink(io.RawIOBase):
    """A file that is only written: what came since it was last taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._at += len(self._parts[-1])
        return len(self._parts[-1])

    def tell(self) -> int:
        return self._at

    def take(self) -> bytes:
        """Return what was written since the last time."""
        found, self._parts = b"".join(self._parts), []
        return found


def _geojson(batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    yield b'{"type":"FeatureCollection","features":['
    comma = b""
    for batch in batches:
        shapes = shapely.to_geojson(shapely.from_wkb(batch["geometry"].to_numpy(zero_copy_only=False)))
        rows = batch.drop_columns(["geometry"]).to_pylist()
        features = [
            b'{"type":"Feature","geometry":%s,"properties":%s}'
            % (shape.encode(), orjson.dumps(row, default=str))
            for shape, row in zip(shapes, rows, strict=True)
        ]
        yield comma + b",".join(features)
        comma = b"," if features else comma
    yield b"]}"


def _is_number(kind: pa.DataType) -> bool:
    if pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind) or pa.types.is_binary(kind) or pa.types.is_int8(kind))


@contextmanager
def _npy(path: Path, beside: Path, schema: pa.Schema, rows: int) -> Iterator[Write]:
    """Yield the writer of an array and of its rows."""
    names = vector_names(schema)
    kind = schema.field(names[0]).type
    shape = (rows, kind.list_size) if len(names) == 1 else (rows, len(names), kind.list_size)
    dtype = kind.value_type.to_pandas_dtype()
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    whole, at = array.reshape(rows, len(names), -1), 0

    def write(batch: pa.RecordBatch) -> None:
        nonlocal at
        for i, name in enumerate(names):
            whole[at : at + len(batch), i] = dense(batch[name])
        at += len(batch)
        write_rows(batch.drop_columns(names))

    with _arrow(beside, _without(schema, names), "csv") as write_rows:
        yield write
    array.flush()


def vector_names(schema: pa.Schema) -> list[str]:
    """Return the columns of vectors, which are fixed-size lists and ours: carried ones are text in a .npy."""
    return [field.name for field in schema if pa.types.is_fixed_size_list(field.type)]


def _without(schema: pa.Schema, names: list[str]) -> pa.Schema:
    return pa.schema([field for field in schema if field.name not in names])


def dense(column: pa.FixedSizeListArray) -> npt.NDArray[Any]:
    """Return lists as an array (n, bands): NaN, or -128 in int8, where there is none."""
    bands = column.type.list_size
    start = column.offset * bands
    found: npt.NDArray[Any] = column.values.to_numpy(zero_copy_only=False)[
        start : start + len(column) * bands
    ]
    found = found.reshape(len(column), bands)
    if column.null_count:
        found = found.copy()
        found[column.is_null().to_numpy(zero_copy_only=False)] = -128 if found.dtype == np.int8 else np.nan
    return found


def read_batches(out: Path, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield what :func:`table_writer` wrote, with at most so many rows in a batch.

    Raises
    ------
    StorageError
        If the file cannot be read, or has other columns.
    """
    try:
        for batch in _batches(out, schema, rows):
            yield batch.select(schema.names).cast(schema)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise StorageError(f"{out}: cannot be read again: {' '.join(str(error).split())[:200]}") from error


def _batches(out: Path, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    kind = format_of(out)
    if kind == "parquet":
        from pyarrow import parquet

        with parquet.ParquetFile(out) as file:
            yield from file.iter_batches(rows)
    elif kind == "arrow":
        from pyarrow import ipc

        with pa.memory_map(str(out)) as mapped:
            reader = ipc.open_file(mapped)
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i)
    elif kind == "csv":
        yield from _csv_batches(out, schema)
    else:
        array, at, names = np.load(out, mmap_mode="r", allow_pickle=False), 0, vector_names(schema)
        for batch in _csv_batches(rows_of_npy(out), _without(schema, names)):
            part = np.array(array[at : at + len(batch)]).reshape(len(batch), len(names), -1)
            at += len(batch)
            found = dict(zip(batch.schema.names, batch.columns, strict=True))
            for i, name in enumerate(names):
                vectors = part[:, i]
                is_null = (vectors == -128).all(axis=1) if part.dtype == np.int8 else np.isnan(vectors[:, 0])
                found[name] = lists(vectors, ~np.asarray(is_null))
            yield pa.RecordBatch.from_arrays([found[n] for n in schema.names], names=schema.names)


def _csv_batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    from pyarrow import csv

    # a column of text keeps its empty texts: a null is written without quotes
    convert = csv.ConvertOptions(
        column_types=schema, strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    with csv.open_csv(path, convert_options=convert) as reader:
        yield from reader


def lists(vectors: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> pa.FixedSizeListArray:
    """Return vectors (n, bands) as lists, null where they are not valid."""
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    mask = None if valid.all() else pa.array(~valid)
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=mask)


def geo_metadata(kinds: list[str], bounds: tuple[float, float, float, float]) -> dict[str, str]:
    """Return the metadata of a schema whose column ``geometry`` is WKB in degrees (OGC:CRS84)."""
    about = {"encoding": "WKB", "geometry_types": kinds, "edges": "planar", "bbox": list(bounds)}
    return {
        "geo": json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": about}})
    }
