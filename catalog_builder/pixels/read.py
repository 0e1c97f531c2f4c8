"""Read the wanted pixels of a tile-year, and nothing that lies between them.

A published ``.npy`` is read by row: of each row the span that is wanted, neighbouring spans joined
where the gap costs less than a request. A COG is read by block: those that hold a wanted pixel.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from catalog_builder import storage
from catalog_builder.errors import StorageError
from catalog_builder.raster.gdal import gdal_environment, gdal_path
from catalog_builder.raster.label import NPY_HEADER
from catalog_builder.tile.files import N_BANDS
from catalog_builder.vectors.plan import Mask, Part, Window

if TYPE_CHECKING:
    import httpx

NODATA_CODE = -128
"""Code of a pixel without data; its scale is NaN."""
GAP = 16 * 1024
"""Bytes that are rather read than asked around."""
MAX_RANGE = 8 << 20
"""Bytes per request: what is lost when a connection breaks."""
BLOCK = 128
"""Rows and columns of a COG's block, where only an estimate is wanted."""
CONNECTIONS = 8

GDAL_SETTINGS: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif,.tiff,.vrt,.npy",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": 32768,
    "GDAL_MAX_RAW_BLOCK_CACHE_SIZE": 256 << 20,
    "GDAL_HTTP_MAX_RETRY": 4,
    "GDAL_HTTP_RETRY_DELAY": 1,
}
"""What any GDAL client should set; the README recommends the same."""


@dataclass(slots=True)
class Meter:
    """Counts what was read; safe to share between threads."""

    bytes: int = 0
    requests: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, n: int) -> None:
        """Count one read."""
        with self._lock:
            self.bytes += n
            self.requests += 1


