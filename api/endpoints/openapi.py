"""The endpoints and their descriptions in the OpenAPI document: parameters, bodies, every status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.http.links import GEOJSON, JSON, SCHEMA
from api.http.responses import ERRORS
from api.search import collections, parameters

_ERROR_SCHEMA = {
    "type": "object",
    "required": ["code", "description"],
    "properties": {"code": {"type": "string"}, "description": {"type": "string"}},
}

_PATH_PARAMETERS = {
    "collection_id": "Id of a collection, such as tessera-v1",
    "item_id": "Id of an item, such as grid_0.15_52.05_2024",
    "year": "A year of the collection, such as 2024",
    "area": "West and south edge and size in degrees, such as 0,50,10 or -3,51,1",
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
    """Media type of its response."""
    parameters: tuple[str, ...] = ()
    """Search parameters, in the query string or the body."""

    @property
    def identifier(self) -> str:
        """Return the operationId: unique, and stable for generated clients."""
        within = "_of_collection" if self.path.startswith("/collections/{collection_id}/") else ""
        named = {"item_collection", "get_item", "browse_collection", "browse_year", "browse_area"}
        return self.handler if self.handler in named else self.handler + within

    def responses(self) -> dict[int | str, dict[str, Any]]:
        """Return the responses by status."""
        statuses = [400]
        if "{" in self.path:
            statuses.append(404)
        statuses.append(413 if self.method == "POST" else 414)
        if self.parameters not in ((), parameters.VIEW):
            statuses.append(503)
        ok: dict[str, Any] = {
            "description": "Success",
            "content": {self.kind: {"schema": {"type": "object"}}},
        }
        answers: dict[int | str, dict[str, Any]] = {200: ok}
        if self.method == "GET":
            answers[304] = {"description": "The client's copy, identified by its ETag, is current."}
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
        found += [_get_parameter(parameters.PARAMETERS[name]) for name in self.parameters]
        return {"parameters": found}

    def _body(self) -> Mapping[str, Any]:
        schema = {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                name: {
                    **parameters.PARAMETERS[name].schema,
                    "description": parameters.PARAMETERS[name].description,
                }
                for name in self.parameters
            },
        }
        return {"required": True, "content": {JSON: {"schema": schema}}}


def _get_parameter(parameter: parameters.Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "description": parameter.description,
        "schema": parameter.text_schema or parameter.schema,
        **parameter.style,
    }


OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/", "landing_page", "Landing page", "Landing page: what the service offers.", "Core",
              parameters=parameters.VIEW),
    Operation(
        "GET", "/conformance", "conformance", "Conformance classes", "The conformance classes.", "Core",
        parameters=parameters.VIEW,
    ),
    Operation(
        "GET", "/collections", "all_collections", "Collections", "All collections, or those that match.",
        "Collections", parameters=collections.NAMES,
    ),
    Operation(
        "GET", "/collections/{collection_id}", "get_collection", "Collection", "One collection.",
        "Collections", parameters=parameters.VIEW,
    ),
    Operation(
        "GET", "/collections/{collection_id}/items", "item_collection", "Items of a collection",
        "Items of a collection, paged.", "Items", GEOJSON, parameters.ITEMS,
    ),
    Operation(
        "GET", "/collections/{collection_id}/items/{item_id}", "get_item", "Item", "One item.",
        "Items", GEOJSON, parameters.VIEW,
    ),
    Operation(
        "GET", "/search", "get_search", "Search", "Items of all collections.", "Items",
        GEOJSON, parameters.SEARCH,
    ),
    Operation(
        "POST", "/search", "post_search", "Search", "Items of all collections.", "Items",
        GEOJSON, parameters.SEARCH,
    ),
    *(
        Operation("GET", f"{at}/{name}", name, name.capitalize(), text, "Filter", SCHEMA, parameters.VIEW)
        for at in ("", "/collections/{collection_id}")
        for name, text in (
            ("queryables", "Properties that items can be filtered by, as JSON Schema."),
            ("sortables", "Properties that items can be sorted by, as JSON Schema."),
        )
    ),
    Operation(
        "GET", "/collections-queryables", "collections_queryables", "Queryables of collections",
        "Properties that collections can be filtered by, as JSON Schema.", "Filter", SCHEMA, parameters.VIEW,
    ),
    *(
        operation
        for at in ("", "/collections/{collection_id}")
        for operation in (
            Operation(
                "GET", f"{at}/aggregations", "aggregations", "Aggregations", "Available aggregations.",
                "Aggregation", parameters=parameters.VIEW,
            ),
            Operation(
                "GET", f"{at}/aggregate", "get_aggregate", "Aggregate", "Counts of the items of a search.",
                "Aggregation", parameters=parameters.AGGREGATE,
            ),
            Operation(
                "POST", f"{at}/aggregate", "post_aggregate", "Aggregate", "Counts of the items of a search.",
                "Aggregation", parameters=parameters.AGGREGATE,
            ),
        )
    ),
    Operation("GET", "/children", "children", "Children", "All collections, in full.", "Browse",
              parameters=parameters.VIEW),
    Operation(
        "GET", "/browse", "browse_root", "Everything to browse",
        "The root of a tree of catalogues that leads to every item by child and item links.", "Browse",
        parameters=parameters.VIEW,
    ),
    Operation(
        "GET", "/collections/{collection_id}/browse", "browse_collection", "A collection to browse",
        "A catalogue of its years.", "Browse", parameters=parameters.VIEW,
    ),
    Operation(
        "GET", "/collections/{collection_id}/browse/{year}", "browse_year", "A year to browse",
        "A catalogue of the 10 x 10 degree areas that contain tiles.", "Browse", parameters=parameters.VIEW,
    ),
    Operation(
        "GET", "/collections/{collection_id}/browse/{year}/{area}", "browse_area", "An area to browse",
        "A catalogue of 1 x 1 degree areas in 10 x 10 degrees, or of items in 1 x 1 degree.", "Browse",
        parameters=parameters.VIEW,
    ),
)  # fmt: skip
"""Every endpoint of the API, in the order in which they are matched."""
