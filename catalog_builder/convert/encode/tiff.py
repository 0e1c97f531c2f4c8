"""Everything of a Cloud Optimized GeoTIFF before its first block: directories, tags, ghost area.

TIFF 6.0 (classic) and BigTIFF, little-endian, GeoTIFF 1.1 (OGC 19-008r4), and the conventions of GDAL's
COG driver (https://gdal.org/drivers/raster/cog.html). :mod:`.cog` encodes the blocks and writes the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from catalog_builder.errors import ConvertError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

type Interleave = Literal["tile", "band", "pixel"]
type Compression = Literal["zstd", "deflate", "none"]
type Predictor = Literal[1, 2, 3]

_COMPRESSION_TAG: Final = {"none": 1, "deflate": 8, "zstd": 50000}
_SAMPLE_FORMAT: Final = {"u": 1, "i": 2, "f": 3}
_DTYPES: Final = ("int8", "uint8", "int16", "uint16", "float32")
# Room for the last block's end below 2**32, the largest offset of a classic TIFF.
_CLASSIC_LIMIT: Final = 2**32 - 2**16
_SHORT, _LONG, _DOUBLE, _ASCII, _LONG8 = 3, 4, 12, 2, 16
_TYPE_CODE: Final = {_SHORT: "H", _LONG: "I", _DOUBLE: "d", _LONG8: "Q"}


@dataclass(frozen=True, slots=True)
class BandStatistics:
    """Statistics of one band over its valid pixels, in the units of the stored values."""

    minimum: float
    """Smallest valid value; NaN when no pixel is valid."""
    maximum: float
    """Largest valid value."""
    mean: float
    """Mean of the valid values."""
    stddev: float
    """Population standard deviation of the valid values."""
    valid_percent: float
    """Share of valid pixels among all pixels, 0 to 100."""

    def gdal_items(self) -> dict[str, str]:
        """Return GDAL's ``STATISTICS_*`` items; empty when no pixel is valid."""
        if self.mean != self.mean:  # NaN: GDAL has no way to say "no valid pixel"
            return {}
        return {
            "STATISTICS_MINIMUM": f"{self.minimum:.8g}",
            "STATISTICS_MAXIMUM": f"{self.maximum:.8g}",
            "STATISTICS_MEAN": f"{self.mean:.8g}",
            "STATISTICS_STDDEV": f"{self.stddev:.8g}",
            "STATISTICS_VALID_PERCENT": f"{self.valid_percent:.4g}",
        }


@dataclass(frozen=True, slots=True)
class Layout:
    """How the blocks of a level are encoded: the parameters they share, validated once."""

    bands: int
    dtype: np.dtype[Any]
    block: tuple[int, int]
    """Rows and columns of a block."""
    interleave: Interleave
    compression: Compression
    level: int
    predictor: Predictor

    def __post_init__(self) -> None:
        if self.dtype.name not in _DTYPES:
            raise ConvertError(
                f"cannot write {self.dtype.name} samples: expected one of {', '.join(_DTYPES)}"
            )
        for size in self.block:
            if not 16 <= size <= 0xFFFF or size % 16:
                raise ConvertError(f"block size {size} is not a multiple of 16 from 16 to 65520")
        if self.compression not in _COMPRESSION_TAG:
            raise ConvertError(f"unknown compression {self.compression!r}: expected zstd, deflate or none")
        if self.interleave not in ("tile", "band", "pixel"):
            raise ConvertError(f"unknown interleave {self.interleave!r}: expected tile, band or pixel")
        if self.predictor not in (1, 2, 3) or (self.predictor == 3) != (self.is_float and self.predictor > 1):
            raise ConvertError(f"predictor {self.predictor} does not apply to {self.dtype.name} samples")
        if self.predictor > 1 and self.compression == "none":
            raise ConvertError("a predictor needs a compression")
        if not 1 <= self.bands <= 0xFFFF:
            raise ConvertError(f"{self.bands} bands: TIFF holds 1 to 65535")

    @property
    def is_float(self) -> bool:
        """Whether samples are floating point."""
        return self.dtype.kind == "f"

    @property
    def planar(self) -> bool:
        """Whether every block holds a single band."""
        return self.interleave != "pixel"


