"""Manifests that are made to exhaust whoever reads them: each ends soon, with a problem that says why."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import resource
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from catalog_builder.errors import StorageError
from catalog_builder.manifests import sources
from catalog_builder.manifests.reading import CHUNK, LONGEST_LINE
from tests.manifests import making
from tests.manifests.making import kinds, manifest_table, read, registry_table, text_of, tiles_in

TILES = [tile for tile in making.TILES if tile[0] == 2024]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}
GOOD = text_of(TILES).encode()
LONG = 24 << 20


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Check that reading a bomb takes neither long nor much memory, with a lower limit."""
    monkeypatch.setattr(sources, "UNPACKED_BYTES", 4 << 20)
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) << 10 < 400 << 20, "with the bomb itself, twice"
    assert time.monotonic() - started < 60


def test_a_line_has_a_limit_and_those_before_it_are_read(tmp_path: Path) -> None:
    path = tmp_path / "registry_2024.txt"
    path.write_bytes(GOOD + b"x" * (CHUNK + LONGEST_LINE))
    found, problems = read(path)
    assert tiles_in(found) == sorted(TILES)
    (problem,) = problems.kept
    assert str(path) in str(problem)
    assert f"longer than {LONGEST_LINE} bytes" in str(problem)


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_line_without_an_end_is_read_no_further(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A .xz of 78 kB took 2.8 GB and 14 s."""
    monkeypatch.setattr(sources, "UNPACKED_BYTES", 1 << 30)
    path = tmp_path / f"registry_2024.txt.{kind}"
    path.write_bytes(COMPRESS[kind](GOOD + b"x" * LONG))
    found, problems = read(path)
    assert tiles_in(found) == sorted(TILES)
    assert kinds(problems) == {"MALFORMED": 1}


@pytest.mark.parametrize("kind", COMPRESS)
def test_what_unpacks_out_of_proportion_ends(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"registry_2024.txt.{kind}"
    path.write_bytes(COMPRESS[kind](GOOD + b"# nothing\n" * (LONG // 10)))
    _, problems = read(path)
    (problem,) = problems.kept
    assert str(path) in str(problem)
    assert "unpacks to more than" in str(problem)


@pytest.mark.parametrize("content", [b"\0", b"# nothing\n"], ids=["zeros", "lines"])
def test_a_zip_or_tar_of_much_ends(tmp_path: Path, content: bytes) -> None:
    """A zip of 4 MB with 4 GB of zeros never ended."""
    body = GOOD + content * (LONG // len(content))
    zipped, tarred = tmp_path / "a.zip", tmp_path / "b.tar.xz"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("registry_2024.txt", body)
    with tarfile.open(tarred, "w:xz", preset=0) as tar:
        info = tarfile.TarInfo("registry_2024.txt")
        info.size = len(body)
        tar.addfile(info, io.BytesIO(body))
    for path in (zipped, tarred):
        _, problems = read(path)
        assert problems.total, path
        assert path.name in str(problems.kept[0])


def test_a_huge_dictionary_is_not_made(tmp_path: Path) -> None:
    """A header of xz may ask for 4 GB; what xz -9 makes is read, also in several streams with padding."""
    header = bytearray(lzma.compress(GOOD, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6}]))
    end = 12 + (header[12] + 1) * 4
    header[16] = 40  # the size of the dictionary, as its exponent
    header[end - 4 : end] = zlib.crc32(header[12 : end - 4]).to_bytes(4, "little")
    bomb = tmp_path / "registry_2024.txt.xz"
    bomb.write_bytes(header)
    _, problems = read(bomb)
    (problem,) = problems.kept
    assert str(bomb) in str(problem)
    assert "takes more than 128 MB of memory to unpack: compress it by xz -9" in str(problem)
    lines = GOOD.splitlines(keepends=True)
    halves = (b"".join(lines[: len(lines) // 2]), b"".join(lines[len(lines) // 2 :]))
    bomb.write_bytes(bytes(8).join(lzma.compress(half, preset=9) for half in halves) + bytes(4))
    found, problems = read(bomb)
    assert tiles_in(found) == sorted(TILES)
    assert not problems.total


@pytest.mark.parametrize("name", ["pipe", "device"])
def test_pipes_and_devices_are_not_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "registry_2024.txt"
    if name == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(StorageError, match=f"{name}, not a file"):
        read(path)
    (tmp_path / "registry_2023.txt").write_text(text_of(TILES))
    _, problems = read(tmp_path)
    assert "MISSING_FILE" in kinds(problems)


@pytest.mark.parametrize("table", [manifest_table, registry_table])
def test_a_year_with_a_fraction_names_row_and_column(tmp_path: Path, table: Callable[..., pa.Table]) -> None:
    made = table(TILES)
    years = [float(year) for year in made["year"].to_pylist()]
    years[1] = 2024.5
    path = tmp_path / "manifest.parquet"
    pq.write_table(made.set_column(made.schema.get_field_index("year"), "year", pa.array(years)), path)
    found, problems = read(path)
    assert len(tiles_in(found)) == len(TILES) - 1
    (problem,) = problems.kept
    assert "row 2" in str(problem)
    assert "column year: expected a whole number, found 2024.5" in str(problem)
