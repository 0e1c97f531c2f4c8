"""Everything that goes wrong with a source, a target or a process: a reason per tile, no partial file."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio

from catalog_builder.convert.ledger.reader import latest, read_rows
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.plan.sources import Wanted, plan
from catalog_builder.convert.run import RunReport, run
from catalog_builder.convert.tile.verify import validate_results
from catalog_builder.convert.workers.processes import ExecutorWorkers, Inline
from catalog_builder.synthetic.sample import write_geotiff_tile
from catalog_builder.synthetic.world import SampleTile
from catalog_builder.tile.datasets import dataset
from catalog_builder.tile.grid import TileId
from tests.convert.making import FILES, POLAR, YEAR, convert_one, sample, write_pair
from tests.faults.disk import disk
from tests.faults.forks import Runner, runner
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
TWIN = TileId(lat_i=8995, lon_i=605)


@pytest.fixture(scope="module")
def killed() -> Iterator[Runner]:
    with runner("tests.faults.killed_convert") as made:
        yield made


def _twins(root: Path) -> Path:
    """Write two tiles: one to break, one that must go on."""
    made = sample()
    write_pair(root)
    write_pair(root, SampleTile(TWIN, YEAR, made.codes, made.scales, made.landmask))
    return root


def _run(source: Path, out: Path, ledger: Path | None = None, **wanted: object) -> RunReport:
    found = plan([str(source)], Wanted(**wanted))  # type: ignore[arg-type]
    where = None if ledger is None else str(ledger)
    return run(found, ConvertOptions(str(out)), ExecutorWorkers(Inline(), 1), ledger=where)


def _visible(out: Path) -> list[Path]:
    return sorted(p for p in out.rglob("grid_*_*_*.*") if p.is_file())


def _npy(root: Path, suffix: str = ".npy") -> Path:
    return root / f"global_0.1_degree_representation/{YEAR}/{POLAR.name}/{POLAR.name}{suffix}"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _save(path: Path, array: np.ndarray) -> None:
    np.save(path, array)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "scales gone": (lambda r: _npy(r, "_scales.npy").unlink(), r"_scales\.npy: no such file"),
    "truncated": (lambda r: _cut(_npy(r)), "truncated"),
    "truncated scales": (lambda r: _cut(_npy(r, "_scales.npy")), "truncated"),
    "empty": (lambda r: _npy(r).write_bytes(b""), "not a .npy file"),
    "not npy": (lambda r: _npy(r).write_bytes(b"<html>" * 999), "not a .npy file"),
    "wrong shape": (
        lambda r: _save(_npy(r), np.zeros((100, 58, 128), np.int8)),
        r"100 x 58 pixels do not fit grid_0\.05_89\.95, which has 1115 x 58",
    ),
    "wrong bands": (lambda r: _save(_npy(r), np.zeros((1115, 58, 64), np.int8)), "expected int8"),
    "wrong type": (lambda r: _save(_npy(r), np.zeros((1115, 58, 128), np.float32)), "expected int8"),
    "objects": (
        lambda r: np.save(_npy(r), np.array([{}], dtype=object), allow_pickle=True),
        "never unpickled",
    ),
    "scales of another shape": (
        lambda r: _save(_npy(r, "_scales.npy"), np.ones((1114, 58), np.float32)),
        r"scales have shape \(1114, 58\)",
    ),
    "landmask of another shape": (
        lambda r: _landmask(r, np.ones((10, 10), np.uint8)),
        "10 x 10 pixels do not fit",
    ),
    "landmask truncated": (
        lambda r: (r / f"global_0.1_degree_tiff_all/{POLAR.name}.tiff").write_bytes(b"II*\0\0\0"),
        "damaged TIFF",
    ),
}


def _landmask(root: Path, mask: np.ndarray) -> None:
    raster = POLAR.raster("source")
    path = root / f"global_0.1_degree_tiff_all/{POLAR.name}.tiff"
    profile = {
        "driver": "GTiff",
        "height": mask.shape[0],
        "width": mask.shape[1],
        "count": 1,
        "dtype": "uint8",
    }
    with rasterio.open(path, "w", **profile, crs=f"EPSG:{raster.epsg}", transform=raster.transform) as ds:
        ds.write(mask, 1)


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    root = _twins(tmp_path / "src")
    damage, reason = BROKEN[fault]
    damage(root)
    report = _run(root, tmp_path / "out")
    assert (report.converted, len(report.failed), report.exit_code) == (1, 1, 1)
    row = latest(read_rows(tmp_path / "out" / "ledger"))[f"synthetic/{YEAR}/{POLAR.name}"]
    assert row.status == "failed"
    assert re.search(reason, row.reason), row.reason
    assert row.reason in capsys.readouterr().err
    assert all(TWIN.name in p.name for p in _visible(tmp_path / "out"))
    assert not (tmp_path / "out" / ".staging").exists()


def test_wrong_checksum(tmp_path: Path) -> None:
    root = _twins(tmp_path / "src")
    manifest = tmp_path / f"registry_{YEAR}.txt"
    name = f"{YEAR}/{POLAR.name}/{POLAR.name}"
    manifest.write_text(f"{name}.npy {'a' * 64}\n{name}_scales.npy {'b' * 64}\n")
    report = _run(
        manifest,
        tmp_path / "out",
        dataset=dataset("synthetic"),
        source_root=str(root / "global_0.1_degree_representation"),
    )
    assert f"the manifest says {'a' * 64}" in report.failed[0].reason


def test_source_vanishes_between_plan_and_work(tmp_path: Path) -> None:
    root = _twins(tmp_path / "src")
    found = plan([str(root)], Wanted())
    _npy(root).unlink()
    report = run(found, ConvertOptions(str(tmp_path / "out")), ExecutorWorkers(Inline(), 1))
    assert (report.converted, report.failed[0].reason.endswith("no such file")) == (1, True)


def test_strange_scales(tmp_path: Path) -> None:
    """NaN, infinite and zero scales are no data; scales of 1.0 and more are kept but not averaged."""
    made = sample()
    scales = made.scales.copy()
    scales[10, 10], scales[10, 11], scales[10, 12], scales[10, 13] = np.nan, np.inf, 0, -1
    scales[11, 10], scales[11, 11] = 1e6, 1.0
    write_pair(tmp_path / "src", SampleTile(POLAR, YEAR, made.codes, scales, made.landmask))
    report = _run(tmp_path / "src", tmp_path / "out")
    assert report.exit_code == 0
    row = latest(read_rows(tmp_path / "out" / "ledger"))[f"synthetic/{YEAR}/{POLAR.name}"]
    assert "2 pixels have a scale of 1 or more" in row.note
    assert row.maximum is not None
    assert row.maximum < 100
    with rasterio.open(tmp_path / "out" / row.files["scales"].path) as ds:
        found = ds.read(1)
    assert np.isnan(found[10, 10:14]).all()
    assert found[11, 10:12].tolist() == [1e6, 1.0]
    with rasterio.open(tmp_path / "out" / row.files["scales"].path, overview_level=0) as ds:
        assert np.nanmax(ds.read(1)) < 1


@pytest.mark.parametrize("what", ["all water", "all nodata"])
def test_nothing_to_store(tmp_path: Path, what: str) -> None:
    made = sample()
    landmask = np.zeros_like(made.landmask) if what == "all water" else made.landmask
    scales = made.scales if what == "all water" else np.zeros_like(made.scales)
    write_pair(tmp_path / "src", SampleTile(POLAR, YEAR, made.codes, scales, landmask))
    report = _run(tmp_path / "src", tmp_path / "out")
    assert report.exit_code == 0
    row = latest(read_rows(tmp_path / "out" / "ledger"))[f"synthetic/{YEAR}/{POLAR.name}"]
    assert (row.valid_fraction, row.statistics, row.minimum) == (0.0, "", None)
    # without a predictor, rows of blocks over the raster's edge are -128 and then padding: 223 bytes, not 19
    assert row.bytes_out < 650_000
    with rasterio.open(tmp_path / "out" / row.files["embeddings"].path) as ds:
        assert (ds.read(5) == -128).all()
    assert validate_results(str(tmp_path / "out")).sound


def test_geotiffs_that_are_no_tiles(tmp_path: Path) -> None:
    raster = POLAR.raster("source")
    folder = tmp_path / "src"
    folder.mkdir()
    write_geotiff_tile(
        folder, SampleTile(TWIN, YEAR, *(getattr(sample(), n) for n in ("codes", "scales", "landmask")))
    )
    profile = {
        "driver": "GTiff",
        "height": 1115,
        "width": 58,
        "dtype": "float32",
        "crs": f"EPSG:{raster.epsg}",
    }
    with rasterio.open(
        folder / f"{POLAR.name}_{YEAR}.tiff", "w", count=3, transform=raster.transform, **profile
    ) as ds:
        ds.write(np.ones((3, 1115, 58), np.float32))
    moved = raster.transform @ rasterio.Affine.translation(3, 0)
    with rasterio.open(folder / f"{POLAR.name}_2023.tiff", "w", count=128, transform=moved, **profile):
        pass
    (folder / f"{POLAR.name}_2022.tiff").write_bytes(b"PK\3\4 this is a zip file")
    (folder / f"{POLAR.name}_2021.tiff").write_bytes(b"II*\0 not really")
    good = next(folder.rglob(f"{TWIN.name}_{YEAR}.tiff"))
    cut = folder / f"{TWIN.name}_2020.tiff"
    cut.write_bytes(good.read_bytes()[:-200_000])
    report = _run(folder, tmp_path / "out")
    reasons = {r.year: r.reason for r in report.failed}
    assert report.converted == 3
    assert report.profiles == {"native": 1, "raster": 2}
    notes = [r.note for r in read_rows(tmp_path / "out" / "ledger") if r.profile == "raster"]
    assert all(f"an ordinary raster, not the tile {POLAR.name} of its name: " in note for note in notes)
    assert "3 bands, but a TESSERA tile has 128" in "".join(notes)
    assert "its corner is" in "".join(notes)
    assert "not a TIFF" in reasons[2022]
    assert "damaged TIFF" in reasons[2021]
    assert reasons[2020]


def test_a_file_where_a_folder_must_be(tmp_path: Path) -> None:
    root = _twins(tmp_path / "src")
    (tmp_path / "out" / "synthetic" / str(YEAR)).mkdir(parents=True)
    (tmp_path / "out" / "synthetic" / str(YEAR) / POLAR.name).touch()
    report = _run(root, tmp_path / "out")
    assert report.converted == 1
    assert POLAR.name in report.failed[0].reason
    assert all(TWIN.name in p.name for p in _visible(tmp_path / "out"))


def test_full_disk(tmp_path: Path) -> None:
    """There is room for one tile: the other fails with the system's words, and leaves nothing."""
    root = _twins(tmp_path / "src")
    convert_one(write_pair(tmp_path / "one"), tmp_path / "there")
    one = sum(p.stat().st_size for p in _visible(tmp_path / "there"))
    with disk(tmp_path / "disk", f"size={one * 3 // 2}"):
        report = _run(root, tmp_path / "disk", ledger=tmp_path / "ledger")
        assert (report.converted, len(report.failed)) == (1, 1)
        assert "No space left on device" in report.failed[0].reason
        assert len(_visible(tmp_path / "disk")) == FILES
        assert not (tmp_path / "disk" / ".staging").exists()
        assert validate_results(str(tmp_path / "disk"), [str(tmp_path / "ledger")]).sound


