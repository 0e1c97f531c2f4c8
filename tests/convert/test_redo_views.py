"""Float32 views of version 0.1, which GDAL before 3.7 reads wrongly, are named and written anew: no pixel is.

What they were is made by taking out of today's what has come since, and forgetting it in the ledger.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import rasterio

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.convert.ledger.reader import latest, read_rows
from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.convert.plan.estimate import estimate
from catalog_builder.convert.plan.job import ConvertOptions, Wanted
from catalog_builder.convert.plan.sources import plan
from catalog_builder.convert.run import RunReport, run
from catalog_builder.convert.tile import profiles
from catalog_builder.convert.tile.verify import validate_results
from catalog_builder.convert.workers.processes import ExecutorWorkers, Inline
from catalog_builder.raster.vrt import VIEW_FORM, cog_f32_vrt
from catalog_builder.tile.datasets import dataset
from tests.conftest import SUPPORT, plain_environment
from tests.convert.making import sample_basis, write_column
from tests.support.arrays import same_bits
from tests.support.catalogs import api_items
from tests.support.forked import tessera_stac


def _run(source: Path, out: Path | str, redo: Any = None, **options: Any) -> RunReport:
    found = plan([str(source)], Wanted())
    return run(found, ConvertOptions(str(out), **options), ExecutorWorkers(Inline(), 1), redo=redo)


def earlier_view(*args: Any, **kwargs: Any) -> str:
    """Return a view as version 0.1 wrote it."""
    text = cog_f32_vrt(*args, **kwargs)
    text = text.replace("<SourceTransferType>Float32</SourceTransferType>", "")
    return text.replace("<LUT>-128:-128,127:127,128:-128,255:-1</LUT>", "").replace("Complex", "Simple")


def forget_view(text: bytes) -> bytes:
    """Return a ledger's lines without what version 0.1 did not write down."""
    since = ("view", "window", "gain")
    rows = [orjson.loads(line) for line in text.splitlines()]
    return b"".join(orjson.dumps({k: v for k, v in row.items() if k not in since}) + b"\n" for row in rows)


def _earlier(monkeypatch: pytest.MonkeyPatch, source: Path, out: Path, **options: Any) -> RunReport:
    with monkeypatch.context() as patch:
        patch.setattr(profiles, "cog_f32_vrt", earlier_view)
        report = _run(source, out, **options)
    for path in (out / "ledger").iterdir():
        path.write_bytes(forget_view(path.read_bytes()))
    return report


def _rows(out: Path) -> dict[str, LedgerRow]:
    return latest(read_rows(out / "ledger"))


def _paths(out: Path, row: LedgerRow) -> list[Path]:
    return [out / file.path for file in row.files.values()]


def test_renewed_views_are_those_of_a_conversion_of_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gdal36: Path
) -> None:
    source, out, fresh = write_column(tmp_path / "src"), tmp_path / "out", tmp_path / "fresh"
    bases = (sample_basis(),)
    assert _earlier(monkeypatch, source, out, bases=bases).converted == 3
    assert _run(source, fresh, bases=bases).converted == 3
    before = _rows(out)
    old = {path: path.read_bytes() for row in before.values() for path in _paths(out, row)}

    again = _run(source, out, bases=bases)
    assert (again.converted, again.skipped, again.earlier_views, again.renewed) == (0, 3, 3, 0)
    asked = ConvertOptions(str(out), bases=bases)
    assert estimate(plan([str(source)], Wanted()), asked, 1, str(out / "ledger")).earlier_views == 3
    assert len(validate_results(str(out), pixels=False).earlier_views.files) == 3  # type: ignore[union-attr]

    done = _run(source, out, redo="view", bases=bases)
    assert (done.converted, done.renewed, done.skipped, done.failed) == (0, 3, 0, ())
    after, wanted = _rows(out), _rows(fresh)
    assert done.bytes_in == 0
    views = ("vrt", "window", "gain")
    assert done.bytes_out == sum(row.files[view].size for row in after.values() for view in views)
    for job, row in after.items():
        assert row.files == wanted[job].files, "names, sizes and hashes"
        assert (row.view, row.content, row.statistics) == (
            VIEW_FORM,
            wanted[job].content,
            wanted[job].statistics,
        )
        for role in ("embeddings", "scales"):
            one, two = (out / found[job].files[role].path for found in (before, after))
            assert one != two
            assert one.samefile(two), "a second name, no second copy"
    assert all(path.read_bytes() == content for path, content in old.items()), (
        "catalogues that name them go on"
    )

    for redo in (None, "view"):
        last = _run(source, out, redo=redo, bases=bases)
        assert (last.renewed, last.skipped, last.earlier_views) == (0, 3, 0)
    report = validate_results(str(out))
    assert (report.sound, report.pixels, report.earlier_views) == (True, 3, None)

    view = out / next(iter(after.values())).files["vrt"].path
    reads = json.dumps([{"dtype": "float64", "bands": [5]}])
    command = [str(gdal36), str(SUPPORT / "gdal_reader.py"), str(view), str(tmp_path / "a.npz"), reads]
    subprocess.run(command, env=plain_environment(), check=True, capture_output=True)
    with np.load(tmp_path / "a.npz") as saved:
        assert np.nanmin(saved["0"]) < 0, "codes below zero are below zero"


