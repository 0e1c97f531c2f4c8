"""stac-api-validator finds no error and nothing to mend, in every class that it knows and we declare."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.app import create_app
from tests.backends import Serve
from tests.catalogs import build_from, patch, write_manifest
from tests.conftest import plain_environment
from tests.converted import COLLECTION, converted
from tests.environments import environment
from tests.http_server import Server, serve

HERE = Path(__file__).parent
CLASSES = (
    "core", "browseable", "children", "collections", "features", "item-search",
    "item-search#sort", "item-search#fields", "item-search#query", "item-search#filter",
    "features#filter",
)  # fmt: skip
"""All it checks but transactions (it accepts features#sort, #fields and #query too, and checks nothing)."""

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
    # A collection has a link per year to browse by, to its documents, to its licence, model and paper.
    r"You have 2\d links\. Please consider using sub-collections or sub-catalogs",
    # What follows from the mistake above.
    r"\[Item Search - Fields Ext\] : POST .*'include': \['properties.tessera:year'\]\}\} response contained"
    r" extra fields \['properties'\]",
)  # fmt: skip
"""Warnings that we would be wrong to follow."""


def _validate(url: str, collection: str, geometry: Mapping[str, Any], *classes: str) -> dict[str, list[str]]:
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


def _box(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def _check(found: Mapping[str, list[str]], mistakes: Mapping[str, int]) -> None:
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


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a catalogue with tiles where the validator looks: it knows bbox 20,20,21,21 only."""
    home = tmp_path_factory.mktemp("validated")
    for year in (2021, 2022, 2023, 2024):
        write_manifest(home / "m", year, [*patch(20, 20, 10, 10), *patch(1, 46, 8, 4)])
    write_manifest(home / "m", 2025, patch(1, 46, 3, 3))
    build_from(home / "catalog", home / "m")
    return home / "catalog"


@pytest.fixture(scope="module")
def server(catalog: Path, serve_on: Serve) -> Iterator[Server]:
    with serve_on(catalog) as running:
        yield running


def test_every_class(server: Server) -> None:
    _check(_validate(server.url, "tessera-v1", _box(1, 46, 1.5, 46.4), *CLASSES), MISTAKES)


def test_converted_tiles(serve_on: Serve) -> None:
    """Their items have more assets and extensions."""
    with serve_on(converted().catalog) as running:
        found = _validate(running.url, COLLECTION, _box(15, 78, 16, 79), "core", "collections", "features")
    _check(found, {})


def _rewriting(app: ASGIApp, old: bytes, new: bytes) -> ASGIApp:
    """Replace bytes in every answer, by as many others."""
    assert len(old) == len(new)

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            kept = [(k, v) for k, v in scope["headers"] if k != b"accept-encoding"]
            scope = {**scope, "headers": kept}

        async def changed(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": message.get("body", b"").replace(old, new)}
            await send(message)

        await app(scope, receive, changed)

    return wrapped


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        # a declared extension without a schema here is a failure, not a free pass
        (b"io/projection/v2.0.0/", b"io/projection/v9.9.9/", "no schema for"),
        (b'"proj:code":"EPSG:32', b'"proj:code":"EPSG 32', "does not match"),
        (b'"proj:shape":[', b'"proj:sharp":[', "proj:sharp"),
        (b'"stac_version":"1.1.0","stac_ext', b'"stac_version":"1.3.0","stac_ext', "1.3.0"),
        (b'"datetime":"20', b'"datetime":"x0', "x02"),
        (b'"license":"', b'"licence":"', "license"),
    ],
)
def test_the_schemas_are_really_checked(catalog: Path, old: bytes, new: bytes, reason: str) -> None:
    with serve(_rewriting(create_app(catalog), old, new)) as running:
        found = _validate(running.url, "tessera-v1", _box(1, 46, 1.5, 46.4), "collections", "features")
    assert any(reason in error for error in found["errors"]), found["errors"]
