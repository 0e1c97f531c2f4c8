"""Run stac-api-validator without a network, with every schema really checked.

    python offline_validator.py < arguments.json

The arguments are those of ``stac_api_validator.validations.validate_api`` (and ``query``, of its
QueryConfig); it prints ``{"errors": [...], "warnings": [...]}``. Run by the Python of ``validator.lock``.

The validator fetches a JSON schema per check. Here it gets the schemas of the STAC specification and of
GeoJSON from pystac's wheel, which ships them, and those of the extensions that our items declare from
:mod:`extension_schemas`, where they are written down by us, because no package ships them. Any other
schema is a failure: an empty one would accept anything.

Where the validator itself (0.6.8) is wrong or cannot fit, :func:`_corrected` mends its *requests*; no
check is left out or softened by it.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import stac_api_validator.validations as validations
import stac_validator.utilities as utilities
import stac_validator.validate as validate
from pystac.validation import RegisteredValidator
from pystac.validation.local_validator import get_local_schema_cache

sys.path.insert(0, str(Path(__file__).parent))
from extension_schemas import SCHEMAS

_KNOWN: dict[str, dict[str, Any]] = {**get_local_schema_cache(), **SCHEMAS}

_PROPERTIES = {"eo:cloud_cover": "tessera:utm_zone", "mission": "tessera:coverage"}
"""Properties of optical scenes that its filters use, and ours of the same types in their place.

A property that is not in /queryables is refused here, as the specification allows."""
_OLD_CLASSES = {
    "basic-spatial-functions": "basic-spatial-operators",
    "temporal-functions": "temporal-operators",
}
"""CQL2's classes, and their names in the draft that it knows: without them it skips its spatial filters."""


def schema_of(address: str) -> dict[str, Any]:
    """Return the schema of an address.

    Raises
    ------
    LookupError
        If it is not here: the object that declares it does not pass.
    """
    found = _KNOWN.get(str(address).rstrip("#"))
    if found is None:
        raise LookupError(f"no schema for {address}: nothing that declares it can be said to be valid")
    return found


def _overridden(address: str, schema_map: object = None) -> dict[str, Any]:
    return schema_of(address)


def _local_only() -> None:
    """Refuse other machines at once: the validator opens every link and asset it is shown."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        try:
            local = ipaddress.ip_address(name).is_loopback
        except ValueError:
            local = name == "localhost"
        if not local:
            raise OSError(f"{name} is not this machine")
        return real(host, *args, **options)

    socket.getaddrinfo = getaddrinfo


def _ours(text: str) -> str:
    for theirs, ours in _PROPERTIES.items():
        text = text.replace(theirs, ours)
    return text


def _between(node: Any) -> Any:
    """Return a filter with ``between`` as CQL2 1.0 has it: three arguments, not a nested pair."""
    if isinstance(node, list):
        return [_between(part) for part in node]
    if not isinstance(node, dict):
        return node
    if node.get("op") == "between" and len(node["args"]) == 2:
        return {**node, "args": [node["args"][0], *node["args"][1]]}
    return {key: _between(value) for key, value in node.items()}


def _corrected(real: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the function that sends every request."""

    def retrieve(*args: Any, **options: Any) -> Any:
        body, params = options.get("body"), options.get("params")
        if isinstance(body, dict):
            if isinstance(body.get("collections"), str):
                # The specification asks for an array; for Sort and Query it sends a string.
                body = {**body, "collections": [body["collections"]]}
            if "filter" in body:
                body = {**body, "filter": _between(json.loads(_ours(json.dumps(body["filter"]))))}
            options["body"] = body
        if isinstance(params, dict) and "filter" in params:
            options["params"] = {**params, "filter": _ours(params["filter"])}
        return real(*args, **options)

    return retrieve


def _with_old_names(real: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the filter checks, so that they see CQL2's classes by the names they know."""

    def check(*, root_body: dict[str, Any], **options: Any) -> Any:
        declared = root_body["conformsTo"]
        old = [
            c.replace(new, name) for c in declared for new, name in _OLD_CLASSES.items() if c.endswith(new)
        ]
        return real(root_body={**root_body, "conformsTo": [*declared, *old]}, **options)

    return check


def main() -> None:
    """Validate."""
    # pystac validates once more at the end; what it does not have it would fetch, which fails here.
    RegisteredValidator.get_validator().schema_cache.update(SCHEMAS)
    utilities.fetch_and_parse_schema = schema_of
    validate.fetch_and_parse_schema = schema_of
    utilities.fetch_schema_with_override = _overridden
    validations.retrieve = _corrected(validations.retrieve)
    validations.validate_item_search_filter = _with_old_names(validations.validate_item_search_filter)
    _local_only()
    arguments = json.load(sys.stdin)
    # The command line has only texts, and so would ask whether the number 2020 equals the text '2020'.
    query = dict.fromkeys(validations.QueryConfig.__dataclass_fields__) | arguments.pop("query", {})
    unused = dict.fromkeys(("auth_bearer_token", "auth_query_parameter", "transaction_collection", "headers"))
    warnings, errors = validations.validate_api(
        **unused, **arguments, query_config=validations.QueryConfig(**query)
    )
    print(json.dumps({"errors": list(errors), "warnings": list(warnings)}))


if __name__ == "__main__":
    main()
