"""Upstream's own code as an oracle: what geotessera exports from a pair converts to what the pair does."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio

from tests.convert.making import POLAR, YEAR, convert_one, sample, write_pair

geotessera = pytest.importorskip("geotessera")


def _registry(folder: Path, npy: Path, landmask: Path) -> None:
    """Write the parquet registries that geotessera 0.7 reads, of one tile."""
    import geopandas as gpd
    from shapely.geometry import Point

    scales = npy.with_name(f"{POLAR.name}_scales.npy")
    place = {"lat": [POLAR.lat], "lon": [POLAR.lon], "lon_i": [POLAR.lon_i], "lat_i": [POLAR.lat_i]}
    geometry = [Point(POLAR.lon, POLAR.lat)]
    facts = {
        "year": [YEAR],
        "hash": [hashlib.sha256(npy.read_bytes()).hexdigest()],
        "scales_hash": [hashlib.sha256(scales.read_bytes()).hexdigest()],
        "mtime": [pd.Timestamp("2025-01-01")],
        "file_size": [npy.stat().st_size],
        "scales_size": [scales.stat().st_size],
    }
    gpd.GeoDataFrame({**place, **facts}, geometry=geometry, crs=4326).to_parquet(folder / "registry.parquet")
    mask = {
        "hash": [hashlib.sha256(landmask.read_bytes()).hexdigest()],
        "file_size": [landmask.stat().st_size],
    }
    gpd.GeoDataFrame({**place, **mask}, geometry=geometry, crs=4326).to_parquet(folder / "landmasks.parquet")


def test_geotesseras_own_export_converts_to_the_same(tmp_path: Path) -> None:
    root = tmp_path / "src"
    npy = write_pair(root)
    landmask = root / "global_0.1_degree_tiff_all" / f"{POLAR.name}.tiff"
    _registry(root, npy, landmask)
    client = geotessera.GeoTessera(
        embeddings_dir=root,
        registry_dir=root,
        cache_dir=tmp_path / "cache",
        verify_hashes=True,
    )
    (path,) = client.export_embedding_geotiffs(
        [(YEAR, POLAR.lon, POLAR.lat)], output_dir=tmp_path / "export", compress="lzw"
    )
    with rasterio.open(path) as ds:
        assert ds.tags()["GEOTESSERA_VERSION"].startswith("0.7")
        assert (ds.count, ds.dtypes[0], ds.shape) == (128, "float32", sample().scales.shape)
    pair = convert_one(npy, tmp_path / "out").row
    masks = {"landmask_root": str(landmask.parent)}
    # it labels everything v1
    from_tiff = convert_one(path, tmp_path / "out", wanted=masks, verify=True).row
    assert (from_tiff.profile, from_tiff.reason) == ("native", "")
    assert from_tiff.statistics == pair.statistics
    for role in ("embeddings", "scales"):
        with (
            rasterio.open(tmp_path / "out" / pair.files[role].path) as a,
            rasterio.open(tmp_path / "out" / from_tiff.files[role].path) as b,
        ):
            assert (a.transform, a.crs) == (b.transform, b.crs)
            for level in (None, 0, 2):
                how = {} if level is None else {"overview_level": level}
                with rasterio.open(a.name, **how) as x, rasterio.open(b.name, **how) as y:
                    np.testing.assert_array_equal(x.read(), y.read())
