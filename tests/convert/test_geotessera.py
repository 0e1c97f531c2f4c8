"""Upstream's own code as an oracle: what geotessera exports from a pair converts to what the pair does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.bench.geotessera_export import export
from tests.convert.making import POLAR, convert_one, sample, write_pair

pytestmark = pytest.mark.slow


def test_geotesseras_own_export_converts_to_the_same(tmp_path: Path) -> None:
    root = tmp_path / "src"
    npy = write_pair(root)
    landmask = root / "global_0.1_degree_tiff_all" / f"{POLAR.name}.tiff"
    (path,) = export(str(root), str(POLAR.lon), str(tmp_path / "export"))
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
