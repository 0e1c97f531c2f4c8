"""Rasters that are not tiles: what a COG has of each kind, read with rasterio beside its source.

The oracle is rasterio on the source as any user opens it, with the files beside it. All kinds are converted
by one run of the command, as a user would.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import tifffile
from rio_cogeo import cog_validate
from starlette.responses import PlainTextResponse
from starlette.staticfiles import StaticFiles

from catalog_builder.convert.ledger.reader import read_rows
from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.convert.ledger.table import read_table
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.tile.convert import convert_tile
from catalog_builder.synthetic.sample import write_npy_tile
from tests.convert.conftest import VALIDATE
from tests.convert.making import YEAR, convert_one, jobs_of, sample
from tests.convert.raster_kinds import KINDS, SHAPE, UTM, values, write
from tests.support.forked import tessera_stac
from tests.support.http_server import serve

REFUSED = {
    "aux.xml with nodata by band": "nodata by band 1.0, 2.0: a TIFF has one value for all bands",
    "crs beyond geotiff": "CRS 'unnamed' cannot be said by GeoTIFF keys",
    "no place": "not georeferenced: neither it nor a file beside it has a CRS, a transform, ground control",
    "two pages": "holds 2 images, a COG has one",
}
"""Kinds of which there is no COG, and why."""
NOT_KEPT = {
    "aux.xml that is none": ("what .aux.xml says, which is not XML",),
    "aux.xml with tables": (
        "attribute table of band 1",
        "category names of band 1",
        "histograms of band 1",
    ),
    **dict.fromkeys(
        ("miniswhite", "miniswhite 1 bit", "miniswhite 16 bits"), ("IMAGE_STRUCTURE MINISWHITE=YES",)
    ),
}
"""What of a kind no COG holds."""
EPSG = {"crs with a code": 3035, "crs compound_with_a_code": 7415, "crs 3d": 4979, "crs mercator": 3857} | {
    "crs feet": 2263,
    "crs krovak": 5514,
    "crs polar": 3413,
    "crs dynamic": 9057,
    "rpc and crs": 4326,
}
"""Codes of kinds whose CRS is that of a code; kinds that are named crs have none otherwise."""
_SAMPLES = ("NBITS", "PIXELTYPE", "ALPHA")
pytestmark = pytest.mark.service

BUDGET = 90.0
"""Seconds, on two cores, for all kinds."""


@dataclass(frozen=True, slots=True)
class Run:
    """The run that converted all kinds."""

    folder: Path
    out: Path
    rows: dict[str, LedgerRow]
    done: subprocess.CompletedProcess[str]
    seconds: float

    def row(self, kind: str) -> LedgerRow:
        return self.rows[file_name(kind)]

    def source(self, kind: str) -> Path:
        return self.folder / file_name(kind)

    def result(self, kind: str) -> Path:
        row = self.row(kind)
        assert row.ok, row.reason
        return self.out / row.files["embeddings"].path


def file_name(kind: str) -> str:
    """Return a name without dots; every third ends in capitals."""
    suffix = (".tif", ".tiff", ".TIF")[list(KINDS).index(kind) % 3]
    return kind.replace(".", "_") + suffix


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, out = tmp_path_factory.mktemp("rasters"), tmp_path_factory.mktemp("out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind, make in KINDS.items():
            make(folder / file_name(kind))
    start = time.monotonic()
    done = tessera_stac("convert", folder, "--out", out, "--workers", 2)
    seconds = time.monotonic() - start
    rows = {Path(row.job).name: row for row in read_rows(out / "ledger")}
    return Run(folder, out, rows, done, seconds)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(REFUSED)))
def test_a_cog_holds_what_its_source_holds(run: Run, kind: str) -> None:
    row = run.row(kind)
    # A COG by itself: nothing that lies beside it counts.
    alone = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
    with opened(run.source(kind)) as source:
        there, pixels, masks = says(source), source.read(), source.read_masks()
    with rasterio.Env(**alone), opened(run.result(kind)) as result:
        here = says(result)
        assert result.tags(ns="TESSERA_STAC").get("LOST") == ("; ".join(row.lost) or None)
        assert pixels.dtype == result.read().dtype
        assert pixels.tobytes() == result.read().tobytes()
        np.testing.assert_array_equal(masks, result.read_masks())
    assert {k: v for k, v in here.items() if v != there.get(k)} == {}
    assert set(here) == set(there)
    assert row.lost == NOT_KEPT.get(kind, ())
    assert {"pixels", "mask", "nodata", "georeferencing"} <= set(row.lossless)
    valid, errors, warned = cog_validate(run.result(kind), quiet=True)
    assert valid, errors
    assert [f"rio-cogeo: {text}" for text in warned] == [n for n in row.note.split("; ") if "rio-cogeo" in n]


def opened(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        return rasterio.open(path)


def says(ds: Any) -> dict[str, Any]:
    """Return everything that rasterio tells of a raster beside pixels, and beside how they are stored."""
    points, crs = ds.gcps
    found = {
        "shape": (ds.count, ds.shape, ds.dtypes),
        "transform": tuple(round(value, 9) for value in ds.transform),
        "crs": None if ds.crs is None else ds.crs.to_wkt(version="WKT2_2019"),
        "gcps": ([(p.row, p.col, p.x, p.y, p.z) for p in points], crs and crs.to_wkt()),
        "rpcs": ds.rpcs and ds.rpcs.to_gdal(),
        "nodata": [repr(value) for value in ds.nodatavals],
        "masks": ds.mask_flag_enums,
        "colours": ds.colorinterp,
        "described": (ds.descriptions, ds.units, ds.scales, ds.offsets),
        "colour tables": [colour_table(ds, band) for band in ds.indexes],
    }
    for band in (0, *ds.indexes):
        for domain in (None, *ds.tag_namespaces(band)):
            if domain in ("DERIVED_SUBDATASETS", "TESSERA_STAC", "RPC"):
                continue
            tags = ds.tags(band, ns=domain)
            if domain == "IMAGE_STRUCTURE":
                tags = {name: value for name, value in tags.items() if name in _SAMPLES}
            if band == 0 and domain is None:
                tags.setdefault("AREA_OR_POINT", "Area")
            if tags:
                found[f"tags {band} {domain}"] = tags
    return found


def colour_table(ds: Any, band: int) -> Any:
    try:
        return ds.colormap(band)
    except ValueError:
        return None


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_cog_can_hold_is_refused_with_its_reason(run: Run, kind: str) -> None:
    row = run.row(kind)
    assert (row.status, row.embeddings) == ("failed", None)
    assert row.reason.startswith(f"{run.source(kind)}: ")
    assert REFUSED[kind] in row.reason


def test_the_run_says_what_it_refused_and_lost_and_nothing_else(run: Run) -> None:
    assert run.done.returncode == 1
    assert len(run.rows) == len(KINDS)
    assert run.seconds < BUDGET
    # Libraries say nothing: every line is of ours.
    for line in run.done.stderr.splitlines():
        assert line.startswith(("failed: ", "note: ", "2 workers", "working")) or " tiles/s" in line, line
    for kind in REFUSED:
        assert f"failed: {run.source(kind)}: " in run.done.stderr
        assert f"failed: {run.source(kind)}: " in run.done.stdout
    for kind, names in NOT_KEPT.items():
        assert f"note: {run.source(kind)}: not kept: {', '.join(names)}" in run.done.stderr
        assert f"not kept: {run.source(kind)}: {', '.join(names)}" in run.done.stdout
    assert list(run.out.rglob("*.aux.xml")) == []
    assert list(run.folder.glob("*.ovr")) == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("crs ") and kind not in REFUSED])
def test_a_code_is_said_only_if_it_is_the_crs(run: Run, kind: str) -> None:
    row = run.row(kind)
    assert row.epsg == EPSG.get(kind, 32633 if kind == "crs only" else None)
    with rasterio.open(run.source(kind)) as ds:
        if ds.crs is None:
            assert (row.epsg, row.wkt2) == (None, "")
            return
        there = pyproj.CRS.from_wkt(ds.crs.to_wkt(version="WKT2_2019"))
    said = pyproj.CRS.from_epsg(row.epsg) if row.epsg is not None else pyproj.CRS.from_wkt(row.wkt2)
    assert said.equals(there, ignore_axis_order=True)


@pytest.mark.parametrize(
    "kind", ["domains", "domains of 20 bands", "miniswhite", "130 bands by pixel", "overviews"]
)
def test_gdals_full_check_finds_nothing(run: Run, kind: str, gdal_validator: Path) -> None:
    """Tags that were written over the room for them leave the COG as GDAL made it."""
    checked = subprocess.run(
        [sys.executable, VALIDATE, gdal_validator, run.result(kind)], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_tifffile_reads_the_same_pixels(run: Run) -> None:
    """Another decoder than the one that wrote and compared them."""
    for kind in ("type float16", "type int64", "alpha of 1 to 6", "130 bands by pixel", "mask of 16 bands"):
        with rasterio.open(run.source(kind)) as ds:
            expected = ds.read()
        read = tifffile.imread(run.result(kind), key=0)
        if read.shape[:2] == expected.shape[1:]:
            read = np.moveaxis(np.atleast_3d(read), -1, 0)
        np.testing.assert_array_equal(read, expected, err_msg=kind)


def test_the_ledger_says_what_was_compared(run: Run) -> None:
    """As a list: in the line, and in the table."""
    (line,) = (
        json.loads(text)
        for path in (run.out / "ledger").glob("*.jsonl")
        for text in path.read_text().splitlines()
        if json.loads(text)["job"] == str(run.source("miniswhite"))
    )
    assert line["lossless"][:4] == ["pixels", "mask", "nodata", "georeferencing"]
    assert "tags" not in line["lossless"]
    assert line["lost"] == ["IMAGE_STRUCTURE MINISWHITE=YES"]
    table = {Path(row["job"]).name: row for row in read_table(run.out / "ledger").to_pylist()}
    row = table[file_name("domains")]
    assert row["lossless"] is True
    assert "tags" in row["compared"]
    assert row["lost"] == []


def test_validate_compares_rasters_with_their_sources(run: Run, tmp_path: Path) -> None:
    done = tessera_stac("validate", run.out)
    kept = len(KINDS) - len(REFUSED)
    assert f"{kept} converted tiles: {kept} files by checksum, {kept} tiles by every pixel" in done.stdout
    assert done.returncode == 0
    done = tessera_stac("validate", run.out, "--no-pixels")
    assert "no pixels, as --no-pixels says" in done.stdout
    assert "by every pixel" not in done.stdout


def test_validate_says_that_nothing_was_compared(tmp_path: Path) -> None:
    write(tmp_path / "a.tif")
    assert convert_with_ledger(tmp_path / "a.tif", tmp_path / "out").ok
    (tmp_path / "a.tif").unlink()
    done = tessera_stac("validate", tmp_path / "out")
    assert done.stdout.startswith("warn 1 converted tiles: 1 files by checksum, 1 not compared")
    assert "a.tif: no such file" in done.stdout
    write(tmp_path / "a.tif", data=values("uint8", (1, *SHAPE)) // 2)
    assert "SHA-256 is" in tessera_stac("validate", tmp_path / "out").stdout


def convert_with_ledger(source: Path, out: Path) -> LedgerRow:
    tessera_stac("convert", source, "--out", out, "--workers", 0)
    (row,) = read_rows(out / "ledger")
    return row


def test_a_damaged_result_is_found_by_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison itself: a result that differs from its source in one sample is no result."""
    from catalog_builder.convert.tile import plain_raster

    write(tmp_path / "a.tif", "int64", 2)
    copied = plain_raster._copy

    def damage(source: Any, target: Path, options: dict[str, str]) -> None:
        copied(source, target, options)
        with rasterio.open(target, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as ds:
            band = ds.read(2)
            band[69, 89] ^= 1
            ds.write(band, 2)

    monkeypatch.setattr(plain_raster, "_copy", damage)
    row = convert_one(tmp_path / "a.tif", tmp_path / "out").row
    assert "pixels of the COG differ from the source" in row.reason
    assert list((tmp_path / "out").rglob("*.tif")) == []


def test_files_beside_a_source_are_sources(tmp_path: Path) -> None:
    """They are in the ledger with their hashes; another one beside it makes it another job."""
    for kind in ("external mask", "aux.xml", "world file"):
        KINDS[kind](tmp_path / f"{kind[:3]}.tif")
    for name, beside in (("ext", "ext.tif.msk"), ("aux", "aux.tif.aux.xml"), ("wor", "wor.tfw")):
        row = convert_one(tmp_path / f"{name}.tif", tmp_path / "out").row
        assert [(s.role, Path(s.address).name) for s in row.sources] == [
            ("main", f"{name}.tif"),
            ("side", beside),
        ], row.reason
    before = jobs_of(tmp_path / "ext.tif")[0].fingerprint
    (tmp_path / "ext.tif.msk").unlink()
    assert jobs_of(tmp_path / "ext.tif")[0].fingerprint != before


def test_files_beside_a_remote_source_are_fetched_with_it(tmp_path: Path) -> None:
    KINDS["aux.xml"](tmp_path / "a.tif")
    KINDS["external mask"](tmp_path / "m.tif")

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].endswith(".aux.xml"):
            await PlainTextResponse("no", 403)(scope, receive, send)
        else:
            await StaticFiles(directory=tmp_path)(scope, receive, send)

    with serve(StaticFiles(directory=tmp_path)) as server:
        row = convert_one(f"{server.url}/a.tif", tmp_path / "out").row
        assert [s.address for s in row.sources] == [f"{server.url}/a.tif", f"{server.url}/a.tif.aux.xml"]
        with rasterio.open(tmp_path / "out" / row.files["embeddings"].path) as ds:
            assert ds.descriptions == ("from beside",)
        row = convert_one(f"{server.url}/m.tif", tmp_path / "out").row
        with (
            rasterio.open(tmp_path / "m.tif") as source,
            rasterio.open(tmp_path / "out" / row.files["embeddings"].path) as ds,
        ):
            np.testing.assert_array_equal(source.read_masks(), ds.read_masks())
    # A store that denies what is not there: converted, but not without a word.
    with serve(refuse) as server:
        row = convert_one(f"{server.url}/m.tif", tmp_path / "out").row
        assert row.ok, row.reason
        assert "whether .aux.xml lies beside it is not known" in row.note


