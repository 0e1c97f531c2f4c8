"""Rasters of every kind that GeoTIFF has, small: what the test suites of rasterio, rio-cogeo and GDAL try.

Those projects keep their test files in their repositories; their source packages have none, so the kinds are
made here. A kind is a function that writes its file, and what lies beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.shutil import copy

UTM = Affine(20, 0, 4e5, 0, -20, 5e6)
DEGREES = Affine(0.001, 0, 12, 0, -0.001, 45)
SHAPE = (70, 90)
NOWHERE: dict[str, Any] = {"crs": None, "transform": None}

type Kind = Callable[[Path], None]


def write(
    path: Path,
    dtype: str = "uint8",
    count: int = 1,
    shape: tuple[int, int] = SHAPE,
    *,
    data: Any = None,
    then: Callable[[Any], None] | None = None,
    env: dict[str, Any] | None = None,
    **profile: Any,
) -> None:
    """Write a raster of random values, of the whole range of its type."""
    profile = {"crs": "EPSG:32633", "transform": UTM} | profile
    with (
        rasterio.Env(**(env or {})),
        rasterio.open(
            path, "w", driver="GTiff", dtype=dtype, count=count, height=shape[0], width=shape[1], **profile
        ) as ds,
    ):
        ds.write(values(dtype, (count, *shape)) if data is None else data)
        if then is not None:
            then(ds)


def values(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return random samples of a type of rasterio's."""
    rng = np.random.default_rng(len(dtype))
    if dtype == "complex_int16":
        return (rng.integers(-300, 300, shape) + 1j * rng.integers(-300, 300, shape)).astype("complex64")
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return rng.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)
    if kind.kind == "c":
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(kind)
    return rng.normal(size=shape).astype(kind)


