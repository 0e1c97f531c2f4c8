"""Reading a tile-year's complete files, each byte once: hashed on the way, rejected if not as expected."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from catalog_builder import storage
from catalog_builder.errors import ChecksumError, StorageError
from catalog_builder.pixels.window import Window
from catalog_builder.raster.npy import LONGEST_HEADER, read_header

if TYPE_CHECKING:
    import rasterio

_CHUNK = 1 << 18
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True, slots=True)
class FileRead:
    """A file as it was read."""

    address: str
    size: int
    """Bytes."""
    sha256: str
    """Lower-case hex."""


def read_array(
    address: str, size: int | None = None, sha256: str = "", stated_by: str = "the manifest"
) -> tuple[npt.NDArray[Any], FileRead]:
    """Read a ``.npy`` into memory of our own, its file hashed while it is in the cache.

    Parameters
    ----------
    address
        Path, s3 or http(s) URL.
    size, sha256
        Expected size and SHA-256 of the file, if known.
    stated_by
        What states the SHA-256, for the message.

    Returns
    -------
    array, file
        The array, writable, in C order and the machine's byte order.

    Raises
    ------
    ArrayError
        If it is no ``.npy``, truncated, or too long.
    ChecksumError
        If its hash is another.
    StorageError
        If it cannot be read, or its size is another.
    """
    data, file = _read_bytes(address, size)
    _check_hash(file, sha256, stated_by)
    header = read_header(data[:LONGEST_HEADER].tobytes(), address)
    header.require_size(len(data), exact=True)
    start, dtype = header.offset, header.dtype
    array = data[start:].view(dtype) if start % dtype.itemsize == 0 else data[start:].copy().view(dtype)
    array = array.reshape(header.shape, order="F" if header.fortran else "C")
    return np.ascontiguousarray(array.astype(dtype.newbyteorder("="), copy=False)), file


@contextmanager
def local_file(
    address: str, size: int | None = None, sha256: str = "", stated_by: str = "the manifest"
) -> Iterator[tuple[Path, FileRead]]:
    """Yield a local path of a file, hashed and verified; remote files are downloaded to a temporary file.

    Raises
    ------
    ChecksumError, StorageError
        As :func:`read_array`.
    """
    with tempfile.TemporaryDirectory(prefix="tessera-source-") as folder:
        if storage.scheme(address):
            path = Path(folder) / "source.tif"
            storage.fetch_to(address, path)
        else:
            path = storage.local_path(address)
        digest, done = hashlib.sha256(), 0
        try:
            with storage.local.open_file(path) as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    done += len(chunk)
        except OSError as error:
            raise StorageError(f"{address}: {error.strerror or error}") from error
        _check_size(address, done, size)
        file = FileRead(address, done, digest.hexdigest())
        _check_hash(file, sha256, stated_by)
        yield path, file


@contextmanager
def open_raster(path: Path, address: str) -> Iterator[rasterio.DatasetReader]:
    """Open a GeoTIFF; anything else is rejected with a reason.

    Raises
    ------
    StorageError
        If it is none, or damaged.
    """
    import rasterio

    try:
        with warnings.catch_warnings():
            # Whether it has to be georeferenced is for the caller to say, not for the screen.
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            ds = rasterio.open(path, driver="GTiff")
    except rasterio.errors.RasterioIOError as error:
        with path.open("rb") as stream:
            magic = stream.read(4)
        if magic not in _TIFF:
            raise StorageError(f"{address}: not a TIFF (begins with {magic!r})") from None
        raise StorageError(f"{address}: damaged TIFF: {gdal_reason(error)}") from None
    with ds:
        yield ds


def read_blocks(ds: rasterio.DatasetReader, address: str) -> Iterator[tuple[Window, npt.NDArray[np.float32]]]:
    """Yield windows and their values, (rows, columns, bands) float32, block by block of the file.

    An array is good until the next one is asked for.

    GDAL decodes into its own order, band by band, and a few hundred pixels at a time are turned to
    pixel-major order while they are in the cache: a tenth faster than letting GDAL scatter the samples.

    Raises
    ------
    StorageError
        If a block cannot be decoded.
    """
    import rasterio
    from rasterio.windows import Window as RasterWindow

    height, width = ds.block_shapes[0]
    if width >= ds.width or height * width < 4096:
        height, width = max(height, 64), ds.width
    height, width = min(height, ds.height), min(width, ds.width)
    planes = np.empty(height * width * ds.count, np.float32)
    pixels = np.empty(height * width * ds.count, np.float32)
    for top in range(0, ds.height, height):
        for left in range(0, ds.width, width):
            h, w = min(height, ds.height - top), min(width, ds.width - left)
            n = h * w * ds.count
            try:
                ds.read(window=RasterWindow(left, top, w, h), out=planes[:n].reshape(ds.count, h, w))
            except rasterio.errors.RasterioIOError as error:
                where = f"rows {top} to {top + h}, columns {left} to {left + w}"
                raise StorageError(f"{address}: {where}: {gdal_reason(error)}") from None
            by_band, by_pixel = planes[:n].reshape(ds.count, -1), pixels[:n].reshape(-1, ds.count)
            for start in range(0, h * w, 256):
                by_pixel[start : start + 256] = by_band[:, start : start + 256].T
            yield Window(top, left, h, w), pixels[:n].reshape(h, w, ds.count)


def gdal_reason(error: BaseException) -> str:
    """Return GDAL's innermost error message, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _read_bytes(address: str, size: int | None) -> tuple[npt.NDArray[np.uint8], FileRead]:
    """Return a file's bytes, writable."""
    digest = hashlib.sha256()
    # Not zeroed first, and hashed while it is still in the cache.
    data = np.empty(size if size is not None else 1 << 20, np.uint8)
    done = 0
    opened = (
        storage.open_binary(address)
        if storage.scheme(address)
        else storage.local.open_file(storage.local_path(address))
    )
    with opened as stream:
        try:
            while True:
                if done == len(data):  # all that was announced, or nothing was
                    more = stream.read(_CHUNK)
                    if not more:
                        break
                    data = np.concatenate([data, np.empty(max(done, len(more)), np.uint8)])
                    data[done : done + len(more)] = np.frombuffer(more, np.uint8)
                    n = len(more)
                else:
                    n = stream.readinto(data[done : done + _CHUNK].data)  # type: ignore[attr-defined]
                    if not n:
                        break
                digest.update(data[done : done + n].data)
                done += n
        except OSError as error:
            raise StorageError(f"{address}: {error.strerror or error}") from error
    _check_size(address, done, size)
    return data[:done], FileRead(address, done, digest.hexdigest())


def _check_size(address: str, found: int, expected: int | None) -> None:
    if expected is not None and found != expected:
        raise StorageError(f"{address}: {found} bytes, expected {expected}: truncated, or changed meanwhile")


def _check_hash(file: FileRead, expected: str, by: str) -> None:
    if expected and file.sha256 != expected:
        raise ChecksumError(f"{file.address}: SHA-256 is {file.sha256}, {by} says {expected}")
