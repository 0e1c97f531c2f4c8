"""What an earlier version wrote stays as it is until its owner asks for better: ``convert --redo predictor``.

Versions before this default wrote codes with predictor 2 and float32 embeddings with 3, planar, and their
ledgers do not say so. That is what the fixture makes; the digest of their options is written out here.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import rasterio

from catalog_builder.convert.encode import cog
from catalog_builder.convert.encode.blocks import BLOCK_SIZE
from catalog_builder.convert.ledger.encoding import encoding_of
from catalog_builder.convert.ledger.reader import latest, read_rows
from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.convert.plan import job
from catalog_builder.convert.plan.estimate import estimate
from catalog_builder.convert.plan.job import ConvertOptions, Wanted
from catalog_builder.convert.plan.sources import plan
from catalog_builder.convert.run import RunReport, run
from catalog_builder.convert.tile.verify import validate_results
from catalog_builder.convert.workers.processes import ExecutorWorkers, Inline
from catalog_builder.errors import QueryError
from tests.convert.making import sample_basis, write_column
from tests.support.forked import tessera_stac

DIGESTS = {"native": "b43b6d12475c0cea", "float32": "6cf0e80822a92788"}
"""Of the default options of version 0.1, without colours."""


def _run(source: Path, out: Path | str, redo: Any = None, **options: Any) -> RunReport:
    found = plan([str(source)], Wanted())
    return run(found, ConvertOptions(str(out), **options), ExecutorWorkers(Inline(), 1), redo=redo)


def earlier_default(dtype: np.dtype[Any], bands: int, interleave: str, compression: str = "zstd") -> int:
    """Return the predictor that earlier versions wrote."""
    return 1 if compression == "none" else 3 if dtype.kind == "f" else 2


def forget_encoding(text: bytes) -> bytes:
    """Return a ledger's lines without what earlier versions did not write down."""
    rows = [orjson.loads(line) for line in text.splitlines()]
    for row in rows:
        del row["interleave"], row["predictor"]
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


@pytest.fixture
def earlier(monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunReport]:
    """Return what converts as an earlier version did."""

    def convert(source: Path, out: Path, **options: Any) -> RunReport:
        size = options.setdefault("block_size", 128)
        with monkeypatch.context() as patch:
            patch.setattr(cog, "default_predictor", earlier_default)
            patch.setattr(cog, "block_shape", lambda n, _: (size, size) if n == "strips" else (n, n))
            patch.setattr(job, "_DECISIVE", [n for n in job._DECISIVE if n != "overview_block_size"])
            report = _run(source, out, overview_block_size=size, **options)
        for path in (out / "ledger").iterdir():
            path.write_bytes(forget_encoding(path.read_bytes()))
        return report

    return convert


def _rows(out: Path) -> dict[str, LedgerRow]:
    return latest(read_rows(out / "ledger"))


def _embeddings(out: Path) -> list[str]:
    return sorted(row.files["embeddings"].path for row in _rows(out).values())


@pytest.mark.parametrize("profile", ["native", "float32"])
def test_a_new_default_converts_nothing_again_unless_asked(
    tmp_path: Path, earlier: Callable[..., RunReport], profile: str
) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    assert earlier(source, out, profile=profile).converted == 3
    old = _embeddings(out)
    assert {row.options for row in _rows(out).values()} == {DIGESTS[profile]}
    assert {encoding_of(out / path).predictor for path in old} == {2 if profile == "native" else 3}

    again = _run(source, out, profile=profile)
    assert (again.converted, again.skipped, again.misread, again.earlier_layouts) == (0, 3, 3, 3)
    assert _embeddings(out) == old
    found = plan([str(source)], Wanted())
    asked = ConvertOptions(str(out), profile=profile)  # type: ignore[arg-type]
    assert estimate(found, asked, 1, str(out / "ledger")).misread == 3
    assert estimate(found, asked, 1, str(out / "ledger"), redo="predictor").to_do == 3

    redone = _run(source, out, redo="predictor", profile=profile)
    assert (redone.converted, redone.skipped, redone.misread) == (3, 0, 0)
    new = _embeddings(out)
    assert not set(new) & set(old), "a name is never given to other bytes"
    assert all((out / path).exists() for path in old), "catalogues that name them go on"
    assert {encoding_of(out / path).predictor for path in new} == {1}
    assert validate_results(str(out)).misread is None
    for redo in (None, "predictor"):
        last = _run(source, out, redo=redo, profile=profile)
        assert (last.converted, last.skipped, last.misread) == (0, 3, 0)


