"""VRT documents: float32 embeddings and raw arrays as views, so no pixel is stored twice.

Four kinds of document, all pure functions from a description to XML:

* :func:`raw_codes_vrt` and :func:`raw_scales_vrt` describe upstream's ``.npy`` files as they are on
  disk (an uncompressed array after a short header), so GDAL reads any window of them by range;
  :func:`raw_bytes_vrt` is what the float32 view reads of the codes.
* :func:`f32_vrt` multiplies codes by scales with GDAL's built-in ``mul`` pixel function, whatever
  the two are: raw views, or COGs (:func:`cog_f32_vrt`).
* :func:`cog_window_vrt` multiplies all bands of a COG pair at once, for GDAL 3.9 or newer.
* :func:`band_vrt` is the same for one band, for clients that read one band per asset. It reads
  raw arrays through labels: see :mod:`catalog_builder.raster.label` for why.

Values equal numpy's ``codes.astype("f4") * scales[..., None]`` bit for bit: ``mul`` works in
float64, where int8 x float32 is exact (8 + 24 bits), and rounding that once to float32 is what a
float32 multiplication does. Signed zeros, infinities and NaN come out the same too.

**A derived band shows no NoDataValue, and has one that nothing equals, on purpose.** With NaN as its nodata
GDAL 3.12's ``mul`` skips an operand that is NaN and returns the other one, such as -128, as if it were an
embedding. Without one, GDAL before 3.12.3 begins by zeroing as many bytes as the window has, side by side,
even where the buffer's lines are longer: a mosaic of two views (STACIT, gdalbuildvrt) then has zeros where
values of the first were, without an error. With a number that is neither a code nor a float32, GDAL 3.6, 3.10
and 3.12 are exact, NaN scales give NaN, and ``HideNoDataValue`` keeps it from readers.

**Codes go through a look-up table, in Float32, on purpose.** GDAL before 3.7 has no Int8: a VRT reads signed
bytes as 0 to 255, without an error. The table gives both ways of counting the same code. It is applied only
where a source is read as a real type; GDAL reads it in the type of the caller's buffer, complex for
``gdallocationinfo`` and Int16 for some, unless the band names one. So both are needed, and GDAL 3.6, 3.10 and
3.12 are exact with them for buffers of Float32, Float64, Int16 and both complex types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, Self
from urllib.parse import quote
from xml.etree import ElementTree

from catalog_builder.raster.gdal import gdal_path
from catalog_builder.raster.label import RawArray, placement
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import Grid, Raster, TileId

VIEW_FORM = 4
"""Version of the documents that are kept beside COGs, recorded with them. Of :func:`cog_f32_vrt` version 1 is
read wrongly by GDAL before 3.7, and all before 4 in mosaics; up to 2 there is no :func:`cog_window_vrt`."""
RAW_STRIP = 64
"""Rows that a float32 view of raw arrays reads at a time. GDAL reads band by band otherwise, and keeps
16 MB of what it fetched: a tile of 107 MB would be fetched 128 times. 64 rows are at most 9 MB."""

Metadata = Mapping[str, str]

CODES_LUT = "-128:-128,127:127,128:-128,255:-1"
"""GDAL's look-up table from a code, or from the same byte read as unsigned, to the code: straight lines of
slope 1, so every code is met exactly."""
_LUT_ELEMENT = f"<LUT>{CODES_LUT}</LUT>"

_NOTHING = "<NoDataValue>-1e30</NoDataValue><HideNoDataValue>1</HideNoDataValue>"
"""A nodata that no operand equals: as a float32 it is another number."""
_NO_CODE = 128
"""A number that no int8 code is."""

_PIXEL_INTERLEAVED = '<Metadata domain="IMAGE_STRUCTURE"><MDI key="INTERLEAVE">PIXEL</MDI></Metadata>\n'


@dataclass(frozen=True, slots=True)
class VrtSource:
    """A raster that a view reads: on the same grid, and of the same shape, as the view."""

    href: str
    """Relative to the VRT (``grid_0.15_52.05.vrt``), an absolute path, or an http(s) or s3 URL."""
    dtype: Literal["Int8", "Byte", "Float32"]
    """GDAL's name of the element type; Byte is codes whose sign GDAL does not know, see :data:`CODES_LUT`."""
    block: tuple[int, int] | None = None
    """(height, width) of its blocks. With it GDAL opens the view without opening the source."""
    bands: int = 1
    """Number of bands: scales have one, or one per band of the codes."""


