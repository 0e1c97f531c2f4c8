"""Sources on the web and in S3, results in S3: the same files as locally."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from catalog_builder.convert.ledger.reader import latest, read_rows
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.plan.sources import Wanted, plan
from catalog_builder.convert.run import RunReport, run
from catalog_builder.convert.tile.verify import validate_results
from catalog_builder.convert.workers.processes import ExecutorWorkers, Inline
from catalog_builder.synthetic.sample import write_geotiff_tile
from tests.convert.making import FILES, POLAR, YEAR, convert_one, sample, write_pair
from tests.support.http_server import serve

pytestmark = pytest.mark.service

LAYOUT = "global_0.1_degree_representation"


@pytest.fixture(scope="module")
def s3() -> Iterator[object]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    given = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {k: os.environ.get(k) for k in given}
    os.environ.update(given)
    client = boto3.client("s3")
    client.create_bucket(Bucket="tiles")
    yield client
    for key, value in before.items():
        if value is None:
            del os.environ[key]
        else:
            os.environ[key] = value
    server.stop()


def _run(sources: list[str], out: str, **wanted: object) -> RunReport:
    found = plan(sources, Wanted(**wanted))  # type: ignore[arg-type]
    return run(found, ConvertOptions(out), ExecutorWorkers(Inline(), 1))


def test_from_s3_to_s3(tmp_path: Path, s3: object) -> None:
    npy = write_pair(tmp_path / "src")
    local = convert_one(npy, tmp_path / "out").row
    for path in (tmp_path / "src").rglob("grid_*.*"):
        if path.is_file():
            key = f"in/synthetic/{path.relative_to(tmp_path / 'src')}"
            s3.upload_file(str(path), "tiles", key)  # type: ignore[attr-defined]
    report = _run(["s3://tiles/in"], "s3://tiles/cogs")
    assert (report.total, report.converted) == (1, 1), report.failed
    (row,) = latest(read_rows("s3://tiles/cogs/ledger")).values()
    assert (row.dataset, row.files) == ("synthetic", local.files)
    head = s3.head_object(Bucket="tiles", Key=f"cogs/{row.files['embeddings'].path}")  # type: ignore[attr-defined]
    assert head["ContentLength"] == row.files["embeddings"].size
    assert head["ContentType"] == "image/tiff; application=geotiff; profile=cloud-optimized"
    assert "immutable" in head["CacheControl"]
    assert _run(["s3://tiles/in"], "s3://tiles/cogs").skipped == 1
    checked = validate_results("s3://tiles/cogs")
    assert (checked.sound, checked.files, checked.pixels) == (True, FILES, 1), checked
    s3.delete_object(Bucket="tiles", Key=f"cogs/{row.files['scales'].path}")  # type: ignore[attr-defined]
    assert not validate_results("s3://tiles/cogs").sound


def test_a_ledger_on_s3_of_files_on_disk(tmp_path: Path, s3: object) -> None:
    source, out = write_pair(tmp_path / "src"), tmp_path / "out"

    def again() -> RunReport:
        found = plan([str(source)], Wanted())
        workers = ExecutorWorkers(Inline(), 1)
        return run(found, ConvertOptions(str(out)), workers, ledger="s3://tiles/ledger-of-disk")

    assert again().converted == 1
    assert again().skipped == 1
    next(out.rglob("*_scales.tif")).unlink()
    assert again().converted == 1, "rows are read again to look for their files"


def test_a_geotiff_from_s3(tmp_path: Path, s3: object) -> None:
    path = write_geotiff_tile(tmp_path, sample(), "0.5.1")
    s3.upload_file(str(path), "tiles", f"one/{path.name}")  # type: ignore[attr-defined]
    report = _run([f"s3://tiles/one/{path.name}"], str(tmp_path / "out"))
    assert report.converted == 1, report.failed
    (row,) = latest(read_rows(tmp_path / "out" / "ledger")).values()
    assert row.sources[0].address == f"s3://tiles/one/{path.name}"
    assert (row.tile, row.year) == (POLAR, YEAR)


def test_from_the_web(tmp_path: Path) -> None:
    npy = write_pair(tmp_path / "src", landmask=False)
    local = convert_one(npy, tmp_path / "out").row
    with serve(Starlette(routes=[Mount("/", StaticFiles(directory=tmp_path / "src"))])) as server:
        url = server.url
        one = f"{url}/{LAYOUT}/{YEAR}/{POLAR.name}/{POLAR.name}.npy"
        report = _run([one], str(tmp_path / "web"), dataset=_synthetic())
        assert report.converted == 1, report.failed
        gone = _run([one.replace(str(YEAR), "2019")], str(tmp_path / "web"), dataset=_synthetic())
        assert "404" in gone.failed[0].reason
        manifest = tmp_path / f"registry_{YEAR}.txt"
        digests = {s.role: s.sha256 for s in local.sources}
        name = f"{YEAR}/{POLAR.name}/{POLAR.name}"
        manifest.write_text(f"{name}.npy {digests['main']}\n{name}_scales.npy {digests['scales']}\n")
        root = f"{url}/{LAYOUT}"
        checked = _run([str(manifest)], str(tmp_path / "web2"), dataset=_synthetic(), source_root=root)
        assert checked.converted == 1, checked.failed
    (row,) = latest(read_rows(tmp_path / "web2" / "ledger")).values()
    assert row.files == local.files
    assert all(s.verified for s in row.sources)


def _synthetic() -> object:
    from catalog_builder.tile.datasets import dataset

    return dataset("synthetic")
