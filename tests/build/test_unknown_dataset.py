"""Nothing of a dataset that is not known is built as v1, and what is no file is not passed over."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.convert.odd import without_privileges
from tests.manifests.making import make_tree

pytestmark = pytest.mark.service
LEVEL = "global_0.1_degree_representation"
ONE, TWO = (2024, "grid_0.05_52.05"), (2024, "grid_0.15_52.05")


def build(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "catalog_builder.cli", "build", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        **options,  # type: ignore[call-overload]
    )


def _line(tile: tuple[int, str], prefix: str = "") -> str:
    year, name = tile
    path = f"{prefix}{year}/{name}/{name}"
    return f"{path}.npy {'a' * 64}\n{path}_scales.npy {'b' * 64}\n"


def _data(root: Path) -> Path:
    """Lay out a known and an unknown dataset as folders of data."""
    make_tree(root / "npy/v1", [ONE])
    make_tree(root / "npy/v2", [TWO])
    return root


def _sidecar(root: Path) -> Path:
    make_tree(root / "a" / LEVEL, [ONE])
    make_tree(root / "b" / LEVEL, [TWO])
    (root / "b" / "tessera_metadata.json").write_text('{"dataset_version": "3.0"}')
    return root


def _broken(root: Path) -> Path:
    _sidecar(root)
    (root / "b" / "tessera_metadata.json").write_text("{")
    return root


def _registries(root: Path) -> Path:
    for folder, tile in (("v1", ONE), ("v2", TWO)):
        (root / folder).mkdir(parents=True)
        (root / folder / "registry_2024.txt").write_text(_line(tile))
    return root


def _archive(root: Path) -> Path:
    root.mkdir()
    with zipfile.ZipFile(root / "all.zip", "w") as archive:
        archive.writestr("v1/registry_2024.txt", _line(ONE))
        archive.writestr("v2/registry_2024.txt", _line(TWO))
    return root / "all.zip"


def _lines(root: Path) -> Path:
    root.mkdir()
    (root / "registry_2024.txt").write_text(_line(ONE, "v1/") + _line(TWO, "v2/"))
    return root / "registry_2024.txt"


@pytest.mark.parametrize("lay_out", [_data, _sidecar, _broken, _registries, _archive, _lines])
def test_an_unknown_dataset_is_never_v1(tmp_path: Path, lay_out: Callable[[Path], Path]) -> None:
    source = lay_out(tmp_path / "src")
    done = build(source, "--out", tmp_path / "c")
    assert done.returncode == 0, done.stderr
    assert "1 tile-years of 1 tiles" in done.stdout
    assert "1 unknown dataset" in done.stdout
    (said,) = (line for line in done.stderr.splitlines() if "dataset" in line)
    assert "/v2: the folder 'v2'" in said or "v2: the folder 'v2'" in said or "tessera_metadata.json" in said


@pytest.mark.parametrize("lay_out", [_data, _registries, _archive, _lines])
def test_who_says_the_dataset_gets_it(tmp_path: Path, lay_out: Callable[[Path], Path]) -> None:
    source = lay_out(tmp_path / "src")
    done = build(source, "--out", tmp_path / "c", "--dataset", "v2-2B-L~beta1")
    assert done.returncode == 0, done.stderr
    assert "tessera-v2-2B-L~beta1, 1 tile-years of 1 tiles" in done.stdout


@pytest.mark.parametrize("name", ["v2", "v1.1-cam"])
def test_the_name_of_the_folder_that_is_given(tmp_path: Path, name: str) -> None:
    make_tree(tmp_path / name, [ONE])
    (tmp_path / "list" / name).mkdir(parents=True)
    (tmp_path / "list" / name / "registry_2024.txt").write_text(_line(ONE))
    for source in (tmp_path / name, f"{tmp_path / name}/", tmp_path / "list" / name / "registry_2024.txt"):
        done = build(source, "--out", tmp_path / "c")
        assert done.returncode in (1, 2), done.stdout
        assert name in done.stderr
        assert not (tmp_path / "c" / "tessera-v1").exists()
    said = build(tmp_path / name, "--out", tmp_path / "c", "--dataset", "v1")
    assert said.returncode == 0, "a local folder may have any name, and the user says what it is"


def test_what_is_no_file_is_a_problem(tmp_path: Path) -> None:
    make_tree(tmp_path / "src", [ONE])
    folder = tmp_path / "src" / "2024" / TWO[1]
    folder.mkdir()
    os.mkfifo(folder / f"{TWO[1]}.npy")
    (folder / f"{TWO[1]}_scales.npy").symlink_to("gone.npy")
    (tmp_path / "src" / "disk").symlink_to("/not/there")
    done = build(tmp_path / "src", "--out", tmp_path / "c")
    assert done.returncode == 1, "a disk that is not mounted: the catalogue is not all there is"
    assert "1 tile-years of 1 tiles" in done.stdout
    for path, why in (
        (folder / f"{TWO[1]}.npy", "a named pipe, not a file"),
        (folder / f"{TWO[1]}_scales.npy", "a link to gone.npy, which is not there"),
        (tmp_path / "src" / "disk", "a link to /not/there, which is not there"),
    ):
        assert f"problem: {path}: {why}" in done.stderr


def test_a_folder_that_cannot_be_read_removes_nothing(tmp_path: Path) -> None:
    """What is in it is not known, so nothing is said to be gone."""
    make_tree(tmp_path / "src", [ONE, TWO])
    assert build(tmp_path / "src", "--out", tmp_path / "c").returncode == 0
    closed = tmp_path / "src" / "2024" / TWO[1]
    closed.chmod(0)
    done = build(tmp_path / "src", "--out", tmp_path / "c", preexec_fn=without_privileges)
    closed.chmod(0o755)
    assert done.returncode == 1
    assert f"{closed}: a folder that cannot be read: permission denied" in done.stderr
    again = build(tmp_path / "src", "--out", tmp_path / "c")
    assert "2 tile-years of 2 tiles (unchanged)" in again.stdout


def test_an_empty_result_says_what_was_wrong(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("# hello\n")
    done = build(tmp_path / "notes.md", "--out", tmp_path / "c")
    assert done.returncode == 1
    assert f"such as {tmp_path}/notes.md: not a manifest: expected lines of" in done.stderr