def test_tiles_with_colours_are_known_too(tmp_path: Path, earlier: Callable[..., RunReport]) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    earlier(source, out, bases=(sample_basis(),))
    visual = sorted((path, path.read_bytes()) for path in out.rglob("*_visual.tif"))
    assert _run(source, out, bases=(sample_basis(),)).misread == 3
    assert _run(source, out, redo="predictor", bases=(sample_basis(),)).converted == 3
    assert sorted((path, path.read_bytes()) for path in out.rglob("*_visual.tif")) == visual


def test_the_layout_of_earlier_versions_stays_until_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: Callable[..., RunReport]
) -> None:
    """Without a predictor: the last version before had the old blocks only."""
    monkeypatch.setattr(sys.modules[__name__], "earlier_default", cog.default_predictor)
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    assert earlier(source, out).converted == 3
    old = _embeddings(out)
    assert {row.options for row in _rows(out).values()} == {DIGESTS["native"]}
    with rasterio.open(out / old[0]) as ds:
        assert ds.block_shapes[0] == (128, 128)

    again = _run(source, out)
    assert (again.converted, again.skipped, again.earlier_layouts) == (0, 3, 3)
    assert _embeddings(out) == old
    found = plan([str(source)], Wanted())
    assert estimate(found, ConvertOptions(str(out)), 1, str(out / "ledger")).earlier_layouts == 3
    assert estimate(found, ConvertOptions(str(out)), 1, str(out / "ledger"), redo="layout").to_do == 3
    assert _run(source, out, block_size=128).skipped == 3, "asked for by what they have"
    other = tmp_path / "other"
    shutil.copytree(out, other)
    assert _run(source, other, block_size=256).converted == 3, "asked for otherwise"

    redone = _run(source, out, redo="layout")
    assert (redone.converted, redone.skipped, redone.earlier_layouts) == (3, 0, 0)
    new = _embeddings(out)
    assert not set(new) & set(old), "a name is never given to other bytes"
    for before, now in zip(old, new, strict=True):
        with rasterio.open(out / before) as a, rasterio.open(out / now) as b:
            assert b.block_shapes[0] == (BLOCK_SIZE, BLOCK_SIZE)
            np.testing.assert_array_equal(a.read(), b.read())
    for redo in (None, "layout"):
        last = _run(source, out, redo=redo)
        assert (last.converted, last.skipped, last.earlier_layouts) == (0, 3, 0)


def test_what_no_row_says_is_read_from_the_header(tmp_path: Path, earlier: Callable[..., RunReport]) -> None:
    """ConvertOptions that were never the default: only the file knows, and only ``--redo`` looks."""
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    earlier(source, out, block_size=256)
    assert _run(source, out, block_size=256).misread == 0
    assert _run(source, out, redo="predictor", block_size=256).converted == 3
    safe = tmp_path / "safe"
    earlier(source, safe, block_size=256, interleave="pixel")
    assert _run(source, safe, redo="predictor", block_size=256, interleave="pixel").skipped == 3


def test_what_would_come_out_the_same_is_refused(tmp_path: Path) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    with pytest.raises(QueryError, match=r"--redo predictor: with --predictor 2"):
        _run(source, out, redo="predictor", predictor=2)
    assert _run(source, out, predictor=2).converted == 3
    assert _run(source, out, predictor=2).misread == 0, "it was asked for"


@pytest.mark.service
def test_the_commands_say_so(tmp_path: Path, earlier: Callable[..., RunReport]) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    earlier(source, out)

    def command(*arguments: str) -> str:
        done = tessera_stac(*arguments, "--quiet")
        assert done.returncode == 0, done.stderr
        return done.stdout

    convert = ("convert", str(source), "--out", str(out), "--workers", "0")
    warned = command("validate", str(out), "--no-pixels", "--json")
    assert json.loads(warned)["sound"] is True
    misread = json.loads(warned)["tiles"]["misread"]
    assert misread["files"] == [{"file": path, "predictor": 2} for path in _embeddings(out)]
    assert "3 of those done already have a predictor" in command(*convert)
    assert json.loads(command(*convert, "--json"))["misread"] == 3
    assert "3 of those done already have" in command(*convert, "--dry-run")
    assert "larger blocks of earlier versions, slower to read: --redo layout" in command(*convert)
    assert json.loads(command(*convert, "--json"))["earlier_layouts"] == 3
    # what validate tells to run, with the sources for SOURCE...
    told = misread["command"].split()[1:]
    at = told.index("SOURCE...")
    told[at : at + 1] = [str(source)]
    assert json.loads(command(*told, "--workers", "0", "--json"))["converted"] == 3
    assert json.loads(command("validate", str(out), "--json"))["tiles"]["misread"] is None
    failed = tessera_stac(*convert, "--missing", "--redo", "predictor")
    assert failed.returncode != 0
    assert "--redo and --missing" in failed.stderr
