"""Files of vectors: CSV, GeoJSON, GeoParquet and Arrow, and what GDAL reads; local or not, zipped or not."""

from __future__ import annotations

import io
import json
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TextIO
from urllib.parse import urlsplit

import pyarrow as pa
import shapely

from catalog_builder import storage
from catalog_builder.errors import StorageError, VectorFileError
from catalog_builder.extras import install_line
from catalog_builder.tile.regions.crs import CRS84
from catalog_builder.tile.regions.geojson import geojson_features, geojson_layer
from catalog_builder.tile.regions.layer import Layer, delimiter_of

FORMATS = "GeoJSON, GeoPackage, FlatGeobuf, shapefile, KML or GeoParquet, zipped or not"
"""What is read, in messages; GDAL reads others too."""
MOST_BYTES = 4_000_000_000
"""Of a remote file, or of what is unpacked from an archive."""
UNPACKED_BYTES, UNPACKED_TIMES = 256 << 20, 100
"""What an archive may unpack to: so many bytes, or so many times its own. Shapefiles take up to 20."""
_TEXT, _PARQUET, _ARROW = (
    (".csv", ".tsv", ".txt"),
    (".parquet", ".geoparquet"),
    (".arrow", ".feather", ".ipc"),
)
_JSON = (".geojson", ".json")
_MEMBERS = (
    (".shp", ".gpkg", ".fgb", ".kml", ".gml", ".gpx", ".gdb", ".tab", ".sqlite", *_PARQUET, *_ARROW),
    (".geojson",),
    (".json", ".csv", ".tsv"),
)
"""Files of an archive that may be meant, the likelier ones first."""
_OF_A_SHAPEFILE = (".shx", ".dbf", ".prj", ".cpg")
_UNPACKING = (NotImplementedError, RuntimeError, EOFError, MemoryError, zlib.error, lzma.LZMAError)
"""What unpacking raises: of a compression of its own, a password, a dictionary too large, and damage."""
_NOT_READ = (
    (b"\x1f\x8b", "is compressed by gzip: unpack it"),
    (b"\xff\xfe", "is text in UTF-16, expected UTF-8"),
    (b"\xfe\xff", "is text in UTF-16, expected UTF-8"),
    (b"<html", "is a web page"),
    (b"<!doctype html", "is a web page"),
)
"""First bytes that nothing reads, and what they are those of."""


def read_layer(path: str, layer: str | None = None, *, wants_columns: bool = False) -> Layer:
    """Read a file of vectors.

    Parameters
    ----------
    path
        A local path, ``s3://`` or ``http(s)://`` URL: CSV, TSV, GeoJSON, GeoParquet, Arrow, or what GDAL
        reads (the extra ``vectors``), such as GeoPackage, FlatGeobuf, shapefile and KML; or a zip archive of
        it.
    layer
        Of a file with several, or the file of an archive with several, without its suffix.
    wants_columns
        Columns have the coordinates, whatever geometries there are.

    Raises
    ------
    VectorFileError
        If it is not there, in no format that is read, or damaged, or if it must be said which layer is meant.
    StorageError
        If a remote file cannot be fetched, or a package is missing.
    """
    with _local(path) as file, _unpacked(path, file, layer) as (found, name):
        try:
            if found != file:
                layer = None if layer == found.stem else layer
            return _read(name, found, layer, wants_columns=wants_columns)
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, VectorFileError):
                raise
            raise _unreadable(name, error) from error


def _read(name: str, file: Path, layer: str | None, *, wants_columns: bool) -> Layer:
    suffix, head = file.suffix.lower(), _head(file)
    for magic, what in _NOT_READ:
        if head.lower().startswith(magic):
            raise VectorFileError(f"{name}: {what}; expected {FORMATS}")
    if suffix in _TEXT:
        # read again to name a line, when a copy would be gone
        data = file.read_bytes() if name != str(file) else None
        return csv_layer(name, pa.BufferReader(data) if data is not None else file, _opener(file, data))
    if suffix in _PARQUET or head.startswith(b"PAR1"):
        from pyarrow import parquet

        return table_layer(name, parquet.ParquetFile(file).read(), wants_columns=wants_columns)
    if suffix in _ARROW or head.startswith(b"ARROW1"):
        from pyarrow import feather

        return table_layer(name, feather.read_table(file), wants_columns=wants_columns)
    if suffix in _JSON or (not suffix and head.startswith(b"{")):
        try:
            features, crs = geojson_features(name, file.read_bytes())
        except VectorFileError as error:
            raise VectorFileError(f"{error}; expected {FORMATS}") from None
        return geojson_layer(name, features, crs)
    return _from_gdal(name, file, layer)


