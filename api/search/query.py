"""A search request: one :class:`Query`, created from GET or POST and validated once.

GET text is turned into the JSON form of POST first, by :mod:`api.search.parameters`, so both methods pass
through the same validation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl

import orjson

from api.request.area import Area
from api.request.fields import Fields
from api.request.times import Interval
from api.request.view import View, parse_view, said_again
from api.search.parameters import PARAMETERS, Json, Sort, known_only, read_json
from api.settings import Settings
from catalog_builder.errors import QueryError

CRS84 = ("http://www.opengis.net/def/crs/OGC/1.3/CRS84", "https://www.opengis.net/def/crs/OGC/1.3/CRS84")
_LIGHT_DEGREES = 30
"""Outline of a geometry whose cells are found in about a millisecond."""
_LIGHT_BYTES = 2000
"""Length of a filter that compiles in about a millisecond; a geometry (WKB) may be ten times as long."""


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
    """Terms of a free text search, of which one must match."""
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
        if self.area is not None and (
            self.area.degrees > _LIGHT_DEGREES or len(self.area.wkb) > 10 * _LIGHT_BYTES
        ):
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
            raise QueryError(f"{name}: given more than once; separate several values with commas")
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
        raw["filter"] = read_json(texts["filter"], "filter")
    return replace(validate(raw, settings), texts=texts)


def from_json(
    body: bytes, known: Sequence[str], settings: Settings, more: Mapping[str, Json] | None = None
) -> Query:
    """Make a query from the body of a POST request, and ``more`` parameters from its query string.

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
    """Make a query from parameters in JSON form. A null is the absence of a value, but for fields.

    Raises
    ------
    QueryError
        Naming the parameter, what was found and what was expected.
    """
    # The fields extension, and stac-api-validator, say that a null of fields is a mistake.
    given = {name: value for name, value in raw.items() if value is not None or name == "fields"}
    if "bbox" in given and "intersects" in given:
        raise QueryError("bbox and intersects: only one of them may be given")
    _check_filter_language(given)
    values: dict[str, Any] = {"limit": settings.default_limit}
    for name, value in given.items():
        parameter = PARAMETERS[name]
        if parameter.attribute:
            values[parameter.attribute] = parameter.read(value, name, settings)
    return Query(**values, view=parse_view(given, may_sign=settings.presign), given=given)


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
