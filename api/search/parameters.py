"""Every parameter of a search: one entry each in :data:`PARAMETERS`.

An entry defines how the text of a GET becomes the JSON form of a POST, how the JSON form is validated,
and its description in the OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from api.access import HREFS
from api.filter.parse import parse_json, parse_text
from api.filter.query_extension import query_to_cql2
from api.filter.queryables import queryable
from api.request.area import parse_bbox, parse_geometry
from api.request.fields import Fields, default_without
from api.request.times import DATETIME_PATTERN, parse_datetime
from api.request.view import NAMES
from api.settings import Settings
from catalog_builder.errors import QueryError
from catalog_builder.tile.regions.bbox import read_numbers

Json = Any
"""A value as orjson reads it."""


@dataclass(frozen=True, slots=True)
class Sort:
    """One term of an order."""

    name: str
    """Of a sortable."""
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Parameter:
    """A search parameter."""

    name: str
    attribute: str
    """Of the query that it fills; empty where several parameters are read together."""
    from_text: Callable[[str, str], Json]
    """(text of a GET, name) to the JSON form."""
    read: Callable[[Json, str, Settings], Any]
    """(JSON form, name, settings) to the query's value; rejects malformed input."""
    description: str
    schema: Mapping[str, Json]
    """Of the JSON form (POST)."""
    text_schema: Mapping[str, Json] | None = None
    """Of the GET parameter, where it differs."""
    style: Mapping[str, Json] = field(default_factory=dict)
    """OpenAPI style of the GET parameter."""


def _numbers(text: str, name: str) -> Json:
    try:
        return read_numbers(text)
    except ValueError:
        raise QueryError(f"{name}: expected comma-separated numbers, found '{text[:80]}'") from None


def _words(text: str, name: str) -> Json:
    return text.split(",") if text else []


