"""Location of a tile-year's pixels, from its item or from where its dataset is published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from affine import Affine

from catalog_builder.errors import CatalogError
from catalog_builder.pixels.window import Window
from catalog_builder.raster.npy import NPY_HEADER
from catalog_builder.storage import join
from catalog_builder.storage.headers import MEDIA_COG
from catalog_builder.tile.datasets import source_path
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import Raster, TileId

ContainerKind = Literal["npy", "cog", "float", "store"]
"""A container: a pair of arrays as published, a pair of COGs, one GeoTIFF of float32 values, or a window of
the arrays of a Zarr or Icechunk store."""


@dataclass(frozen=True, slots=True)
class StoreWindow:
    """Where a tile-year begins in the arrays of a store."""

    group: str
    """Name of the zone's group."""
    time: int
    """Index of the year."""
    row: int
    col: int


@dataclass(frozen=True, slots=True)
class Place:
    """Location and container of the pixels of one tile-year."""

    kind: ContainerKind
    main: str
    """Path, s3 or http(s) URL of the codes, or of the float32 values."""
    scales: str | None
    """The same for the scales; None if ``main`` contains values."""
    raster: Raster
    """Grid and shape at full resolution."""
    size: int | None = None
    """Size of ``main`` in bytes, if known."""
    scales_size: int | None = None
    """Size of ``scales`` in bytes, if known."""
    stamp: str = ""
    """Changes when the files do: checksums, if the item has them."""
    visual: str | None = None
    """URL or path of its false-colour COG; None if it has none."""
    inside: StoreWindow | None = None
    """If ``main`` is a store, where in it."""
    is_converted: bool = False
    """Whether these are COGs made by tessera-stac, with their accompanying files."""

    @property
    def whole_bytes(self) -> int:
        """Total size of its files in bytes."""
        height, width = self.raster.shape
        is_pair = self.scales or self.inside
        main = self.size if self.size is not None else height * width * N_BANDS * (1 if is_pair else 4)
        return main + (self.scales_size or (4 * height * width if is_pair else 0))


@dataclass(frozen=True, slots=True)
class Overview:
    """A smaller raster of a tile-year, as its container has it."""

    level: int
    """0 is full resolution, n the n-th overview, whose pixels are 2^n pixels wide."""
    raster: Raster
    """In whose pixels windows of it are given."""
    step: int = 1
    """Of a window every so many pixels and rows are given."""

    def shape(self, window: Window) -> tuple[int, int]:
        """Return rows and columns of what is given of a window."""
        return -(-window.height // self.step), -(-window.width // self.step)

    def transform(self, window: Window) -> Affine:
        """Return where what is given of a window lies on the ground."""
        moved = self.raster.transform @ Affine.translation(window.col, window.row)
        return moved @ Affine.scale(self.step)


def published_arrays(root: str, tile: TileId, year: int) -> Place:
    """Return the ``.npy`` pair of a tile-year below the root of its dataset."""
    main, scales = (join(root, source_path(year, tile.name, s)) for s in (".npy", "_scales.npy"))
    return Place("npy", main, scales, tile.raster())


def place_of(item: Mapping[str, Any], address: Callable[[str], str] = lambda href: href) -> Place | None:
    """Return the location of an item's pixels, preferring converted ones; None if it has none to read.

    Parameters
    ----------
    item
        As JSON.
    address
        Maps an href of the item to the path or URL to read.

    Raises
    ------
    CatalogError
        If it is not a tessera-stac item.
    """
    assets, properties = item["assets"], item["properties"]
    try:
        found = _best(assets, properties)
        if found is None:
            return None
        kind, main, scales, is_converted = found
        raster = Raster(
            int(properties["proj:code"].removeprefix("EPSG:")),
            Affine(*properties["proj:transform"][:6]),
            *properties["proj:shape"],
        )
        own, other = assets[main], assets[scales] if scales else {}
        return Place(
            kind,
            main=address(own["href"]),
            scales=address(other["href"]) if scales else None,
            raster=raster,
            size=own.get("file:size"),
            scales_size=other.get("file:size"),
            stamp=f"{own.get('file:checksum', '')} {other.get('file:checksum', '')}",
            visual=address(assets["visual"]["href"]) if "visual" in assets else None,
            inside=_inside(own) if kind == "store" else None,
            is_converted=is_converted,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CatalogError(f"item {item.get('id')}: not a tessera-stac item ({error})") from error


def _best(
    assets: Mapping[str, Any], properties: Mapping[str, Any]
) -> tuple[ContainerKind, str, str | None, bool] | None:
    """Return the container of an item's best pixels, the keys of its assets, and whether it is ours."""
    if "embeddings" in assets and "scales" in assets:
        return "cog", "embeddings", "scales", True
    if assets.get("embeddings_f32", {}).get("type") == MEDIA_COG:
        return "float", "embeddings_f32", None, True
    # Arrays can be read in place where the catalogue found their shapes to be the tile's; of scales in other
    # forms, such as (H, W, 128) or float16, their header says whether they are.
    if "source_npy" in assets and "source_scales" in assets:
        height, width = properties["proj:shape"]
        is_whole = assets["source_npy"].get("file:size") == height * width * N_BANDS + NPY_HEADER
        if "embeddings_f32" in assets or is_whole:
            return "npy", "source_npy", "source_scales", False
    if "source_geotiff" in assets:
        return "float", "source_geotiff", None, False
    if "source_zarr" in assets:
        return "store", "source_zarr", None, False
    return None


def _inside(asset: Mapping[str, Any]) -> StoreWindow:
    row, col = asset["tessera:window"][:2]
    return StoreWindow(str(asset["tessera:group"]), int(asset["tessera:time_index"]), int(row), int(col))
