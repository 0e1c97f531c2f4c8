"""What `kubectl kustomize` makes of our manifests, for machines without kubectl.

Only what our files use: resources, namespace, labels, images, JSON patches and deletions. Where kubectl
is, a test compares the two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]
_WITHOUT_NAMESPACE = {"Namespace"}


def render(folder: Path) -> list[Manifest]:
    """Return the manifests that a folder's ``kustomization.yaml`` stands for."""
    plan = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = plan.keys() - {
        "apiVersion", "kind", "namespace", "labels", "images", "resources", "patches"
    }  # fmt: skip
    assert not unknown, f"{folder}: this reader does not know {unknown}"
    found: list[Manifest] = []
    for name in plan["resources"]:
        path = folder / name
        found += render(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for patch in plan.get("patches", []):
        found = _patched(found, patch)
    for manifest in found:
        if "namespace" in plan and manifest["kind"] not in _WITHOUT_NAMESPACE:
            manifest["metadata"]["namespace"] = plan["namespace"]
        for labels in plan.get("labels", []):
            _label(manifest, labels["pairs"], templates=labels.get("includeTemplates", False))
        for image in plan.get("images", []):
            _rename(manifest, image)
    return found


def _patched(manifests: list[Manifest], patch: Manifest) -> list[Manifest]:
    wanted = patch["target"]
    changes = yaml.safe_load(patch["patch"])
    chosen = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == (wanted["kind"], wanted["name"])]
    assert len(chosen) == 1, f"a patch of {wanted} fits {len(chosen)} manifests"
    if isinstance(changes, dict):
        assert changes["$patch"] == "delete"
        return [m for m in manifests if m is not chosen[0]]
    for change in changes:
        _apply(chosen[0], change)
    return manifests


def _apply(manifest: Manifest, change: Manifest) -> None:
    """Do one operation of RFC 6902."""
    *way, last = change["path"].lstrip("/").split("/")
    at: Any = manifest
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at[step]
    if isinstance(at, list) and change["op"] == "add":
        at.insert(len(at) if last == "-" else int(last), change["value"])
        return
    key = int(last) if isinstance(at, list) else last
    if change["op"] == "remove":
        del at[key]
    else:
        if change["op"] == "replace":
            at[key]
        at[key] = change["value"]


def _label(manifest: Manifest, pairs: dict[str, str], *, templates: bool) -> None:
    """Add labels to a manifest and, if ``templates``, to the pods that it makes."""
    places = [manifest, *(pod_templates(manifest) if templates else ())]
    if templates and manifest["kind"] == "CronJob":
        places.append(manifest["spec"]["jobTemplate"])
    for place in places:
        metadata = place.setdefault("metadata", {})
        metadata["labels"] = metadata.get("labels", {}) | pairs


def _rename(manifest: Manifest, image: dict[str, str]) -> None:
    for template in pod_templates(manifest):
        for container in template["spec"]["containers"]:
            if container["image"].rpartition(":")[0] == image["name"] or container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"


def pod_templates(manifest: Manifest) -> list[Manifest]:
    """Return the templates of pods in a manifest."""
    if manifest["kind"] == "CronJob":
        return [manifest["spec"]["jobTemplate"]["spec"]["template"]]
    return [manifest["spec"]["template"]] if manifest["kind"] in ("Deployment", "Job") else []
