"""What a search asks for: one :class:`Query`, made from GET or POST and validated once.

Each parameter is one entry of :data:`PARAMETERS`: how its text (GET) becomes the JSON form (POST),
how the JSON form is validated, and what the OpenAPI document says. GET text is turned into the JSON
form first, so both methods pass through the same validation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl

import orjson

from api import cql2
from api.area import Area, parse_bbox, parse_geometry
from api.fields import Fields, default_without
from api.query_extension import query_to_cql2
from api.queryables import queryable
from api.settings import Settings
from api.times import DATETIME_PATTERN, Interval, parse_datetime
from api.view import NAMES, View, parse_view, said_again
from catalog_builder.errors import QueryError

Json = Any
"""A value as orjson reads it."""
CRS84 = ("http://www.opengis.net/def/crs/OGC/1.3/CRS84", "https://www.opengis.net/def/crs/OGC/1.3/CRS84")


_LIGHT_DEGREES = 30
"""Outline of a geometry whose cells are found in about a millisecond."""
_LIGHT_BYTES = 2000
"""Length of a filter that compiles in about a millisecond."""


@dataclass(frozen=True, slots=True)
class Sort:
    """One term of an order."""

    name: str
    """Of a sortable."""
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A validated search."""

    collections: tuple[str, ...] | None = None
    """Ids; None is all, none at all is nothing."""
    ids: tuple[str, ...] | None = None
    area: Area | None = None
    interval: Interval | None = None
    limit: int = 10
    token: str | None = None
    filter: Json = None
    """CQL2 in JSON form."""
    query: Json = None
    """The query extension, as CQL2."""
    terms: tuple[str, ...] | None = None
    """Of a free text search; one of them must be mentioned."""
    sortby: tuple[Sort, ...] = ()
    fields: Fields | None = None
    aggregations: tuple[str, ...] | None = None
    """Names."""
    view: View = None
    given: Mapping[str, Json] = field(default_factory=dict)
    """The parameters in JSON form as they were sent: what a POST link repeats."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """The parameters of a GET as they were sent: what a GET link repeats."""

    def within(self, collection: str) -> Query:
        """Return the query narrowed to the collection of a path."""
        inside = self.collections is None or collection in self.collections
        return replace(self, collections=(collection,) if inside else ())

    @property
    def is_light(self) -> bool:
        """Whether preparing it is certain to be short; finding its page may still take long."""
        if self.area is not None and self.area.degrees > _LIGHT_DEGREES:
            return False
        # A filter's geometries are not measured yet, so its length stands for them.
        conditions = [c for c in (self.filter, self.query) if c is not None]
        return sum(len(orjson.dumps(c)) for c in conditions) < _LIGHT_BYTES

    @property
    def matching(self) -> str:
        """Equal for searches with the same results, in whatever order and pages."""
        selecting = (
            sorted(set(self.collections)) if self.collections is not None else None,
            sorted(set(self.ids)) if self.ids is not None else None,
            self.area.key.hex() if self.area else None,
            (self.interval.start, self.interval.end) if self.interval else None,
            self.filter,
            self.query,
            self.terms,
        )
        return hashlib.blake2b(orjson.dumps(selecting), digest_size=12).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Equal for searches with the same results in the same order, whatever their pages."""
        order = " ".join(f"{'-' if s.descending else '+'}{s.name}" for s in self.sortby)
        return f"{self.matching} {order}"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A search parameter."""

    name: str
    attribute: str
    """Of the query that it fills; empty where several parameters are read together."""
    from_text: Callable[[str, str], Json]
    """(text of a GET, name) to the JSON form."""
    read: Callable[[Json, str, Settings], Any]
    """(JSON form, name, settings) to the query's value; refuses what is malformed."""
    description: str
    schema: Mapping[str, Json]
    """Of the JSON form (POST)."""
    text_schema: Mapping[str, Json] | None = None
    """Of the GET parameter, where it differs."""
    style: Mapping[str, Json] = field(default_factory=dict)
    """OpenAPI style of the GET parameter."""


def _numbers(text: str, name: str) -> Json:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise QueryError(f"{name}: expected numbers parted by commas, found '{text[:80]}'") from None


def _words(text: str, name: str) -> Json:
    return text.split(",") if text else []


def _json(text: str, name: str) -> Json:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise QueryError(f"{name}: expected JSON, found '{text[:60]}' ({exc})") from None


