"""Tile-years of earlier versions have no statistics of their codes: they are read from the COGs on request.

What the ledger of such a version said is made by taking them out of today's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.convert.ledger.reader import latest, read_rows
from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.convert.plan.estimate import estimate
from catalog_builder.convert.plan.job import ConvertOptions, Wanted
from catalog_builder.convert.plan.sources import plan
from catalog_builder.convert.run import RunReport, run
from catalog_builder.convert.tile.verify import validate_results
from catalog_builder.convert.workers.processes import ExecutorWorkers, Inline
from catalog_builder.synthetic.world import SampleTile
from catalog_builder.tile.datasets import dataset
from tests.convert.making import POLAR, YEAR, contents, convert_one, sample, write_column, write_pair
from tests.convert.test_redo_views import forget_view
from tests.support.catalogs import api_items
from tests.support.forked import tessera_stac


def _run(source: Path, out: Path, redo: Any = None, **options: Any) -> RunReport:
    found = plan([str(source)], Wanted())
    return run(found, ConvertOptions(str(out), **options), ExecutorWorkers(Inline(), 1), redo=redo)


def forget_statistics(text: bytes) -> bytes:
    """Return a ledger's lines without the statistics of codes."""
    rows = [orjson.loads(line) for line in text.splitlines()]
    return b"".join(orjson.dumps({k: v for k, v in row.items() if k != "code_range"}) + b"\n" for row in rows)


def _earlier(source: Path, out: Path, **options: Any) -> dict[str, LedgerRow]:
    """Convert as an earlier version did; return the rows of today."""
    _run(source, out, **options)
    rows = _rows(out)
    for path in (out / "ledger").iterdir():
        path.write_bytes(forget_statistics(path.read_bytes()))
    return rows


def _rows(out: Path) -> dict[str, LedgerRow]:
    return latest(read_rows(out / "ledger"))


def _bands(source: Path, root: Path) -> list[list[dict[str, Any]]]:
    """Build a catalogue of what is converted; return the bands of the asset ``embeddings`` of its items."""
    options = BuildOptions(dataset("synthetic"), url="http://cat", ledgers=(str(root / "cogs" / "ledger"),))
    build([str(source / "global_0.1_degree_representation")], root / "catalog", options)
    items = api_items(CatalogFolder(root / "catalog").open_index(), "http://cat")
    return [item["assets"]["embeddings"]["bands"] for _, item in sorted(items.items())]


@pytest.mark.parametrize("interleave", ["tile", "pixel"])
def test_they_are_those_of_a_conversion_of_today(tmp_path: Path, interleave: str) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "cogs"
    wanted = _earlier(source, out, interleave=interleave)
    assert all(row.code_range for row in wanted.values())
    before = contents(out)
    assert _bands(source, tmp_path) == [[{"name": f"b{i:03d}"} for i in range(128)]] * 3

    again = _run(source, out, interleave=interleave)
    assert (again.converted, again.skipped, again.without_statistics, again.described) == (0, 3, 3, 0)
    asked = ConvertOptions(str(out), interleave=interleave)  # type: ignore[arg-type]
    assert estimate(plan([str(source)], Wanted()), asked, 1, str(out / "ledger")).without_statistics == 3
    assert validate_results(str(out), pixels=False).without_statistics.tiles == 3  # type: ignore[union-attr]

    done = _run(source, out, redo="statistics", interleave=interleave)
    assert (done.converted, done.described, done.renewed, done.skipped, done.failed) == (0, 3, 0, 0, ())
    after = _rows(out)
    read = sum(row.files[role].size for row in after.values() for role in ("embeddings", "scales"))
    assert (done.bytes_in, done.bytes_out) == (read, 0)
    assert contents(out) == before, "no file is written"
    for job, row in after.items():
        assert (row.code_range, row.files, row.statistics) == (
            wanted[job].code_range,
            wanted[job].files,
            wanted[job].statistics,
        )
    made = sample()
    inside = (made.scales > 0) & (made.landmask == 1)
    for bands in _bands(source, tmp_path):
        found = [(band["statistics"]["minimum"], band["statistics"]["maximum"]) for band in bands]
        low, high = made.codes[inside].min(axis=0), made.codes[inside].max(axis=0)
        np.testing.assert_array_equal(found, np.stack([low, high], axis=1))

    for redo in (None, "statistics"):
        last = _run(source, out, redo=redo, interleave=interleave)
        assert (last.described, last.skipped, last.without_statistics) == (0, 3, 0)
    report = validate_results(str(out))
    assert (report.sound, report.pixels, report.without_statistics) == (True, 3, None)


