"""What a converted tile-year is read from: found in its own item, so that paths are known in one place."""

from __future__ import annotations

from dataclasses import dataclass

from api.catalogue.snapshot import AnySnapshot
from api.request.view import Shown
from api.search.render import item_documents
from catalog_builder.convert.encode.overviews import level_shapes
from catalog_builder.pixels.container.cog import BLOCK_PIXELS
from catalog_builder.pixels.container.table import CONTAINERS
from catalog_builder.pixels.place import place_of
from catalog_builder.raster.vrt import Metadata, VrtSource, band_vrt, plain_band_vrt
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
        shapes = level_shapes(*self.raster.shape, BLOCK_PIXELS)
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
