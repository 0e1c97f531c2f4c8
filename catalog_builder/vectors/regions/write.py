"""Write one output in the requested format. Every file is written atomically.

GeoTIFF and npy are written a window at a time, in memory that does not grow with the output; the other
formats are put together in memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from rasterio.errors import RasterioError

from catalog_builder.convert.encode.blocks import OVERVIEW_BLOCK_SIZE, block_size_of
from catalog_builder.errors import StorageError
from catalog_builder.extras import install_line
from catalog_builder.pixels.values import NODATA_CODE, Pixels, Values
from catalog_builder.storage.local import in_one_step
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.files import N_BANDS
from catalog_builder.vectors.regions.canvas import Canvas
from catalog_builder.vectors.regions.grid import Grid

Format = Literal["geotiff", "cog", "netcdf", "zarr", "npy"]
FORMATS: tuple[Format, ...] = get_args(Format)
Dtype = Literal["float32", "int8"]

_SUFFIXES: Mapping[str, str] = {
    "geotiff": ".tif",
    "cog": ".tif",
    "netcdf": ".nc",
    "zarr": ".zarr",
    "npy": ".npy",
}


STREAMED: tuple[Format, ...] = ("geotiff", "npy")
"""Formats that are written a window at a time."""
BLOCK = 256
"""Rows and columns of a GeoTIFF's block."""
_AT_ONCE = 1024
"""Columns of a window."""


@dataclass(frozen=True, slots=True)
class Mosaic:
    """The pixels of one output."""

    grid: Grid
    bands: tuple[int, ...]
    """Dimensions, counted from 0."""
    year: int
    dataset: Dataset
    canvas: Canvas
    about: Mapping[str, str] = field(default_factory=dict)
    """More metadata."""
    is_sparse: bool = False
    """Whether blocks without data are left out of a GeoTIFF."""

    @property
    def tags(self) -> dict[str, str]:
        """Metadata of every file."""
        tags = {
            "AREA_OR_POINT": "Area",
            "TESSERA_DATASET_VERSION": self.dataset.version,
            "TESSERA_DATASET_VARIANT": self.dataset.variant,
            "TESSERA_YEAR": str(self.year),
            "TESSERA_DESCRIPTION": "TESSERA embeddings of a region, fetched with tessera-stac",
        }
        if self.dataset.is_synthetic:
            tags["TESSERA_DESCRIPTION"] = "Synthetic pixels in TESSERA's formats, not real data"
            tags["TESSERA_SYNTHETIC"] = "YES"
        return tags | dict(self.about)

    @property
    def layers(self) -> list[Layer]:
        """The rasters to write."""
        names = tuple(f"Tessera_Band_{b}" for b in self.bands)
        if not self.canvas.is_quantized:
            return [Layer("embeddings", np.dtype(np.float32), float("nan"), names)]
        return [
            Layer("embeddings", np.dtype(np.int8), float(NODATA_CODE), names),
            Layer("scales", np.dtype(np.float32), float("nan"), ("scale",)),
        ]


@dataclass(frozen=True, slots=True)
class Layer:
    """A raster of an output."""

    name: str
    dtype: np.dtype[Any]
    nodata: float
    bands: tuple[str, ...]
    """Names of its bands."""

    def of(self, pixels: Pixels) -> npt.NDArray[Any]:
        """Return its array: (height, width, bands), or (height, width) of scales."""
        if isinstance(pixels, Values):
            return pixels.values
        return pixels.codes if self.name == "embeddings" else pixels.scales


def file_names(name: str, kind: Format, dtype: Dtype) -> list[str]:
    """Return the files of an output."""
    suffix = _SUFFIXES[kind]
    if kind in ("netcdf", "zarr"):
        return [name + suffix]
    layers = [f"{name}{suffix}"] if dtype == "float32" else [f"{name}{suffix}", f"{name}_scales{suffix}"]
    return [*layers, f"{name}.json"] if kind == "npy" else layers


