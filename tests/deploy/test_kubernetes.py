"""The Kubernetes manifests: valid by Kubernetes' own schemas, and their commands and probes run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from catalog_builder.synthetic.sample import sample_set
from catalog_builder.tile.datasets import dataset
from tests.deploy.kustomize import Manifest, pod_templates, render
from tests.deploy.processes import DEPLOY, ROOT, serving, tessera_stac
from tests.support.catalogs import build_from, patch, truncate, write_manifest
from tests.support.converted import CONVERTED
from tests.support.needs import lacks
from tests.support.ports import free_port
from tests.support.waiting import until

HOME = DEPLOY / "kubernetes"
FOLDERS = ("base", "convert", "overlays/s3", "overlays/pgstac")
VERSIONS = ("1.30", "1.34")
"""The oldest and a newer Kubernetes that the manifests are checked against."""


@cache
def _rendered(folder: str) -> tuple[Manifest, ...]:
    return tuple(render(HOME / folder))


def _pods(folder: str) -> list[tuple[str, Manifest]]:
    return [(m["metadata"]["name"], t["spec"]) for m in _rendered(folder) for t in pod_templates(m)]


def _one(folder: str, kind: str, name: str) -> Manifest:
    (found,) = (m for m in _rendered(folder) if (m["kind"], m["metadata"]["name"]) == (kind, name))
    return found


def _container(folder: str, kind: str, name: str) -> Manifest:
    (template,) = pod_templates(_one(folder, kind, name))
    (container,) = template["spec"]["containers"]
    found: Manifest = container
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_valid_by_the_schemas(folder: str) -> None:
    for version in VERSIONS:
        for manifest in _rendered(folder):
            kubernetes_validate.validate(manifest, version, strict=True)
    broken = {**_rendered(folder)[-1], "specc": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_kubectl_makes_the_same(folder: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        lacks("kubectl is not installed (of Kubernetes 1.25 or newer: Debian's is too old)")
    made = subprocess.run([kubectl, "kustomize", HOME / folder], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr

    def key(manifest: Manifest) -> tuple[str, str]:
        return manifest["kind"], manifest["metadata"]["name"]

    theirs = sorted(yaml.safe_load_all(made.stdout), key=key)
    assert sorted(_rendered(folder), key=key) == theirs


@pytest.mark.parametrize("folder", FOLDERS)
def test_pods_keep_to_the_restricted_standard(folder: str) -> None:
    """What the label of our namespace enforces: Kubernetes' own list."""
    pods = _pods(folder)
    assert pods
    for name, pod in pods:
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] > 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        assert all(v.keys() & {"persistentVolumeClaim", "emptyDir"} for v in pod["volumes"])
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
            mounted = {m["name"] for m in container["volumeMounts"]}
            assert mounted == {v["name"] for v in pod["volumes"]}
            assert re.fullmatch(r"registry\.example\.org/tessera-stac:[\d.]+(-pgstac)?", container["image"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_lead_somewhere(folder: str) -> None:
    there = {(m["kind"], m["metadata"]["name"]) for m in (*_rendered(folder), *_rendered("base"))}
    if folder == "overlays/s3":
        there.remove(("PersistentVolumeClaim", "catalogue"))
    for _, pod in _pods(folder):
        for volume in pod["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                assert ("PersistentVolumeClaim", claim["claimName"]) in there
        for source in (s for c in pod["containers"] for s in c.get("envFrom", [])):
            ((kind, ref),) = source.items()
            assert ({"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind], ref["name"]) in there


def test_selectors_and_targets_fit() -> None:
    deployment = _one("base", "Deployment", "api")
    wanted = deployment["spec"]["selector"]["matchLabels"].items()
    assert wanted <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert _one("base", "Service", "api")["spec"]["selector"].items() == wanted
    assert _one("base", "PodDisruptionBudget", "api")["spec"]["selector"]["matchLabels"].items() == wanted
    assert _one("base", "NetworkPolicy", "api")["spec"]["podSelector"]["matchLabels"].items() == wanted
    scaler = _one("base", "HorizontalPodAutoscaler", "api")["spec"]
    assert scaler["scaleTargetRef"]["name"] == "api"
    assert "replicas" not in deployment["spec"], "two would decide"
    assert scaler["minReplicas"] > _one("base", "PodDisruptionBudget", "api")["spec"]["minAvailable"]
    others = [m for m in _rendered("base") if m["kind"] == "Service" and m["metadata"]["name"] != "api"]
    labels = [t["metadata"]["labels"] for m in _rendered("base") for t in pod_templates(m)]
    assert not [x for s in others for x in labels if s["spec"]["selector"].items() <= x.items()]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kubernetes")
    build_from(folder / "catalog", write_manifest(folder, 2024, patch(0, 52, 4, 3)))
    return folder / "catalog"


def _here(arguments: list[str], **changes: str) -> list[str]:
    for old, new in changes.items():
        arguments = [a.replace(old.replace("_", "/"), new) for a in arguments]
    return tessera_stac(*arguments)


def test_the_probes_ask_what_the_server_answers(catalog: Path) -> None:
    container = _container("base", "Deployment", "api")
    (port,) = container["ports"]
    arguments = container["args"]
    assert arguments[arguments.index("--port") + 1] == str(port["containerPort"])
    mine = free_port()
    command = [a.replace("8000", str(mine)) for a in _here(arguments, _catalog=str(catalog))]
    settings = _one("base", "ConfigMap", "settings")["data"]
    with serving([a.replace("0.0.0.0", "127.0.0.1") for a in command], mine, **settings) as running:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["port"] == port["name"]
            assert httpx.get(f"{running.url}{asked['path']}").status_code == 200, probe
        assert container["readinessProbe"]["httpGet"]["path"] == "/_mgmt/ready"
        annotations = _one("base", "Deployment", "api")["spec"]["template"]["metadata"]["annotations"]
        assert "tessera_requests_total" in httpx.get(f"{running.url}{annotations['prometheus.io/path']}").text
        assert annotations["prometheus.io/port"] == str(port["containerPort"])
        until(lambda: len(running.workers()) == 2)  # one of them was ready first


def test_the_build_job_runs(tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifests", 2024, patch(0, 52, 4, 3))
    command = _here(_container("base", "CronJob", "build")["args"], _catalog=str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    before = (tmp_path / "catalog.json").read_bytes(), (tmp_path / ".current").readlink()
    truncate(tmp_path / "manifests" / "registry_2024.txt")
    failed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert failed.returncode == 1, "the job has failed, and is retried"
    assert "unchanged" in failed.stderr
    assert ((tmp_path / "catalog.json").read_bytes(), (tmp_path / ".current").readlink()) == before


def test_the_conversion_job_converts_every_tile_once(tmp_path: Path) -> None:
    """Three pods of as many as there are, each with the index that Kubernetes would give it."""
    sample = sample_set(tmp_path / "source", tile_years=CONVERTED[:2], workers=1)
    build_from(
        tmp_path / "catalog",
        sample.root,
        dataset=dataset("synthetic").directory,
        source_root=str(sample.embeddings),
        landmask_root=str(sample.landmasks),
    )
    job = _one("convert", "Job", "convert")["spec"]
    container = _container("convert", "Job", "convert")
    env = {e["name"]: e.get("value") for e in container["env"]}
    assert job["completionMode"] == "Indexed"
    assert int(env["SHARDS"]) == job["completions"] >= job["parallelism"]
    assert "JOB_COMPLETION_INDEX" in env, "an argument may name what is declared only"
    shards = 3  # of the 64, most have nothing to do with two tiles
    converted = []
    for index in range(shards):
        values = {"JOB_COMPLETION_INDEX": str(index), "SHARDS": str(shards)}
        words = list(container["args"])
        for name, value in values.items():
            words = [w.replace(f"$({name})", value) for w in words]
        words[words.index("--workers") + 1] = "0"
        command = [*_here(words, _catalog=str(tmp_path / "catalog")), "--no-sync", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        converted.append(json.loads(done.stdout)["converted"])
    assert sum(converted) == 2
    assert len(list((tmp_path / "catalog" / "cogs").rglob("*_embeddings.tif"))) == 2


def test_overlays_change_what_they_say() -> None:
    api = _container("overlays/s3", "Deployment", "api")
    assert api["args"][:2] == ["serve", "s3://tessera-catalogue/v1"]
    build = _container("overlays/s3", "CronJob", "build")["args"]
    assert build[-2:] == ["--out", api["args"][1]]
    assert not any(m["kind"] == "PersistentVolumeClaim" for m in _rendered("overlays/s3"))
    api = _container("overlays/pgstac", "Deployment", "api")
    assert {e["name"]: e["value"] for e in api["env"]} == {"TESSERA_STAC_BACKEND": "pgstac"}
    secret: dict[str, Any] = _one("overlays/pgstac", "Secret", "database")["stringData"]
    assert {"PGHOST", "PGUSER", "PGPASSWORD", "PGDATABASE"} <= secret.keys()