def test_results_of_versions_that_compared_nothing_are_done_again(tmp_path: Path) -> None:
    write(tmp_path / "a.tif")
    convert_with_ledger(tmp_path / "a.tif", tmp_path / "out")
    again = ("convert", tmp_path / "a.tif", "--out", tmp_path / "out", "--workers", 0)
    assert "0 converted, 1 already done" in tessera_stac(*again).stdout
    (ledger,) = (tmp_path / "out" / "ledger").glob("*.jsonl")
    line = json.loads(ledger.read_text())
    ledger.write_text(json.dumps(line | {"lossless": True}) + "\n")
    assert "1 converted, 0 already done" in tessera_stac(*again).stdout


def test_pairs_in_capitals(tmp_path: Path) -> None:
    """As some systems copy them: .NPY beside _scales.NPY."""
    made = write_npy_tile(tmp_path / "a", tmp_path / "b", sample())
    folder = tmp_path / "capitals"
    folder.mkdir()
    for path in (made.npy, made.npy.with_name(made.npy.stem + "_scales.npy")):
        path.rename(folder / path.with_suffix(".NPY").name)
    (job,) = jobs_of(folder, years=frozenset([YEAR]))
    row = convert_tile(job, ConvertOptions(str(tmp_path / "out"), verify=True)).row
    assert (row.status, row.tile, row.profile) == ("ok", sample().tile, "native"), row.reason


def test_many_bands_take_blocks_and_order_from_the_options(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", "uint16", 20, interleave="pixel")
    row = convert_one(
        tmp_path / "a.tif", tmp_path / "out", block_size=64, interleave="band", compression="deflate"
    ).row
    assert (row.interleave, row.predictor) == ("band", 1), row.reason
    with rasterio.open(tmp_path / "out" / row.files["embeddings"].path) as ds:
        assert ds.block_shapes[0] == (64, 64)
        assert ds.compression.name == "deflate"
        assert ds.transform == UTM
