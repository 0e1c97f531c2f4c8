"""Where manifests come from: folders, compression, archives, the web, S3; and what is no manifest."""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import http.server
import io
import lzma
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest
import zstandard
from moto.server import ThreadedMotoServer

from catalog_builder.errors import ManifestError, StorageError
from catalog_builder.manifests import ProblemLog
from catalog_builder.tile.datasets import dataset
from tests.manifests.making import (
    TILES,
    digest,
    kinds,
    make_tree,
    manifest_table,
    masks_in,
    path_of,
    read,
    registry_table,
    text_of,
    tiles_in,
)

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


def parquet_bytes() -> bytes:
    sink = io.BytesIO()
    pq.write_table(manifest_table(TILES), sink)
    return sink.getvalue()


def tar_bytes(members: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def blocks() -> dict[str, bytes]:
    """Return the five tiles as 5 degree blocks, with a landmask block and files that are no manifests."""
    made = {
        f"registry/embeddings/embeddings_{year}_{block}.txt": text_of([(year, name)]).encode()
        for (year, name), block in zip(
            TILES, ["lon0_lat50", "lon0_lat50", "lon-5_lat-5", "lon175_lat-90", "lon-180_lat85"], strict=True
        )
    }
    made["registry/landmasks/landmasks_lon0_lat50.txt"] = f"grid_0.15_52.05.tiff {digest('m')}\n".encode()
    made["README.md"] = b"# Manifests\n"
    made["LICENSE"] = b"CC0\n"
    return made


def write_all(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


@pytest.mark.parametrize("how", COMPRESS)
@pytest.mark.parametrize("what", ["text", "parquet", "tar"])
def test_compressed_whatever_the_name(tmp_path: Path, how: str, what: str) -> None:
    content = {"text": text_of(TILES).encode(), "parquet": parquet_bytes(), "tar": tar_bytes(blocks())}[what]
    path = tmp_path / "download"
    path.write_bytes(COMPRESS[how](content))
    parts, problems = read(path)
    assert tiles_in(parts) == sorted(TILES)
    assert not problems.counts


@pytest.mark.parametrize("how", COMPRESS)
def test_truncated_compressed_file_keeps_the_lines_before(tmp_path: Path, how: str) -> None:
    # bzip2 packs 900 kB at a time
    tiles = [
        (2024, f"grid_{lon / 100:.2f}_{lat}")
        for lat in ("52.05", "52.15", "52.25", "52.35")
        for lon in range(5, 17995, 10)
    ]
    path = tmp_path / "registry_2024.txt"
    whole = COMPRESS[how](text_of(tiles).encode())
    path.write_bytes(whole[: len(whole) * 3 // 4])
    parts, problems = read(path)
    found = tiles_in(parts)
    assert 500 < len(found) < len(tiles)
    assert set(found) <= set(tiles)
    assert kinds(problems)["CORRUPT"] == 1
    assert set(kinds(problems)) <= {"CORRUPT", "HALF_PAIR"}
    with pytest.raises(ManifestError, match="is truncated or damaged"):
        read(path, problems=ProblemLog(strict=True))
    path.write_bytes(whole[:20])
    parts, problems = read(path)
    assert parts == []
    assert kinds(problems)["CORRUPT"] == 1


def test_folder_tar_and_zip_of_blocks(tmp_path: Path) -> None:
    folder, tar, zipped = tmp_path / "folder", tmp_path / "a.tar", tmp_path / "a.zip"
    write_all(folder, blocks())
    tar.write_bytes(tar_bytes(blocks()))
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in blocks().items():
            archive.writestr(name, content)
    for source in (folder, tar, zipped):
        parts, problems = read(source)
        assert tiles_in(parts) == sorted(TILES)
        assert set(masks_in(parts)) == {"grid_0.15_52.05"}
        assert not problems.counts
        assert len(problems.notes) == 2
    assert f"{zipped}!registry/embeddings/embeddings_2023_lon0_lat50.txt" in {p.source for p in parts}


def test_problem_in_an_archive_names_the_member(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(
        tar_bytes({"d/embeddings_2024_lon0_lat50.txt": b"rubbish\n" + text_of(TILES[1:2]).encode()})
    )
    parts, problems = read(path)
    assert tiles_in(parts) == TILES[1:2]
    assert str(problems.kept[0]).startswith(f"{path}!d/embeddings_2024_lon0_lat50.txt line 1: expected")


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_truncated_archive(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    many = {
        f"embeddings_2024_lon{x}_lat50.txt": text_of([(2024, f"grid_{x}.05_52.05")]).encode()
        for x in range(0, 100, 5)
    }
    if suffix == "tar":
        path.write_bytes(tar_bytes(many)[:9000])
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in many.items():
                archive.writestr(name, content)
        path.write_bytes(path.read_bytes()[:-30])
    parts, problems = read(path)
    assert "CORRUPT" in kinds(problems)
    assert len(tiles_in(parts)) >= (5 if suffix == "tar" else 0)


def test_master_registry(tmp_path: Path) -> None:
    files = {name: content for name, content in blocks().items() if "/" in name}
    names = sorted(name.rpartition("/")[2] for name in files)
    by_name = {name.rpartition("/")[2]: content for name, content in files.items()}
    with_hashes = "".join(f"{n} {hashlib.sha256(by_name[n]).hexdigest()}\n" for n in names)
    for master in ("# TESSERA registry\n" + "\n".join(names) + "\n", with_hashes):
        for layout in (files, {f"registry/{n}": c for n, c in by_name.items()}):
            root = tmp_path / hashlib.sha256((master + str(layout)).encode()).hexdigest()
            write_all(root, layout)
            (root / "registry" / "registry.txt").write_text(master)
            for source in (root, root / "registry" / "registry.txt"):
                parts, problems = read(source)
                assert tiles_in(parts) == sorted(TILES)
                assert set(masks_in(parts)) == {"grid_0.15_52.05"}
                assert not problems.counts
    block = root / "registry" / names[0]
    block.write_bytes(block.read_bytes() + b"\n")
    (root / "registry" / names[1]).unlink()
    parts, problems = read(root / "registry" / "registry.txt")
    assert kinds(problems) == {"BAD_HASH": 1, "MISSING_FILE": 1}
    assert len(tiles_in(parts)) == 4


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "EMPTY"),
        (b"\n\n", "EMPTY"),
        (b"# nothing\n", "UNKNOWN_FORMAT"),
        (b"<!DOCTYPE html><html>", "UNKNOWN_FORMAT"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "UNKNOWN_FORMAT"),
        (b"\x93NUMPY\x01\x00", "UNKNOWN_FORMAT"),
        (b"PAR1", "CORRUPT"),
        (b"PK\x03\x04rubbish", "CORRUPT"),
        (b"\x1f\x8brubbish", "CORRUPT"),
    ],
)
def test_no_manifest(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "registry.dat"
    path.write_bytes(content)
    parts, problems = read(path)
    assert parts == []
    assert kinds(problems) == {kind: 1}
    assert str(problems.kept[0]).startswith(str(path))


def test_a_file_named_like_a_manifest_that_is_none_is_reported(tmp_path: Path) -> None:
    write_all(
        tmp_path,
        {**blocks(), "x/registry.parquet": b"not parquet", "empty.txt": b"", "x/Makefile": b"all:\n"},
    )
    parts, problems = read(tmp_path)
    assert tiles_in(parts) == sorted(TILES)
    assert kinds(problems) == {"UNKNOWN_FORMAT": 1, "EMPTY": 1}


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file"):
        read(tmp_path / "missing")
    parts, problems = read(tmp_path)
    assert (parts, kinds(problems)) == ([], {"EMPTY": 1})


def test_folders_say_the_dataset(tmp_path: Path) -> None:
    for name in ("v1", "v1.1-cam"):
        (tmp_path / name).mkdir()
        pq.write_table(registry_table(TILES), tmp_path / name / "registry.parquet")
    parts, problems = read(tmp_path)
    assert not problems.counts
    assert [p.dataset for p in parts] == [dataset("v1"), dataset("v1.1-cam")]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", tmp_path
        server.shutdown()
        thread.join()


def test_web(web: tuple[str, Path]) -> None:
    url, root = web
    write_all(root / "v1", {"registry/registry.txt": b"", **blocks()})
    names = "\n".join(n.rpartition("/")[2] for n in blocks() if "/" in n)
    (root / "v1" / "registry" / "registry.txt").write_text(names)
    (root / "v1" / "manifest.parquet").write_bytes(parquet_bytes())
    (root / "v1" / "r.tar.xz").write_bytes(lzma.compress(tar_bytes(blocks())))
    (root / "v1" / "a.txt.gz").write_bytes(gzip.compress(text_of(TILES).encode()))
    with zipfile.ZipFile(root / "v1" / "a.zip", "w") as archive:
        archive.writestr("list.txt", text_of(TILES))
    for name in ("manifest.parquet", "r.tar.xz", "a.txt.gz", "a.zip", "registry/registry.txt", ""):
        parts, problems = read(f"{url}/v1/{name}")
        assert tiles_in(parts) == sorted(TILES), name
        assert not problems.counts
        assert {p.dataset for p in parts} == {dataset("v1")}
    with pytest.raises(StorageError, match="404"):
        read(f"{url}/v1/missing.parquet")
    with pytest.raises(StorageError, match="none of"):
        read(f"{url}/none/")


@pytest.mark.service
def test_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="tessera")
        for name, content in blocks().items():
            client.put_object(Bucket="tessera", Key=f"manifests/{name}", Body=content)
        client.put_object(Bucket="tessera", Key="npy/v1.1-cam/manifest.parquet", Body=parquet_bytes())
        make_tree(tmp_path, TILES)
        for file in tmp_path.rglob("*.npy"):
            client.upload_file(str(file), "tessera", f"data/npy/v1.1-cam/{file.relative_to(tmp_path)}")
        for source in ("s3://tessera/manifests", "s3://tessera/manifests/"):
            parts, problems = read(source)
            assert (tiles_in(parts), kinds(problems)) == (sorted(TILES), {})
        parts, problems = read("s3://tessera/npy/v1.1-cam/manifest.parquet")
        assert (tiles_in(parts), kinds(problems)) == (sorted(TILES), {})
        assert {p.dataset for p in parts} == {dataset("v1")}  # the columns know better than the address
        parts, problems = read("s3://tessera/data")
        assert (tiles_in(parts), kinds(problems)) == (sorted(TILES), {})
        assert {(p.dataset, p.root) for p in parts} == {
            (dataset("v1.1-cam"), "s3://tessera/data/npy/v1.1-cam")
        }
        parts, problems = read("s3://tessera/nothing/")
        assert (parts, kinds(problems)) == ([], {"EMPTY": 1})
        with pytest.raises(StorageError, match="s3://other/x"):
            read("s3://other/x")
    finally:
        server.stop()


def test_path_of_is_what_upstream_writes() -> None:
    assert path_of((2024, "grid_0.15_52.05")) == "2024/grid_0.15_52.05/grid_0.15_52.05.npy"
