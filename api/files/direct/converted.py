"""What a converted tile-year is read from: found in its own item, so that paths are known in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from api.access import Access
from api.catalogue.snapshot import AnySnapshot
from api.files.direct.paths import public_address
from api.request.view import Shown
from api.search.render import item_documents
from catalog_builder.convert.encode.blocks import OVERVIEW_BLOCK_SIZE
from catalog_builder.convert.encode.overviews import level_shapes
from catalog_builder.errors import CatalogError
from catalog_builder.pixels.container.table import CONTAINERS
from catalog_builder.pixels.place import Place, place_of
from catalog_builder.raster.vrt import Metadata, VrtSource, band_vrt, plain_band_vrt
from catalog_builder.storage import join, scheme
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.grid import Grid, Raster


@dataclass(frozen=True, slots=True)
class Cogs:
    """The COGs of a tile-year."""

    raster: Raster
    sources: tuple[VrtSource, ...]
    """Codes and scales, or values."""
    grid: Grid

    def band_vrt(self, band: int, metadata: Metadata) -> str:
        """Return the float32 view of one band, counted from 0."""
        # the blocks say how many overviews a COG has, no more
        shapes = level_shapes(*self.raster.shape, OVERVIEW_BLOCK_SIZE)
        factors = [1 << i for i in range(1, len(shapes))]
        if len(self.sources) == 1:
            return plain_band_vrt(self.raster, self.sources[0], band, metadata, overviews=factors)
        codes, scales = self.sources
        return band_vrt(self.raster, codes, scales, band, metadata, overviews=factors)


def find_cogs(snapshot: AnySnapshot, dataset: Dataset, item_id: str, root: str) -> Cogs | None:
    """Return the COGs of a tile-year; None if it is not converted. Call it from a thread.

    Parameters
    ----------
    root
        Root URL of the service, with which the URLs of its own files start.
    """
    found = item_documents(snapshot, dataset.collection_id, [item_id], root, Shown(hrefs="https"))
    place = place_of(found[0]) if found else None
    if place is None or not place.is_converted:
        return None
    sources = CONTAINERS[place.kind].sources(place)
    return Cogs(place.raster, sources, found[0]["properties"]["tessera:grid"]) if sources else None


@dataclass(frozen=True, slots=True)
class TilePixels:
    """Where this server reads the pixels of a tile-year."""

    place: Place
    grid: Grid
    landmask: str | None = None
    """Path or URL of its landmask; None if it has none."""


def find_pixels(
    snapshot: AnySnapshot, home: str, access: Access, dataset: Dataset, item_id: str
) -> TilePixels | None:
    """Return where this server reads a tile-year's pixels; None if it has none. Call it from a thread.

    Parameters
    ----------
    home
        Folder or s3 URL of the catalogue.
    access
        How this server serves files in S3. If by redirects to public URLs, it reads them there as well:
        nobody gets through it what the bucket keeps from them.

    Raises
    ------
    CatalogError
        If its item lists a file outside the catalogue or the root of the dataset.
    """
    return find_all_pixels(snapshot, home, access, dataset, [item_id]).get(item_id)


def find_all_pixels(
    snapshot: AnySnapshot, home: str, access: Access, dataset: Dataset, ids: Sequence[str]
) -> dict[str, TilePixels | None]:
    """Return where this server reads the pixels of tile-years, by the ids that are there.

    Parameters and errors as of :func:`find_pixels`.
    """
    record = snapshot.collections[dataset.collection_id]
    below = {"/data/": home, f"/source/{dataset.directory}/": record.source_root}

    def address(href: str) -> str:
        for start, root in below.items():
            if href.startswith(start):
                path = join(root, unquote(href.removeprefix(start)))
                if not scheme(root) and not Path(path).resolve().is_relative_to(Path(root).resolve()):
                    raise CatalogError(f"{href}: a file of the catalogue lies outside its folder")
                return path
        return href

    def pixels(item: dict[str, Any]) -> TilePixels | None:
        place = place_of(item, address)
        if place is None:
            return None
        if access == "https" and place.kind != "store":
            scales = None if place.scales is None else public_address(place.scales)
            place = replace(place, main=public_address(place.main), scales=scales)
        return TilePixels(place, item["properties"]["tessera:grid"], landmask(item))

    def landmask(item: dict[str, Any]) -> str | None:
        if "landmask" not in item["assets"]:
            return None
        path = join(record.landmask_root, f"{item['properties']['tessera:tile']}.tiff")
        return public_address(path) if access == "https" and scheme(path) else path

    found = item_documents(snapshot, dataset.collection_id, ids, "", Shown(hrefs="s3"))
    return {item["id"]: pixels(item) for item in found}


def find_export(snapshot: AnySnapshot, dataset: Dataset, item_id: str, root: str) -> str | None:
    """Return the URL of the exported GeoTIFF of a tile-year as its item has it; None if it has none.

    Call it from a thread.

    Parameters
    ----------
    root
        Root URL of the service, with which the URLs of its own files start.
    """
    found = item_documents(snapshot, dataset.collection_id, [item_id], root, Shown(hrefs="https"))
    asset = found[0]["assets"].get("source_geotiff") if found else None
    return None if asset is None else str(asset["href"])