def _unreadable(name: str, error: Exception) -> VectorFileError:
    reason = " ".join(str(error).split())[:300]
    return VectorFileError(f"{name}: cannot be read: {reason}; expected {FORMATS}")


def _head(file: Path) -> bytes:
    """Return the first bytes, without a mark of UTF-8 or space before them."""
    if file.is_dir():  # a File Geodatabase
        return b""
    with file.open("rb") as opened:
        return opened.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()


def _opener(file: Path, data: bytes | None) -> Callable[[], TextIO]:
    def text() -> TextIO:
        raw = file.open("rb") if data is None else io.BytesIO(data)
        return io.TextIOWrapper(raw, "utf-8-sig", "replace", newline="")

    return text


# ------------------------------------------------------------------------------------------------ places


@contextmanager
def _local(path: str) -> Iterator[Path]:
    """Yield a file's local path, with what belongs to a shapefile beside it."""
    if not storage.scheme(path):
        found = storage.local_path(path)
        if not found.exists():
            raise VectorFileError(f"{path}: no such file")
        yield found
        return
    url = urlsplit(path)
    name = PurePosixPath(url.path).name or "file"
    with tempfile.TemporaryDirectory(prefix="tessera-vectors-") as folder:
        copy = Path(folder) / name
        _fetch(path, copy)
        if copy.suffix.lower() == ".shp":
            for suffix in _OF_A_SHAPEFILE:
                beside = url._replace(path=url.path[:-4] + suffix).geturl()
                if storage.exists(beside):
                    _fetch(beside, copy.with_suffix(suffix))
        yield copy


def _fetch(address: str, copy: Path) -> None:
    """Copy a file as long as it is not too large; a server need not say how large it is."""
    left = MOST_BYTES
    with storage.open_binary(address) as source, copy.open("wb") as target:
        while chunk := source.read(1 << 20):
            left -= len(chunk)
            if left < 0:
                raise VectorFileError(f"{address}: is larger than {MOST_BYTES:,} bytes")
            target.write(chunk)


@contextmanager
def _unpacked(path: str, file: Path, layer: str | None) -> Iterator[tuple[Path, str]]:
    """Yield the file itself, or the one in it that is meant, unpacked; and its name in messages."""
    is_archive = file.suffix.lower() in (".zip", ".kmz") or _head(file).startswith(b"PK\x03\x04")
    if not is_archive:
        yield file, path
        return
    try:
        with (
            zipfile.ZipFile(file) as archive,
            tempfile.TemporaryDirectory(prefix="tessera-vectors-") as folder,
        ):
            member = _member(path, archive, layer)
            _extract(path, archive, member, Path(folder))
            yield Path(folder) / member, f"{path}!{member}"
    except zipfile.BadZipFile as error:
        raise VectorFileError(f"{path}: not a zip archive: {error}; expected {FORMATS}") from error
    except _UNPACKING as error:
        reason = str(error) or type(error).__name__
        raise VectorFileError(f"{path}: cannot be unpacked: {reason}") from error


def _member(path: str, archive: zipfile.ZipFile, layer: str | None) -> str:
    """Return the one file of vectors in an archive, or the one that is named."""
    names = [n for n in archive.namelist() if not n.endswith("/") and "__MACOSX" not in n]
    candidates = list(dict.fromkeys(_geodatabase(name) or name for name in names))
    for suffixes in _MEMBERS:
        found = [name for name in candidates if name.lower().endswith(suffixes)]
        if layer is not None and len(found) > 1:
            found = [name for name in found if PurePosixPath(name).stem == layer] or found
        if len(found) > 1:
            raise VectorFileError(
                f"{path}: holds {len(found)} files that may be meant ({', '.join(found[:5])}):"
                " name one with --layer, without its suffix"
            )
        if found:
            return found[0]
    holds = f"{', '.join(names[:5]) or 'nothing'}{', ...' if len(names) > 5 else ''}"
    raise VectorFileError(f"{path}: holds {holds}; expected {FORMATS}")


