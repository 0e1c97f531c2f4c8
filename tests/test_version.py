"""Which code runs: told by checkouts, wheels and source distributions, git or no git."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from catalog_builder import __version__
from catalog_builder.version import RECORD, head

pytestmark = pytest.mark.service

ROOT = Path(__file__).parents[1]
SAY = "from catalog_builder.version import full_version, described; print(full_version()); print(described())"


def _git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _commit(folder: Path, text: str) -> str:
    (folder / "file.txt").write_text(text)
    _git(folder, "add", ".")
    _git(folder, "commit", "-qm", text)
    return _git(folder, "rev-parse", "HEAD")


def test_the_commit_is_read_as_git_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    assert head(folder) == "", "no repository"
    _git(folder, "init", "-q")
    assert head(folder) == "", "no commit yet"
    first, second = _commit(folder, "one"), _commit(folder, "two")
    assert head(folder) == second
    _git(folder, "pack-refs", "--all")
    assert not (folder / ".git" / "refs" / "heads" / "main").exists()
    assert head(folder) == second, "refs in one file"
    third = _commit(folder, "three")
    assert head(folder) == third, "a newer ref beside that file"
    _git(folder, "checkout", "-q", first)
    assert head(folder) == first, "detached"
    _git(folder, "worktree", "add", "-q", "-b", "feature/x", str(tmp_path / "tree"), second)
    assert head(tmp_path / "tree") == second, "a worktree"
    fourth = _commit(tmp_path / "tree", "four")
    assert head(tmp_path / "tree") == fourth
    _git(folder, "pack-refs", "--all")
    assert head(tmp_path / "tree") == fourth, "a worktree's ref in the file of all"
    assert head(folder) == first
    assert head(folder / "sub") == "", "another project inside a repository is not of its commit"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with all that a wheel is built from."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("catalog_builder", "api"):
        left_out = shutil.ignore_patterns("__pycache__", "browser_dist", RECORD)
        shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    (folder / ".gitignore").write_text("__pycache__\n")
    _git(folder, "init", "-q")
    _commit(folder, "all of it")
    return folder


def _said(where: Path, *, git: bool = True) -> tuple[str, str]:
    """Return what the package in a folder says of itself."""
    environment = {"PYTHONPATH": str(where), "PATH": os.environ["PATH"] if git else "/nowhere"}
    command = [sys.executable, "-S", "-c", SAY]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=True)
    full, described = done.stdout.splitlines()
    return full, described


def _built(source: Path, kind: str, folder: Path, **environment: str) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(
        command, cwd=source, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    (made,) = folder.iterdir()
    assert made.name.startswith(f"tessera_stac-{__version__}")
    if kind == "sdist":
        shutil.unpack_archive(made, folder, filter="data")
        return next(p for p in folder.iterdir() if p.is_dir())
    with zipfile.ZipFile(made) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def test_a_wheel_says_what_its_checkout_says(checkout: Path, tmp_path: Path) -> None:
    commit = _git(checkout, "rev-parse", "HEAD")
    full, described = _said(checkout)
    assert full.startswith(f"{__version__}+g{commit[:12]}.")
    assert described == f"{__version__} (commit {commit[:12]})"
    assert _said(checkout, git=False) == (full, described)

    wheel = _built(checkout, "wheel", tmp_path / "wheel")
    assert _said(wheel, git=False) == (full, described)
    source = _built(checkout, "sdist", tmp_path / "sdist")
    assert _said(_built(source, "wheel", tmp_path / "again"), git=False) == (full, described)
    assert _git(checkout, "status", "--porcelain") == "", "a build leaves nothing in the checkout"


def test_stac_browser_is_in_wheels_by_way_of_the_sdist_too(checkout: Path, tmp_path: Path) -> None:
    """What ``make browser`` makes is in no commit, and ``python -m build`` makes the wheel from the sdist."""
    folder = tmp_path / "checkout"
    shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text("__pycache__\napi/browser_dist/\n")
    page = folder / "api" / "browser_dist" / "js" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("the browser")
    source = _built(folder, "sdist", tmp_path / "sdist")
    for made in (_built(folder, "wheel", tmp_path / "wheel"), _built(source, "wheel", tmp_path / "again")):
        assert (made / page.relative_to(folder)).read_text() == "the browser"
        assert (made / "tessera_stac" / "__init__.py").is_file()


def test_a_wheel_of_changed_code_says_so(checkout: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(checkout, changed, ignore=shutil.ignore_patterns("__pycache__"))
    with (changed / "catalog_builder" / "errors.py").open("a") as file:
        file.write("# a change\n")
    clean, (full, described) = _said(checkout), _said(changed)
    assert full != clean[0]
    assert full.rpartition(".")[0] == clean[0].rpartition(".")[0], "the same commit"
    assert described == clean[1].replace(")", ", with uncommitted changes)")
    assert _said(changed, git=False)[0] == full, "machines that share a checkout agree without git"
    assert _said(_built(changed, "wheel", tmp_path / "wheel"), git=False) == (full, described)


def test_an_image_is_told_its_commit(checkout: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(checkout, bare, ignore=shutil.ignore_patterns("__pycache__", ".git"))
    assert _said(bare)[1] == f"{__version__} (commit unknown)"
    commit = _git(checkout, "rev-parse", "HEAD")
    assert _said(_built(bare, "wheel", tmp_path / "wheel", TESSERA_STAC_COMMIT=commit)) == _said(checkout)


def test_the_command_says_it() -> None:
    command = [sys.executable, "-m", "catalog_builder.cli", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    commit = head(ROOT)[:12] or "unknown"
    assert done.stdout.startswith(f"tessera-stac {__version__} (commit")
    assert commit in done.stdout
