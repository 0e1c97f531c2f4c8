"""Write a Cloud Optimized GeoTIFF directly, many bands at the speed of its codec.

Why not a library: GDAL before 3.11 cannot write ``INTERLEAVE=TILE`` (planar, with all bands of a
block side by side in the file), no version of its COG driver takes overviews made elsewhere in
memory, and each copies the data two or three times. One pass is enough here: cut a block, difference
it, transpose it, compress each band, remember the bytes; then the header is known, and everything is
written once, in order.

The layout is that of GDAL's COG driver (https://gdal.org/drivers/raster/cog.html, OGC 21-026):

1. TIFF header, then the *ghost area* that tells GDAL what it may rely on;
2. all directories (full resolution first, overviews after), then the arrays of block offsets and
   sizes: one contiguous header of :attr:`CogFile.header_size` bytes;
3. the blocks, smallest overview first, each with a 4 byte size before it and its own last 4 bytes
   repeated after it.

**Defaults.** ``interleave="tile"``, 64 pixel blocks and 144 of overviews
(:mod:`~catalog_builder.convert.encode.blocks`), scales in strips, zstd level 1, and no predictor in planar
files of several bands (:func:`~catalog_builder.convert.encode.predictor.default_predictor`). Codes hardly
compress: zstd levels 3 and 9 and deflate save less than 1 % for up to five times the CPU, no compression
costs 20 %, no predictor up to 15 % on synthetic tiles (on real ones unknown). GETs / MB measured with GDAL
3.12 ``/vsicurl/`` on a synthetic 1139 x 728 x 128 int8 tile of 129 to 132 MB with overviews, header included:

==================  ================  ================  ==============  =============  ==============
blocks / overviews  one pixel, all    field, 4 blocks,  256 window,     3 bands,       3 bands at 1/8
                    bands             all bands         all bands       whole
==================  ================  ================  ==============  =============  ==============
tile 48 / 144       4 / 0.52          5 / 1.3           10 / 10.3       1,156 / 2.4    5 / 0.09
**tile 64 / 144**   4 / 0.75          5 / 2.2           8 / 12.4        651 / 2.4      5 / 0.09
tile 64             4 / 0.74          5 / 2.1           8 / 12.3        651 / 2.3      20 / 0.09
tile 128            3 / 2.1           4 / 7.9           5 / 17.7        164 / 2.4      8 / 0.09
tile 256            2 / 8.0           3 / 32            3 / 29.2        46 / 2.3       5 / 0.14
band 128            130 / 2.1         258 / 7.9         386 / 17.7      5 / 2.4        5 / 0.09
==================  ================  ================  ==============  =============  ==============

(readers set ``GDAL_DISABLE_READDIR_ON_OPEN=EMPTY_DIR``, ``GDAL_INGESTED_BYTES_AT_OPEN=32768`` and
``GDAL_MAX_RAW_BLOCK_CACHE_SIZE=268435456``; without the last one GDAL 3.12 reads the 12 MB of an unaligned
window in 148 requests, because they exceed its 10 MB. With 65536 bytes at opening a pixel is 3 / 0.72.)

In the file, ``interleave="tile"`` orders blocks by position, then band; ``"band"`` by band, then
position; ``"pixel"`` has one block per position with the bands inside. The offset arrays are
band-major in both planar forms, as TIFF 6.0 prescribes for ``PlanarConfiguration=2``.
"""

from __future__ import annotations

import hashlib
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import zstandard

from catalog_builder.convert.encode.blocks import BLOCK_SIZE, BlockSize, block_shape
from catalog_builder.convert.encode.predictor import default_predictor
from catalog_builder.convert.encode.tiff import (
    BandStatistics,
    Compression,
    Interleave,
    Layout,
    Predictor,
    assemble_header,
    geo_tags,
    metadata_tags,
)
from catalog_builder.errors import ConvertError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["BandStatistics", "CogFile", "Compression", "Interleave", "Predictor", "write_cog"]


type Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class CogFile:
    """The written file."""

    size: int
    """Length of the file, bytes."""
    header_size: int
    """Bytes before the first block (``file:header_size``): what a reader must fetch first."""
    sha256: str
    """SHA-256 of the file, lower-case hex, computed while it was written."""
    shapes: tuple[tuple[int, int], ...]
    """(rows, cols) of every level, full resolution first."""
    bands: int
    """Number of bands."""
    dtype: str
    """numpy name of the data type."""
    blocks: tuple[tuple[int, int], ...]
    """(rows, cols) of a block (TIFF tile) of every level."""
    interleave: Interleave
    """Order of the samples in the file."""
    predictor: Predictor
    """TIFF tag 317; 1 is none."""
    bigtiff: bool
    """Whether offsets are 64 bit."""


@dataclass(frozen=True, slots=True)
class _Position:
    """The blocks of one position of the raster, encoded."""

    sizes: list[int]
    """Compressed bytes per band; of the one block if pixel-interleaved."""
    framed: list[bytes]
    """Blocks with leader and trailer: joined to one item, or one per band for ``interleave="band"``."""


class _BlockEncoder:
    """Encodes blocks by position; one instance per thread and layout, whose buffers are reused."""

    def __init__(self, layout: Layout) -> None:
        (height, width), bands = layout.block, layout.bands
        self.layout = layout
        # Predictor 2 differences words, whatever their sign: unsigned arithmetic wraps without a warning.
        word = layout.dtype if layout.is_float else np.dtype(f"u{layout.dtype.itemsize}")
        self.word = word
        self.block = np.zeros((height, width, bands), word)
        self.planes = np.zeros((bands, height, width), word) if layout.planar else self.block
        self.compress = _compressor(layout)

    def encode(self, level: NDArray[Any], row: int, col: int) -> _Position:
        """Encode the position whose first pixel is (`row`, `col`).

        Pixels outside of the raster are written as zero residuals: no reader shows them, and a
        constant compresses best.
        """
        height, width = self.layout.block
        cut = level[row : row + height, col : col + width].view(self.word)
        rows, cols = cut.shape[:2]
        block = self.block
        if rows < height or cols < width:
            block[rows:] = 0
            block[:, cols:] = 0
        if self.layout.predictor == 2:
            # Along a row in the pixel-major order of the source this is one long contiguous
            # subtraction; after the transposition it would be many short ones.
            block[:rows, 0] = cut[:, 0]
            np.subtract(cut[:, 1:], cut[:, :-1], out=block[:rows, 1:cols])
        else:
            block[:rows, :cols] = cut
        if not self.layout.planar:
            encoded = _float_difference(block) if self.layout.predictor == 3 else block
            return self.frame(encoded.reshape(1, -1))
        planes = self.planes
        if self.layout.bands == 1:
            planes[0] = block[..., 0]
        else:
            # A row at a time: one row of all bands stays in the first-level cache while it is
            # scattered, which is twice as fast as transposing the block in one call.
            for y in range(height):
                planes[:, y] = block[y].T
        encoded = _float_difference(planes[..., None]) if self.layout.predictor == 3 else planes
        return self.frame(encoded.reshape(self.layout.bands, -1))

    def frame(self, blocks: NDArray[Any]) -> _Position:
        """Compress every row of `blocks`, with the leader and trailer that the ghost area promises."""
        sizes: list[int] = []
        parts: list[Buffer] = []
        for block in self.compress(blocks):
            sizes.append(len(block))
            # The last four bytes again (a block is never shorter): a writer that appended is noticed.
            parts += (struct.pack("<I", len(block)), block, block[-4:])
        if self.layout.interleave == "band":
            return _Position(sizes, [b"".join(parts[i : i + 3]) for i in range(0, len(parts), 3)])
        return _Position(sizes, [b"".join(parts)])


def _compressor(layout: Layout) -> Callable[[NDArray[Any]], Iterable[Buffer]]:
    """Return a function from (blocks, words) to the compressed blocks."""
    if layout.compression == "none":
        return lambda blocks: (block.tobytes() for block in blocks)
    if layout.compression == "deflate":
        return lambda blocks: (zlib.compress(block.data, layout.level) for block in blocks)
    codec = zstandard.ZstdCompressor(level=layout.level)
    if "multi_compress_to_buffer" not in zstandard.backend_features:
        return lambda blocks: (codec.compress(block.data) for block in blocks)

    def compress(blocks: NDArray[Any]) -> Iterator[Buffer]:
        # All bands in one call: no allocation per band, a tenth faster for blocks of 16 kB.
        segments = codec.multi_compress_to_buffer([block.data for block in blocks])
        for band in range(len(segments)):
            yield memoryview(segments[band])  # type: ignore[arg-type]  # its stubs do not say that it is one

    return compress


