"""The asset ``embeddings_f32_computed``: only in items of the API, as a static catalogue computes nothing.

Its files are :mod:`api.files.direct.raster`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.item.item import Has
from catalog_builder.item.template import Text, When
from catalog_builder.storage import scheme
from catalog_builder.storage.headers import MEDIA_VRT_WHOLE

COMPUTED = "embeddings_f32_computed"
_BEFORE = "embeddings_f32_window"


def with_computed(template: Mapping[str, Any], record: CollectionRecord, root: str) -> dict[str, Any]:
    """Return an item template with the asset, where this server reads the pixels."""
    return {**template, "assets": inserted(template["assets"], computed_asset(record, root))}


def inserted(assets: Mapping[str, Any], asset: Any) -> dict[str, Any]:
    """Return assets with this one behind the other float32 assets."""
    found: dict[str, Any] = {}
    for key, value in assets.items():
        found[key] = value
        if key == _BEFORE:
            found[COMPUTED] = asset
    return found if COMPUTED in found else found | {COMPUTED: asset}


def computed_asset(record: CollectionRecord, root: str) -> When:
    """Return the asset, as a node of the template.

    Files that are published on the web are the reader's to fetch: the server reads its own disk, buckets, and
    stores, whose pixels it computes anyway.
    """
    asset = {
        "href": Text(
            f"{root}/source/{record.dataset.directory}/{{year}}/grid_{{lon}}_{{lat}}/grid_{{lon}}_{{lat}}_computed.vrt"
        ),
        "type": MEDIA_VRT_WHOLE,
        "title": "Embeddings as float32, for windows and points, computed by this server: any GDAL, with or"
        " without settings, in the fewest requests; four bytes a value",
        "roles": ["data"],
        "data_type": "float32",
    }
    reads_sources = record.container == "store" or scheme(record.source_root) in ("", "s3")
    return When(Has.COG, asset, (Has.RAW_LANE, Has.GEOTIFF) if reads_sources else ())