@dataclass(frozen=True, slots=True)
class Header:
    """The finished header."""

    data: bytes
    """Everything before the first block's leader."""
    bigtiff: bool
    """Whether offsets are 64 bit."""


type Tag = tuple[int, int, Any]
"""A tag, its TIFF type and its value or values."""


def assemble_header(
    shapes: Sequence[tuple[int, int]],
    layouts: Sequence[Layout],
    counts: Sequence[NDArray[np.uint64]],
    first_tags: Sequence[Tag],
    nodata: float | None,
    bigtiff: bool | None,
) -> Header:
    """Build the header of a file whose blocks are already encoded.

    Parameters
    ----------
    shapes
        (rows, cols) of every level, full resolution first.
    layouts
        Of every level; they differ in nothing but their blocks.
    counts
        Per level the bytes of every block, (band, position); one row if pixel-interleaved.
    first_tags
        Tags of the first directory only: :func:`geo_tags` and :func:`metadata_tags`.
    bigtiff
        None: when the file would not fit a classic TIFF.
    """
    # The header's size does not depend on the offsets in it, so it is built twice: with zeros to
    # learn where the data start, and with the real offsets.
    data_size = sum(int(count.sum()) + 8 * count.size for count in counts)
    zeros = [np.zeros_like(count) for count in counts]
    big = bool(bigtiff)
    head = _header_bytes(shapes, layouts, zeros, counts, first_tags, nodata, big=big)
    if not big and len(head) + data_size > _CLASSIC_LIMIT:
        if bigtiff is False:
            raise ConvertError(f"{len(head) + data_size} bytes do not fit a classic TIFF")
        big = True
        head = _header_bytes(shapes, layouts, zeros, counts, first_tags, nodata, big=big)
    offsets: list[NDArray[np.uint64]] = []
    start = len(head)
    by_position = layouts[0].interleave == "tile"
    for count in reversed(counts):
        ordered = count.T if by_position else count
        ends = np.cumsum(ordered.ravel() + np.uint64(8), dtype=np.uint64)
        first = (start + ends - ordered.ravel() - np.uint64(4)).reshape(ordered.shape)
        offsets.insert(0, first.T if by_position else first)
        start += int(ends[-1])
    return Header(_header_bytes(shapes, layouts, offsets, counts, first_tags, nodata, big=big), big)


def _header_bytes(
    shapes: Sequence[tuple[int, int]],
    layouts: Sequence[Layout],
    offsets: Sequence[NDArray[np.uint64]],
    counts: Sequence[NDArray[np.uint64]],
    first_tags: Sequence[Tag],
    nodata: float | None,
    *,
    big: bool,
) -> bytes:
    ghost = _ghost(layouts[0])
    out = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if big else struct.pack("<2sHI", b"II", 42, 0))
    link = len(out) - (8 if big else 4)  # where the offset of the next directory goes
    out += ghost
    late: list[tuple[int, bytes]] = []
    for index, (shape, layout) in enumerate(zip(shapes, layouts, strict=True)):
        entries = _directory(shape, layout, nodata, overview=index > 0)
        if index == 0:
            entries += first_tags
        # Sizes below 64 KiB as SHORT: half the bytes to fetch, and what libtiff writes as well.
        count_type = _SHORT if counts[index].max() < 0x10000 else _LONG
        entries += [
            (324, _LONG8 if big else _LONG, offsets[index].ravel()),
            (325, count_type, counts[index].ravel()),
        ]
        out += bytes(len(out) % 2)  # a directory begins on an even offset
        struct.pack_into("<Q" if big else "<I", out, link, len(out))
        link = _append_directory(out, entries, late, big=big)
    # The offset arrays after all directories: a reader that only opens the file stops before them.
    for place, payload in late:
        out += bytes(-len(out) % 8)
        struct.pack_into("<Q" if big else "<I", out, place, len(out))
        out += payload
    return bytes(out)


