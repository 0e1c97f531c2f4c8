"""What the packages import is declared, and what is declared is imported: in both directions.

An import that only type checkers follow may be of the development group; one of an extra is allowed in the
rooms that need it, and nowhere else.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = ("catalog_builder", "api")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = {
    "dask": ["catalog_builder/convert/workers/dask"],
    "pgstac": ["api/pgstac/", "catalog_builder/publish/pgstac/"],
    "formats": ["catalog_builder/vectors/"],
    "frames": ["catalog_builder/public/frames.py"],
    "oidc": ["api/readers/"],
    "tiles": ["api/pictures/"],
    "vectors": ["catalog_builder/tile/regions/files.py", "catalog_builder/vectors/tables/"],
    "zarr": ["catalog_builder/stores/", "catalog_builder/synthetic/stores/"],
}
"""Where what an extra installs may be imported: beginnings of paths."""
BY_NAME = {
    "httptools": "api/server.py",  # uvicorn's protocol of this name
    "uvloop": None,  # uvicorn takes it where it is installed
    "h5netcdf": "catalog_builder/vectors/regions/write.py",  # xarray's engine of this name
    "h5py": None,  # what h5netcdf writes with
    "numcodecs": None,  # PCodec, which zarr wraps
}
"""Declared and used without an import of ours, and the file that names it."""


class Import(NamedTuple):
    """A module that a file imports."""

    file: str
    module: str
    for_types: bool


def imports(packages: tuple[str, ...] = PACKAGES) -> Iterator[Import]:
    """Yield all imports of other people's modules, also inside functions."""
    for package in packages:
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            for_types = {
                id(inner)
                for node in ast.walk(tree)
                if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
                for inner in ast.walk(node)
            }
            for node in ast.walk(tree):
                for module in _modules(node):
                    if module.partition(".")[0] not in {*PACKAGES, *sys.stdlib_module_names}:
                        yield Import(str(path.relative_to(ROOT)), module, id(node) in for_types)


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


@cache
def modules_of(name: str) -> frozenset[str]:
    """Return the modules that a distribution installs, with its parts: pystac is pystac-core and others."""
    found: set[str] = set()
    for file in distribution(name).files or ():
        path = PurePosixPath(str(file))
        if path.suffix in (".py", ".so") and not path.parts[0].startswith(".."):
            parts = [*path.parts[:-1], path.name.partition(".")[0]]
            found.add(".".join(parts).removesuffix(".__init__"))
    required = {canonicalize_name(Requirement(r).name) for r in distribution(name).requires or ()}
    for part in required:
        if part.startswith(f"{canonicalize_name(name)}-"):
            with suppress(PackageNotFoundError):  # of an extra
                found |= modules_of(part)
    return frozenset(found)


def provides(name: str, module: str) -> bool:
    """Whether a distribution installs a module, or one of that name's parents (the rest is a name in it)."""
    parts = module.split(".")
    return any(".".join(parts[:n]) in modules_of(name) for n in range(1, len(parts) + 1))


def names_of(requirements: list[str]) -> set[str]:
    """Return the distributions that requirements name, with those of their own extras."""
    found = set()
    for text in requirements:
        requirement = Requirement(text)
        found.add(canonicalize_name(requirement.name))
        for extra in requirement.extras:
            for inner in map(Requirement, distribution(requirement.name).requires or ()):
                if inner.marker is not None and f'"{extra}"' in str(inner.marker):
                    found.add(canonicalize_name(inner.name))
    return found


WORKED = "examples"
"""The extra of what README and examples/ import, which is no room's."""
CORE = names_of(PROJECT["project"]["dependencies"])
OPTIONAL = {name: names_of(r) for name, r in PROJECT["project"]["optional-dependencies"].items()}
DEVELOPMENT = names_of(PROJECT["dependency-groups"]["dev"])


@pytest.mark.slow
def test_imports_are_declared() -> None:
    found = list(imports())
    assert len(found) > 300
    undeclared = []
    for one in found:
        allowed = CORE | (DEVELOPMENT if one.for_types else set())
        for extra, places in EXTRAS.items():
            if any(one.file.startswith(place) for place in places):
                allowed |= OPTIONAL[extra]
        if not any(provides(name, one.module) for name in allowed):
            undeclared.append(one)
    assert undeclared == []


def test_what_is_declared_is_imported() -> None:
    modules = {one.module for one in imports()}
    declared = [Requirement(r) for r in PROJECT["project"]["dependencies"]]
    extras = PROJECT["project"]["optional-dependencies"]
    declared += [Requirement(r) for name, rs in extras.items() for r in rs if name != WORKED]
    idle = {r.name for r in declared if not any(provides(r.name, module) for module in modules)}
    assert idle == set(BY_NAME)
    for name, file in BY_NAME.items():
        assert file is None or re.search(rf"\b{name}", (ROOT / file).read_text()), name


def test_extras_are_declared() -> None:
    assert {*EXTRAS, WORKED} == set(OPTIONAL)
    for places in EXTRAS.values():
        for place in places:
            assert list(ROOT.glob(f"{place}*")), f"{place}: no such room"


def test_what_readme_and_examples_import_is_the_extra_examples() -> None:
    """Of what is beside the package itself, all and nothing else but what xarray and pandas load by name."""
    readme = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    modules = {m for text in readme for node in ast.walk(ast.parse(text)) for m in _modules(node)}
    modules |= {one.module for one in imports(("examples",)) if "make_notebooks" not in one.file}
    modules = {
        m for m in modules if m.partition(".")[0] not in {*PACKAGES, "tessera_stac", *sys.stdlib_module_names}
    }
    assert len(modules) > 15
    worked = OPTIONAL[WORKED]
    assert not [m for m in modules if not any(provides(name, m) for name in CORE | worked)]
    idle = {name for name in worked if not any(provides(name, m) for m in modules)}
    assert idle <= {"zarr", "xarray", "pandas"}