def tessera_metadata(dataset: Dataset, tile: TileId, year: int, grid: Grid = "utm") -> dict[str, str]:
    """Return the dataset tags of a tile-year: those that geotessera 0.11 writes to a GeoTIFF, and ours.

    ``TESSERA_GRID`` says which origin the transform has; ``TESSERA_SYNTHETIC=YES`` that the pixels
    are made up.
    """
    tags = {
        "AREA_OR_POINT": "Area",
        "TESSERA_DATASET_VERSION": dataset.version,
        "TESSERA_DATASET_VERSION_PATH": f"v{dataset.version.removesuffix('.0')}",
        "TESSERA_DATASET_VARIANT": dataset.variant,
        "TESSERA_YEAR": str(year),
        "TESSERA_TILE_LAT": f"{tile.lat:.2f}",
        "TESSERA_TILE_LON": f"{tile.lon:.2f}",
        "TESSERA_DESCRIPTION": "GeoTessera satellite embedding tile",
        "TESSERA_GRID": grid,
    }
    if dataset.is_synthetic:
        tags["TESSERA_DATASET_VERSION_PATH"] = dataset.directory
        tags["TESSERA_DESCRIPTION"] = "Synthetic tile in TESSERA's formats, not real data"
        tags["TESSERA_SYNTHETIC"] = "YES"
    return tags


def band_name(band: int) -> str:
    """Return upstream's description of a band, counted from 0: ``Tessera_Band_5``."""
    return f"Tessera_Band_{band}"


def raw_codes_vrt(raster: Raster, array: RawArray, metadata: Metadata | None = None) -> str:
    """Return a VRT of 128 Int8 bands over an embedding ``.npy``, int8 ``(height, width, 128)``.

    Parameters
    ----------
    raster
        The tile's grid; its shape must be the array's.
    array
        The ``.npy``, beside the VRT.
    metadata
        Dataset tags, see :func:`tessera_metadata`.
    """
    return _raw_vrt(raster, array, array.dtype, [band_name(b) for b in range(N_BANDS)], metadata)


def raw_bytes_vrt(raster: Raster, array: RawArray) -> str:
    """Return a VRT of the same bands as unsigned bytes, for :func:`f32_vrt` to read (``dtype="Byte"``).

    GDAL before 3.7 refuses raw bands of Int8. These it reads, and the view turns 128 to 255 into -128 to -1;
    whoever wants codes takes :func:`raw_codes_vrt`.
    """
    return _raw_vrt(raster, array, "Byte", [band_name(b) for b in range(N_BANDS)], None)


def raw_scales_vrt(raster: Raster, array: RawArray, metadata: Metadata | None = None) -> str:
    """Return a VRT of Float32 scales over ``_scales.npy``: ``(height, width)`` or ``(height, width, 128)``.

    No NoDataValue: the values are upstream's own (0 where a pixel was not processed).
    """
    names = ["scale"] if array.bands == 1 else [f"scale_{b}" for b in range(array.bands)]
    return _raw_vrt(raster, array, array.dtype, names, metadata)


