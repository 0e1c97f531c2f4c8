"""The query extension: conditions per property, turned into CQL2.

A client that reads conditions from a text, such as pystac-client's ``query=["tessera:year>=2023"]``, cannot
know of what type a property is and sends every value as text. So a text is read as the property's type.
"""

from __future__ import annotations

import re
from typing import Any

from api.filter.queryables import QUERYABLES
from catalog_builder.errors import QueryError

_COMPARISONS = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_PATTERNS = {"startsWith": "{}%", "endsWith": "%{}", "contains": "%{}%"}
OPERATORS = (*_COMPARISONS, *_PATTERNS, "in")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_BOOLEANS = {"true": True, "false": False}


def query_to_cql2(value: Any) -> Any:
    """Return ``{"property": {"operator": value}}`` as cql2-json; None if it says nothing.

    Raises
    ------
    QueryError
        If it has another form or an unknown operator.
    """
    if not isinstance(value, dict):
        raise QueryError(f"query: expected an object of properties, found {str(value)[:60]!r}")
    conditions = []
    for name, operators in value.items():
        if not isinstance(operators, dict):
            raise QueryError(f"query: expected an object of operators for '{name[:60]}'")
        conditions += [_condition(name, op, operand) for op, operand in operators.items()]
    return {"op": "and", "args": conditions} if conditions else None


def _condition(name: str, op: str, operand: Any) -> Any:
    prop = {"property": name}
    if op in _COMPARISONS:
        _scalar(name, op, operand)
        return {"op": _COMPARISONS[op], "args": [prop, _typed(name, operand)]}
    if op in _PATTERNS:
        if not isinstance(operand, str):
            raise QueryError(f"query: '{op}' of '{name[:60]}' takes a string, found {str(operand)[:40]!r}")
        escaped = "".join(f"\\{c}" if c in "%_\\" else c for c in operand)
        return {"op": "like", "args": [prop, _PATTERNS[op].format(escaped)]}
    if op == "in":
        if not isinstance(operand, list) or not operand:
            raise QueryError(f"query: 'in' of '{name[:60]}' takes a list with at least one value")
        for option in operand:
            _scalar(name, op, option)
        return {"op": "in", "args": [prop, [_typed(name, option) for option in operand]]}
    raise QueryError(f"query: unknown operator '{op[:40]}'; expected one of: {', '.join(OPERATORS)}")


def _scalar(name: str, op: str, operand: Any) -> None:
    if not isinstance(operand, str | int | float | bool):
        raise QueryError(f"query: '{op}' of '{name[:60]}' takes a string, number or boolean")


def _typed(name: str, operand: Any) -> Any:
    """Return a text that reads as the type of its property as a value of that type, all else as it is."""
    entry = QUERYABLES.get(name.removeprefix("properties."))
    if entry is None or not isinstance(operand, str):
        return operand
    text = operand.strip()
    if entry.kind == "number" and _NUMBER.fullmatch(text):
        return int(text) if _WHOLE.fullmatch(text) else float(text)
    if entry.kind == "boolean":
        return _BOOLEANS.get(text.lower(), operand)
    return operand
