"""What a raster says of itself beside its pixels, and what two rasters say differently.

The facts fall into two groups. A converted raster must have those that say what and where its pixels are:
otherwise it is not the source. The others, its metadata, may be lost where a COG cannot hold them, but are
then named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from catalog_builder.errors import ConvertError
from catalog_builder.pixels.whole import gdal_reason

if TYPE_CHECKING:
    import rasterio
    from rasterio.crs import CRS
    from rasterio.windows import Window

OURS = "TESSERA_STAC"
"""Domain of the tag that names in the COG what was lost."""
PIXELS, MASK, NODATA, PLACE = "pixels", "mask", "nodata", "georeferencing"
ESSENTIAL = (PIXELS, MASK, NODATA, PLACE)
"""What is compared of every raster, and must be equal."""
_STRUCTURE = ("NBITS", "MINISWHITE", "PIXELTYPE", "ALPHA")
"""What IMAGE_STRUCTURE says of samples; the rest is how they are stored, which a conversion changes."""
_ROUNDING = 1e-6
"""Pixels by which corners may differ: GDAL adds and subtracts half a pixel where a pixel is a point."""
_STRIP = 64 << 20
"""Bytes of a raster that are compared at a time."""

type TagKey = tuple[int, str, str]
"""Band (0: the dataset), domain (empty: the default one), name."""


@dataclass(frozen=True, slots=True)
class RasterFacts:
    """What a raster says of itself."""

    grid: tuple[Any, ...]
    """Bands, rows, columns and data types."""
    nodata: tuple[str, ...]
    """Of each band; as text, in which NaN equals NaN."""
    masks: tuple[tuple[str, ...], ...]
    """Of each band: where its mask comes from."""
    crs: CRS | None
    transform: tuple[float, ...]
    gcps: tuple[tuple[float, ...], ...]
    gcp_crs: CRS | None
    rpcs: Mapping[str, str]
    described: Mapping[str, tuple[Any, ...]]
    """Metadata of bands by what it is: descriptions, units, colours."""
    tags: Mapping[TagKey, str] = field(repr=False)
    """Tags of the dataset and of bands, in all domains."""


def facts_of(ds: rasterio.DatasetReader) -> RasterFacts:
    """Read what an open raster says of itself."""
    points, gcp_crs = ds.gcps
    return RasterFacts(
        grid=(ds.count, ds.height, ds.width, tuple(ds.dtypes)),
        nodata=tuple(repr(value) for value in ds.nodatavals),
        masks=tuple(tuple(flag.name for flag in flags) for flags in ds.mask_flag_enums),
        crs=ds.crs,
        transform=tuple(ds.transform)[:6],
        gcps=tuple((p.row, p.col, p.x, p.y, p.z or 0.0) for p in points),
        gcp_crs=gcp_crs,
        rpcs=ds.rpcs.to_gdal() if ds.rpcs is not None else {},
        described={
            "descriptions": tuple(ds.descriptions),
            "units": tuple(u or None for u in ds.units),
            "scale and offset": (tuple(ds.scales), tuple(ds.offsets)),
            "colour interpretation": tuple(colour.name for colour in ds.colorinterp),
            "colour table": tuple(_colormap(ds, band) for band in ds.indexes),
        },
        tags=dict(_tags(ds)),
    )


def _colormap(ds: rasterio.DatasetReader, band: int) -> dict[int, tuple[int, ...]] | None:
    try:
        return dict(ds.colormap(band))
    except ValueError:  # it has none
        return None


def _tags(ds: rasterio.DatasetReader) -> Iterator[tuple[TagKey, str]]:
    for band in (0, *ds.indexes):
        for domain in ("", *ds.tag_namespaces(band)):
            if domain in ("DERIVED_SUBDATASETS", "SUBDATASETS", "RPC", OURS):
                continue
            for name, value in ds.tags(band, ns=domain or None).items():
                if domain != "IMAGE_STRUCTURE" or name in _STRUCTURE:
                    yield (band, domain, name), value


def essential_differences(source: RasterFacts, result: RasterFacts) -> list[str]:
    """Return how a result is not its source: size, type, nodata, masks, place; empty if it is."""
    found = []
    if source.grid != result.grid:
        found.append(f"{source.grid} became {result.grid}")
    if source.nodata != result.nodata:
        found.append(
            f"nodata by band {', '.join(source.nodata)}: a TIFF has one value for all bands"
            if len(set(source.nodata)) > 1
            else f"nodata {source.nodata[0]} became {_each(result.nodata)}"
        )
    if source.masks != result.masks:
        found.append(f"masks by band {_each(source.masks)} became {_each(result.masks)}")
    for what, a, b in (("CRS", source.crs, result.crs), ("CRS of the GCPs", source.gcp_crs, result.gcp_crs)):
        if not same_crs(a, b):
            said = f"became {_crs_name(b)}" if b is not None else "cannot be said by GeoTIFF keys"
            found.append(f"{what} {_crs_name(a)} {said}")
    if not _same_transform(source, result):
        found.append(f"transform {source.transform} became {result.transform}")
    if source.gcps != result.gcps:
        found.append(f"{len(source.gcps)} GCPs became {len(result.gcps)}, or others")
    if source.rpcs != result.rpcs:
        found.append("the RPCs changed")
    return found


def lost_tags(source: RasterFacts, result: RasterFacts) -> dict[TagKey, str]:
    """Return the tags of the source that the result lacks or has with another value."""
    return {key: value for key, value in source.tags.items() if result.tags.get(key) != value}


def lost(source: RasterFacts, result: RasterFacts) -> list[str]:
    """Return the metadata that is not kept, or is said otherwise, each by name."""
    found = []
    for what, values in source.described.items():
        if values != result.described[what]:
            found.append(what)
    found += [tag_name(key, value) for key, value in lost_tags(source, result).items()]
    for key, value in result.tags.items():
        # Without AREA_OR_POINT a pixel is an area, which GDAL then says.
        if key not in source.tags and (key[2], value) != ("AREA_OR_POINT", "Area"):
            found.append(f"added: {tag_name(key, value)}")
    return found


def tag_name(key: TagKey, value: str) -> str:
    """Name a tag with its value, shortened.

    >>> tag_name((2, "SENSOR", "gain"), "0.5")
    'SENSOR gain=0.5 of band 2'
    """
    band, domain, name = key
    short = " ".join(value.split())
    short = short if len(short) <= 40 else f"{short[:37]}..."
    return f"{f'{domain} ' if domain else ''}{name}={short}{f' of band {band}' if band else ''}"


def lost_side_files(files: Sequence[Path]) -> list[str]:
    """Name what side files hold that no TIFF can: attribute tables, histograms, names of categories."""
    found = []
    for path in files:
        if path.name.lower().endswith(".vat.dbf"):
            found.append("attribute table (.vat.dbf)")
        if not path.name.lower().endswith(".aux.xml"):
            continue
        try:
            root = ElementTree.parse(path).getroot()  # noqa: S314 (beside the raster; expat bounds entities)
        except (ElementTree.ParseError, OSError):
            found.append("what .aux.xml says, which is not XML")
            continue
        for band in root.iter("PAMRasterBand"):
            found += [
                f"{what} of band {band.get('band')}"
                for element, what in (
                    ("GDALRasterAttributeTable", "attribute table"),
                    ("CategoryNames", "category names"),
                    ("Histograms", "histograms"),
                )
                if band.find(element) is not None
            ]
    return found


def compare_pixels(source: rasterio.DatasetReader, result: rasterio.DatasetReader, address: str) -> None:
    """Compare every pixel of every band, bit by bit, and of a mask that is stored as one.

    Raises
    ------
    ConvertError
        If they differ, or one cannot be read.
    """
    import rasterio
    from rasterio.enums import MaskFlags

    masked = [i + 1 for i, flags in enumerate(source.mask_flag_enums) if MaskFlags.per_dataset in flags][:1]
    try:
        for window in _windows(result):
            if not _same_bits(source.read(window=window), result.read(window=window)):
                raise ConvertError(f"{address}: pixels of the COG differ from the source in {window}")
            for band in masked:
                a, b = (ds.read_masks(band, window=window) for ds in (source, result))
                if not np.array_equal(a, b):
                    raise ConvertError(f"{address}: the COG's mask differs from the source's in {window}")
    except rasterio.errors.RasterioIOError as error:
        raise ConvertError(f"{address}: {gdal_reason(error)}") from None


def _windows(ds: rasterio.DatasetReader) -> Iterator[Window]:
    """Yield whole blocks of the result: rows of them where that fits, so that strips are decoded once."""
    from rasterio.windows import Window

    height, width = ds.block_shapes[0]
    dtype = ds.dtypes[0]  # numpy has no complex_int16, which is read as complex64
    of_column = ds.count * height * (8 if dtype == "complex_int16" else np.dtype(dtype).itemsize)
    width = ds.width if of_column * ds.width <= _STRIP else max(width, _STRIP // of_column // width * width)
    for top in range(0, ds.height, height):
        for left in range(0, ds.width, width):
            yield Window(left, top, min(width, ds.width - left), min(height, ds.height - top))


def _same_bits(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    return a.dtype == b.dtype and np.array_equal(a.view(np.uint8), b.view(np.uint8))


def same_crs(a: CRS | None, b: CRS | None) -> bool:
    """Return whether two CRSs are one, by PROJ's comparison; the order of axes is GDAL's in both."""
    if a is None or b is None:
        return a is None and b is None
    return bool(a.wkt == b.wkt or _proj(a).equals(_proj(b), ignore_axis_order=True))


def epsg_of(crs: CRS | None) -> int | None:
    """Return the EPSG code whose definition equals a CRS; None if there is none, however similar."""
    return None if crs is None else _epsg_of(wkt2_of(crs))


@lru_cache(maxsize=256)
def _epsg_of(wkt: str) -> int | None:
    """Search once per CRS: all of the register takes half a second."""
    import pyproj

    there = pyproj.CRS.from_wkt(wkt)
    code = there.to_epsg(min_confidence=20)
    if code is None:
        return None
    return code if pyproj.CRS.from_epsg(code).equals(there, ignore_axis_order=True) else None


def wkt2_of(crs: CRS | None) -> str:
    """Return a CRS as WKT2:2019 in one line; empty if there is none."""
    return "" if crs is None else str(crs.to_wkt(version="WKT2_2019"))


def _proj(crs: CRS) -> Any:
    import pyproj

    return pyproj.CRS.from_wkt(wkt2_of(crs))


def _crs_name(crs: CRS | None) -> str:
    return "none" if crs is None else f"'{_proj(crs).name}'"


def _same_transform(source: RasterFacts, result: RasterFacts) -> bool:
    """Compare where the four corners are, in pixels of the source."""
    if source.transform == result.transform:
        return True
    from affine import Affine

    a, b = Affine(*source.transform), Affine(*result.transform)
    if a.is_degenerate or b.is_degenerate:
        return False
    _, height, width, _ = source.grid
    back = ~a
    corners = [(0.0, 0.0), (width, 0.0), (0.0, height), (width, height)]
    return all(np.allclose(back * (b * corner), corner, rtol=0, atol=_ROUNDING) for corner in corners)


def _each(values: Sequence[Any]) -> str:
    """Format a value of each band, once if they are all the same."""
    return str(values[0] if len(set(values)) == 1 else list(values))