def test_views_and_statistics_are_renewed_one_after_the_other(tmp_path: Path) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "cogs"
    wanted = _earlier(source, out)
    for path in (out / "ledger").iterdir():
        path.write_bytes(forget_view(path.read_bytes()))
    assert (_run(source, out).earlier_views, _run(source, out).without_statistics) == (3, 3)
    assert _run(source, out, redo="view").renewed == 3
    assert (_run(source, out).earlier_views, _run(source, out).without_statistics) == (0, 3)
    assert _run(source, out, redo="statistics").described == 3
    assert (_run(source, out).earlier_views, _run(source, out).without_statistics) == (0, 0)
    assert {j: r.code_range for j, r in _rows(out).items()} == {j: r.code_range for j, r in wanted.items()}


def test_a_file_that_changed_is_left_and_said(tmp_path: Path) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "cogs"
    _earlier(source, out)
    first = sorted(out.rglob("*_scales.tif"))[0]
    damaged = bytearray(first.read_bytes())
    damaged[-5] ^= 1
    first.write_bytes(damaged)
    done = _run(source, out, redo="statistics")
    assert (done.described, done.exit_code) == (2, 1)
    (failed,) = done.failed
    assert failed.reason == f"{first} is not the file that the ledger names: its SHA-256 is another"
    again = _run(source, out)
    assert (again.converted, again.skipped, again.without_statistics) == (0, 3, 1)


def test_a_tile_without_data_and_one_of_floats_lack_nothing(tmp_path: Path) -> None:
    made = sample()
    empty = SampleTile(POLAR, YEAR, made.codes, np.zeros_like(made.scales), made.landmask)
    row = convert_one(write_pair(tmp_path / "empty", empty), tmp_path / "out").row
    assert (row.ok, row.valid_fraction, row.code_range) == (True, 0.0, "")
    assert not row.lacks_code_range
    row = convert_one(write_pair(tmp_path / "src"), tmp_path / "floats", profile="float32").row
    assert (row.ok, row.code_range, row.lacks_code_range) == (True, "", False)


@pytest.mark.service
def test_the_commands_say_so(tmp_path: Path) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    _earlier(source, out)

    def command(*arguments: str) -> str:
        done = tessera_stac(*arguments, "--quiet")
        assert done.returncode == 0, done.stderr
        return done.stdout

    convert = ("convert", str(source), "--out", str(out), "--workers", "0")
    found = json.loads(command("validate", str(out), "--no-pixels", "--json"))
    assert found["sound"] is True
    lacking = found["tiles"]["without_statistics"]
    assert lacking["tiles"] == 3
    assert "note 3 converted tiles have no statistics of the codes" in command(
        "validate", str(out), "--no-pixels"
    )
    assert "3 of those done already have no statistics of their codes" in command(*convert)
    assert "3 of those done already have no statistics" in command(*convert, "--dry-run")
    told = lacking["command"].split()[1:]
    at = told.index("SOURCE...")
    told[at : at + 1] = [str(source)]
    assert "3 tiles got the statistics of their codes" in command(*told, "--workers", "1")
    assert json.loads(command(*told, "--workers", "0", "--json"))["described"] == 0
    assert json.loads(command("validate", str(out), "--json"))["tiles"]["without_statistics"] is None