def _float_difference(block: NDArray[Any]) -> NDArray[np.uint8]:
    """Predictor 3 (Adobe TIFF Technical Note 3) over the rows of a float32 block.

    `block` is (..., rows, cols, samples). In a row, bytes are regrouped into four planes, most
    significant first, each in sample order; then every byte is replaced by its difference to the
    byte `samples` before it. Returns uint8 (..., rows, cols * samples * 4).
    """
    samples = block.shape[-1]
    flat = block.reshape(*block.shape[:-2], -1).view(np.uint8).reshape(*block.shape[:-2], -1, 4)
    planes = np.ascontiguousarray(np.moveaxis(flat[..., ::-1], -1, -2))
    row = planes.reshape(*planes.shape[:-2], -1)
    out = row.copy()
    np.subtract(row[..., samples:], row[..., :-samples], out=out[..., samples:])
    return out


def write_cog(
    stream: BinaryIO,
    levels: Sequence[NDArray[Any]],
    *,
    crs_epsg: int,
    transform: Sequence[float],
    nodata: float | None = None,
    block_size: BlockSize = BLOCK_SIZE,
    overview_block_size: int | None = None,
    interleave: Interleave = "tile",
    compression: Compression = "zstd",
    level: int = 1,
    predictor: Predictor | None = None,
    band_descriptions: Sequence[str] | None = None,
    band_statistics: Sequence[BandStatistics] | None = None,
    band_scale_offset: Sequence[tuple[float, float]] | None = None,
    tags: Mapping[str, str] | None = None,
    overview_resampling: str | None = None,
    bigtiff: bool | None = None,
    threads: int = 1,
) -> CogFile:
    """Write `levels` as one Cloud Optimized GeoTIFF and return what was written.

    Parameters
    ----------
    stream
        An open binary file, written from its current position strictly forward.
    levels
        Full resolution first, then the overviews, each (rows, cols, bands) in pixel-major order, the
        order of a TESSERA ``.npy``; (rows, cols) for one band. All of one dtype: int8, uint8, int16,
        uint16 or float32. An overview is half of the level before it, floored, at least 1.
    crs_epsg
        EPSG code of the projected or geographic CRS.
    transform
        Affine coefficients (a, b, c, d, e, f) of pixel corner to CRS, as ``affine.Affine`` has them.
    nodata
        Value of pixels without data, in every band; NaN for floats.
    block_size
        Rows and columns of a block, a multiple of 16; or ``strips``, as wide as the level and 16 rows high:
        blocks of neighbouring rows are neighbours in the file, so that one range holds any window.
    overview_block_size
        The same of the overviews; by default as `block_size`.
    level
        Level of the codec: zstd 1 to 22, deflate 1 to 9.
    predictor
        1 none, 2 difference of integers, 3 difference of floats; by default
        :func:`~catalog_builder.convert.encode.predictor.default_predictor`.
    band_descriptions, band_statistics, band_scale_offset
        One item per band. 128 bands of statistics add 45 kB to the header that every reader fetches.
    tags
        TIFF-wide metadata (GDAL's default domain).
    overview_resampling
        Recorded as GDAL does (``OVERVIEW_RESAMPLING`` in ``IMAGE_STRUCTURE``), upper case.
    bigtiff
        None: when 4 GiB would be exceeded. True or False forces it.
    threads
        Threads that encode blocks. The bytes do not depend on it.

    Raises
    ------
    ConvertError
        An argument that does not fit the data, or a file too large for ``bigtiff=False``.
    OSError
        The stream cannot be written.

    Examples
    --------
    >>> import io
    >>> levels = [np.zeros((64, 64, 4), np.int8)]
    >>> cog = write_cog(io.BytesIO(), levels, crs_epsg=32631, transform=(10, 0, 500000, 0, -10, 5800000))
    >>> cog.shapes, cog.bands
    (((64, 64),), 4)
    """
    pixels = [_as_level(array) for array in levels]
    _check_pyramid(pixels)
    bands, dtype = pixels[0].shape[2], pixels[0].dtype
    if predictor is None:
        predictor = default_predictor(dtype, bands, interleave, compression)
    shapes = tuple((array.shape[0], array.shape[1]) for array in pixels)
    sizes = [block_size] + [block_size if overview_block_size is None else overview_block_size] * len(
        shapes[1:]
    )
    layouts = [
        Layout(bands, dtype, block_shape(size, cols), interleave, compression, level, predictor)
        for size, (_, cols) in zip(sizes, shapes, strict=True)
    ]
    first_tags = geo_tags(crs_epsg, transform) + metadata_tags(
        layouts[0],
        tags or {},
        descriptions=band_descriptions,
        statistics=band_statistics,
        scale_offset=band_scale_offset,
        overview_resampling=overview_resampling,
    )
    encoded = _encode(pixels, layouts, threads)
    counts = [np.array([at.sizes for at in positions], np.uint64).T for positions in encoded]
    header = assemble_header(shapes, layouts, counts, first_tags, nodata, bigtiff)

    digest = hashlib.sha256()
    chunks = chain((header.data,), _file_order(encoded))
    size = _write(stream, chunks, digest.update)
    return CogFile(
        size=size,
        header_size=len(header.data),
        sha256=digest.hexdigest(),
        shapes=shapes,
        bands=bands,
        dtype=dtype.name,
        blocks=tuple(layout.block for layout in layouts),
        interleave=interleave,
        predictor=predictor,
        bigtiff=header.bigtiff,
    )


