"""CQL2 text and JSON, parsed within limits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import cql2
import orjson

from api.settings import Settings
from catalog_builder.errors import QueryError

MOST_NESTED = 100
"""Levels of a filter; the parsers recurse."""
MOST_TEXT = 200_000
"""Characters of a cql2-text filter: parsing them takes 0.1 s."""
_MOST_PARSING = 1 << 15
"""Steps of the text parser, 3 us each. At a mistake it goes back and tries another rule at every open
parenthesis, so a word behind n of them may be read 2 ** n times (cql2 0.6)."""
_LONG = 20_000
"""Bytes of a cql2-json filter from which on its geometries are not shown to the parser."""
_KINDS = frozenset(
    ("Point", "LineString", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon", "GeometryCollection")
)
_PREFIXES = re.compile(rf"(?:(?:\bNOT\b|[-(+])\s*){{{MOST_NESTED + 1}}}", re.IGNORECASE)
_STRINGS = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"")
_GEOMETRIES = re.compile(
    r"\b(?:MULTI)?(?:POINT|LINESTRING|POLYGON)\s*Z?\s*\([-+.,()\s0-9E]*|\bBBOX\s*\([-+.,\s0-9E]*\)",
    re.IGNORECASE,
)
_TOKENS = re.compile(
    r"(?P<open>\()|(?P<close>\))|(?P<new>,|\b(?:AND|OR)\b)"
    r"|(?P<operator>[-+*/%^]|[<>=]+|\b(?:NOT|DIV|LIKE|IN|IS|BETWEEN)\b)",
    re.IGNORECASE,
)


def parse_text(text: str, settings: Settings) -> Any:
    """Return the JSON form of a cql2-text filter.

    Raises
    ------
    QueryError
        If it is not CQL2, with the position and what was expected there.
    """
    if len(text) > MOST_TEXT:
        raise QueryError(f"filter: more than {MOST_TEXT} characters; send it as cql2-json")
    _check_text(text)
    try:
        parsed = cql2.parse_text(text).to_json()
    except Exception as exc:  # the package raises plain Exception too
        where = " ".join(str(exc).split())
        raise QueryError(f"filter: not cql2-text: {where[:300]}") from None
    return _checked(parsed, settings)


def _check_text(text: str) -> None:
    """Reject text that would crash or block the parser: it recurses on the stack, and it backtracks."""
    bare = _GEOMETRIES.sub(_without_geometry, _STRINGS.sub("''", text))
    if _PREFIXES.search(bare):
        raise QueryError(f"filter: nested deeper than {MOST_NESTED} levels")
    # Operators that follow each other nest in the tree, as a < b < c does.
    chains, steps, at = [0], 0, 0
    for token in _TOKENS.finditer(bare):
        steps += (1 + (token.end() - at) // 16) << min(len(chains) - 1, 32)
        at = token.end()
        match token.lastgroup:
            case "open":
                chains.append(0)
            case "close" if len(chains) > 1:
                chains.pop()
            case "new":
                chains[-1] = 0
            case "operator":
                chains[-1] += 1
        if max(len(chains) - 1, chains[-1]) > MOST_NESTED:
            raise QueryError(f"filter: nested deeper than {MOST_NESTED} levels")
    steps += (len(bare) - at) // 16 << min(len(chains) - 1, 32)
    if steps > _MOST_PARSING:
        raise QueryError(
            "filter: nested too deep for its length; write it with fewer parentheses, or as cql2-json"
        )


def _without_geometry(match: re.Match[str]) -> str:
    """Return what a whole literal geometry leaves: the parentheses that it closes of others."""
    opened, closed = match[0].count("("), match[0].count(")")
    # Only where it is whole: numbers and its own parentheses, so there is no other rule to try.
    return match[0] if opened > closed else ")" * (closed - opened)


def parse_json(value: Any, settings: Settings) -> Any:
    """Return a cql2-json filter in cql2's own spelling.

    Raises
    ------
    QueryError
        If it is not CQL2.
    """
    _checked(value, settings)
    if not isinstance(value, dict | bool):
        raise QueryError(f"filter: expected a cql2-json object, found {str(value)[:60]!r}")
    geometries = list[Any]()
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError:  # it reads 1024 levels and writes 254, whatever they are below
        raise QueryError(f"filter: nested deeper than {MOST_NESTED} levels") from None
    if len(text) > _LONG:
        text = orjson.dumps(_taken_out(value, geometries))
    try:
        parsed = cql2.parse_json(text.decode()).to_json()
    except Exception as exc:
        raise QueryError(f"filter: not cql2-json: {' '.join(str(exc).split())[:300]}") from None
    return _put_back(parsed, geometries) if geometries else parsed


def _taken_out(node: Any, taken: list[Any]) -> Any:
    """Return a filter with a numbered point for each geometry: cql2 takes long for coordinates."""
    if isinstance(node, list):
        return [_taken_out(each, taken) for each in node]
    if not isinstance(node, dict):
        return node
    if _is_geometry(node):
        taken.append(node)
        return {"type": "Point", "coordinates": [len(taken) - 1, 0]}
    return {key: _taken_out(value, taken) for key, value in node.items()}


def _put_back(node: Any, taken: Sequence[Any]) -> Any:
    """Return what :func:`_taken_out` was given, as cql2 spells it."""
    if isinstance(node, list):
        return [_put_back(each, taken) for each in node]
    if not isinstance(node, dict):
        return node
    if _is_geometry(node):
        return taken[int(node["coordinates"][0])]
    return {key: _put_back(value, taken) for key, value in node.items()}


def _is_geometry(node: Mapping[str, Any]) -> bool:
    kind, inside = node.get("type"), node.get("coordinates", node.get("geometries"))
    return isinstance(kind, str) and kind in _KINDS and isinstance(inside, list)


def _checked(parsed: Any, settings: Settings) -> Any:
    """Reject filters that are too large, without recursion."""
    todo, nodes = [(parsed, 0)], 0
    while todo:
        node, depth = todo.pop()
        if isinstance(node, dict):
            if "coordinates" in node:  # geometries have their own limit
                continue
            children: Sequence[Any] = list(node.values())
        elif isinstance(node, list):
            children = node
        else:
            continue
        nodes += len(children)
        if depth > 4 * MOST_NESTED:
            raise QueryError(f"filter: nested deeper than {MOST_NESTED} levels")
        if nodes > settings.max_filter_nodes:
            raise QueryError(
                f"filter: more than {settings.max_filter_nodes} operators and values; simplify it"
            )
        todo += [(child, depth + 1) for child in children]
    return parsed
