"""Credentials do not belong into URLs: they would stand in items, ledgers and logs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from typer.testing import CliRunner

from catalog_builder import storage
from catalog_builder.cli.main import app
from catalog_builder.errors import StorageError, TesseraError
from catalog_builder.storage import web
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.http_server import serve

SECRET = "hunter" + "2"
"""Must never be repeated."""
BASE = f"https://user:{SECRET}@data.example.org/npy"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("credentials"), 2024, patch(0, 52, 2, 1))


def refused(*arguments: str) -> str:
    """Run a command that must be refused; return the reason."""
    done = CliRunner().invoke(app, list(arguments))
    assert isinstance(done.exception, TesseraError), done.output
    said = str(done.exception) + done.output
    assert SECRET not in said
    return said


@pytest.mark.parametrize(
    "option", ["--url", "--source-root", "--landmask-root", "--data-root", "--mirror", "--source-mirror"]
)
@pytest.mark.parametrize("scheme", ["https", "http", "s3"])
def test_a_base_with_credentials_is_refused(manifest: Path, tmp_path: Path, option: str, scheme: str) -> None:
    given = BASE.replace("https", scheme)
    value = f"lab={given}" if "mirror" in option else given
    said = refused("build", str(manifest), "--out", str(tmp_path / "c"), option, value)
    assert ("AWS_PROFILE" if scheme == "s3" else "~/.netrc") in said
    assert "data.example.org" in said
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("option", ["--url", "--source-root", "--data-root", "--mirror"])
@pytest.mark.parametrize("end", ["?sig=hunter2", "/a?X-Amz-Signature=hunter2", "#hunter2"])
def test_a_base_with_a_query_is_refused(manifest: Path, tmp_path: Path, option: str, end: str) -> None:
    given = f"https://data.example.org/npy{end}"
    value = f"lab={given}" if option == "--mirror" else given
    said = refused("build", str(manifest), "--out", str(tmp_path / "c"), option, value)
    assert option in said
    assert "names of files are appended" in said


def test_wherever_else_a_url_is_given(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "c"
    build_from(out, manifest)
    for arguments in (
        ("build", f"{BASE}/registry.txt", "--out", str(tmp_path / "d")),
        ("build", str(manifest), "--out", f"s3://user:{SECRET}@bucket/c"),
        ("build", str(manifest), "--out", str(out), "--ledger", f"{BASE}/a.jsonl"),
        ("export", str(out), "--to", "ndjson", "--out", str(tmp_path / "x"), "--url", BASE),
        (
            "export",
            str(out),
            "--to",
            "static",
            "--out",
            f"s3://user:{SECRET}@bucket/x",
            "--url",
            "https://stac.example.org",
        ),
        ("convert", f"{BASE}/a.tif", "--out", str(tmp_path / "e")),
        ("convert", str(out), "--out", str(tmp_path / "e"), "--source-root", BASE),
        ("convert", str(out), "--out", f"s3://user:{SECRET}@bucket/e"),
        ("info", f"s3://user:{SECRET}@bucket/c"),
        ("info", BASE),
        ("get", BASE, "--bbox", "0,52,1,53", "--out", str(tmp_path / "g")),
        ("validate", f"s3://user:{SECRET}@bucket/c"),
        ("serve", f"s3://user:{SECRET}@bucket/c"),
    ):
        assert "credentials" in refused(*arguments), arguments


def test_an_at_sign_elsewhere_is_none() -> None:
    for address in ("https://a.org/x@y/b", "https://a.org/b?x=@", "s3://bucket/a@b", "/data/user:x@y/b"):
        storage.scheme(address)
    with pytest.raises(StorageError, match="credentials"):
        storage.scheme("https://token@a.org")


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HOME", str(tmp_path))
    web._client_of.cache_clear()
    yield tmp_path / ".netrc"
    web._client_of.cache_clear()


@pytest.mark.service
def test_netrc_is_what_to_use_instead(netrc: Path) -> None:
    """As GDAL and curl read it too."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        right = headers.get(b"authorization") == b"Basic dXNlcjpodW50ZXIy"
        await PlainTextResponse("data", 200 if right else 401)(scope, receive, send)

    with serve(guarded) as server:
        with pytest.raises(StorageError, match="HTTP 401"):
            storage.read_bytes(f"{server.url}/x")
        netrc.write_text(f"machine 127.0.0.1 login user password {SECRET}\n")
        netrc.chmod(0o600)
        web._client_of.cache_clear()
        assert storage.read_bytes(f"{server.url}/x") == b"data"