@dataclass(frozen=True, slots=True)
class Quantized:
    """Pixels as codes and scales."""

    codes: npt.NDArray[np.int8]
    """(height, width, bands), -128 where there is no data."""
    scales: npt.NDArray[np.float32]
    """(height, width), NaN where there is no data."""

    def dequantized(self) -> npt.NDArray[np.float32]:
        """Return float32 (height, width, bands), NaN where there is no data."""
        values = self.codes.astype(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):  # scales of broken tiles are what they are
            values *= self.scales[:, :, None]
        return values

    def at(self, rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return float32 (n, bands) of some pixels."""
        picked = Quantized(self.codes[rows, cols][:, None], self.scales[rows, cols][:, None])
        return picked.dequantized()[:, 0]


@dataclass(frozen=True, slots=True)
class Values:
    """Pixels as float32 values."""

    values: npt.NDArray[np.float32]
    """(height, width, bands), NaN where there is no data."""

    def dequantized(self) -> npt.NDArray[np.float32]:
        """Return the values."""
        return self.values

    def at(self, rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return float32 (n, bands) of some pixels."""
        picked: npt.NDArray[np.float32] = self.values[rows, cols]
        return picked


type Pixels = Quantized | Values


def read_part(part: Part, bands: Sequence[int], meter: Meter) -> Pixels:
    """Read a part's wanted pixels.

    Raises
    ------
    StorageError
        If a file cannot be read, or is not what its item says.
    """
    source = part.source
    numbers = [b + 1 for b in bands]
    if source.scales is None:
        return Values(_read_cog(source.main, numbers, part, np.float32(np.nan), meter, source.size))
    if source.kind == "cog":
        found = _read_cog(source.main, numbers, part, np.int8(NODATA_CODE), meter, source.size)
        scale = _read_cog(source.scales, [1], part, np.float32(np.nan), meter, source.scales_size)
        return Quantized(found, scale[:, :, 0])
    height, width = source.raster.shape
    codes = np.full((*part.mask.shape, N_BANDS), NODATA_CODE, dtype=np.int8)
    _read_npy(source.main, (height, width, N_BANDS), codes, part, meter)
    scales = np.full(part.mask.shape, np.nan, dtype=np.float32)
    _read_npy(source.scales, (height, width), scales, part, meter)
    codes[~part.mask] = NODATA_CODE
    scales[~part.mask] = np.nan
    return Quantized(codes[:, :, list(bands)] if len(bands) < N_BANDS else codes, scales)


def cost(part: Part) -> tuple[int, bool]:
    """Return the bytes that reading a part takes, and whether that is exact or an estimate."""
    source = part.source
    if source.kind == "npy":
        total = 2 * NPY_HEADER
        for item in (N_BANDS, 4):
            total += sum(stop - start for start, stop in _ranges(part, item, source.raster.width))
        return total, True
    touched = sum(w.height * w.width for w in _blocks(part, (BLOCK, BLOCK), source.raster.shape))
    height, width = source.raster.shape
    share = touched / (height * width)
    total = 0
    for size, pixel in (
        (source.size, N_BANDS if source.kind == "cog" else 4 * N_BANDS),
        (source.scales_size, 4),
    ):
        # a third of a COG are its overviews, which are not read
        total += round(share * (size * 0.76 if size else height * width * pixel))
    return total, False


# ----------------------------------------------------------------------------------------- arrays


def _spans(mask: Mask) -> Iterator[tuple[int, int, int]]:
    """Yield (row, first column, column after the last) of every run of wanted pixels, in file order."""
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, first = np.nonzero(edges == 1)
    _, after = np.nonzero(edges == -1)
    yield from zip(rows.tolist(), first.tolist(), after.tolist(), strict=True)


def _ranges(part: Part, item: int, width: int) -> list[tuple[int, int]]:
    """Return the byte ranges of the array (without its header) to read; ``item`` bytes are a pixel."""
    joined: list[tuple[int, int]] = []
    for row, first, last in _spans(part.mask):
        line = (part.window.row + row) * width + part.window.col
        start, stop = (line + first) * item, (line + last) * item
        if joined and start - joined[-1][1] <= GAP:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    pixels = MAX_RANGE // item * item
    return [(at, min(at + pixels, stop)) for start, stop in joined for at in range(start, stop, pixels)]


def _read_npy(address: str, shape: tuple[int, ...], out: npt.NDArray[Any], part: Part, meter: Meter) -> None:
    """Fill a window's array from a ``.npy`` of the whole tile."""
    local = not storage.scheme(address)
    item = out.dtype.itemsize * (shape[2] if len(shape) == 3 else 1)
    rows, cols = part.window.slices

    def place(start: int, data: bytes) -> None:
        """Put pixels that follow each other in the file where they belong."""
        at, pixels = start // item, np.frombuffer(data, out.dtype).reshape(-1, *shape[2:])
        while len(pixels):
            row, col = divmod(at, shape[1])
            line = pixels[: shape[1] - col]
            lo, hi = max(col, cols.start), min(col + len(line), cols.stop)
            if lo < hi and rows.start <= row < rows.stop:
                out[row - rows.start, lo - cols.start : hi - cols.start] = line[lo - col : hi - col]
            at, pixels = at + len(line), pixels[len(line) :]

    if local:
        array = _mapped(address, shape, out.dtype)
        for start, stop in _ranges(part, item, shape[1]):
            flat = array.reshape(-1, *shape[2:])[start // item : stop // item]
            place(start, flat.tobytes())
            meter.add(stop - start)
        return
    source = _Remote(address, meter)
    offset = _checked(source.read(0, NPY_HEADER), address, shape, out.dtype)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        ranges = _ranges(part, item, shape[1])
        parts = pool.map(lambda r: source.read(offset + r[0], offset + r[1]), ranges)
        for (start, _), data in zip(ranges, parts, strict=True):
            place(start, data)


def _mapped(address: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    path = storage.local_path(address)
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise StorageError(f"{path}: cannot be read as an array: {error}") from error
    if array.shape != shape or array.dtype != dtype:
        raise StorageError(f"{path}: expected {dtype} {shape}, found {array.dtype} {array.shape}")
    return array


def _checked(header: bytes, address: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return where the array begins, having checked that it is the one expected."""
    stream = io.BytesIO(header)
    try:
        np.lib.format.read_magic(stream)
        found, fortran, kind = np.lib.format.read_array_header_1_0(stream)
    except ValueError as error:
        raise StorageError(f"{address}: not a .npy file that can be read in place: {error}") from error
    if found != shape or kind != dtype or fortran:
        raise StorageError(f"{address}: expected {dtype} {shape}, found {kind} {found}")
    return stream.tell()


class _Remote:
    """One file, read by ranges; where it redirects to is asked once."""

    def __init__(self, address: str, meter: Meter) -> None:
        # what source.coop publishes is open to anybody by https
        published = storage.published_address(address) if address.startswith("s3://") else None
        self._address, self._target = address, published or address
        self._meter = meter

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes [start, stop).

        Raises
        ------
        StorageError
            If the server does not answer with them after several attempts.
        """
        import httpx

        if self._target.startswith("s3://"):
            data = storage.s3.objects.read_range(self._target, start, stop)
            self._meter.add(len(data))
            return data
        reason = ""
        for attempt in range(storage.ATTEMPTS):
            if attempt:
                time.sleep(storage.BACKOFF * 2 ** (attempt - 1))
            try:
                answer = _client().get(self._target, headers={"Range": f"bytes={start}-{stop - 1}"})
            except httpx.HTTPError as error:
                reason = str(error) or type(error).__name__
                continue
            if answer.status_code == 206 and len(answer.content) == stop - start:
                self._target = str(answer.url)
                self._meter.add(stop - start)
                return answer.content
            reason = f"status {answer.status_code} for a range, {len(answer.content)} bytes"
            if answer.status_code not in (408, 425, 429, 500, 502, 503, 504):
                break
        raise StorageError(f"{self._address}: bytes {start}-{stop - 1} cannot be read: {reason}")


_CLIENT: dict[str, httpx.Client] = {}
_CLIENT_LOCK = threading.Lock()


def _client() -> httpx.Client:
    """Return the process's client, whose connections all threads share."""
    with _CLIENT_LOCK:
        if "client" not in _CLIENT:
            import httpx

            _CLIENT["client"] = httpx.Client(
                follow_redirects=True, timeout=60, headers={"User-Agent": storage.USER_AGENT}
            )
        return _CLIENT["client"]


# ------------------------------------------------------------------------------------------- COGs


def _blocks(part: Part, block: tuple[int, int], shape: tuple[int, int]) -> Iterator[Window]:
    """Yield runs of neighbouring blocks that hold wanted pixels, as windows of the whole raster."""
    height, width = block
    top, left = part.window.row, part.window.col
    for block_row in range(top // height, (top + part.window.height - 1) // height + 1):
        r0, r1 = block_row * height, min((block_row + 1) * height, shape[0])
        band = part.mask[max(r0 - top, 0) : r1 - top].any(axis=0)
        touched = sorted({int(c) // width for c in np.flatnonzero(band) + left})
        while touched:
            n = 1
            while n < len(touched) and touched[n] == touched[0] + n:
                n += 1
            c0, c1 = touched[0] * width, min((touched[0] + n) * width, shape[1])
            yield Window(r0, c0, r1 - r0, c1 - c0)
            touched = touched[n:]


def _read_cog(
    address: str, numbers: list[int], part: Part, nodata: np.generic, meter: Meter, size: int | None
) -> npt.NDArray[Any]:
    """Read bands (from 1) of a raster: (height, width, bands) of the part's window."""
    import rasterio
    from rasterio.errors import RasterioError
    from rasterio.windows import Window as RasterWindow

    out = np.full((*part.mask.shape, len(numbers)), nodata, dtype=nodata.dtype)
    try:
        with gdal_environment(address, **GDAL_SETTINGS), rasterio.open(gdal_path(address)) as ds:
            if (ds.height, ds.width) != part.source.raster.shape or ds.dtypes[0] != nodata.dtype.name:
                raise StorageError(
                    f"{address}: expected {nodata.dtype} {part.source.raster.shape},"
                    f" found {ds.dtypes[0]} {(ds.height, ds.width)}"
                )
            per_pixel = size * 0.76 / (ds.height * ds.width) * len(numbers) / ds.count if size else 0.0
            for w in _blocks(part, ds.block_shapes[0], (ds.height, ds.width)):
                data = ds.read(numbers, window=RasterWindow(w.col, w.row, w.width, w.height))
                _paste(out, part.window, w, np.moveaxis(data, 0, -1))
                meter.add(round(w.height * w.width * per_pixel))
    except (RasterioError, OSError) as error:
        raise StorageError(f"{address}: cannot be read: {error}") from error
    out[~part.mask] = nodata
    return out


def _paste(out: npt.NDArray[Any], window: Window, read: Window, data: npt.NDArray[Any]) -> None:
    """Copy what was read into a window's array; the two overlap somewhere."""
    r0, r1 = max(read.row, window.row), min(read.row + read.height, window.row + window.height)
    c0, c1 = max(read.col, window.col), min(read.col + read.width, window.col + window.width)
    out[r0 - window.row : r1 - window.row, c0 - window.col : c1 - window.col] = data[
        r0 - read.row : r1 - read.row, c0 - read.col : c1 - read.col
    ]
