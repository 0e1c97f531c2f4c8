"""The image and compose.yaml: every rule that matters, and every command run but for the engine."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.container_files import (
    COMPOSE,
    compose,
    copied,
    exec_form,
    inherited,
    last,
    stages,
)
from tests.deploy.processes import ROOT, serving, tessera_stac
from tests.support.catalogs import build_from, patch, truncate, write_manifest
from tests.support.needs import lacks
from tests.support.ports import free_port

TARGETS = ("api", "pgstac")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("container")
    build_from(folder / "catalog", write_manifest(folder, 2024, patch(0, 52, 4, 3)))
    return folder / "catalog"


def test_every_stage_is_pinned_checked_and_copies_what_there_is() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    every = stages()
    assert tuple(every)[-1] == "api", "the default target"
    for stage in every.values():
        assert stage.base in every or re.fullmatch(r"\w+:\d+(\.\d+)?-[a-z-]+", stage.base), stage.base
        assert not stage.all("ADD")
        for source in copied(stage):
            assert (ROOT / source).exists(), source
            assert any(source == a or source.startswith(f"{a}/") for a in allowed), f".dockerignore: {source}"
        for command in stage.all("RUN"):
            assert not re.search(r"curl|wget|\| *(ba)?sh\b", command)
            if "apt-get install" in command:
                assert "--no-install-recommends" in command
                assert "rm -rf /var/lib/apt/lists" in command
            if "pip install" in command:
                assert "--require-hashes" in command or "--no-deps --no-build-isolation" in command


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_is_not_root_s_and_says_how_it_is(target: str) -> None:
    steps = inherited(target)
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", last(steps, "USER"))
    assert last(steps, "STOPSIGNAL") == "SIGTERM"
    assert "/_mgmt/ready" in last(steps, "HEALTHCHECK")
    assert exec_form(last(steps, "ENTRYPOINT")) == ["tessera-stac"]
    # nothing of the stages that build comes along but the environment
    assert [text for kind, text in steps if kind == "COPY"] == [
        f"--from=project-{target} /opt/tessera-stac /opt/tessera-stac"
    ]


@pytest.mark.parametrize(
    ("lock", "extras"), [("requirements.lock", ()), ("deploy/pgstac/requirements.lock", ("pgstac",))]
)
def test_the_lock_of_each_target_holds_what_the_package_needs(lock: str, extras: tuple[str, ...]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *(d for extra in extras for d in project["project"]["optional-dependencies"][extra]),
        *(d for d in project["dependency-groups"]["build"]),
    ]
    locked = {
        canonicalize_name(name)
        for name in re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==", (ROOT / lock).read_text(), re.MULTILINE)
    }
    missing = {canonicalize_name(Requirement(text).name) for text in wanted} - locked
    assert not missing


def _with(words: list[str], catalog: Path, port: int) -> list[str]:
    """Return arguments of a container as they are on this machine."""
    here = {"/catalog": str(catalog), "8000": str(port), "0.0.0.0": "127.0.0.1"}
    return [here.get(w, w) for w in words]


def test_the_image_s_command_runs_and_its_health_check_tells(catalog: Path) -> None:
    steps = inherited("api")
    port = free_port()
    verb = _with(exec_form(last(steps, "CMD")), catalog, port)
    check = [w.replace("8000", str(port)) for w in exec_form(last(steps, "HEALTHCHECK"))]
    assert check.pop(0) == "python"

    def healthy() -> bool:
        return subprocess.run([sys.executable, *check], capture_output=True).returncode == 0

    assert not healthy()
    with serving(tessera_stac(*verb), port) as running:
        assert httpx.get(f"{running.url}/search?limit=1").json()["numberMatched"] == 12
        assert healthy()
    assert not healthy()


def test_what_the_image_copies_makes_the_whole_package(tmp_path: Path) -> None:
    """The build's last step on the files that it has, with the build backend of the lock."""
    source = tmp_path / "src"
    for name in copied(stages()["project-api"]):
        target = source / Path(name).name
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", ROOT / name, target], check=True)
    (source / "api" / "browser_dist").mkdir(exist_ok=True)
    (source / "api" / "browser_dist" / "index.html").write_text("from the browser stage")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist"],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as made:
        names = set(made.namelist())
        (entry_points,) = (n for n in names if n.endswith("entry_points.txt"))
        assert "tessera-stac = catalog_builder.cli:main" in made.read(entry_points).decode()
    tracked = subprocess.run(
        ["git", "ls-files", "api", "catalog_builder"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(tracked) > 100
    assert {*tracked, "api/browser_dist/index.html"} <= names


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return compose(CATALOG="/srv/catalog")


def test_compose_follows_its_specification(document: dict[str, Any]) -> None:
    schema = json.loads(
        (files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json").read_text()
    )
    jsonschema.validators.validator_for(schema)(schema).validate(document)
    broken = {**document, "services": {**document["services"], "api": {"imagee": "x"}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validators.validator_for(schema)(schema).validate(broken)


def test_compose_is_closed_and_whole(document: dict[str, Any]) -> None:
    services: dict[str, dict[str, Any]] = document["services"]
    assert {p for s in services.values() for p in s.get("profiles", [])} == {"pgstac", "titiler", "build"}
    for name, service in services.items():
        for other in service.get("depends_on", {}):
            started = set(services[other].get("profiles", service.get("profiles", [])))
            assert set(service.get("profiles", [])) <= started, (
                f"{name} waits for {other}, which is not started"
            )
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                own_image = services[other].get("image", "").startswith("tessera-stac")
                assert own_image or "healthcheck" in services[other], other
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("./"):
                assert (COMPOSE.parent / source).is_file(), source
            elif source.startswith("/"):
                assert volume.endswith(":ro") or name == "build", "one service only writes to the catalogue"
        if "build" in service:
            built = service["build"]
            assert (COMPOSE.parent / built["context"] / built["dockerfile"]).is_file()
            assert built["target"] in stages()
        if name != "database":
            assert service["read_only"]
            assert service["cap_drop"] == ["ALL"]
            assert service["init"]
        if "image" in service and not service["image"].startswith("tessera-stac"):
            assert re.fullmatch(r"[\w./-]+:\d[\w.-]+", service["image"]), "a pinned tag"
    ports = [p.partition(":")[0] for s in services.values() for p in s.get("ports", [])]
    assert len(ports) == len(set(ports))


def test_the_api_and_the_build_of_compose_run(
    document: dict[str, Any], catalog: Path, tmp_path: Path
) -> None:
    service = document["services"]["api"]
    port = free_port()
    command = tessera_stac(*_with(service["command"], catalog, port))
    with serving(command, port, **service["environment"]) as running:
        assert len(running.workers()) >= 1
        assert httpx.get(f"{running.url}/search?limit=1").json()["numberMatched"] == 12
    (tmp_path / "manifests").mkdir()
    write_manifest(tmp_path / "manifests", 2024, patch(0, 52, 2, 2))
    words = document["services"]["build"]["command"]
    command = tessera_stac(*(w.replace("/catalog", str(tmp_path)) for w in words))
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    before = (tmp_path / "index.sqlite").read_bytes()
    truncate(tmp_path / "manifests" / "registry_2024.txt")
    assert subprocess.run(command, capture_output=True, cwd=ROOT).returncode == 1
    assert (tmp_path / "index.sqlite").read_bytes() == before


def test_the_browser_s_recipe_runs_on_debian_s_python(tmp_path: Path) -> None:
    """The node stage has Python 3.11.2, whose tarfile knows no filters: nothing newer may be used."""
    python = Path("/usr/bin/python3")
    said = subprocess.run(
        [python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True
    )
    if said.returncode or tuple(map(int, said.stdout.split())) > (3, 11):
        lacks(f"the distribution's Python is {said.stdout.strip() or 'missing'}, not Debian 12's 3.11")
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("package/package.json")
        info.size = 2
        archive.addfile(info, io.BytesIO(b"{}"))
    script = (
        "import build, pathlib\n"
        "work = pathlib.Path('.').resolve()\n"
        "assert (build.unpack(work / 'a.tgz', work) / 'package.json').read_text() == '{}'\n"
        "build.replace_folder(work / 'package', work / 'out')\n"
        "print(build.fingerprint(), build.missing_tool())"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "deploy" / "browser")}
    done = subprocess.run(
        [python, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "package.json").exists()