def _geodatabase(name: str) -> str | None:
    """Return the folder of a File Geodatabase that a file is in."""
    head, found, _ = name.partition(".gdb/")
    return f"{head}.gdb" if found else None


def _extract(path: str, archive: zipfile.ZipFile, member: str, folder: Path) -> None:
    """Unpack a file and those that belong to it.

    What zipfile writes of a member is never more than its size by the archive's directory.
    """
    stem = str(PurePosixPath(member).with_suffix("")).lower()
    wanted = [
        info
        for info in archive.infolist()
        if info.filename.startswith(f"{member}/")
        or str(PurePosixPath(info.filename).with_suffix("")).lower() == stem
    ]
    size, packed = (
        sum(sizes) for sizes in zip(*((i.file_size, i.compress_size) for i in wanted), strict=True)
    )
    most = min(MOST_BYTES, max(UNPACKED_BYTES, UNPACKED_TIMES * packed))
    if size > most:
        raise VectorFileError(
            f"{path}: unpacks to {size:,} bytes, expected at most {most:,}, of {packed:,}: what is larger,"
            " unpack and give by its own name"
        )
    for info in wanted:
        if info.is_dir():
            continue
        target = (folder / info.filename).resolve()
        if not target.is_relative_to(folder.resolve()):
            raise VectorFileError(f"{path}: holds '{info.filename}', which lies outside of it")
        target.parent.mkdir(parents=True, exist_ok=True)
        # the parts of a shapefile are found by names of one case
        if target.suffix.lower() in _OF_A_SHAPEFILE:
            target = (folder / member).resolve().with_suffix(target.suffix.lower())
        with archive.open(info) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out)


# ----------------------------------------------------------------------------------------------- formats


def csv_layer(name: str, source: Any, text: Callable[[], TextIO]) -> Layer:
    """Return the layer of a table of text.

    Parameters
    ----------
    name
        In messages.
    source
        Anything pyarrow reads.
    text
        Opens the same.
    """
    from pyarrow import csv as arrow_csv

    with text() as lines:
        parse = arrow_csv.ParseOptions(delimiter=delimiter_of(lines), newlines_in_values=True)
    table = arrow_csv.read_csv(source, parse_options=parse)
    if not len(table):
        raise VectorFileError(f"{name}: has no rows")
    return Layer(name, table, None, text=text)


def table_layer(path: str, table: pa.Table, *, wants_columns: bool) -> Layer:
    """Return the layer of an Arrow table, with geometries if it says by its metadata which they are."""
    said = json.loads((table.schema.metadata or {}).get(b"geo", b"{}"))
    name = said.get("primary_column")
    if wants_columns or name is None or name not in table.column_names:
        return Layer(path, table, None)
    about = said["columns"][name]
    others = table.drop_columns([name])
    # a CRS that is left out is CRS84, one that is null is unknown
    crs = json.dumps(about["crs"]) if about.get("crs") else (None if "crs" in about else CRS84)
    column = table[name].combine_chunks()
    if about["encoding"] == "point":
        points = shapely.points(*(column.field(axis).to_numpy(zero_copy_only=False) for axis in ("x", "y")))
        column = pa.array(shapely.to_wkb(points), pa.binary())
    elif about["encoding"] != "WKB":
        raise VectorFileError(f"{path}: its geometries are in '{about['encoding']}', expected WKB or point")
    return Layer(path, others, crs, column)


def _from_gdal(name: str, file: Path, layer: str | None) -> Layer:
    try:
        import pyogrio
    except ImportError as error:
        raise StorageError(f"{name}: reading this format needs pyogrio: {install_line('vectors')}") from error

    try:
        names: Sequence[str] = [str(each) for each, _ in pyogrio.list_layers(file)]
        if layer is None and len(names) > 1:
            raise VectorFileError(f"{name}: has layers {', '.join(names)}: choose one with --layer")
        if layer is not None and layer not in names:
            raise VectorFileError(f"{name}: has no layer '{layer}': it has {', '.join(names)}")
        about, table = pyogrio.read_arrow(file, layer=layer or names[0])
    except (RuntimeError, IndexError) as error:  # what pyogrio raises is a RuntimeError
        raise _unreadable(name, error) from error
    column = about["geometry_name"] or "wkb_geometry"
    if column not in table.column_names:
        return Layer(name, table, about["crs"])
    return Layer(name, table.drop_columns([column]), about["crs"], table[column].combine_chunks())