def _as_level(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise ConvertError(f"a level has shape {array.shape}: expected (rows, cols, bands), none of them 0")
    # The file is little-endian; a no-op on every common machine.
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _check_pyramid(levels: Sequence[NDArray[Any]]) -> None:
    if not levels:
        raise ConvertError("no level to write")
    for upper, lower in pairwise(levels):
        expected = (max(1, upper.shape[0] // 2), max(1, upper.shape[1] // 2), upper.shape[2])
        if lower.shape != expected or lower.dtype != upper.dtype:
            raise ConvertError(
                f"overview {lower.shape} {lower.dtype} below {upper.shape} {upper.dtype}: "
                f"expected {expected} {upper.dtype}"
            )


def _encode(levels: Sequence[NDArray[Any]], layouts: Sequence[Layout], threads: int) -> list[list[_Position]]:
    local = threading.local()

    def encode(job: tuple[Layout, NDArray[Any], int, int]) -> _Position:
        layout, array, y, x = job
        encoder: _BlockEncoder | None = getattr(local, "encoder", None)
        if encoder is None or encoder.layout is not layout:
            encoder = local.encoder = _BlockEncoder(layout)  # levels come one after the other
        return encoder.encode(array, y, x)

    jobs = [
        [
            (layout, array, y, x)
            for y in range(0, array.shape[0], layout.block[0])
            for x in range(0, array.shape[1], layout.block[1])
        ]
        for array, layout in zip(levels, layouts, strict=True)
    ]
    if threads <= 1:
        return [[encode(job) for job in level_jobs] for level_jobs in jobs]
    with ThreadPoolExecutor(threads) as pool:
        done = pool.map(encode, chain.from_iterable(jobs))
        return [[next(done) for _ in level_jobs] for level_jobs in jobs]


def _file_order(encoded: list[list[_Position]]) -> Iterator[bytes]:
    """Yield the data section: smallest level first, then by band (if kept apart), then by position."""
    for positions in reversed(encoded):
        for group in zip(*(at.framed for at in positions), strict=True):
            yield from group


def _write(stream: BinaryIO, chunks: Iterable[bytes], digest: Callable[[bytes], None]) -> int:
    size = 0
    for chunk in chunks:
        stream.write(chunk)
        digest(chunk)
        size += len(chunk)
    return size
