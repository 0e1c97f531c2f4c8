"""Search among collections. There are only a few, so each is tested individually.

Filters are evaluated by the ``cql2`` package; the properties that may be named are checked first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cql2
import orjson
import shapely

from api.filter.free_text import mentions
from api.request.times import parse_instant
from api.request.token import Cursor, decode, encode, foreign
from api.search.parameters import PARAMETERS, known_only
from api.search.query import Query, from_texts, text_parameters
from api.settings import Settings
from catalog_builder.errors import QueryError
from catalog_builder.tile import grid

PROPERTIES: dict[str, dict[str, Any]] = {
    "id": {"type": "string", "title": "Id"},
    "title": {"type": "string", "title": "Title"},
    "description": {"type": "string", "title": "Description"},
    "license": {"type": "string", "title": "Licence"},
    "gsd": {"type": "number", "title": "GSD"},
    "tessera:dataset_version": {"type": "string", "title": "Dataset version"},
    "tessera:variant": {"type": "string", "title": "Dataset variant"},
}
"""Properties that collections can be filtered and sorted by."""

NAMES = ("bbox", "datetime", "limit", "token", "q", "filter", "filter-lang", "filter-crs", "sortby", "fields",
         "view", "bands", "hrefs")  # fmt: skip
"""Parameters of /collections."""

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CollectionQuery:
    """A validated search among collections."""

    query: Query
    """All but the order, which has other properties."""
    sortby: tuple[tuple[str, bool], ...]
    """(property, descending)."""
    limit: int | None
    """None is all."""


def parse(query_string: bytes, settings: Settings) -> CollectionQuery:
    """Make a query from the query string.

    Raises
    ------
    QueryError
        If a parameter is unknown or malformed.
    """
    texts = text_parameters(query_string, NAMES, settings)
    terms = PARAMETERS["sortby"].from_text(texts["sortby"], "sortby") if "sortby" in texts else []
    sortby = tuple((_known(t["field"], "sortby"), t["direction"] == "desc") for t in terms)
    rest = from_texts({k: v for k, v in texts.items() if k != "sortby"}, settings)
    if rest.filter is not None:
        _check(rest.filter)
    return CollectionQuery(replace(rest, texts=texts), sortby, rest.limit if "limit" in texts else None)


def find(
    documents: Sequence[Document], asked: CollectionQuery
) -> tuple[list[dict[str, Any]], dict[str, str], int]:
    """Return a page of the matching collections, tokens of its neighbours, and how many match."""
    query = asked.query
    found = [d for d in documents if _matches(d, query)]
    for name, descending in reversed(asked.sortby):
        found.sort(key=lambda d: (d.get(name) is not None, d.get(name)), reverse=descending)
    seal = f"collections {query.fingerprint} {asked.sortby}"
    start = 0
    if query.token is not None:
        cursor = decode(query.token, seal)
        if not 0 <= cursor.key <= len(found) or cursor.values:
            raise foreign(query.token)
        start = cursor.key
    stop = len(found) if asked.limit is None else start + asked.limit
    tokens = {}
    if stop < len(found):
        tokens["next"] = encode(Cursor(stop), seal)
    if start > 0:
        tokens["prev"] = encode(Cursor(max(0, start - (stop - start)), backwards=True), seal)
    page = [d if query.fields is None else query.fields.prune(d) for d in found[start:stop]]
    return [dict(d) for d in page], tokens, len(found)


def _matches(document: Document, query: Query) -> bool:
    extent = document["extent"]
    if query.interval is not None:
        spans = [
            tuple(None if t is None else parse_instant(t) for t in span)
            for span in extent["temporal"]["interval"]
        ]
        if not any(
            query.interval.overlaps(a if a is not None else 0, b if b is not None else 1 << 62)
            for a, b in spans
        ):
            return False
    if query.area is not None and not any(_overlap(a, grid.Bounds(*b)) for a in query.area.boxes
                                          for b in extent["spatial"]["bbox"]):  # fmt: skip
        return False
    if query.terms is not None and not mentions(dict(document), query.terms):
        return False
    return query.filter is None or _meets(document, query.filter)


def _overlap(a: grid.Bounds, b: grid.Bounds) -> bool:
    return a.west <= b.east and b.west <= a.east and a.south <= b.north and b.south <= a.north


def _meets(document: Document, condition: Any) -> bool:
    """Evaluate a filter on a collection, as on an item with its properties."""
    item = {
        "type": "Feature",
        "id": document["id"],
        "geometry": shapely.geometry.mapping(shapely.box(*document["extent"]["spatial"]["bbox"][0])),
        "properties": {name: document.get(name) for name in PROPERTIES},
    }
    try:
        return bool(
            cql2.parse_json(orjson.dumps(condition).decode()).matches(orjson.loads(orjson.dumps(item)))
        )
    except Exception as exc:  # the package raises plain Exception too
        raise QueryError(f"filter: cannot be evaluated for collections ({str(exc)[:200]})") from None


def _check(condition: Any) -> None:
    """Reject properties that collections do not have."""
    todo = [condition]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            if isinstance(node.get("property"), str) and node["property"] != "geometry":
                _known(node["property"], "filter")
            todo += list(node.values())
        elif isinstance(node, list):
            todo += node


def _known(name: str, where: str) -> str:
    plain = name.removeprefix("properties.")
    known_only([plain], tuple(PROPERTIES), f"{where} of collections")
    return plain


def schema(address: str, title: str) -> dict[str, Any]:
    """Return the JSON Schema of what collections can be filtered and sorted by."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": address,
        "type": "object",
        "title": title,
        "properties": PROPERTIES,
        "additionalProperties": False,
    }
