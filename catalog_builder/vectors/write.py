"""Write one output in the requested format. Every file is written atomically."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from catalog_builder.convert.encode.blocks import OVERVIEW_BLOCK_SIZE, block_size_of
from catalog_builder.errors import StorageError
from catalog_builder.extras import install_line
from catalog_builder.pixels.values import NODATA_CODE, Pixels, Values
from catalog_builder.storage.local import in_one_step
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import PIXEL, Raster

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


@dataclass(frozen=True, slots=True)
class Mosaic:
    """The pixels of one output."""

    raster: Raster
    bands: tuple[int, ...]
    """Dimensions, counted from 0."""
    year: int
    dataset: Dataset
    pixels: Pixels

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
        return tags

    @property
    def layers(self) -> list[tuple[str, npt.NDArray[Any], float, list[str]]]:
        """(name, (height, width[, bands]), nodata, band names) of each raster to write."""
        names = [f"Tessera_Band_{b}" for b in self.bands]
        if isinstance(self.pixels, Values):
            return [("embeddings", self.pixels.values, float("nan"), names)]
        return [
            ("embeddings", self.pixels.codes, float(NODATA_CODE), names),
            ("scales", self.pixels.scales, float("nan"), ["scale"]),
        ]


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
    dtype: Dtype = "float32" if isinstance(mosaic.pixels, Values) else "int8"
    paths = [folder / n for n in file_names(name, kind, dtype)]
    try:
        if kind in ("netcdf", "zarr"):
            with in_one_step(paths[0], lone=True) as new:
                _write_xarray(new, kind, mosaic)
        else:
            for path, layer in zip(paths, mosaic.layers, strict=False):
                write_layer = _WRITERS[kind](mosaic, layer)
                with in_one_step(path, lone=True) as new:
                    write_layer(new)
        if kind == "npy":
            with in_one_step(paths[-1], lone=True) as new:
                new.write_text(json.dumps(_describe(mosaic), indent=2))
    except OSError as error:
        raise StorageError(f"{folder / name}: cannot be written: {error}") from error
    return paths


# ----------------------------------------------------------------------------------------- GeoTIFF

Layer = tuple[str, npt.NDArray[Any], float, Sequence[str]]


def _geotiff(mosaic: Mosaic, layer: Layer) -> Callable[[Path], None]:
    _, array, nodata, names = layer

    def to(path: Path) -> None:
        import rasterio

        from catalog_builder.convert.encode.predictor import default_predictor

        cube = array if array.ndim == 3 else array[:, :, None]
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=cube.shape[0],
            width=cube.shape[1],
            count=cube.shape[2],
            dtype=cube.dtype.name,
            crs=f"EPSG:{mosaic.raster.epsg}",
            transform=mosaic.raster.transform,
            nodata=nodata,
            tiled=True,
            blockxsize=256,
            blockysize=256,
            interleave="band",
            compress="zstd",
            zstd_level=1,
            predictor=default_predictor(cube.dtype, cube.shape[2], "band"),
            bigtiff="IF_SAFER",
        ) as ds:
            for i, text in enumerate(names):
                ds.write(cube[:, :, i], i + 1)
                ds.set_band_description(i + 1, text)
            ds.update_tags(**mosaic.tags)

    return to


def _cog(mosaic: Mosaic, layer: Layer) -> Callable[[Path], None]:
    name, _, nodata, names = layer
    levels = _pyramid(mosaic, name)

    def to(path: Path) -> None:
        from catalog_builder.convert.encode.cog import write_cog

        with path.open("wb") as stream:
            write_cog(
                stream,
                levels,
                crs_epsg=mosaic.raster.epsg,
                transform=mosaic.raster.transform[:6],
                nodata=nodata,
                block_size=block_size_of(*mosaic.raster.shape),
                overview_block_size=OVERVIEW_BLOCK_SIZE,
                band_descriptions=list(names),
                tags=mosaic.tags,
                overview_resampling="AVERAGE",
            )

    return to


def _pyramid(mosaic: Mosaic, name: str) -> Sequence[npt.NDArray[Any]]:
    """Return full resolution and overviews, averaged over vectors, not over codes."""
    from catalog_builder.convert.encode.overviews import masked_pyramid, quantized_pyramid

    pixels = mosaic.pixels
    if isinstance(pixels, Values):
        return masked_pyramid(pixels.values, None, block_size=OVERVIEW_BLOCK_SIZE, nodata=float("nan"))
    # unprocessed pixels of published arrays have scale 0 or NaN with any code
    codes, scales = pixels.codes.copy(), pixels.scales.copy()
    empty = ~(np.isfinite(scales) & (scales > 0))
    codes[empty], scales[empty] = NODATA_CODE, np.nan
    pyramid = quantized_pyramid(codes, scales, block_size=OVERVIEW_BLOCK_SIZE)
    return (
        (pixels.codes, *pyramid.codes[1:]) if name == "embeddings" else (pixels.scales, *pyramid.scales[1:])
    )


# --------------------------------------------------------------------------------------------- npy


def _npy(mosaic: Mosaic, layer: Layer) -> Callable[[Path], None]:
    def to(path: Path) -> None:
        with path.open("wb") as stream:
            np.save(stream, layer[1], allow_pickle=False)

    return to


def _describe(mosaic: Mosaic) -> dict[str, Any]:
    """Write the metadata that an array file lacks."""
    return {
        "crs": f"EPSG:{mosaic.raster.epsg}",
        "transform": list(mosaic.raster.transform)[:6],
        "shape": [*mosaic.raster.shape, len(mosaic.bands)],
        "bands": list(mosaic.bands),
        "year": mosaic.year,
        "quantized": not isinstance(mosaic.pixels, Values),
        **mosaic.tags,
    }


_WRITERS: Mapping[str, Callable[[Mosaic, Layer], Callable[[Path], None]]] = {
    "geotiff": _geotiff,
    "cog": _cog,
    "npy": _npy,
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


def _write_xarray(path: Path, kind: str, mosaic: Mosaic) -> None:
    import xarray as xr
    from pyproj import CRS

    height, width = mosaic.raster.shape
    t = mosaic.raster.transform
    crs = CRS.from_epsg(mosaic.raster.epsg)
    coordinates: dict[str, Any] = {
        "y": ("y", t.f - PIXEL * (np.arange(height) + 0.5), crs.cs_to_cf()[1]),
        "x": ("x", t.c + PIXEL * (np.arange(width) + 0.5), crs.cs_to_cf()[0]),
        "band": ("band", np.array(mosaic.bands, dtype=np.int16), {"long_name": "dimension of the embedding"}),
        "spatial_ref": ((), 0, {**crs.to_cf(), "GeoTransform": " ".join(str(v) for v in t.to_gdal())}),
    }
    data: dict[str, Any] = {}
    for name, array, _, _ in mosaic.layers:
        dims = ("y", "x", "band")[: array.ndim]
        attributes: dict[str, Any] = {"grid_mapping": "spatial_ref"}
        if array.dtype == np.int8:
            attributes["comment"] = "value = code * scale of the pixel (variable 'scales'); -128: no data"
        data[name] = (dims, array, attributes)
    ds = xr.Dataset(data, coordinates, {"Conventions": "CF-1.10", **mosaic.tags})
    chunks = {"y": 256, "x": 256, "band": min(len(mosaic.bands), N_BANDS)}
    encoding: dict[str, dict[str, Any]] = {}
    for name, array, _, _ in mosaic.layers:
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