def _integer(text: str, name: str) -> Json:
    if not (text.isascii() and text.removeprefix("-").isdigit()) or len(text) > 18:
        raise QueryError(f"{name}: expected a whole number, found '{text[:40]}'")
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
    names = {
        "include": [p.lstrip(" +") for p in parts if not p.startswith("-")],
        "exclude": [p[1:] for p in parts if p.startswith("-")],
    }
    return {part: found for part, found in names.items() if found}


# ------------------------------------------------------------------------------------ JSON form


def _read_strings(value: Json, name: str, settings: Settings) -> tuple[str, ...] | None:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise QueryError(f"{name}: expected an array of texts, found {str(value)[:60]!r}")
    if len(value) > settings.max_ids:
        raise QueryError(f"{name}: {len(value)} values, at most {settings.max_ids} are answered")
    return tuple(value) or None  # an empty list restricts nothing


def _read_string(value: Json, name: str, settings: Settings | None = None) -> str:
    if not isinstance(value, str):
        raise QueryError(f"{name}: expected text, found {str(value)[:60]!r}")
    return value


def _read_limit(value: Json, name: str, settings: Settings) -> int:
    # JSON has one kind of number: 10.0 is a whole number too.
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    if not whole:
        raise QueryError(f"{name}: expected a whole number, found {str(value)[:40]!r}")
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
    return cql2.parse_text(value, settings) if isinstance(value, str) else cql2.parse_json(value, settings)


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
            "Only items whose geometry shares a point with this box: west,south,east,north in degrees, or six"
            " numbers with heights, which are ignored. West > east crosses the antimeridian.",
            {
                "type": "array",
                "items": {"type": "number"},
                "oneOf": [{"minItems": 4, "maxItems": 4}, {"minItems": 6, "maxItems": 6}],
            },
            style=_LIST_STYLE,
        ),
        Parameter(
            "intersects", "area", _json,
            lambda value, name, settings: parse_geometry(value, name, settings.max_vertices),
            "Only items whose geometry shares a point with this GeoJSON geometry. Not together with bbox.",
            GEOMETRY_SCHEMA, {"type": "string"},
        ),
        Parameter(
            "datetime", "interval", _text,
            lambda value, name, _: parse_datetime(_read_string(value, name), name),
            "Only items whose year overlaps this RFC 3339 time or interval, as 2024-06-01T00:00:00Z or"
            " 2020-01-01T00:00:00Z/.. (`..` or nothing is an open end).",
            {"type": "string", "pattern": DATETIME_PATTERN},
        ),
        Parameter(
            "limit", "limit", _integer, _read_limit,
            "Items on a page, at least 1; more than the server's maximum is cut to it.",
            {"type": "integer", "minimum": 1, "default": 10},
        ),
        Parameter(
            "token", "token", _text, _read_string, "Which page: from a next or prev link, opaque.",
            {"type": "string"},
        ),
        Parameter(
            "filter", "filter", _text, _read_filter,
            "Only items that meet this CQL2 condition over the properties of /queryables.",
            {"type": ["object", "boolean", "string"]}, {"type": "string"},
        ),
        Parameter(
            "filter-lang", "", _text, _read_elsewhere,
            "How the filter is written: cql2-text (the default of GET) or cql2-json (of POST).",
            {"type": "string", "enum": ["cql2-text", "cql2-json"]},
        ),
        Parameter(
            "filter-crs", "", _text, _read_elsewhere,
            "CRS of geometries in the filter: longitude, latitude is the only one.",
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
            "Which fields of the items to return; in GET a minus sign leaves one out.",
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
            "query", "query", _json, _read_query,
            'Only items whose properties meet conditions, as {"tessera:year": {"gte": 2020}}.',
            {"type": "object"}, {"type": "string"},
        ),
        Parameter(
            "q", "terms", _words, _read_terms,
            "Only items that mention one of these words or phrases, in any case: in their collection's title,"
            " description and keywords, or as their id, tile, year, longitude or latitude.",
            _STRINGS, style=_LIST_STYLE,
        ),
        Parameter(
            "aggregations", "aggregations", _words, _read_strings,
            "Which aggregations of /aggregations to compute.", _STRINGS, style=_LIST_STYLE,
        ),
        Parameter(
            "view", "", _text, _read_elsewhere,
            "`bands` shows items with one float32 asset per dimension, b000 to b127, for clients as stackstac"
            " that read one band of an asset.",
            {"type": "string", "enum": ["bands"]},
        ),
        Parameter(
            "bands", "", _text, _read_elsewhere,
            "Which dimensions view=bands shows, counted from 0, as 0,1,5-7; all if it is not given.",
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
    """Refuse names that are not known.

    Raises
    ------
    QueryError
        Naming the first one and those that are known.
    """
    for name in names:
        if name not in known:
            listed = ", ".join(sorted(known)) if known else "none"
            raise QueryError(f"unknown parameter '{name[:60]}' in {where}; known are: {listed}")


def text_parameters(query_string: bytes, known: Sequence[str], settings: Settings) -> dict[str, str]:
    """Return the parameters of a URL, each given once.

    Raises
    ------
    QueryError
        If one is unknown or repeated, or the text is not UTF-8.
    """
    if not query_string:
        return {}
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100
        )
    except (UnicodeDecodeError, ValueError) as exc:
        raise QueryError(f"the query string cannot be read ({exc}); expected UTF-8, %-encoded") from None
    known_only((name for name, _ in pairs), known, "the query string")
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found and not said_again(name, found[name], value):
            # a client may add the view to links that have it already
            raise QueryError(f"{name}: given more than once; separate several values by commas")
        found[name] = value
    return found


