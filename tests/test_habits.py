"""The same commands everywhere: what a commit, a person and CI run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def _recipe(target: str) -> list[str]:
    """Return the commands of a target of the Makefile."""
    found = re.search(rf"^{target}:[^\n]*\n((?:\t[^\n]*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None, target
    return [line.strip().replace("$(BIN)", ".venv/bin") for line in found[1].splitlines()]


def test_a_commit_runs_what_lint_runs_without_a_network() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks = {hook["id"]: hook for hook in config["repos"][0]["hooks"]}
    lint = _recipe("lint")
    for name, command in (("ruff-check", "ruff check"), ("ruff-format", "ruff format"), ("mypy", "mypy")):
        assert hooks[name]["language"] == "system"
        assert hooks[name]["entry"].startswith(f".venv/bin/{command}")
        assert any(line.startswith(f".venv/bin/{command}") for line in lint), command


def test_ci_runs_the_targets_that_people_run() -> None:
    run = (ROOT / ".ci" / "run").read_text()
    targets = re.findall(r"^make (\S+)$", run, re.MULTILINE)
    assert targets == ["lint", "docs", "test"]
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert set(targets) <= set(phony[1].split())


def test_every_lock_is_made_by_make_lock() -> None:
    made = set(re.findall(r"-o (\S+\.lock)", "\n".join(_recipe("lock"))))
    found = [*ROOT.glob("*.lock"), *(ROOT / "deploy").rglob("*.lock")]
    assert made == {path.relative_to(ROOT).as_posix() for path in found}
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert all(f"--group {group}" in "\n".join(_recipe("lock")) for group in groups)


def test_what_contributing_names_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = set(re.findall(r"`((?:catalog_builder|api|tests|deploy|docs)/[\w/.-]+)`", text))
    assert len(paths) > 10
    assert not [path for path in paths if not (ROOT / path).exists()]
    for name, path in (
        ("CONTAINERS", "catalog_builder/pixels/container/table.py"),
        ("CONTAINERS", "tests/pixels/conftest.py"),
        ("DATASETS", "catalog_builder/tile/datasets.py"),
        ("FORMATS", "catalog_builder/publish/export.py"),
        ("QUERYABLES", "api/filter/queryables.py"),
        ("item_template", "catalog_builder/item/item.py"),
    ):
        assert f"`{name}`" in text
        assert re.search(rf"^(def )?{name}\b", (ROOT / path).read_text(), re.MULTILINE), name
    for target in re.findall(r"make ([a-z-]+)", text):
        _recipe(target)