def write(folder: Path, name: str, kind: Format, mosaic: Mosaic) -> list[Path]:
    """Write a mosaic's files below a folder and return their paths.

    Raises
    ------
    StorageError
        If a file cannot be written, or a library for the format is not installed.
    """
    dtype: Dtype = "int8" if mosaic.canvas.is_quantized else "float32"
    paths = [folder / n for n in file_names(name, kind, dtype)]
    try:
        with ExitStack() as stack:
            new = [stack.enter_context(in_one_step(path, lone=True)) for path in paths]
            if kind == "geotiff":
                write_geotiffs(new, mosaic)
            elif kind == "npy":
                _write_npy(new, mosaic)
            else:
                pixels = mosaic.canvas.read(mosaic.grid.whole)
                if kind == "cog":
                    for path, layer in zip(new, mosaic.layers, strict=True):
                        _write_cog(path, mosaic, layer, pixels)
                else:
                    _write_xarray(new[0], kind, mosaic, pixels)
    except (OSError, RasterioError) as error:
        raise StorageError(f"{folder / name}: cannot be written: {error}") from error
    return paths


# ----------------------------------------------------------------------------------------- GeoTIFF


def write_geotiffs(paths: Sequence[Path], mosaic: Mosaic) -> None:
    """Write a GeoTIFF for each layer of a mosaic, window by window; BigTIFF where it may exceed 4 GiB."""
    import rasterio

    from catalog_builder.convert.encode.predictor import default_predictor

    grid = mosaic.grid
    with ExitStack() as stack:
        files = []
        for path, layer in zip(paths, mosaic.layers, strict=True):
            ds = stack.enter_context(
                rasterio.open(
                    path,
                    "w",
                    driver="GTiff",
                    height=grid.height,
                    width=grid.width,
                    count=len(layer.bands),
                    dtype=layer.dtype.name,
                    crs=grid.crs,
                    transform=grid.transform,
                    nodata=layer.nodata,
                    tiled=True,
                    blockxsize=BLOCK,
                    blockysize=BLOCK,
                    interleave="band",
                    compress="zstd",
                    zstd_level=1,
                    predictor=default_predictor(layer.dtype, len(layer.bands), "band"),
                    bigtiff="IF_SAFER",
                    sparse_ok=mosaic.is_sparse,
                )
            )
            for i, text in enumerate(layer.bands):
                ds.set_band_description(i + 1, text)
            ds.update_tags(**mosaic.tags)
            files.append((ds, layer))
        for window in grid.windows(BLOCK, _AT_ONCE):
            pixels = mosaic.canvas.read(window)
            if mosaic.is_sparse and not pixels.has_data().any():
                continue
            at = rasterio.windows.Window(window.col, window.row, window.width, window.height)
            for ds, layer in files:
                array = layer.of(pixels)
                ds.write(np.moveaxis(array, -1, 0) if array.ndim == 3 else array[None], window=at)


def _write_cog(path: Path, mosaic: Mosaic, layer: Layer, pixels: Pixels) -> None:
    from rasterio.crs import CRS

    from catalog_builder.convert.encode.cog import write_cog

    epsg = CRS.from_user_input(mosaic.grid.crs).to_epsg()
    if epsg is None:
        raise StorageError(f"a COG needs a CRS with an EPSG code, not {mosaic.grid.crs[:60]}: use GeoTIFF")
    with path.open("wb") as stream:
        write_cog(
            stream,
            _pyramid(pixels, layer.name),
            crs_epsg=epsg,
            transform=mosaic.grid.transform[:6],
            nodata=layer.nodata,
            block_size=block_size_of(*mosaic.grid.shape),
            overview_block_size=OVERVIEW_BLOCK_SIZE,
            band_descriptions=list(layer.bands),
            tags=mosaic.tags,
            overview_resampling="AVERAGE",
        )


def _pyramid(pixels: Pixels, name: str) -> Sequence[npt.NDArray[Any]]:
    """Return full resolution and overviews, averaged over vectors, not over codes."""
    from catalog_builder.convert.encode.overviews import masked_pyramid, quantized_pyramid

    if isinstance(pixels, Values):
        return masked_pyramid(pixels.values, None, block_size=OVERVIEW_BLOCK_SIZE, nodata=float("nan"))
    pyramid = quantized_pyramid(pixels.codes, pixels.scales, block_size=OVERVIEW_BLOCK_SIZE)
    return (
        (pixels.codes, *pyramid.codes[1:]) if name == "embeddings" else (pixels.scales, *pyramid.scales[1:])
    )


