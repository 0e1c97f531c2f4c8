"""A source that was not read to its end removes nothing; a build removes little without being told."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from typer.testing import CliRunner

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.cli.main import app
from catalog_builder.errors import CatalogError
from catalog_builder.tile.datasets import dataset
from tests.support.catalogs import build_from, patch, truncate, write_manifest

TILES = patch(0, 52, 10, 10)
N = len(TILES)


def _tar(data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        info = tarfile.TarInfo("registry_2024.txt")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _zip(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("registry_2024.txt", data)
    return out.getvalue()


def _parquet(_: bytes) -> bytes:
    out = io.BytesIO()
    columns = {
        "year": [2024] * N,
        "lon": [t.lon for t in TILES],
        "lat": [t.lat for t in TILES],
        "grid_size": [1] * N,
        "scales_size": [1] * N,
    }
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "registry_2024.txt": bytes,
    "registry_2024.txt.xz": lzma.compress,
    "registry_2024.txt.gz": gzip.compress,
    "registry_2024.txt.bz2": bz2.compress,
    "registry_2024.txt.zst": zstandard.compress,
    "registry_2024.tar.gz": _tar,
    "registry_2024.zip": _zip,
    "manifest.parquet": _parquet,
}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_manifest(tmp_path_factory.mktemp("text"), 2024, TILES).read_bytes()


@pytest.fixture
def catalog(tmp_path: Path, text: bytes) -> Path:
    (tmp_path / "good.txt").write_bytes(text)
    assert build_from(tmp_path / "catalog", tmp_path / "good.txt").items == N
    return tmp_path / "catalog"


def _version(catalog: Path) -> tuple[Path, bytes]:
    return (catalog / ".current").readlink(), (catalog / "index.sqlite").read_bytes()


def _items(catalog: Path) -> int:
    return sum(r.n_items for r in CatalogFolder(catalog).open_index().collections.values())


@pytest.mark.parametrize("name", FORMS)
def test_a_truncated_source_removes_nothing(catalog: Path, tmp_path: Path, text: bytes, name: str) -> None:
    source = tmp_path / "src" / name
    source.parent.mkdir()
    source.write_bytes(FORMS[name](text))
    assert build_from(catalog, source).items == N, "this is a whole one"
    truncate(source)
    before = _version(catalog)
    for sources in ([source], [source.parent], [tmp_path / "good.txt", source]):
        with pytest.raises(CatalogError, match=f"{source.name}.*--update") as error:
            build_from(catalog, *sources, allow_removals=True)
        assert "catalogue is unchanged" in str(error.value)
    assert _version(catalog) == before


@pytest.mark.parametrize(
    "content",
    [b"", b"<!DOCTYPE html><html>Just a moment", b"\xff\xfe\x00", b"# nothing\n", b"version https://git-lfs"],
    ids=["empty", "web page", "UTF-16", "a comment", "a pointer of Git LFS"],
)
def test_what_came_instead_of_a_manifest_removes_nothing(
    catalog: Path, tmp_path: Path, content: bytes
) -> None:
    before = _version(catalog)
    for name in ("registry_2024.txt", "manifest.parquet"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CatalogError, match="unchanged"):
            build_from(catalog, tmp_path / "good.txt", tmp_path / name)
    assert _version(catalog) == before


def test_a_disk_that_is_not_mounted_removes_nothing(catalog: Path, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "registry_2024.txt").write_bytes(text)
    (tmp_path / "src" / "more").symlink_to(tmp_path / "not mounted")
    with pytest.raises(CatalogError, match=r"not mounted.*unchanged"):
        build_from(catalog, tmp_path / "src")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CatalogError, match=r"the folder is empty.*unchanged"):
        build_from(catalog, tmp_path / "empty")


def test_the_command_fails_and_says_how_to_go_on(catalog: Path, tmp_path: Path, text: bytes) -> None:
    source = tmp_path / "registry_2023.txt.xz"
    source.write_bytes(lzma.compress(text.replace(b"2024", b"2023"))[:5_000])
    before = _version(catalog)
    run = CliRunner().invoke
    done = run(app, ["build", str(source), "--out", str(catalog), "--allow-removals"])
    assert isinstance(done.exception, CatalogError)
    assert _version(catalog) == before
    # what can be read of it is added, or is a new catalogue; and yet it is a failure
    for arguments, n in ((["--out", str(catalog), "--update"], N), (["--out", str(tmp_path / "new")], 0)):
        done = run(app, ["build", str(source), *arguments])
        assert done.exit_code == 1
        assert f"{source.name} line" in done.stderr.rsplit("error: ", 1)[1]
        assert _items(Path(arguments[1])) > n


def test_more_than_a_small_share_needs_to_be_allowed(catalog: Path, tmp_path: Path) -> None:
    def less(n: int, **options: object) -> int:
        source = write_manifest(tmp_path / str(n), 2024, TILES[:n])
        done = build([str(source)], catalog, BuildOptions(dataset("v1"), **options))  # type: ignore[arg-type]
        return done.removed

    before = _version(catalog)
    with pytest.raises(CatalogError, match=r"6 of 100 .*\(6\.0 %; 2024: 6\).* 5 % .*--allow-removals"):
        less(94)
    with pytest.raises(CatalogError, match=r"1 of 100 .* 0 % "):
        less(99, removal_limit=0)
    assert _version(catalog) == before
    assert less(95) == 5
    assert less(89, removal_limit=0.1) == 6
    assert less(10, allow_removals=True) == 79
    # another selection removes too
    other = write_manifest(tmp_path / "other", 2023, TILES)
    with pytest.raises(CatalogError, match=r"10 of 10 .*2024: 10"):
        build_from(catalog, other, years=frozenset({2023}), allow_removals=False)


def test_where_rows_are_left_out_nothing_is_removed_without_being_told(
    catalog: Path, tmp_path: Path, text: bytes
) -> None:
    lines = text.splitlines(keepends=True)
    source = tmp_path / "registry_2024.txt"
    source.write_bytes(b"rubbish\n" + b"".join(lines))
    assert build_from(catalog, source, allow_removals=False).removed == 0
    source.write_bytes(b"".join(lines[:-1]))  # arrays without their scales
    with pytest.raises(CatalogError, match=r"1 of 100 .*without its"):
        build_from(catalog, source, allow_removals=False)
    assert build_from(catalog, source, allow_removals=True).removed == 1


def test_an_older_index_counts_too(catalog: Path, tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(catalog / "index.sqlite") as db:
        db.execute("UPDATE meta SET value = '0' WHERE name = 'schema_version'")
    db.close()
    other = write_manifest(tmp_path, 2023, TILES)
    with pytest.raises(CatalogError, match=r"100 of 100 .*2024: 100"):
        build_from(catalog, other, allow_removals=False)
    assert build_from(catalog, other).removed == N
