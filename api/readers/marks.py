"""What documents say of the credentials they need: the authentication extension of STAC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

AUTHENTICATION = "https://stac-extensions.github.io/authentication/v1.1.0/schema.json"


def marked(document: Mapping[str, Any], schemes: Mapping[str, Any], root: str) -> dict[str, Any]:
    """Return a collection, an item or a catalogue with the schemes, and what of it needs them.

    Parameters
    ----------
    document
        The document; its links and assets below ``root`` need credentials, those elsewhere do not.
    schemes
        As :attr:`api.readers.door.Door.schemes` has them.
    root
        Root URL of the service.
    """
    refs = list(schemes)

    def with_refs(entry: Any) -> Any:
        ours = isinstance(entry, dict) and str(entry.get("href", "")).startswith(f"{root}/")
        return {**entry, "auth:refs": refs} if ours else entry

    found = dict(document)
    if "links" in found:
        found["links"] = [with_refs(link) for link in found["links"]]
    if "assets" in found:
        found["assets"] = {key: with_refs(asset) for key, asset in found["assets"].items()}
    if found.get("type") == "Feature":
        found["properties"] = {**found.get("properties", {}), "auth:schemes": dict(schemes)}
    else:
        found["auth:schemes"] = dict(schemes)
    found["stac_extensions"] = [*found.get("stac_extensions", []), AUTHENTICATION]
    return found
