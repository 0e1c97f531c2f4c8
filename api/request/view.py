"""Views of items: ``view=bands`` has one asset per band, ``hrefs`` selects the form of hrefs.

A view changes the form of a response, never which items it contains. Every endpoint accepts it, so that
a client that adds it to all its requests (pystac-client's ``Client.open(url, parameters={"view":
"bands"})``) works, even in addition to the copy in our links.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.access import Hrefs
from api.request.hrefs import parse_hrefs
from catalog_builder.errors import QueryError
from catalog_builder.item.bands_view import band_assets, parse_bands, view_query
from catalog_builder.tile.files import ALL_BANDS, N_BANDS

NAMES = ("view", "bands", "hrefs")
"""The parameters that select a view."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A form of items other than the default."""

    bands: tuple[int, ...] | None = None
    """One float32 asset for each of these, counted from 0, ascending; None: the items' own assets."""
    hrefs: Hrefs | None = None
    """Form of hrefs of files in S3; None: the server's default."""

    @property
    def query(self) -> str:
        """The query string that selects it."""
        parts = [] if self.bands is None else [view_query(self.bands)]
        return "&".join([*parts, *([f"hrefs={self.hrefs}"] if self.hrefs else [])])


View = Shown | None
"""None: the default form of items."""


def parse_view(given: Mapping[str, Any], *, may_sign: bool) -> View:
    """Return the view selected by parameters (text or JSON form).

    Parameters
    ----------
    given
        The parameters.
    may_sign
        Whether this server signs URLs.

    Raises
    ------
    QueryError
        If the view or the kind of hrefs is unknown or switched off, the bands are malformed, or there are
        bands without a view.
    """
    bands, hrefs = _parse_bands(given.get("view"), given.get("bands")), parse_hrefs(given.get("hrefs"))
    if hrefs == "presigned" and not may_sign:
        raise QueryError(
            "hrefs: this server does not presign URLs (TESSERA_STAC_PRESIGN is off); use https, or s3 with"
            " credentials of your own"
        )
    return None if bands is None and hrefs is None else Shown(bands, hrefs)


def _parse_bands(name: object, bands: object) -> tuple[int, ...] | None:
    if name is None:
        if bands is not None:
            raise QueryError("bands: allowed only together with view=bands")
        return None
    if name != "bands":
        raise QueryError(f"view: expected 'bands', found {str(name)[:40]!r}")
    if bands is None:
        return ALL_BANDS
    if isinstance(bands, list) and bands and all(type(b) is int and 0 <= b < N_BANDS for b in bands):
        return tuple(sorted(set(bands)))
    if not isinstance(bands, str):
        raise QueryError(
            f"bands: expected a string such as 0,1,5-7 or an array of numbers within 0..{N_BANDS - 1},"
            f" found {str(bands)[:60]!r}"
        )
    return parse_bands(bands)


def said_again(name: str, one: str, other: str) -> bool:
    """Return whether two values of a view's parameter mean the same, so that it may be given twice."""
    if name == "bands":
        try:
            return parse_bands(one) == parse_bands(other)
        except QueryError:
            return False
    return name in ("view", "hrefs") and one == other


_ITEM_BEHIND = re.compile(
    rb"((?:^|&)(?:view=bands|bands=[0-9,-]+|hrefs=[a-z0-9]+))/(grid_[0-9._-]{1,40})(?=&|$)"
)


def item_behind_view(query_string: bytes) -> tuple[str, bytes] | None:
    """Return the item id appended to the query of an items link, and the query without it.

    pystac-client's ``collection.get_item(id)`` appends ``/<id>`` to the link's URL, of which the view
    is the end.
    """
    match = _ITEM_BEHIND.search(query_string)
    if match is None:
        return None
    rest = query_string[: match.end(1)] + query_string[match.end() :]
    return match[2].decode(), rest


def show_collection(document: Mapping[str, Any], view: View) -> Mapping[str, Any]:
    """Return a collection's document in a view: its assets are the view's, its links preserve it."""
    if view is None or view.bands is None:
        return show_links(document, view, "self", "root", "parent", "items")
    assets = {
        key: {name: asset[name] for name in ("title", "type", "roles", "raster:bands")}
        for key, asset in band_assets("", view.bands).items()
    }
    return {**show_links(document, view, "self", "root", "parent", "items"), "item_assets": assets}


def show_links(document: Mapping[str, Any], view: View, *rels: str) -> Mapping[str, Any]:
    """Return a copy of a document in which links of some kinds preserve a view."""
    if view is None:
        return document
    links = [
        {**link, "href": f"{link['href']}?{view.query}"} if link["rel"] in rels else link
        for link in document["links"]
    ]
    return {**document, "links": links}