def _raw_vrt(
    raster: Raster, array: RawArray, dtype: str, descriptions: Sequence[str], metadata: Metadata | None
) -> str:
    """Return a VRT over an uncompressed array, pixel by pixel."""
    size = array.item_size
    pixel = array.bands * size
    order = "<ByteOrder>MSB</ByteOrder>" if array.big_endian else "<ByteOrder>LSB</ByteOrder>"
    common = (  # what is the same for all 128 bands
        f"<PixelOffset>{pixel}</PixelOffset><LineOffset>{pixel * raster.width}</LineOffset>"
        + (order if size > 1 else "")
        + "</VRTRasterBand>"
    )
    name = f'<SourceFilename relativeToVRT="1">{escape(array.href)}</SourceFilename>'
    body = "\n".join(
        f'<VRTRasterBand dataType="{dtype}" band="{i + 1}" subClass="VRTRawRasterBand">'
        f"<Description>{escape(text)}</Description>{name}"
        f"<ImageOffset>{array.offset + i * size}</ImageOffset>{common}"
        for i, text in enumerate(descriptions)
    )
    return _document(raster, metadata, body, pixel_interleaved=array.bands > 1)


def f32_vrt(
    raster: Raster,
    codes: VrtSource,
    scales: VrtSource,
    metadata: Metadata | None = None,
    *,
    bands: Sequence[int] = range(N_BANDS),
    overviews: Sequence[int] = (),
    strip: int | None = None,
) -> str:
    """Return a VRT of Float32 bands, ``float32(codes) * scales``.

    Parameters
    ----------
    raster
        Grid and shape of both sources and of the view.
    codes
        The int8 raster, or its bytes as unsigned ones.
    scales
        The float32 raster: one band, or one per band of ``codes``.
    metadata
        Dataset tags.
    bands
        Which bands of ``codes`` the view has, counted from 0.
    overviews
        Reduction factors (2, 4, 8) at which *both* sources have an overview: a reduced read of the
        view takes codes and scales of the same level. See :func:`cog_f32_vrt`.
    strip
        For pixel-interleaved sources: read all bands of this many rows before the next
        rows (:data:`RAW_STRIP`).

    Raises
    ------
    ValueError
        If there are no bands, or one that an embedding does not have.
    """
    if not bands or not all(0 <= b < N_BANDS for b in bands):
        raise ValueError(f"bands must be one or more of 0..{N_BANDS - 1}, found {list(bands)}")
    # GDAL reads a pixel-interleaved dataset block by block: as wide as the raster, a block is one range.
    block = "" if strip is None else f' blockXSize="{raster.width}" blockYSize="{strip}"'
    body = "\n".join(
        f'<VRTRasterBand dataType="Float32" band="{i + 1}"{block} subClass="VRTDerivedRasterBand">'
        f"<Description>{band_name(b)}</Description>{_NOTHING}"
        "<SourceTransferType>Float32</SourceTransferType><PixelFunctionType>mul</PixelFunctionType>"
        f"{_source(raster, codes, b + 1)}{_source(raster, scales, b + 1 if scales.bands > 1 else 1)}"
        "</VRTRasterBand>"
        for i, b in enumerate(bands)
    )
    return _document(raster, metadata, body + _overview_list(overviews), pixel_interleaved=strip is not None)


def cog_f32_vrt(
    raster: Raster,
    codes: str,
    scales: str,
    metadata: Metadata | None = None,
    *,
    block: tuple[int, int] | None = None,
    overviews: Sequence[int] = (),
) -> str:
    """Return the float32 view of a COG pair: the ``embeddings_f32`` asset.

    Parameters
    ----------
    raster
        The grid of both COGs.
    codes, scales
        The COGs: relative to the VRT, absolute paths, or URLs.
    metadata
        Dataset tags.
    block
        (height, width) of the blocks of the codes, see :class:`VrtSource`. GDAL takes it as a hint: values
        are the same where those of the scales are others.
    overviews
        The reduction factors that both COGs have. Their overviews hold averaged vectors with their
        own scales, so code and scale must come from the same level: GDAL does that.
    """
    return f32_vrt(
        raster,
        VrtSource(codes, "Int8", block, N_BANDS),
        VrtSource(scales, "Float32", block),
        metadata,
        overviews=overviews,
    )