# --------------------------------------------------------------------------------------------- npy


def _write_npy(paths: Sequence[Path], mosaic: Mosaic) -> None:
    """Write an array for each layer, and the metadata that they lack."""
    *layers, about = paths
    arrays = []
    for path, layer in zip(layers, mosaic.layers, strict=True):
        shape = (*mosaic.grid.shape, len(layer.bands)) if layer.name == "embeddings" else mosaic.grid.shape
        arrays.append(np.lib.format.open_memmap(path, mode="w+", dtype=layer.dtype, shape=shape))
    for window in mosaic.grid.windows(BLOCK, _AT_ONCE):
        pixels = mosaic.canvas.read(window)
        for array, layer in zip(arrays, mosaic.layers, strict=True):
            array[window.slices] = layer.of(pixels)
    for array in arrays:
        array.flush()
    about.write_text(json.dumps(_describe(mosaic), indent=2))


def _describe(mosaic: Mosaic) -> dict[str, Any]:
    """Write the metadata that an array file lacks."""
    return {
        "crs": mosaic.grid.crs,
        "transform": list(mosaic.grid.transform)[:6],
        "shape": [*mosaic.grid.shape, len(mosaic.bands)],
        "bands": list(mosaic.bands),
        "year": mosaic.year,
        "quantized": mosaic.canvas.is_quantized,
        **mosaic.tags,
    }


# ------------------------------------------------------------------------------------------- xarray


def require(kind: Format) -> None:
    """Reject a format whose libraries are missing, before anything is fetched.

    Raises
    ------
    StorageError
        With what to install.
    """
    from importlib.util import find_spec

    needed = {"netcdf": ("xarray", "h5netcdf", "h5py"), "zarr": ("xarray", "zarr")}.get(kind, ())
    missing = [n for n in needed if find_spec(n) is None]
    if missing:
        raise StorageError(f"{kind} needs {' and '.join(missing)}: {install_line('formats')}")


def _write_xarray(path: Path, kind: str, mosaic: Mosaic, pixels: Pixels) -> None:
    import xarray as xr
    from pyproj import CRS

    height, width = mosaic.grid.shape
    t = mosaic.grid.transform
    crs = CRS.from_user_input(mosaic.grid.crs)
    of_axis = {about["axis"]: about for about in crs.cs_to_cf()}
    coordinates: dict[str, Any] = {
        "y": ("y", t.f + t.e * (np.arange(height) + 0.5), of_axis["Y"]),
        "x": ("x", t.c + t.a * (np.arange(width) + 0.5), of_axis["X"]),
        "band": ("band", np.array(mosaic.bands, dtype=np.int16), {"long_name": "dimension of the embedding"}),
        "spatial_ref": ((), 0, {**crs.to_cf(), "GeoTransform": " ".join(str(v) for v in t.to_gdal())}),
    }
    data: dict[str, Any] = {}
    arrays = {layer.name: layer.of(pixels) for layer in mosaic.layers}
    for name, array in arrays.items():
        dims = ("y", "x", "band")[: array.ndim]
        attributes: dict[str, Any] = {"grid_mapping": "spatial_ref"}
        if array.dtype == np.int8:
            attributes["comment"] = "value = code * scale of the pixel (variable 'scales'); -128: no data"
        data[name] = (dims, array, attributes)
    ds = xr.Dataset(data, coordinates, {"Conventions": "CF-1.10", **mosaic.tags})
    chunks = {"y": 256, "x": 256, "band": min(len(mosaic.bands), N_BANDS)}
    encoding: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        shape = tuple(min(chunks[d], n) for d, n in zip(("y", "x", "band"), array.shape, strict=False))
        if kind == "netcdf":
            encoding[name] = {
                "chunksizes": shape,
                "compression": "gzip",
                "compression_opts": 1,
                "shuffle": True,
            }
        else:
            encoding[name] = {"chunks": shape}
        # the values are kept unchanged: no fill value that a reader would replace
        encoding[name]["_FillValue"] = None
    if kind == "netcdf":
        ds.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    else:
        ds.to_zarr(path, mode="w", encoding=encoding, consolidated=False, zarr_format=3)
