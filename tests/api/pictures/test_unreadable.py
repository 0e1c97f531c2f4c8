"""Images of tiles whose local arrays are damaged: 409 with the reason, from the one reader of headers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import morecantile
import pytest

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.tile.datasets import dataset
from tests.support.backends import Serve
from tests.support.converted import COLLECTION, FIRST, RAW_YEAR, converted
from tests.support.paging import ok

pytestmark = pytest.mark.xdist_group("pictures")
ITEM = f"/collections/{COLLECTION}/items/{FIRST.name}_{RAW_YEAR}"
TILE = "{}/{}".format(*morecantile.tms.get("WebMercatorQuad").tile(FIRST.lon, FIRST.lat, 12)[:2])
FOLDER = f"/source/synthetic/{RAW_YEAR}/{FIRST.name}"


def _array(header: str, body: bytes = bytes(1000)) -> bytes:
    text = header.encode("latin-1")
    text += b" " * ((118 - len(text) - 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def _of_shape(shape: str, descr: str = "|i1") -> bytes:
    return _array(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}")


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "0 bytes": (lambda _: b"", "it is empty"),
    "in the header": (lambda whole: whole[:50], "ends within its header"),
    "in the data": (lambda whole: whole[:1000], "is truncated"),
    "by a byte": (lambda whole: whole[:-1], "is truncated"),
    "a NUL in the header": (lambda _: _of_shape("(1\0, 2)"), "does not describe an array"),
    "too large a shape": (lambda _: _of_shape("(99999999999, 99999999999, 128)"), "is truncated"),
    "far too large a shape": (lambda _: _of_shape(f"({'9' * 60}, 2, 128)"), "is truncated"),
    "a negative shape": (lambda _: _of_shape("(-1, 2, 128)"), "not a .npy file of numbers"),
    "objects": (lambda _: _of_shape("(3, 2, 128)", "|O"), "Python objects"),
    "another type": (lambda _: _of_shape("(5, 5)", "<f8"), "is float64"),
    "a version of the future": (lambda whole: b"\x93NUMPY\x09" + whole[7:], "not a .npy file"),
    "an archive": (lambda whole: b"PK\3\4" + whole[4:], "not with"),
    "deep": (lambda _: _array("(" * 90 + ")" * 90), "not a .npy file"),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the arrays of one tile-year."""
    made = converted()
    folder = tmp_path_factory.mktemp("unreadable") / "source"
    name = f"{RAW_YEAR}/{FIRST.name}"
    shutil.copytree(made.embeddings / name, folder / "arrays" / name)
    return folder


@pytest.fixture(scope="module")
def http(source: Path, serve_on: Serve) -> Iterator[httpx.Client]:
    catalog = source.parent / "catalog"
    options = BuildOptions(dataset("synthetic"), source_root=str(source / "arrays"))
    build([str(source / "arrays")], catalog, options)
    # the first image imports GDAL and titiler, which takes long beside other tests
    with (
        serve_on(catalog, drawing_seconds=60) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("suffix", [".npy", "_scales.npy"])
def test_a_damaged_array_is_409(http: httpx.Client, source: Path, suffix: str, damage: str) -> None:
    path = source / "arrays" / str(RAW_YEAR) / FIRST.name / f"{FIRST.name}{suffix}"
    hurt, said = DAMAGE[damage]
    whole = path.read_bytes()
    path.write_bytes(hurt(whole))
    try:
        for asked in (
            f"{ITEM}/preview.png?bands=0,1,2",
            f"{ITEM}/preview.png",
            f"{ITEM}/tiles/WebMercatorQuad/12/{TILE}.png?bands=0,1,2",
            f"{FOLDER}/{FIRST.name}_f32.vrt",
            f"{FOLDER}/{FIRST.name}{suffix.removesuffix('.npy')}.vrt",
        ):
            answer = http.get(asked)
            assert answer.status_code == 409, (asked, answer.text)
            assert answer.json()["code"] == "SourceMismatch"
            assert said in answer.json()["description"]
            assert path.name in answer.json()["description"]
            assert str(source) not in answer.text
        assert ok(http.get(ITEM))["id"], "the item is there all the same"
    finally:
        path.write_bytes(whole)


def test_a_missing_array_is_404(http: httpx.Client, source: Path) -> None:
    path = source / "arrays" / str(RAW_YEAR) / FIRST.name / f"{FIRST.name}.npy"
    away = path.rename(source / "away.npy")
    try:
        for asked in (f"{ITEM}/preview.png?bands=0,1,2", f"{FOLDER}/{FIRST.name}_f32.vrt"):
            assert http.get(asked).status_code == 404
    finally:
        away.rename(path)
