"""stac-api-validator finds no error and nothing to mend, in every class that it knows and we declare."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.app import create_app
from tests.conformance.api_validator import CLASSES, MISTAKES, box, check, validate
from tests.support.backends import Serve
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.converted import COLLECTION, converted
from tests.support.http_server import Server, serve


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
    check(validate(server.url, "tessera-v1", box(1, 46, 1.5, 46.4), *CLASSES), MISTAKES)


def test_converted_tiles(serve_on: Serve) -> None:
    """Their items have more assets and extensions."""
    with serve_on(converted().catalog) as running:
        found = validate(running.url, COLLECTION, box(15, 78, 16, 79), "core", "collections", "features")
    check(found, {})


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
        found = validate(running.url, "tessera-v1", box(1, 46, 1.5, 46.4), "collections", "features")
    assert any(reason in error for error in found["errors"]), found["errors"]
