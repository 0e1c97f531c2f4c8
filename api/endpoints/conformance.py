"""What the server declares to conform to: only what the tests show.

Not ``browseable`` and ``children``: both want ``child`` links on the landing page, by which pystac-client
would meet every item again (:mod:`api.endpoints.browse`). ``/children`` and ``/browse`` are there without.
"""

from __future__ import annotations

_STAC = "https://api.stacspec.org"
_OAF1 = "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf"
_OAF3 = "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf"
_CQL2 = "http://www.opengis.net/spec/cql2/1.0/conf"

CONFORMANCE: list[str] = sorted(
    [
        f"{_STAC}/v1.0.0/core",
        f"{_STAC}/v1.0.0/collections",
        f"{_STAC}/v1.0.0/ogcapi-features",
        f"{_STAC}/v1.0.0/item-search",
        f"{_OAF1}/core",
        f"{_OAF1}/oas30",
        f"{_OAF1}/geojson",
        # Clients look for one or the other version of sort.
        *(f"{_STAC}/{v}/{c}#sort" for v in ("v1.0.0", "v1.1.0") for c in ("item-search", "ogcapi-features")),
        f"{_STAC}/v1.1.0/item-search#sortables",
        f"{_STAC}/v1.0.0/item-search#fields",
        f"{_STAC}/v1.0.0/ogcapi-features#fields",
        f"{_STAC}/v1.0.0/item-search#query",
        f"{_STAC}/v1.0.0/ogcapi-features#query",
        f"{_STAC}/v1.0.0-rc.2/item-search#filter",
        f"{_STAC}/v1.0.0/item-search#filter",
        f"{_STAC}/v1.0.0-rc.1/item-search#free-text",
        f"{_STAC}/v1.0.0-rc.1/ogcapi-features#free-text",
        f"{_OAF3}/filter",
        f"{_OAF3}/features-filter",
        f"{_OAF3}/queryables",
        *(
            f"{_CQL2}/{name}"
            for name in (
                "cql2-text",
                "cql2-json",
                "basic-cql2",
                "advanced-comparison-operators",
                "basic-spatial-functions",
                "basic-spatial-functions-plus",
                "spatial-functions",
                "temporal-functions",
                "arithmetic",
                "property-property",
                "case-insensitive-comparison",
                "accent-insensitive-comparison",
            )
        ),
        f"{_STAC}/v1.0.0-rc.1/collection-search",
        *(f"{_STAC}/v1.0.0-rc.1/collection-search#{x}" for x in ("filter", "sort", "fields", "free-text")),
        f"{_STAC}/v1.1.0/collection-search#sort",
        "http://www.opengis.net/spec/ogcapi-common-2/1.0/conf/simple-query",
        f"{_STAC}/v0.3.0/aggregation",
        "http://www.opengis.net/spec/ogcapi-edr-1/1.1/conf/covjson",
    ]
)