def test_a_file_that_cannot_be_flushed_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_pair(tmp_path / "src")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    row = convert_one(source, tmp_path / "out").row
    assert (row.status, row.reason) == ("failed", "No space left on device")
    assert list((tmp_path / "out").rglob("*")) == []


def test_read_only_target(tmp_path: Path) -> None:
    root = _twins(tmp_path / "src")
    with disk(tmp_path / "disk", "ro"):
        report = _run(root, tmp_path / "disk", ledger=tmp_path / "ledger")
        assert report.converted == 0
        assert all("Read-only file system" in r.reason for r in report.failed)
    assert len(latest(read_rows(tmp_path / "ledger"))) == 2


def test_file_size_limit_without_privileges(tmp_path: Path) -> None:
    """The same as a full disk, for systems where nothing may be mounted."""
    root = _twins(tmp_path / "src")
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY));"
        "from tests.faults.killed_convert import main; main()"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, "0", str(root), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert resource.RLIM_INFINITY
    assert "File too large" in found.stderr
    assert _visible(tmp_path / "out") == []
    rows = latest(read_rows(tmp_path / "out" / "ledger"))
    assert [r.status for r in rows.values()] == ["failed", "failed"]


def test_killed_at_any_file_operation(tmp_path: Path, killed: Runner) -> None:
    """After a kill every visible file is whole, the ledger says only what is true, and a rerun finishes."""
    source = tmp_path / "src"
    write_pair(source)
    whole = tmp_path / "whole"
    operations = killed.good(0, source, whole).said.split()
    assert operations.count("os.replace") == FILES  # staged files get their names
    expected = {p.name: p.stat().st_size for p in _visible(whole)}
    assert len(expected) == FILES
    for fatal in range(1, len(operations) + 1):
        out = tmp_path / f"out{fatal}"
        assert killed.run(fatal, source, out).code == -signal.SIGKILL
        for path in _visible(out):
            assert path.stat().st_size == expected[path.name], (fatal, operations[fatal - 1])
        ledger = out / "ledger"
        rows = latest(read_rows(ledger)) if ledger.exists() else {}
        assert all((out / f.path).exists() for r in rows.values() for f in r.files.values())
        report = _run(source, out)
        assert (report.converted + report.skipped, report.skipped) == (1, len(rows))
        assert {p.name: p.stat().st_size for p in _visible(out)} == expected
        assert not (out / ".staging").exists(), "the rerun clears what the killed run left"
        shutil.rmtree(out)


