"""The endpoints and what the OpenAPI document says of them: parameters, bodies, every status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api import search
from api.links import GEOJSON, JSON
from api.responses import ERRORS

_ERROR_SCHEMA = {
    "type": "object",
    "required": ["code", "description"],
    "properties": {"code": {"type": "string"}, "description": {"type": "string"}},
}

_PATH_PARAMETERS = {
    "collection_id": "Id of a collection, as tessera-v1",
    "item_id": "Id of an item, as grid_0.15_52.05_2024",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """An endpoint."""

    method: str
    path: str
    handler: str
    """Method of the client."""
    summary: str
    description: str
    tag: str
    kind: str = JSON
    """Media type of its answer."""
    parameters: tuple[str, ...] = ()
    """Search parameters, in the query string or the body."""

    def responses(self) -> dict[int | str, dict[str, Any]]:
        """Return the responses by status."""
        statuses = [400]
        if "{" in self.path:
            statuses.append(404)
        statuses.append(413 if self.method == "POST" else 414)
        if self.parameters not in ((), search.VIEW):
            statuses.append(503)
        ok: dict[str, Any] = {
            "description": "Success",
            "content": {self.kind: {"schema": {"type": "object"}}},
        }
        answers: dict[int | str, dict[str, Any]] = {200: ok}
        if self.method == "GET":
            answers[304] = {"description": "The client's copy, known by its ETag, is current."}
        for status in statuses:
            answers[status] = {"description": ERRORS[status][1], "content": {JSON: {"schema": _ERROR_SCHEMA}}}
        return answers

    def extra(self) -> dict[str, Any]:
        """Return parameters and body."""
        found: list[dict[str, Any]] = [
            {
                "name": name,
                "in": "path",
                "required": True,
                "description": text,
                "schema": {"type": "string"},
            }
            for name, text in _PATH_PARAMETERS.items()
            if f"{{{name}}}" in self.path
        ]
        if self.method == "POST":
            return {"parameters": found, "requestBody": self._body()}
        found += [_get_parameter(search.PARAMETERS[name]) for name in self.parameters]
        return {"parameters": found}

    def _body(self) -> Mapping[str, Any]:
        schema = {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                name: {**search.PARAMETERS[name].schema, "description": search.PARAMETERS[name].description}
                for name in self.parameters
            },
        }
        return {"required": True, "content": {JSON: {"schema": schema}}}


def _get_parameter(parameter: search.Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "description": parameter.description,
        "schema": parameter.text_schema or parameter.schema,
        **parameter.style,
    }


OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/", "landing_page", "Landing page", "What the service offers.", "Core",
              parameters=search.VIEW),
    Operation(
        "GET", "/conformance", "conformance", "Conformance classes", "What the service conforms to.", "Core",
        parameters=search.VIEW,
    ),
    Operation("GET", "/collections", "all_collections", "Collections", "All collections.", "Collections",
              parameters=search.VIEW),
    Operation(
        "GET", "/collections/{collection_id}", "get_collection", "Collection", "One collection.",
        "Collections", parameters=search.VIEW,
    ),
    Operation(
        "GET", "/collections/{collection_id}/items", "item_collection", "Items of a collection",
        "Items of a collection, page by page.", "Items", GEOJSON, search.ITEMS,
    ),
    Operation(
        "GET", "/collections/{collection_id}/items/{item_id}", "get_item", "Item", "One item.",
        "Items", GEOJSON, search.VIEW,
    ),
    Operation(
        "GET", "/search", "get_search", "Search", "Items of all collections.", "Items",
        GEOJSON, search.SEARCH,
    ),
    Operation(
        "POST", "/search", "post_search", "Search", "Items of all collections.", "Items",
        GEOJSON, search.SEARCH,
    ),
)  # fmt: skip
"""Every endpoint of the API, in the order in which they are matched."""