def from_text(
    query_string: bytes, known: Sequence[str], settings: Settings, within: str | None = None
) -> Query:
    """Make a query from the query string of a GET request, ``within`` the collection of its path.

    Raises
    ------
    QueryError
        If a parameter is unknown, repeated or malformed.
    """
    query = from_texts(text_parameters(query_string, known, settings), settings)
    return query if within is None else query.within(within)


def from_texts(texts: Mapping[str, str], settings: Settings) -> Query:
    """Make a query from the parameters of a GET request.

    Raises
    ------
    QueryError
        If one is malformed.
    """
    raw = {name: PARAMETERS[name].from_text(text, name) for name, text in texts.items()}
    if texts.get("filter-lang") == "cql2-json" and "filter" in texts:
        raw["filter"] = _json(texts["filter"], "filter")
    return replace(validate(raw, settings), texts=texts)


def from_json(
    body: bytes, known: Sequence[str], settings: Settings, more: Mapping[str, Json] | None = None
) -> Query:
    """Make a query from the body of a POST request, and ``more`` parameters that came with its address.

    Raises
    ------
    QueryError
        If it is not a JSON object, or a parameter is unknown or malformed.
    """
    try:
        raw = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as exc:
        raise QueryError(f"the body is not JSON: {exc}") from None
    if not isinstance(raw, dict):
        raise QueryError("the body must be a JSON object with the search's parameters")
    known_only(raw, known, "the body")
    return validate({**raw, **(more or {})}, settings)


def validate(raw: Mapping[str, Json], settings: Settings) -> Query:
    """Make a query from parameters in JSON form; all but nulls are validated.

    Raises
    ------
    QueryError
        Naming the parameter, what was found and what was expected.
    """
    # The fields extension says that a null is a mistake; elsewhere it is the absence of a value.
    given = {name: value for name, value in raw.items() if value is not None or name == "fields"}
    if "bbox" in given and "intersects" in given:
        raise QueryError("bbox and intersects: only one of them may be given")
    _check_filter_language(given)
    values: dict[str, Any] = {"limit": settings.default_limit}
    for name, value in given.items():
        parameter = PARAMETERS[name]
        if parameter.attribute:
            values[parameter.attribute] = parameter.read(value, name, settings)
    return Query(**values, view=parse_view(given), given=given)


def _check_filter_language(given: Mapping[str, Json]) -> None:
    language = given.get("filter-lang")
    if language is not None and language not in ("cql2-text", "cql2-json"):
        raise QueryError(f"filter-lang: expected cql2-text or cql2-json, found {str(language)[:40]!r}")
    if (
        "filter" in given
        and language is not None
        and isinstance(given["filter"], str) != (language == "cql2-text")
    ):
        raise QueryError(f"filter: expected {language}, found {str(given['filter'])[:40]!r}")
    crs = given.get("filter-crs")
    if crs is not None and crs not in CRS84:
        raise QueryError(f"filter-crs: expected {CRS84[0]}, found {str(crs)[:60]!r}")