def test_a_view_that_changed_is_left_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result counts as before: nothing is converted again for it."""
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    _earlier(monkeypatch, source, out)
    first = sorted(out.rglob("*_f32.vrt"))[0]
    first.write_bytes(first.read_bytes().replace(b"Tessera_Band_0", b"Tessera_Band_1"))
    done = _run(source, out, redo="view")
    assert (done.renewed, done.exit_code) == (2, 1)
    (failed,) = done.failed
    assert failed.reason == f"{first} is not the file that the ledger names: its SHA-256 is another"
    again = _run(source, out)
    assert (again.converted, again.skipped, again.earlier_views) == (0, 3, 1)
    (problem,) = validate_results(str(out), pixels=False).failed
    assert "SHA-256" in problem.problems[0]


def test_an_item_without_a_view_for_windows_names_the_other(tmp_path: Path) -> None:
    """The key is in every item; what it names is made by ``--redo view``, and then by a build."""
    source, home = write_column(tmp_path / "src"), tmp_path / "catalog"
    out = home / "cogs"
    assert _run(source, out).converted == 3
    for path in (out / "ledger").iterdir():
        path.write_bytes(forget_view(path.read_bytes()))

    def items() -> list[tuple[LedgerRow, dict[str, Any]]]:
        build([], home, BuildOptions(dataset=dataset("synthetic"), source_root=str(source)))
        found = api_items(CatalogFolder(home).open_index(), "http://cat")
        return [
            (row, found[f"{row.tile.name}_{row.year}"]["assets"]) for row in _rows(out).values() if row.tile
        ]

    for _, assets in items():
        one, other = assets["embeddings_f32_window"], assets["embeddings_f32"]
        for fact in ("href", "type", "file:size", "file:checksum"):
            assert one[fact] == other[fact]
    assert _run(source, out, redo="view").renewed == 3
    for row, assets in items():
        asset, file = assets["embeddings_f32_window"], row.files["window"]
        assert asset["href"] == f"http://cat/data/cogs/{file.path}"
        assert (asset["file:size"], asset["file:checksum"]) == (file.size, f"1220{file.sha256}")
        assert (out / row.files["gain"].path).is_file()
        with rasterio.open(out / file.path) as ds, rasterio.open(out / row.files["vrt"].path) as other_ds:
            assert same_bits(ds.read(), other_ds.read())


@pytest.mark.service
def test_the_commands_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    _earlier(monkeypatch, source, out)

    def command(*arguments: str) -> str:
        done = tessera_stac(*arguments, "--quiet")
        assert done.returncode == 0, done.stderr
        return done.stdout

    convert = ("convert", str(source), "--out", str(out), "--workers", "0")
    found = json.loads(command("validate", str(out), "--no-pixels", "--json"))
    assert found["sound"] is True
    views = found["tiles"]["earlier_views"]
    assert views["files"] == [row.files["vrt"].path for _, row in sorted(_rows(out).items())]
    text = command("validate", str(out), "--no-pixels")
    assert "warn 3 float32 views are of an earlier form" in text
    assert "read wrongly by GDAL before 3.7" in text
    assert all(path in text for path in views["files"])
    for more in ((), ("--dry-run",)):
        assert "3 of those done already have float32 views of an earlier form" in command(*convert, *more)
    told = views["command"].split()[1:]
    at = told.index("SOURCE...")
    told[at : at + 1] = [str(source)]
    assert "3 float32 views written anew" in command(*told, "--workers", "0")
    assert json.loads(command(*told, "--workers", "0", "--json"))["renewed"] == 0
    assert json.loads(command("validate", str(out), "--json"))["tiles"]["earlier_views"] is None