def _append_directory(out: bytearray, entries: list[Tag], late: list[tuple[int, bytes]], *, big: bool) -> int:
    """Append a directory and its values; return where its link to the next one is.

    The block arrays go to `late` as (place of their offset, bytes), unless they fit in the entry.
    """
    entry_size, room = (20, 8) if big else (12, 4)
    start = len(out)
    body = start + (8 if big else 2)
    link = body + entry_size * len(entries)
    out += bytes(link + room - start)
    struct.pack_into("<Q" if big else "<H", out, start, len(entries))
    for position, (tag, kind, values) in enumerate(sorted(entries, key=lambda entry: entry[0])):
        count, payload = _payload(kind, values)
        at = body + entry_size * position
        struct.pack_into("<HHQ" if big else "<HHI", out, at, tag, kind, count)
        place = at + entry_size - room
        if len(payload) <= room:
            out[place : place + len(payload)] = payload
        elif tag in (324, 325):
            late.append((place, payload))
        else:
            out += bytes(len(out) % 2)
            struct.pack_into("<Q" if big else "<I", out, place, len(out))
            out += payload
    return link


def _payload(kind: int, values: Any) -> tuple[int, bytes]:
    if kind == _ASCII:
        text = values.encode() + b"\0"
        return len(text), text
    array = np.atleast_1d(np.asarray(values)).astype("<" + np.dtype(_TYPE_CODE[kind]).str[1:])
    return array.size, array.tobytes()


def _ghost(layout: Layout) -> bytes:
    lines = [
        "LAYOUT=IFDS_BEFORE_DATA",
        "BLOCK_ORDER=ROW_MAJOR",
        "BLOCK_LEADER=SIZE_AS_UINT4",
        "BLOCK_TRAILER=LAST_4_BYTES_REPEATED",
    ]
    if layout.planar and layout.bands > 1:
        lines.append(f"INTERLEAVE={layout.interleave.upper()}")
    # The space leaves room for YES, which GDAL writes over NO when it breaks the layout.
    text = "".join(f"{line}\n" for line in [*lines, "KNOWN_INCOMPATIBLE_EDITION=NO"]) + " "
    return f"GDAL_STRUCTURAL_METADATA_SIZE={len(text):06d} bytes\n{text}".encode()


def _directory(shape: tuple[int, int], layout: Layout, nodata: float | None, *, overview: bool) -> list[Tag]:
    (rows, cols), bands = shape, layout.bands
    rgb = layout.dtype == np.uint8 and bands in (3, 4)
    entries: list[Tag] = [
        (256, _LONG, cols),
        (257, _LONG, rows),
        (258, _SHORT, [8 * layout.dtype.itemsize] * bands),
        (259, _SHORT, _COMPRESSION_TAG[layout.compression]),
        (262, _SHORT, 2 if rgb else 1),
        (277, _SHORT, bands),
        (284, _SHORT, 2 if layout.planar and bands > 1 else 1),
        (322, _SHORT, layout.block[1]),
        (323, _SHORT, layout.block[0]),
        (339, _SHORT, [_SAMPLE_FORMAT[layout.dtype.kind]] * bands),
    ]
    if overview:
        entries.append((254, _LONG, 1))
    if layout.predictor > 1:
        entries.append((317, _SHORT, layout.predictor))
    extra = bands - (3 if rgb else 1)
    if extra:
        # A fourth band beside RGB is unassociated alpha; others are unspecified.
        entries.append((338, _SHORT, [2] if rgb else [0] * extra))
    if nodata is not None:
        entries.append((42113, _ASCII, "nan" if nodata != nodata else f"{nodata:.17g}"))
    return entries