def read_json(text: str, name: str) -> Json:
    """Return what a text says as JSON.

    Raises
    ------
    QueryError
        If it is not JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise QueryError(f"{name}: expected JSON, found '{text[:60]}' ({exc})") from None


def _integer(text: str, name: str) -> Json:
    if not (text.isascii() and text.removeprefix("-").isdigit()) or len(text) > 18:
        raise QueryError(f"{name}: expected an integer, found '{text[:40]}'")
    return int(text)


def _text(text: str, name: str) -> Json:
    return text


def _sort_terms(text: str, name: str) -> Json:
    terms = []
    for part in text.split(","):
        # An unescaped plus sign arrives as a blank.
        direction = "desc" if part.startswith("-") else "asc"
        terms.append({"field": part.lstrip(" +-") if part[:1] in " +-" else part, "direction": direction})
    return terms


def _field_names(text: str, name: str) -> Json:
    parts = [part for part in text.split(",") if part]
    # A text cannot leave "include" unsaid, only empty (fields extension 1.0.0, rule 4).
    return {
        "include": [p.lstrip(" +") for p in parts if not p.startswith("-")],
        "exclude": [p[1:] for p in parts if p.startswith("-")],
    }


# ------------------------------------------------------------------------------------ JSON form


def _read_strings(value: Json, name: str, settings: Settings) -> tuple[str, ...] | None:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise QueryError(f"{name}: expected an array of strings, found {str(value)[:60]!r}")
    if len(value) > settings.max_ids:
        raise QueryError(f"{name}: {len(value)} values, but at most {settings.max_ids} are accepted")
    return tuple(value) or None  # an empty list restricts nothing


def _read_string(value: Json, name: str, settings: Settings | None = None) -> str:
    if not isinstance(value, str):
        raise QueryError(f"{name}: expected a string, found {str(value)[:60]!r}")
    return value


def _read_limit(value: Json, name: str, settings: Settings) -> int:
    # JSON has one kind of number: 10.0 is a whole number too.
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    if not whole:
        raise QueryError(f"{name}: expected an integer, found {str(value)[:40]!r}")
    if value < 1:
        raise QueryError(f"{name}: expected at least 1, found {int(value)}")
    return min(int(value), settings.max_limit)


def _read_sort(value: Json, name: str, settings: Settings) -> tuple[Sort, ...]:
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise QueryError(f"{name}: expected an array of objects with 'field' and 'direction'")
    terms: list[Sort] = []
    for term in value:
        known_only(term, ("field", "direction"), name)
        direction = term.get("direction", "asc")
        if direction not in ("asc", "desc"):
            raise QueryError(f"{name}: expected direction asc or desc, found {str(direction)[:40]!r}")
        entry = queryable(_read_string(term.get("field"), f"{name}: field"), name)
        if not entry.sortable:
            raise QueryError(f"{name}: '{entry.name}' has no order")
        if all(t.name != entry.name for t in terms):  # a second mention decides nothing
            terms.append(Sort(entry.name, direction == "desc"))
    return tuple(terms)


def _read_fields(value: Json, name: str, settings: Settings) -> Fields:
    if not isinstance(value, dict):
        raise QueryError(
            f"{name}: expected an object with 'include' and 'exclude', found {str(value)[:40]!r}"
        )
    known_only(value, ("include", "exclude"), name)
    names = {}
    for part in ("include", "exclude"):
        names[part] = _read_strings(value.get(part) or [], f"{name}: {part}", settings) or ()
    if names["exclude"] and "include" in value and not names["include"]:
        # Said to be empty is not the same as unsaid: the extension excludes from its default set then.
        names["include"] = default_without(names["exclude"])
    return Fields(names["include"], names["exclude"])


def _read_elsewhere(value: Json, name: str, settings: Settings) -> None:
    """Leave it to :func:`validate`."""


def _read_query(value: Json, name: str, settings: Settings) -> Json:
    return query_to_cql2(value)


def _read_terms(value: Json, name: str, settings: Settings) -> tuple[str, ...] | None:
    terms = _read_strings(value, name, settings)
    if terms and not all(t.strip() for t in terms):
        raise QueryError(f"{name}: an empty term")
    return terms


def _read_filter(value: Json, name: str, settings: Settings) -> Json:
    return parse_text(value, settings) if isinstance(value, str) else parse_json(value, settings)


_LIST_STYLE = {"style": "form", "explode": False}
_STRINGS = {"type": "array", "items": {"type": "string"}}
GEOMETRY_SCHEMA: Mapping[str, Json] = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {
            "enum": [
                "Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon",
                "GeometryCollection",
            ]
        }
    },
}  # fmt: skip

PARAMETERS: dict[str, Parameter] = {
    p.name: p
    for p in (
        Parameter(
            "collections", "collections", _words, _read_strings, "Only items of these collections.",
            _STRINGS, style=_LIST_STYLE,
        ),
        Parameter(
            "ids", "ids", _words, _read_strings, "Only items with these ids.", _STRINGS, style=_LIST_STYLE
        ),
        Parameter(
            "bbox", "area", _numbers, lambda value, name, _: parse_bbox(value, name),
            "Only items whose geometry intersects this bounding box: west,south,east,north in degrees, or six"
            " numbers with heights, which are ignored. West > east crosses the antimeridian.",
            {
                "type": "array",
                "items": {"type": "number"},
                "oneOf": [{"minItems": 4, "maxItems": 4}, {"minItems": 6, "maxItems": 6}],
            },
            style=_LIST_STYLE,
        ),
        Parameter(
            "intersects", "area", read_json,
            lambda value, name, settings: parse_geometry(value, name, settings.max_vertices),
            "Only items whose geometry intersects this GeoJSON geometry. Not together with bbox.",
            GEOMETRY_SCHEMA, {"type": "string"},
        ),
        Parameter(
            "datetime", "interval", _text,
            lambda value, name, _: parse_datetime(_read_string(value, name), name),
            "Only items whose year overlaps this RFC 3339 time or interval, such as 2024-06-01T00:00:00Z or"
            " 2020-01-01T00:00:00Z/.. (`..` or an empty end is open).",
            {"type": "string", "pattern": DATETIME_PATTERN},
        ),
        Parameter(
            "limit", "limit", _integer, _read_limit,
            "Items per page, at least 1; values above the server's maximum are reduced to it.",
            {"type": "integer", "minimum": 1, "default": 10},
        ),
        Parameter(
            "token", "token", _text, _read_string, "Opaque paging token from a next or prev link.",
            {"type": "string"},
        ),
        Parameter(
            "filter", "filter", _text, _read_filter,
            "Only items that match this CQL2 expression on the properties of /queryables.",
            {"type": ["object", "boolean", "string"]}, {"type": "string"},
        ),
        Parameter(
            "filter-lang", "", _text, _read_elsewhere,
            "Language of the filter: cql2-text (the default for GET) or cql2-json (for POST).",
            {"type": "string", "enum": ["cql2-text", "cql2-json"]},
        ),
        Parameter(
            "filter-crs", "", _text, _read_elsewhere,
            "CRS of geometries in the filter: only longitude, latitude (CRS84) is supported.",
            {"type": "string", "enum": ["http://www.opengis.net/def/crs/OGC/1.3/CRS84"]},
        ),
        Parameter(
            "sortby", "sortby", _sort_terms, _read_sort,
            "Order of the items: properties of /sortables, in GET with a minus sign for descending."
            " Without it by collection, year, latitude and longitude.",
            {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["field"],
                    "properties": {
                        "field": {"type": "string", "examples": ["datetime", "tessera:utm_zone"]},
                        "direction": {"type": "string", "enum": ["asc", "desc"]},
                    },
                },
            },
            {"type": "string"},
        ),
        Parameter(
            "fields", "fields", _field_names, _read_fields,
            "Fields of the items to return; in GET a minus sign excludes a field. With nothing to"
            " include, the default set: what a valid item needs. A POST that only excludes keeps all others.",
            {
                "type": "object",
                "properties": {
                    "include": {**_STRINGS, "type": ["array", "null"]},
                    "exclude": {**_STRINGS, "type": ["array", "null"]},
                },
            },
            {"type": "string"},
        ),
        Parameter(
            "query", "query", read_json, _read_query,
            'Only items whose properties meet conditions, such as {"tessera:year": {"gte": 2020}}.',
            {"type": "object"}, {"type": "string"},
        ),
        Parameter(
            "q", "terms", _words, _read_terms,
            "Only items that match one of these words or phrases, case-insensitively: in their collection's"
            " title, description and keywords, or as their id, tile, year, longitude or latitude.",
            _STRINGS, style=_LIST_STYLE,
        ),
        Parameter(
            "aggregations", "aggregations", _words, _read_strings,
            "Aggregations of /aggregations to compute.", _STRINGS, style=_LIST_STYLE,
        ),
        Parameter(
            "view", "", _text, _read_elsewhere,
            "`bands` shows items with one float32 asset per dimension, b000 to b127, for clients such as"
            " stackstac that read one band per asset.",
            {"type": "string", "enum": ["bands"]},
        ),
        Parameter(
            "bands", "", _text, _read_elsewhere,
            "Dimensions that view=bands shows, counted from 0, such as 0,1,5-7; all by default.",
            {
                "oneOf": [
                    {"type": "string"},
                    {
                        "type": "array",
                        "items": {"type": "integer", "minimum": 0, "maximum": 127},
                        "minItems": 1,
                    },
                ]
            },
            {"type": "string"},
        ),
        Parameter(
            "hrefs", "", _text, _read_elsewhere,
            "Form of URLs of files in S3: `https`, for any client, `s3`, for clients with their own"
            " credentials, or `presigned`, https URLs that contain a signature and expire.",
            {"type": "string", "enum": list(HREFS)},
        ),
    )
}  # fmt: skip
"""Of a search, by name, in the order of the documentation. A new parameter is one entry here."""

SEARCH = tuple(n for n in PARAMETERS if n != "aggregations")
"""Parameters of /search."""
AGGREGATE = ("aggregations", "collections", "ids", "bbox", "intersects", "datetime", "filter", "filter-lang",
             "filter-crs", "query", "q")  # fmt: skip
"""Parameters of /aggregate."""
ITEMS = SEARCH
"""Parameters of /collections/{id}/items; pystac-client says ``collections`` there once more."""
VIEW = NAMES
"""Parameters of documents and single items."""


def known_only(names: Iterable[str], known: Sequence[str], where: str) -> None:
    """Reject unknown names.

    Raises
    ------
    QueryError
        Naming the first one and the known ones.
    """
    for name in names:
        if name not in known:
            listed = ", ".join(sorted(known)) if known else "none"
            raise QueryError(f"unknown parameter '{name[:60]}' in {where}; expected one of: {listed}")