def cog_window_vrt(raster: Raster, codes: str, gain: str, metadata: Metadata | None = None) -> str:
    """Return the float32 view of a COG pair for windows and points: the ``embeddings_f32_window`` asset.

    It reads all 128 bands of the codes in one call, so that GDAL 3.12 and newer merge the ranges of
    neighbouring blocks; :func:`cog_f32_vrt` reads a band after the other, which takes a request per band and
    block. It always reads all bands, and GDAL before 3.9 refuses it (``unrecognized subclass
    'VRTProcessedRasterBand'``).

    Parameters
    ----------
    raster
        The grid of both COGs.
    codes
        The COG of codes, beside the view. Its overviews are the view's.
    gain
        The document of :func:`gain_vrt` over the scales, beside the view.
    metadata
        Dataset tags.

    Notes
    -----
    Bands are declared, since GDAL 3.10 makes them int8 otherwise, and have no NoDataValue, as those of
    :func:`f32_vrt`. The step has a nodata that no code is: the scale alone says where there is no data, so
    that a code of -128 with a scale is a value, as there.
    """
    bands = "\n".join(
        f'<VRTRasterBand dataType="Float32" band="{b + 1}" subClass="VRTProcessedRasterBand">'
        f"<Description>{band_name(b)}</Description></VRTRasterBand>"
        for b in range(N_BANDS)
    )
    name = escape(gain)
    arguments = "\n".join(
        f'<Argument name="{role}_dataset_filename_{b}">{name}</Argument>'
        f'<Argument name="{role}_dataset_band_{b}">{band}</Argument>'
        for b in range(1, N_BANDS + 1)
        for role, band in (("gain", 1), ("offset", 2))
    )
    body = (
        f'{bands}\n<Input><SourceFilename relativeToVRT="1">{escape(codes)}</SourceFilename></Input>\n'
        "<ProcessingSteps><Step><Algorithm>LocalScaleOffset</Algorithm>\n"
        '<Argument name="relativeToVRT">true</Argument>'
        f'<Argument name="nodata">{_NO_CODE}</Argument>\n{arguments}\n</Step></ProcessingSteps>'
    )
    return _document(raster, metadata, body, subclass="VRTProcessedDataset")


def gain_vrt(raster: Raster, scales: str) -> str:
    """Return what :func:`cog_window_vrt` multiplies by, and what it subtracts: two bands, scales and zeros.

    Parameters
    ----------
    raster
        The grid of the scales.
    scales
        Their COG, beside this document. GDAL would resample it bilinearly at overviews, and pixels beside one
        without data would become NaN: the source says nearest.
    """
    body = (
        '<VRTRasterBand dataType="Float32" band="1"><SimpleSource resampling="nearest">'
        f'<SourceFilename relativeToVRT="1">{escape(scales)}</SourceFilename>'
        "</SimpleSource></VRTRasterBand>\n"
        '<VRTRasterBand dataType="Float32" band="2"/>'
    )
    return _document(raster, None, body)


def computed_vrt(
    raster: Raster, href: str, metadata: Metadata | None = None, *, overviews: Sequence[int] = ()
) -> str:
    """Return the view of a float32 GeoTIFF that a server computes: the ``embeddings_f32_computed`` asset.

    Nothing is computed in it. It has GDAL read the file with threads: only so are ranges merged beyond 10 MB,
    and no user has to set that.

    Parameters
    ----------
    raster
        The grid of the file.
    href
        Its http(s) URL. GDAL looks for no sidecar files beside it.
    metadata
        Dataset tags.
    overviews
        Reduction factors of the file's overviews. GDAL 3.10 sees only the first two by itself.
    """
    path = escape(f"/vsicurl?empty_dir=yes&url={quote(href, safe='')}")
    body = "\n".join(
        f'<VRTRasterBand dataType="Float32" band="{b + 1}"><Description>{band_name(b)}</Description>'
        "<NoDataValue>nan</NoDataValue><SimpleSource>"
        f"<SourceFilename>{path}</SourceFilename>"
        '<OpenOptions><OOI key="NUM_THREADS">2</OOI></OpenOptions>'
        f"<SourceBand>{b + 1}</SourceBand></SimpleSource></VRTRasterBand>"
        for b in range(N_BANDS)
    )
    return _document(raster, metadata, body + _overview_list(overviews))