def geo_tags(crs_epsg: int, transform: Sequence[float]) -> list[Tag]:
    """GeoTIFF 1.1 (OGC 19-008r4): the transform, and the CRS by its EPSG code."""
    a, b, c, d, e, f = (float(value) for value in tuple(transform)[:6])
    keys = [1, 1, 0, 3, 1024, 0, 1, 2, 1025, 0, 1, 1, 2048, 0, 1, crs_epsg]
    if not _is_geographic(crs_epsg):
        keys[7], keys[12] = 1, 3072
    entries: list[Tag] = [(34735, _SHORT, keys)]
    if b == 0 and d == 0 and a > 0 and e < 0:
        entries += [(33550, _DOUBLE, [a, -e, 0.0]), (33922, _DOUBLE, [0.0, 0.0, 0.0, c, f, 0.0])]
    else:
        entries.append((34264, _DOUBLE, [a, b, 0, c, d, e, 0, f, 0, 0, 0, 0, 0, 0, 0, 1]))
    return entries


def _is_geographic(crs_epsg: int) -> bool:
    if 32601 <= crs_epsg <= 32660 or 32701 <= crs_epsg <= 32760:
        return False
    from pyproj import CRS  # half of a second to import, and UTM does not need it
    from pyproj.exceptions import CRSError

    try:
        return bool(CRS.from_epsg(crs_epsg).is_geographic)
    except CRSError as error:
        raise ConvertError(f"EPSG:{crs_epsg} is not a known CRS") from error


def metadata_tags(
    layout: Layout,
    tags: Mapping[str, str],
    *,
    descriptions: Sequence[str] | None = None,
    statistics: Sequence[BandStatistics] | None = None,
    scale_offset: Sequence[tuple[float, float]] | None = None,
    overview_resampling: str | None = None,
) -> list[Tag]:
    """Return the ``GDAL_METADATA`` tag (XML): tags, per-band items, what TIFF itself cannot say."""
    for name, values in (
        ("descriptions", descriptions),
        ("statistics", statistics),
        ("scales", scale_offset),
    ):
        if values is not None and len(values) != layout.bands:
            raise ConvertError(f"{len(values)} band {name} for {layout.bands} bands")
    items = [_item(name, value) for name, value in tags.items()]
    if overview_resampling:
        items.append(_item("OVERVIEW_RESAMPLING", overview_resampling.upper(), ' domain="IMAGE_STRUCTURE"'))
    if layout.interleave == "tile" and layout.bands > 1:
        # TIFF itself cannot tell TILE from BAND; this is where GDAL >= 3.11 looks.
        items.append(_item("INTERLEAVE", "TILE", ' domain="IMAGE_STRUCTURE"'))
    for band in range(layout.bands):
        sample = f' sample="{band}"'
        if descriptions is not None:
            items.append(_item("DESCRIPTION", descriptions[band], f'{sample} role="description"'))
        if statistics is not None:
            items += [_item(name, value, sample) for name, value in statistics[band].gdal_items().items()]
        if scale_offset is not None:
            scale, offset = scale_offset[band]
            items.append(_item("OFFSET", f"{offset:.17g}", f'{sample} role="offset"'))
            items.append(_item("SCALE", f"{scale:.17g}", f'{sample} role="scale"'))
    return [(42112, _ASCII, f"<GDALMetadata>{''.join(items)}</GDALMetadata>")] if items else []


def _item(name: str, value: str, attributes: str = "") -> str:
    if not all(character in "\t\n\r" or character >= " " for character in f"{name}{value}"):
        raise ConvertError(f"the tag {name!r} holds a control character, which XML cannot carry: {value!r}")
    # GDAL escapes a value once as a string and once more as XML, and undoes both: so must we.
    twice = escape(escape(value, {'"': "&quot;"}))
    return f"<Item name={quoteattr(name)}{attributes}>{twice}</Item>"


def tag_item(band: int, domain: str, name: str, value: str) -> str:
    """Return a tag as an item of the ``GDAL_METADATA`` tag.

    Parameters
    ----------
    band
        From 1; 0 is the dataset.
    domain
        Empty: the default one.

    Examples
    --------
    >>> tag_item(2, "SENSOR", "gain", "0.5")
    '<Item name="gain" sample="1" domain="SENSOR">0.5</Item>'
    """
    of_band = f' sample="{band - 1}"' if band else ""
    of_domain = f" domain={quoteattr(domain)}" if domain else ""
    return _item(name, value, of_band + of_domain)