def _processes_of(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes().decode(errors="replace"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _start(source: Path, out: Path, mark: str) -> subprocess.Popen[str]:
    code = (
        "import typer; from catalog_builder.cli.convert import convert;"
        "app = typer.Typer(pretty_exceptions_enable=False); app.command()(convert); app()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(source), "--out", str(out), "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TEST_MARK": mark},
        start_new_session=True,
    )


def _many(root: Path) -> Path:
    made = sample()
    for lon_i in range(605, 18000, 600):
        write_pair(
            root, SampleTile(TileId(lat_i=8995, lon_i=lon_i), YEAR, made.codes, made.scales, made.landmask)
        )
    return root


def _wait_for_rows(out: Path, n: int) -> None:
    until(lambda: (out / "ledger").is_dir() and len(latest(read_rows(out / "ledger"))) >= n)


def test_interrupt_finishes_what_is_in_hand(tmp_path: Path) -> None:
    source, out = _many(tmp_path / "src"), tmp_path / "out"
    process = _start(source, out, f"mark-{tmp_path}")
    _wait_for_rows(out, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everybody
    said, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "finishing the tiles in progress" in error
    assert "(interrupted)" in said
    assert "0 failed" in said
    assert not (out / ".staging").exists()
    rows = latest(read_rows(out / "ledger"))
    assert 2 <= len(rows) < 29
    assert all(r.ok for r in rows.values())
    assert validate_results(str(out), pixels=False).sound
    assert len(_visible(out)) == FILES * len(rows)


def test_killed_parent_leaves_no_workers(tmp_path: Path) -> None:
    source, out = _many(tmp_path / "src"), tmp_path / "out"
    mark = f"mark-{tmp_path}"
    process = _start(source, out, mark)
    _wait_for_rows(out, 1)
    process.kill()
    process.communicate()
    until(lambda: not _processes_of(mark))
    done = len(latest(read_rows(out / "ledger")))
    report = _run(source, out)
    assert report.exit_code == 0
    assert report.skipped == done
    assert not (out / ".staging").exists()
    assert validate_results(str(out), pixels=False).sound
