"""Colours that are fitted after a conversion: the images alone are made, and no pixel is converted again."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from catalog_builder.convert.ledger.reader import latest, read_rows
from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.convert.plan.estimate import estimate
from catalog_builder.convert.plan.job import ConvertOptions, Wanted
from catalog_builder.convert.plan.sources import plan
from catalog_builder.convert.run import RunReport, run
from catalog_builder.convert.tile.verify import validate_results
from catalog_builder.convert.workers.processes import ExecutorWorkers, Inline
from catalog_builder.item.basis import Basis
from tests.convert.making import contents, sample_basis, write_column

BASIS = sample_basis()
OTHER = replace(BASIS, low=tuple(x - 1 for x in BASIS.low))


def _run(source: Path, out: Path, *bases: Basis, redo: Any = None, **options: Any) -> RunReport:
    asked = ConvertOptions(str(out), bases=bases, **options)
    return run(plan([str(source)], Wanted()), asked, ExecutorWorkers(Inline(), 1), redo=redo)


def _rows(out: Path) -> dict[str, LedgerRow]:
    return latest(read_rows(out / "ledger"))


def _stamps(out: Path) -> dict[str, tuple[int, int]]:
    return {n: ((out / n).stat().st_ino, (out / n).stat().st_mtime_ns) for n in contents(out)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_column(tmp_path_factory.mktemp("column"))


@pytest.mark.parametrize("profile", ["native", "float32"])
def test_the_images_are_those_of_a_conversion_with_colours(
    source: Path, tmp_path: Path, profile: Any
) -> None:
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    assert _run(source, out, profile=profile).converted == 3
    before = _stamps(out)
    asked = ConvertOptions(str(out), profile=profile, bases=(BASIS,))
    found = estimate(plan([str(source)], Wanted()), asked, 1, str(out / "ledger"))
    assert (found.to_do, found.done, found.other_colours) == (0, 3, 3)

    done = _run(source, out, BASIS, profile=profile)
    assert (done.converted, done.coloured, done.skipped, done.failed) == (0, 3, 0, ())
    _run(source, fresh, BASIS, profile=profile)
    assert contents(out) == contents(fresh), "byte for byte, under the same names"
    assert before.items() <= _stamps(out).items(), "codes and scales are not written"
    written = sum(p.stat().st_size for p in out.rglob("*_[vt][ih]*.[tp][in][fg]"))
    assert (done.bytes_out, done.bytes_in) == (
        written,
        sum((out / n).stat().st_size for n in before if n.endswith("tif")),
    )
    for job, row in _rows(out).items():
        same = {"finished": "", "seconds": 0.0, "only": "", "sources": (), "versions": ()}
        assert replace(row, **same) == replace(_rows(fresh)[job], **same)
    again = _run(source, out, BASIS, profile=profile)
    assert (again.converted, again.coloured, again.skipped) == (0, 0, 3)
    assert validate_results(str(out), pixels=False).sound


def test_other_colours_or_none_convert_nothing(source: Path, tmp_path: Path) -> None:
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    _run(source, out, BASIS)
    without = _run(source, out)
    assert (without.converted, without.coloured, without.skipped) == (0, 0, 3), "what is there is no less"
    done = _run(source, out, OTHER)
    assert (done.converted, done.coloured) == (0, 3)
    _run(source, fresh, OTHER)
    assert contents(fresh).items() <= contents(out).items()
    more = contents(out).keys() - contents(fresh).keys()
    assert len(more) == 6, "images in the first colours stay, for catalogues that name them"
    assert all(name.endswith(("_visual.tif", "_thumbnail.png")) for name in more)
    # of a version that did not write down by which options but the colours: only none are told from others
    for path in (out / "ledger").iterdir():
        rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        path.write_bytes(b"".join(orjson.dumps({**row, "pixel_options": ""}) + b"\n" for row in rows))
    assert _run(source, out, BASIS).converted == 3


def test_other_options_convert_again(source: Path, tmp_path: Path) -> None:
    _run(source, tmp_path / "out")
    done = _run(source, tmp_path / "out", BASIS, level=3)
    assert (done.converted, done.coloured) == (3, 0)


def test_a_damaged_cog_gets_no_image_and_stays_in_the_ledger(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _run(source, out)
    before = _rows(out)
    job, row = next(iter(before.items()))
    assert row.embeddings is not None
    path = out / row.embeddings.path
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    done = _run(source, out, BASIS)
    assert (done.coloured, [f.job for f in done.failed]) == (2, [job])
    assert "its SHA-256 is another" in done.failed[0].reason
    assert _run(source, out).skipped == 3, "the tile is converted, as before"


@pytest.mark.service
def test_the_command_makes_images_alone(source: Path, tmp_path: Path) -> None:
    def convert(*options: str) -> dict[str, Any]:
        command = [
            sys.executable,
            "-m",
            "catalog_builder.cli",
            "convert",
            str(source),
            "--out",
            str(tmp_path),
        ]
        command += ["--workers", "0", "--no-sync", "--quiet", "--json", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    assert convert()["converted"] == 3
    done = convert("--fit-visual")
    assert (done["converted"], done["coloured"], done["skipped"]) == (0, 3, 0)
    assert len(list(tmp_path.rglob("*_visual.tif"))) == 3