def _small(top: int, count: int = 1, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(top).integers(0, top, (count, *SHAPE)).astype(dtype)


def _of(*arguments: Any, **more: Any) -> Kind:
    return lambda path: write(path, *arguments, **more)


def _named(**more: Any) -> dict[str, Kind]:
    return {f"crs {name}": _of(crs=crs) for name, crs in more.items()}


RPCS = RPC(
    height_off=100.0,
    height_scale=500.0,
    lat_off=45.0,
    lat_scale=0.1,
    line_off=35.0,
    line_scale=35.0,
    long_off=12.0,
    long_scale=0.1,
    samp_off=45.0,
    samp_scale=45.0,
    line_den_coeff=[1.0] + [0.0] * 19,
    line_num_coeff=[0.0, 0.0, -1.0] + [0.0] * 17,
    samp_den_coeff=[1.0] + [0.0] * 19,
    samp_num_coeff=[0.0, 1.0] + [0.0] * 18,
    err_bias=0.5,
    err_rand=0.25,
)


def _gcps(ds: Any) -> None:
    corners = [(0, 0), (0, 90), (70, 0), (70, 90), (35.25, 40.5)]
    points = [GroundControlPoint(r, c, 12 + c / 900, 45 - r / 700, r / 7) for r, c in corners]
    ds.gcps = (points, CRS.from_epsg(4326))


def _mask(ds: Any) -> None:
    mask = np.full(ds.shape, 255, np.uint8)
    mask[10:30, 5:50] = 0
    ds.write_mask(mask)


def _colours(*names: str) -> Callable[[Any], None]:
    return lambda ds: setattr(ds, "colorinterp", [ColorInterp[name] for name in names])


def _palette(n: int, *, clear: bool = False) -> Callable[[Any], None]:
    table = {i: (i % 256, 255 - i % 256, i // 2 % 256, i % 256 if clear else 255) for i in range(n)}
    return lambda ds: ds.write_colormap(1, table)


def _described(ds: Any) -> None:
    ds.scales, ds.offsets, ds.units, ds.descriptions = (0.1, 0.2), (5, -3.5), ("m", "K"), ("height", "T")
    ds.update_tags(A="1", TIFFTAG_SOFTWARE="scanner 2", LINES='a\nb <&> "é"')
    ds.update_tags(1, gain="low", STATISTICS_MINIMUM="3")


def _domains(ds: Any) -> None:
    _described(ds)
    ds.update_tags(ns="ACQUISITION", orbit="<12> & 3")
    ds.update_tags(2, ns="SENSOR", gain="high")


def _masked(count: int, dtype: str, *, inside: bool, **more: Any) -> Kind:
    return _of(dtype, count, then=_mask, env={"GDAL_TIFF_INTERNAL_MASK": inside}, **more)


def _alpha(dtype: str, *, top: int, **more: Any) -> Kind:
    """Colours under an alpha that is 0 in places."""
    data = values(dtype, (4, *SHAPE))
    data[3] = _small(top)[0]
    return _of(dtype, 4, data=data, **({"photometric": "RGB", "alpha": "YES"} | more))


def _beside(suffix: str, text: str, *, whole: bool = True, **more: Any) -> Kind:
    """Write a raster, and a file beside it that has its whole name and a suffix, or another suffix."""

    def make(path: Path) -> None:
        write(path, "int16", **more)
        (path.with_name(path.name + suffix) if whole else path.with_suffix(suffix)).write_text(text)

    return make


def _aux(*elements: str) -> str:
    return f"<PAMDataset>{''.join(elements)}</PAMDataset>"


def _aux_band(band: int, *elements: str) -> str:
    return f'<PAMRasterBand band="{band}">{"".join(elements)}</PAMRasterBand>'


_AUX = _aux(
    '<Metadata><MDI key="P">q</MDI></Metadata>',
    '<Metadata domain="DOM"><MDI key="dk">dv</MDI></Metadata>',
    _aux_band(
        1,
        "<Description>from beside</Description><NoDataValue>7</NoDataValue><Offset>3</Offset>",
        "<Scale>2</Scale><UnitType>furlong</UnitType>",
        '<Metadata><MDI key="STATISTICS_MEAN">5</MDI></Metadata>',
        '<Metadata domain="BD"><MDI key="e">f</MDI></Metadata>',
    ),
)
_TABLES = _aux(
    _aux_band(
        1,
        "<CategoryNames><Category>sea</Category><Category>land</Category></CategoryNames>",
        "<Histograms><HistItem><HistMin>0</HistMin><HistMax>3</HistMax><BucketCount>2</BucketCount>",
        "<IncludeOutOfRange>0</IncludeOutOfRange><Approximate>0</Approximate>",
        "<HistCounts>3|4</HistCounts></HistItem></Histograms>",
        '<GDALRasterAttributeTable tableType="thematic"><FieldDefn index="0"><Name>Value</Name>',
        '<Type>0</Type><Usage>5</Usage></FieldDefn><Row index="0"><F>1</F></Row>',
        "</GDALRasterAttributeTable>",
    )
)
_WORLD = "20\n0\n0\n-20\n400010\n4999990\n"


def _pages(path: Path) -> None:
    for name in ("one", "two"):
        page = path.with_name(f"{name}.page")
        write(page)
        more = {"APPEND_SUBDATASET": "YES"} if path.exists() else {}
        copy(page, path, driver="GTiff", **more)
        page.unlink()


def _nan_bits() -> np.ndarray:
    bits = np.full((1, *SHAPE), 0x7FC00123, np.uint32)
    bits[0, 1], bits[0, 2] = 0x80000000, 0xFFC00001  # minus zero, another NaN
    return bits.view(np.float32)


KINDS: dict[str, Kind] = {
    **{
        f"type {dtype}": _of(dtype)
        for dtype in (
            *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
            *("float16", "float32", "float64", "complex64", "complex128", "complex_int16"),
        )
    },
    "int64 nodata": _of("int64", nodata=-(2**63)),
    "uint64 nodata": _of("uint64", nodata=2**63),
    "bits of NaN": _of("float32", data=_nan_bits()),
    "rpc": _of("uint16", rpcs=RPCS, **NOWHERE),
    "rpc and crs": _of("uint16", rpcs=RPCS, crs="EPSG:4326", transform=DEGREES),
    "rpc and crs without transform": _of("uint16", rpcs=RPCS, crs="EPSG:4326", transform=Affine.identity()),
    "gcps": _of(then=_gcps, **NOWHERE),
    "mask": _masked(3, "uint8", inside=True),
    "mask of 16 bands": _masked(16, "uint16", inside=True),
    "mask of 24 bands": _masked(24, "float32", inside=True),
    "mask and nodata": _masked(1, "int16", inside=True, nodata=5),
    "external mask": _masked(3, "uint8", inside=False),
    "external mask of 20 bands": _masked(20, "int16", inside=False),
    "alpha": _alpha("uint8", top=2),
    "alpha of 1 to 6": _alpha("uint16", top=7),
    "alpha and nodata": _alpha("uint8", top=2, nodata=0),
    "premultiplied alpha": _alpha("uint8", top=200, alpha="PREMULTIPLIED"),
    "grey and alpha": _of("uint8", 2, alpha="YES"),
    "16 bands and alpha": _of("uint8", 16, alpha="YES"),
    "colours bgr nir": _of("uint8", 4, then=_colours("blue", "green", "red", "gray")),
    "colours undefined": _of("uint8", 3, then=_colours("undefined", "gray", "gray")),
    "colours hsl": _of("uint8", 3, then=_colours("hue", "saturation", "lightness")),
    "colours of 5": _of("uint16", 5, then=_colours("red", "green", "blue", "undefined", "alpha")),
    "cmyk": _of("uint8", 4, photometric="CMYK"),
    "cielab": _of("uint8", 3, photometric="CIELAB"),
    "jpeg": _of("uint8", 3, compress="jpeg", photometric="YCBCR", tiled=True, blockxsize=16, blockysize=16),
    "miniswhite": _of(photometric="MINISWHITE"),
    "miniswhite 1 bit": _of(photometric="MINISWHITE", nbits=1, data=_small(2)),
    "miniswhite 16 bits": _of("uint16", photometric="MINISWHITE"),
    **{f"nbits {n}": _of(nbits=n, data=_small(2**n)) for n in (1, 2, 4, 7)},
    **{f"nbits {n}": _of("uint16", nbits=n, data=_small(2**n, dtype="uint16")) for n in (9, 12)},
    "nbits 24": _of("uint32", nbits=24, data=_small(2**24, dtype="uint32")),
    "nbits 16 of float32": _of("float32", nbits=16, data=_small(999, dtype="float32")),
    "palette": _of(then=_palette(256)),
    "palette with alpha": _of(then=_palette(256, clear=True)),
    "palette with nodata": _of(nodata=3, then=_palette(256)),
    "palette 16 bits": _of("uint16", then=_palette(65536)),
    "palette 4 bits": _of(nbits=4, data=_small(16), then=_palette(16)),
    "described": _of("int16", 2, then=_described),
    "domains": _of("int16", 2, then=_domains),
    "domains of 20 bands": _of("int16", 20, then=lambda ds: ds.update_tags(9, ns="SENSOR", gain="9")),
    "scale of one band": _of("int16", 2, then=lambda ds: setattr(ds, "scales", (0.1, 1.0))),
    "point": _of(
        "float32",
        crs="EPSG:4326",
        transform=Affine(1 / 3, 0, 7.123456789, 0, -1 / 3, 48.987654321),
        then=lambda ds: ds.update_tags(AREA_OR_POINT="Point"),
    ),
    **{
        f"nodata {value}": _of("float64", nodata=value)
        for value in (0.1, float("nan"), float("-inf"), -3.4028234663852886e38)
    },
    "crs with a code": _of(crs="EPSG:3035"),
    **_named(
        compound="EPSG:32633+5773",
        compound_with_a_code="EPSG:7415",
        datum="+proj=utm +zone=33 +ellps=bessel +towgs84=598.1,73.7,418.2,0.202,0.045,-2.455,6.7",
        tmerc="+proj=tmerc +lat_0=1 +lon_0=13 +k=0.9998 +x_0=123 +ellps=GRS80",
        sinusoidal="+proj=sinu +R=6371007.181",
        geostationary="+proj=geos +h=35785831 +lon_0=0 +sweep=y +ellps=GRS80",
        mollweide="ESRI:54009",
        feet="EPSG:2263",
        mercator="EPSG:3857",
        krovak="EPSG:5514",
        polar="EPSG:3413",
        engineering='LOCAL_CS["yard",UNIT["metre",1]]',
    ),
    "crs 3d": _of(crs="EPSG:4979", transform=DEGREES),
    "crs mars": _of(crs="+proj=longlat +R=3396190", transform=DEGREES),
    "crs dynamic": _of(crs="EPSG:9057", transform=DEGREES),
    "crs none": _of(crs=None),
    "crs only": _of(transform=Affine.identity()),
    "rotated": _of(transform=Affine(20, 3, 4e5, 4, -20, 5e6)),
    "south up": _of(transform=Affine(20, 0, 4e5, 0, 20, 5e6)),
    "one row": _of(shape=(1, 3000)),
    "one column": _of(shape=(3000, 1)),
    "few columns": _of(shape=(5000, 5)),
    "one pixel": _of(shape=(1, 1)),
    "overviews": _of("uint16", shape=(600, 520)),
    "sparse": _of(shape=(600, 520), data=np.zeros((1, 600, 520), np.uint8), sparse_ok=True, nodata=5),
    "24 bands": _of("int8", 24, nodata=7),
    "130 bands": _of("float32", 130, (40, 30)),
    "130 bands by pixel": _of("float32", 130, (40, 30), interleave="pixel"),
    "130 bands by band": _of("float32", 130, (40, 30), interleave="band"),
    "big endian": _of("uint16", endianness="BIG"),
    "bigtiff": _of(BIGTIFF="YES"),
    "world file": _beside(".tfw", _WORLD, whole=False, **NOWHERE),
    "aux.xml": _beside(".aux.xml", _AUX),
    "aux.xml with tables": _beside(".aux.xml", _TABLES),
    "aux.xml with the place": _beside(
        ".aux.xml",
        _aux("<SRS>EPSG:32633</SRS><GeoTransform>400000,20,0,5000000,0,-20</GeoTransform>"),
        **NOWHERE,
    ),
    "aux.xml that is none": _beside(".aux.xml", "<html>no such page"),
    "aux.xml with nodata by band": _beside(
        ".aux.xml",
        _aux(*(_aux_band(i, f"<NoDataValue>{i}</NoDataValue>") for i in (1, 2))),
        count=2,
    ),
    "crs beyond geotiff": _of(
        crs="+proj=ob_tran +o_proj=longlat +o_lat_p=39.25 +o_lon_p=0 +lon_0=18 +R=6371229"
        " +to_meter=0.0174532925199433"
    ),
    "no place": _of(**NOWHERE),
    "two pages": _pages,
}
"""Kinds of rasters by name."""
