"""Folders as people have them: every good tile converts, everything odd is named once, nothing hangs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog_builder.convert.ledger.reader import latest, read_rows
from catalog_builder.convert.ledger.rows import LedgerRow
from tests.convert.making import COLUMN, write_column
from tests.convert.odd import CLOSED, ODDITIES, Oddity, make, without_privileges
from tests.support.forked import tessera_stac

SECONDS = 120
"""A run that hangs ends here; one of three tiles takes a few seconds."""
pytestmark = pytest.mark.service


def convert(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    if not options:
        return tessera_stac("convert", *arguments, seconds=SECONDS)
    return subprocess.run(
        [sys.executable, "-m", "catalog_builder.cli", "convert", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        **options,  # type: ignore[call-overload]
    )


def rows_of(out: Path) -> dict[str, LedgerRow]:
    return latest(read_rows(out / "ledger"))


def _check(done: subprocess.CompletedProcess[str], folder: Path, out: Path, odd: dict[str, Oddity]) -> None:
    """Check what was said on the screen, in the ledger and by the exit code."""
    assert done.returncode == (1 if odd else 0), done.stderr
    assert "Traceback" not in done.stderr
    rows = rows_of(out)
    assert sum(row.ok for row in rows.values()) == len(COLUMN)
    failed = {row.job: row.reason for row in rows.values() if not row.ok}
    assert len(failed) == len(odd), failed
    shown = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert len(shown) == len(odd)
    for name, oddity in odd.items():
        (reason,) = [
            r for r in failed.values() if f"{folder}/odd {name}/" in r or f"{folder}/odd {name}: " in r
        ]
        assert oddity.says in reason, name
        assert "please report" not in reason
        assert any(reason in line for line in shown)


def test_everything_odd_at_once(tmp_path: Path) -> None:
    folder, out = write_column(tmp_path / "src"), tmp_path / "out"
    odd = make(folder, ODDITIES)
    _check(convert(folder, "--out", out, "--workers", "2"), folder, out, odd)
    again = convert(folder, "--out", out, "--workers", "0", "-q")
    _check(again, folder, out, odd)
    assert f"{len(COLUMN)} already done, {len(odd)} failed of {len(COLUMN) + len(odd)}" in again.stdout


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.sets(st.sampled_from(sorted(ODDITIES)), max_size=4))
def test_any_of_it(tmp_path_factory: pytest.TempPathFactory, names: set[str]) -> None:
    root = tmp_path_factory.mktemp("odd")
    folder, out = write_column(root / "src"), root / "out"
    odd = make(folder, sorted(names))
    _check(convert(folder, "--out", out, "--workers", "0"), folder, out, odd)
    shutil.rmtree(out)


def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    folder, out = write_column(tmp_path / "src"), tmp_path / "out"
    CLOSED.make(folder / "odd closed", "")
    done = convert(folder, "--out", out, "--workers", "0", preexec_fn=without_privileges)
    (folder / "odd closed").chmod(0o755)
    _check(done, folder, out, {"closed": CLOSED})


@pytest.mark.parametrize("name", ["pipe.tif", "loop.tif", "dangling.tif", "socket", "endless device"])
@pytest.mark.parametrize("how", ["file", "pattern"])
def test_odd_files_that_are_given_themselves(tmp_path: Path, name: str, how: str) -> None:
    odd = make(tmp_path, [name])[name]
    (path,) = (tmp_path / f"odd {name}").iterdir()
    given = path if how == "file" else path.with_name("*.tif")
    done = convert(given, "--out", tmp_path / "out", "--workers", "0")
    assert done.returncode == 1
    assert f"{path}: {odd.says}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_of_nothing_but_oddities(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    odd = make(tmp_path / "src", ["link to itself", "unlistable folder"])
    done = convert(tmp_path / "src", "--out", tmp_path / "out", "--workers", "0")
    assert done.returncode == 1
    assert all(o.says in done.stderr for o in odd.values())
    assert "2 failed of 2" in done.stdout
