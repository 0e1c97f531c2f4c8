"""What a converted tile-year is read from: found in its own item, so that paths are known in one place."""

from __future__ import annotations

from dataclasses import dataclass

from affine import Affine

from api.catalogue.store import Snapshot
from api.request.view import Shown
from api.search.render import item_documents
from catalog_builder.convert.encode.overviews import level_shapes
from catalog_builder.item.item import MEDIA_COG
from catalog_builder.raster.vrt import Metadata, Source, band_vrt, plain_band_vrt
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import Grid, Raster

BLOCK = 128
"""Rows and columns of the converter's blocks; says how many overviews a COG has, no more."""


@dataclass(frozen=True, slots=True)
class Cogs:
    """The COGs of a tile-year."""

    raster: Raster
    main: str
    """Address of the int8 codes, or of the float32 values."""
    scales: str | None
    """Address of the scales; None where ``main`` holds the values."""
    grid: Grid

    def band_vrt(self, band: int, metadata: Metadata) -> str:
        """Return the float32 view of one band, counted from 0."""
        shapes = level_shapes(*self.raster.shape, BLOCK)
        factors = [1 << i for i in range(1, len(shapes))]
        if self.scales is None:
            source = Source(self.main, "Float32", bands=N_BANDS)
            return plain_band_vrt(self.raster, source, band, metadata, overviews=factors)
        codes, scales = Source(self.main, "Int8", bands=N_BANDS), Source(self.scales, "Float32")
        return band_vrt(self.raster, codes, scales, band, metadata, overviews=factors)


def find_cogs(snapshot: Snapshot, dataset: Dataset, item_id: str, root: str) -> Cogs | None:
    """Return the COGs of a tile-year; None if it is not converted. Call it from a thread.

    Parameters
    ----------
    root
        Address of the service, which addresses of its own files begin with.
    """
    found = item_documents(snapshot, dataset.collection_id, [item_id], root, Shown(hrefs="https"))
    if not found:
        return None
    (item,) = found
    assets, properties = item["assets"], item["properties"]
    if not properties["tessera:cog"]:
        return None
    raster = Raster(
        int(properties["proj:code"].removeprefix("EPSG:")),
        Affine(*properties["proj:transform"][:6]),
        *properties["proj:shape"],
    )
    kind = properties["tessera:grid"]
    if "embeddings" in assets and "scales" in assets:
        return Cogs(raster, assets["embeddings"]["href"], assets["scales"]["href"], kind)
    values = assets.get("embeddings_f32", {})
    return Cogs(raster, values["href"], None, kind) if values.get("type") == MEDIA_COG else None
