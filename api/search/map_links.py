"""Links to images and map tiles (STAC web-map-links) on items and collections.

Items get them where the server can draw them: converted tile-years, and others whose ``.npy`` pair is
on the server's own disk. They are the API's: a static catalogue has no server to draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

from api.http.links import JSON, Link, link
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.item.item import Has
from catalog_builder.item.template import Choice, Text
from catalog_builder.storage import scheme
from catalog_builder.storage.headers import MEDIA_PNG

WEB_MAP_LINKS = "https://stac-extensions.github.io/web-map-links/v1.3.0/schema.json"
TMS = "WebMercatorQuad"
MOSAIC_ZOOM = 9
"""From here on a map tile holds few enough tile-years to draw their mosaic."""
ITEM_ZOOM = 5
"""From here on a tile-year is at least two pixels wide: 0.1 of 360 degrees, at any latitude."""
MAX_ZOOM = 15
"""Here a map's pixel is smaller than the data's 10 m, even at the equator."""

# In a template {z} would be a slot: these columns put the braces there.
MAP_SLOTS: Mapping[str, str] = {"z": "{z}", "x": "{x}", "y": "{y}"}


@cache
def can_draw() -> bool:
    """Whether the extra ``tiles`` is installed. Looks for it without importing it: that takes a second."""
    try:
        return find_spec("titiler.core") is not None
    except ModuleNotFoundError:
        return False


def with_map_links(template: Mapping[str, Any], record: CollectionRecord, root: str) -> dict[str, Any]:
    """Return an item template with links to its images, if it has pixels that can be rendered.

    Without the extra it is returned as it is.
    """
    if not can_draw():
        return dict(template)
    here = f"{root}/collections/{record.id}/items/grid_{{lon}}_{{lat}}_{{year}}"
    preview = {
        "rel": "preview",
        "type": MEDIA_PNG,
        "href": Text(f"{here}/preview.png"),
        "title": "False colour",
    }
    maps = [
        {
            "rel": "xyz",
            "type": MEDIA_PNG,
            "href": Text(f"{here}/tiles/{TMS}/{{z}}/{{x}}/{{y}}.png"),
            "title": f"False colour as map tiles, from zoom {ITEM_ZOOM}",
        },
        {
            "rel": "tilejson",
            "type": JSON,
            "href": Text(f"{here}/{TMS}/tilejson.json"),
            "title": f"False colour as map tiles, from zoom {ITEM_ZOOM}",
        },
    ]
    raw = None if scheme(record.source_root) else int(Has.RAW_LANE)

    def drawn(with_thumbnail: Any, without: Any, nothing: Any) -> Choice:
        unconverted = nothing if raw is None else Choice(raw, without, nothing)
        return Choice(int(Has.COG_VISUAL), with_thumbnail, Choice(int(Has.COG), without, unconverted))

    links, extensions = template["links"], template["stac_extensions"]
    said = [*extensions, WEB_MAP_LINKS]
    return {
        **template,
        "stac_extensions": drawn(said, said, extensions),
        "links": drawn([*links, *maps], [*links, preview, *maps], links),
    }


def collection_links(record: CollectionRecord, root: str) -> list[Link]:
    """Return a collection's web map links: its coverage, and its newest year in false colour."""
    newest = record.years[-1]
    links = [
        link(
            "xyz",
            f"{root}/coverage/tiles/{record.id}/{{z}}/{{x}}/{{y}}.png",
            MEDIA_PNG,
            "Coverage: the tiles and their years",
        ),
    ]
    if can_draw():
        links.append(
            link(
                "tilejson",
                f"{root}/collections/{record.id}/{TMS}/tilejson.json?year={newest}",
                JSON,
                f"False colour, {newest}, from zoom {MOSAIC_ZOOM}",
            )
        )
    return links
