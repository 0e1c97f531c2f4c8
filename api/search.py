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

from api.area import Area, parse_bbox, parse_geometry
from api.settings import Settings
from api.times import Interval, parse_datetime
from api.view import NAMES, View, parse_view
from catalog_builder.errors import QueryError

Json = Any
"""A value as orjson reads it."""


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
    view: View = None
    given: Mapping[str, Json] = field(default_factory=dict)
    """The parameters in JSON form as they were sent: what a POST link repeats."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """The parameters of a GET as they were sent: what a GET link repeats."""

    @property
    def is_light(self) -> bool:
        """Whether its cells are found by comparisons only."""
        return self.area is None or self.area.is_box

    @property
    def fingerprint(self) -> str:
        """Equal for searches with the same results in the same order, whatever their pages."""
        selecting = (
            sorted(set(self.collections)) if self.collections is not None else None,
            sorted(set(self.ids)) if self.ids is not None else None,
            self.area.key.hex() if self.area else None,
            (self.interval.start, self.interval.end) if self.interval else None,
        )
        return hashlib.blake2b(orjson.dumps(selecting), digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True)
class Parameter:
    """A search parameter."""

    name: str
    from_text: Callable[[str, str], Json]
    """(text of a GET, name) to the JSON form."""
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
        Parameter("collections", _words, "Only items of these collections.", _STRINGS, style=_LIST_STYLE),
        Parameter("ids", _words, "Only items with these ids.", _STRINGS, style=_LIST_STYLE),
        Parameter(
            "bbox",
            _numbers,
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
            "intersects",
            _json,
            "Only items whose geometry shares a point with this GeoJSON geometry. Not together with bbox.",
            GEOMETRY_SCHEMA,
            {"type": "string"},
        ),
        Parameter(
            "datetime",
            _text,
            "Only items whose year overlaps this RFC 3339 time or interval, as 2024-06-01T00:00:00Z or"
            " 2020-01-01T00:00:00Z/.. (`..` or nothing is an open end).",
            {"type": "string"},
        ),
        Parameter(
            "limit",
            _integer,
            "Items on a page, at least 1; more than the server's maximum is cut to it.",
            {"type": "integer", "minimum": 1, "default": 10},
        ),
        Parameter("token", _text, "Which page: from a next or prev link, opaque.", {"type": "string"}),
        Parameter(
            "view",
            _text,
            "`bands` shows items with one float32 asset per dimension, b000 to b127, for clients as stackstac"
            " that read one band of an asset.",
            {"type": "string", "enum": ["bands"]},
        ),
        Parameter(
            "bands",
            _text,
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
}
"""Of a search, by name, in the order of the documentation."""

SEARCH = tuple(PARAMETERS)
"""Parameters of /search."""
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
        if name in found and not (name in NAMES and found[name] == value):
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
    texts = text_parameters(query_string, known, settings)
    raw = {name: PARAMETERS[name].from_text(text, name) for name, text in texts.items()}
    query = validate(raw, settings)
    if within is not None:
        inside = query.collections is None or within in query.collections
        query = replace(query, collections=(within,) if inside else ())
    return replace(query, texts=texts)


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
    given = {name: value for name, value in raw.items() if value is not None}
    if "bbox" in given and "intersects" in given:
        raise QueryError("bbox and intersects: only one of them may be given")
    area = None
    if "bbox" in given:
        area = parse_bbox(given["bbox"])
    elif "intersects" in given:
        area = parse_geometry(given["intersects"], "intersects", settings.max_vertices)
    return Query(
        collections=_strings(given, "collections", settings.max_ids),
        ids=_strings(given, "ids", settings.max_ids),
        area=area,
        interval=parse_datetime(_string(given, "datetime")) if "datetime" in given else None,
        limit=_limit(given, settings),
        token=_string(given, "token") if "token" in given else None,
        view=parse_view(given),
        given=given,
    )


def _limit(given: Mapping[str, Json], settings: Settings) -> int:
    value = given.get("limit", settings.default_limit)
    # JSON has one kind of number: 10.0 is a whole number too.
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    if not whole:
        raise QueryError(f"limit: expected a whole number, found {str(value)[:40]!r}")
    if value < 1:
        raise QueryError(f"limit: expected at least 1, found {int(value)}")
    return min(int(value), settings.max_limit)


def _string(given: Mapping[str, Json], name: str) -> str:
    value = given[name]
    if not isinstance(value, str):
        raise QueryError(f"{name}: expected text, found {str(value)[:60]!r}")
    return value


def _strings(given: Mapping[str, Json], name: str, most: int) -> tuple[str, ...] | None:
    value = given.get(name)
    if value is None or value == []:
        return None  # an empty list restricts nothing
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise QueryError(f"{name}: expected an array of texts, found {str(value)[:60]!r}")
    if len(value) > most:
        raise QueryError(f"{name}: {len(value)} values, at most {most} are answered")
    return tuple(value)
