"""What only the API has, as a static catalogue computes nothing: two assets of items, and one of each zone.

The files are :mod:`api.files.direct.raster`'s, the arrays of zones :mod:`api.zarr`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.item.item import Has
from catalog_builder.item.stored import XARRAY, group_assets, view_asset
from catalog_builder.item.template import Text, When
from catalog_builder.storage import scheme
from catalog_builder.storage.headers import MEDIA_VRT_WHOLE

COMPUTED = "embeddings_f32_computed"
ZONE = "zarr"
_BEFORE = "embeddings_f32_window"


def with_computed(template: Mapping[str, Any], record: CollectionRecord, root: str) -> dict[str, Any]:
    """Return an item template with the assets, where this server reads the pixels."""
    assets = inserted(template["assets"], computed_asset(record, root))
    extensions, zone = template["stac_extensions"], zone_asset(record, root)
    if zone is not None:
        assets[ZONE] = zone
        extensions = [*extensions, *([] if XARRAY in extensions else [XARRAY])]
    return {**template, "stac_extensions": extensions, "assets": assets}


def zone_asset(record: CollectionRecord, root: str) -> When | None:
    """Return the asset ``zarr``, as a node of the template: of every tile-year whose pixels can be read."""
    view = record.view
    if view is None:
        return None
    asset = view_asset(replace(view, address=view.address.replace("{root}", root)))
    return When(Has.COG, asset, (Has.RAW_LANE, Has.GEOTIFF, Has.STORE))


def zone_assets(record: CollectionRecord, root: str) -> dict[str, dict[str, Any]]:
    """Return the assets of a collection, one per zone, by key."""
    view = record.view
    if view is None:
        return {}
    found = group_assets(replace(view, address=view.address.replace("{root}", root)), {})
    title = "UTM zone {}: arrays 'embeddings' (int8) and 'scales' (float32), computed by this server"
    return {
        f"{ZONE}_{name}": asset | {"title": title.format(name), "tessera:years": list(record.years)}
        for name, asset in found.items()
    }


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
