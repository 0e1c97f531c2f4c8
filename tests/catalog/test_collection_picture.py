"""The collection's thumbnail: made by the build, listed as an asset, left alone when nothing changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from catalog_builder.catalog.coverage.picture import ALPHA, COLORS
from tests.support.catalogs import build_from, patch, write_manifest


def shown(file: Path, name: str) -> int:
    """Count pixels in the colour of a class, on the map's ground."""
    ground = np.array([243, 246, 249])
    colour = np.round(np.array(COLORS[name]) * ALPHA + ground * (1 - ALPHA))
    pixels = np.asarray(Image.open(file).convert("RGB")).astype(int)
    return int((np.abs(pixels - colour).max(axis=2) <= 2).sum())


def test_thumbnail_follows_the_tiles(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    old = write_manifest(tmp_path / "a", 2023, patch(0, 52, 4, 4))
    new = write_manifest(tmp_path / "b", 2024, patch(0, 52, 4, 4))
    build_from(catalog, old, new)
    collection = json.loads((catalog / "tessera-v1" / "collection.json").read_text())
    asset = collection["assets"]["thumbnail"]
    assert (asset["type"], asset["roles"]) == ("image/png", ["thumbnail"])
    file = catalog / "tessera-v1" / asset["href"]
    assert max(Image.open(file).size) < 1200
    assert file.stat().st_size < 100_000
    whole = shown(file, "full")
    assert whole > 1000
    assert not shown(file, "partial") or shown(file, "partial") < whole / 20  # the legend's swatch
    before = (file.stat().st_ino, file.read_bytes())
    assert not build_from(catalog, old, new).published
    assert (file.stat().st_ino, file.read_bytes()) == before
    build_from(catalog, old, write_manifest(tmp_path / "c", 2024, patch(0, 52, 4, 2)))
    changed = catalog / "tessera-v1" / asset["href"]
    assert shown(changed, "full") < 0.7 * whole
    assert shown(changed, "partial") > 0.3 * whole