@dataclass(frozen=True, slots=True)
class CogView:
    """What a document of :func:`cog_f32_vrt` says beside raster and sources; of any form there was."""

    metadata: dict[str, str]
    block: tuple[int, int] | None
    overviews: tuple[int, ...]

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a document that this package wrote.

        Raises
        ------
        ValueError
            If it is none.
        """
        try:
            root = ElementTree.fromstring(text)  # noqa: S314 our own file, by its SHA-256
        except ElementTree.ParseError as error:
            raise ValueError(f"not a VRT: {error}") from None
        tags = {e.get("key", ""): e.text or "" for e in root.iterfind("Metadata[MDI]/MDI")}
        source = root.find("VRTRasterBand//SourceProperties")
        size = None if source is None else (source.get("BlockYSize", ""), source.get("BlockXSize", ""))
        levels = (root.findtext("OverviewList") or "").split()
        return cls(tags, None if size is None else (int(size[0]), int(size[1])), tuple(map(int, levels)))


def band_vrt(
    raster: Raster,
    codes: VrtSource,
    scales: VrtSource,
    band: int,
    metadata: Metadata | None = None,
    *,
    overviews: Sequence[int] = (),
) -> str:
    """Return the float32 view of one band, counted from 0: a raster of one band."""
    return f32_vrt(raster, codes, scales, metadata, bands=(band,), overviews=overviews)


def plain_band_vrt(
    raster: Raster,
    source: VrtSource,
    band: int,
    metadata: Metadata | None = None,
    *,
    overviews: Sequence[int] = (),
) -> str:
    """Return a view of one band, counted from 0, of a float32 raster: nothing is multiplied."""
    body = (
        '<VRTRasterBand dataType="Float32" band="1"><NoDataValue>nan</NoDataValue>'
        f"<Description>{band_name(band)}</Description>{_source(raster, source, band + 1)}</VRTRasterBand>"
    )
    return _document(raster, metadata, body + _overview_list(overviews))


def _source(raster: Raster, source: VrtSource, band: int) -> str:
    """Return one source; GDAL takes the whole raster when no rectangle is given."""
    path = gdal_path(source.href)
    relative = path == source.href and not path.startswith("/")
    number = "" if band == 1 else f"<SourceBand>{band}</SourceBand>"  # 1 is the default
    properties = ""
    if source.block is not None:
        height, width = source.block
        properties = (
            f'<SourceProperties RasterXSize="{raster.width}" RasterYSize="{raster.height}"'
            f' DataType="{source.dtype}" BlockXSize="{width}" BlockYSize="{height}"/>'
        )
    kind, table = ("SimpleSource", "") if source.dtype == "Float32" else ("ComplexSource", _LUT_ELEMENT)
    return (
        f'<{kind}><SourceFilename relativeToVRT="{int(relative)}">{escape(path)}</SourceFilename>'
        f"{number}{properties}{table}</{kind}>"
    )


def _overview_list(factors: Sequence[int]) -> str:
    """Return the element that names a view's overviews; nothing if there are none."""
    levels = " ".join(map(str, factors))
    return f'\n<OverviewList resampling="nearest">{levels}</OverviewList>' if factors else ""


def _document(
    raster: Raster,
    metadata: Metadata | None,
    body: str,
    *,
    pixel_interleaved: bool = False,
    subclass: str = "",
) -> str:
    """Wrap bands in a VRTDataset with the raster's size, CRS and transform."""
    tags = "".join(
        f'<MDI key="{escape(key)}">{escape(value)}</MDI>' for key, value in (metadata or {}).items()
    )
    kind = f' subClass="{subclass}"' if subclass else ""
    return (
        f'<VRTDataset rasterXSize="{raster.width}" rasterYSize="{raster.height}"{kind}>\n'
        + placement(raster)
        + (f"<Metadata>{tags}</Metadata>\n" if tags else "")
        + (_PIXEL_INTERLEAVED if pixel_interleaved else "")
        + body
        + "\n</VRTDataset>\n"
    )
