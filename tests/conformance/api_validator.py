"""Runs stac-api-validator, in an environment of its own, and says what of its findings counts."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.conftest import plain_environment
from tests.support.environments import environment

HERE = Path(__file__).parent
CLASSES = (
    "core", "collections", "features", "item-search",
    "item-search#sort", "item-search#fields", "item-search#query", "item-search#filter",
    "features#filter",
)  # fmt: skip
"""All it checks but transactions (it accepts features#sort, #fields and #query too, and checks nothing), and
without browseable and children, which want ``child`` links on the landing page: see
``tests/api/endpoints/test_walks.py``."""

MISTAKES = {
    # The same request by GET is checked rightly; by POST it wants five fields and no more than were asked.
    r"\[Item Search - Fields Ext\] : POST \{'fields': \{'exclude': \['properties'\], 'include': "
    r"\['properties.tessera:year'\]\}\} response contained fewer than 5 fields \['properties'\]$": 1,
}
"""Errors of the validator itself, and how often each is made."""

ACCEPTED = (
    # Ids are upstream's names of the tiles, decimals and all: users find them in the bucket.
    r"Item name '[^']*' should only contain Searchable identifiers",
    r"Identifiers should consist of only lowercase characters, numbers, '_', and '-'",
    # It takes what follows the last point of the address for a file's extension.
    r"Item file names should match their ids: '[^']*' not equal to '[^']*",
    # A collection has links to its documents, map tiles, licence, model and paper.
    r"You have 2\d links\. Please consider using sub-collections or sub-catalogs",
    # What follows from the mistake above.
    r"\[Item Search - Fields Ext\] : POST .*'include': \['properties.tessera:year'\]\}\} response contained"
    r" extra fields \['properties'\]",
)  # fmt: skip
"""Warnings that we would be wrong to follow."""


def validate(url: str, collection: str, geometry: Mapping[str, Any], *classes: str) -> dict[str, list[str]]:
    """Return the validator's errors and warnings of some conformance classes."""
    query = {
        "query_comparison_field": "tessera:year",
        **{f"query_{op}_value": 2023 for op in ("eq", "neq", "lt", "lte", "gt", "gte")},
        "query_substring_field": "tessera:coverage",
        "query_starts_with_value": "fu",
        "query_ends_with_value": "ll",
        "query_contains_value": "ul",
        "query_in_field": "tessera:coverage",
        # It compares the letters of the property with the words: the last one makes them meet.
        "query_in_values": "full,latest,f",
    }
    arguments = {
        "root_url": f"{url}/",
        "ccs_to_validate": classes,
        "collection": collection,
        "geometry": json.dumps(geometry),
        "fields_nested_property": "properties.tessera:year",
        "validate_pagination": True,
        "query": query,
    }
    done = subprocess.run(
        [environment(HERE / "validator.lock"), HERE / "offline_validator.py"],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        timeout=500,
        env=plain_environment(),
    )
    assert not done.returncode, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def box(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    """Return a box as GeoJSON."""
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def check(found: Mapping[str, list[str]], mistakes: Mapping[str, int]) -> None:
    """Fail on errors that are not the validator's own, and on warnings that we would follow."""
    errors = list(found["errors"])
    for pattern, times in mistakes.items():
        hits = [e for e in errors if re.fullmatch(pattern, e)]
        assert len(hits) == times, f"mended in a newer validator? {pattern}"
        errors = [e for e in errors if e not in hits]
    assert errors == []
    left = []
    for warning in found["warnings"]:
        # One text holds several recommendations of stac-check, with commas in and between them.
        text = re.sub(r"^\[[\w -]+\] : GET \S+ has these stac-check recommendations: ", "", warning)
        for pattern in ACCEPTED:
            text = re.sub(pattern, "", text)
        if text.strip(", "):
            left.append(text)
    assert left == []
