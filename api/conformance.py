"""What the server declares to conform to: only what the tests show."""

from __future__ import annotations

_STAC = "https://api.stacspec.org/v1.0.0"
_OAF = "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf"

CORE = (
    f"{_STAC}/core",
    f"{_STAC}/collections",
    f"{_STAC}/ogcapi-features",
    f"{_STAC}/item-search",
    f"{_OAF}/core",
    f"{_OAF}/oas30",
    f"{_OAF}/geojson",
)

CONFORMANCE: list[str] = sorted(CORE)
