"""rio-tiler reads the items of every kind of tile-year without a warning, and takes our statistics.

Of bands that have names it wants a minimum and a maximum each. They are named in ``embeddings``, for
odc-stac, and in ``embeddings_f32``. The latter is a VRT of most tile-years, which rio-tiler does not read:
it goes by media types, and that of a VRT is none of its list.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from starlette.staticfiles import StaticFiles

from api.app import create_app
from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.convert.ledger.writer import LedgerWriter
from catalog_builder.synthetic.sample import write_geotiff_tile
from catalog_builder.synthetic.world import SampleTile
from catalog_builder.tile.datasets import dataset
from tests.conftest import plain_environment
from tests.convert.making import COLUMN, POLAR, YEAR, convert_one, sample, write_pair
from tests.support.containers import YEAR as NEWEST
from tests.support.containers import Contained
from tests.support.converted import COLLECTION, FIRST, Converted
from tests.support.http_server import Server, serve

_READ = """
import json, sys, warnings
from rio_tiler.io import STACReader
warnings.simplefilter("error")
found = {}
with STACReader(sys.argv[1]) as item:
    left, bottom, right, top = item.bounds
    x, y = (left + right) / 2, (bottom + top) / 2
    box = (x - 200, y - 200, x + 200, y + 200)
    for asset in item.assets:
        info = item.info(assets=[asset])[asset]
        image = item.part(box, assets=[asset], bounds_crs=item.crs, dst_crs=item.crs)
        some = int(image.mask.any())
        found[asset] = [info.count, info.dtype, some, image.dataset_statistics]
    item_assets = {key: asset.media_type for key, asset in item.item.assets.items()}
print(json.dumps([found, item_assets]))
"""
_PAIR, _TIFF, _FLOATS = (tile.name for tile in COLUMN)

type Read = dict[str, list[Any]]


def read(server: Server, item: str, folder: Path, query: str = "") -> tuple[Read, dict[str, str]]:
    """Read all assets that rio-tiler accepts, warnings as errors; return them, and all with their types."""
    url = f"{server.url}/collections/{COLLECTION}/items/{item}{query}"
    done = subprocess.run(
        [sys.executable, "-c", _READ, url],
        cwd=folder,
        env=plain_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found, assets = json.loads(done.stdout)
    return found, assets


def test_a_converted_pair(server: Server, tiles: Converted, tmp_path: Path) -> None:
    found, assets = read(server, f"{FIRST.name}_2024", tmp_path)
    assert list(found) == ["embeddings", "scales", "visual", "landmask"]
    assert assets["embeddings_f32"] == "image/x.vrt"
    for asset in ("embeddings", "scales", "visual"):
        (path,) = (tiles.catalog / "cogs").rglob(f"{FIRST.name}_2024_*_{asset}.tif")
        with rasterio.open(path) as src:
            assert found[asset][:3] == [src.count, src.dtypes[0], 1]
    folder = tiles.embeddings / f"2024/{FIRST.name}"
    codes, scales = (np.load(folder / f"{FIRST.name}{end}.npy") for end in ("", "_scales"))
    with rasterio.open(next((tiles.root / "source").rglob(f"{FIRST.name}.tiff"))) as src:
        valid = np.isfinite(scales) & (scales > 0) & (src.read(1) != 0)
    assert not valid.all(), "and -128 where there is no data does not count"
    assert found["embeddings"][3] == _ranges(codes, valid)


def _ranges(codes: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> list[list[float]]:
    """Return [minimum, maximum] of each band over valid pixels."""
    return np.stack([codes[valid].min(axis=0), codes[valid].max(axis=0)], axis=1).astype(float).tolist()


def test_a_tile_that_is_not_converted(unconverted: Contained, tmp_path: Path) -> None:
    found, assets = read(unconverted.server, f"{FIRST.name}_{NEWEST}", tmp_path)
    assert list(found) == ["landmask"]
    names = ("embeddings", "source_scales" if unconverted.container == "npy" else "source_zarr")
    kind = {
        "npy": "application/x-npy",
        "zarr": "application/vnd+zarr; version=3",
        "icechunk": "application/vnd.zarr+icechunk",
    }[unconverted.container]
    assert {assets[name] for name in names} == {kind}


def test_an_asset_for_each_band(contained: Contained, tmp_path: Path) -> None:
    """``view=bands`` is of VRTs alone, and rio-tiler refuses an item without an asset to read."""
    for year in contained.years:
        with pytest.raises(AssertionError, match="No valid asset found"):
            read(contained.server, f"{FIRST.name}_{year}", tmp_path, "?view=bands")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """Serve what the other catalogue has not: float32 COGs, and exported GeoTIFFs, converted and not."""
    root = tmp_path_factory.mktemp("kinds")
    source, cogs = root / "src", root / "catalog" / "cogs"
    pair = write_pair(source)
    made = sample(COLUMN[1])
    tiff = write_geotiff_tile(root / "tiff", made)
    unrecoverable = _with_floats(write_geotiff_tile(root / "tiff", sample(COLUMN[2])))
    write_geotiff_tile(root / "tiff", SampleTile(POLAR, 2023, made.codes, made.scales, made.landmask))
    with LedgerWriter(cogs / "ledger") as ledger:
        for path, how in ((pair, {"profile": "float32"}), (tiff, {}), (unrecoverable, {})):
            row = convert_one(path, cogs, **how).row
            assert row.ok, row.reason
            ledger.append(row)
    with serve(StaticFiles(directory=root / "tiff")) as files:
        options = BuildOptions(dataset("synthetic"), url="http://cat", source_root=files.url)
        build([str(pair.parents[2]), str(root / "tiff")], root / "catalog", options)
        with serve(create_app(root / "catalog")) as running:
            yield running, cogs


def _with_floats(path: Path) -> Path:
    """Change one value of a GeoTIFF to one that is no code times the pixel's scale."""
    with rasterio.open(path, "r+") as ds:
        band = ds.read(7)
        row, col = (int(axis[0]) for axis in np.nonzero(np.isfinite(band) & (band != 0)))
        band[row, col] *= np.float32(1.001)
        ds.write(band, 7)
    return path


def _stored(cogs: Path, name: str) -> npt.NDArray[Any]:
    (path,) = cogs.rglob(f"{name}_*_embeddings.tif")
    with rasterio.open(path) as src:
        pixels: npt.NDArray[Any] = src.read().transpose(1, 2, 0)
    return pixels


@pytest.mark.parametrize("name", [f"{_PAIR}_{YEAR}", f"{_FLOATS}_{YEAR}"])
def test_float32_values(kinds: tuple[Server, Path], tmp_path: Path, name: str) -> None:
    """Of a pair in the profile float32, and of an export whose codes cannot be recovered."""
    server, cogs = kinds
    found, _ = read(server, name, tmp_path)
    values = _stored(cogs, name)
    wanted = _ranges(values, ~np.isnan(values[..., 0]))
    for asset in ("embeddings", "embeddings_f32"):
        count, dtype, some, ranges = found[asset]
        assert (count, dtype, some) == (128, "float32", 1)
        np.testing.assert_allclose(ranges, wanted, rtol=1e-5)  # items have six digits


def test_codes_recovered_from_an_export(kinds: tuple[Server, Path], tmp_path: Path) -> None:
    server, cogs = kinds
    name = f"{_TIFF}_{YEAR}"
    found, assets = read(server, name, tmp_path)
    assert assets["embeddings_f32"] == "image/x.vrt"
    with rasterio.open(next(cogs.rglob(f"{name}_*_scales.tif"))) as src:
        valid = ~np.isnan(src.read(1))
    assert found["embeddings"][3] == _ranges(_stored(cogs, name), valid)
    made = sample(COLUMN[1])
    assert found["embeddings"][3] == _ranges(made.codes, made.scales > 0), "those of the model"


def test_an_export_that_is_not_converted(kinds: tuple[Server, Path], tmp_path: Path) -> None:
    found, _ = read(kinds[0], f"{POLAR.name}_2023", tmp_path)
    assert {"embeddings", "source_geotiff"} <= set(found)
    assert found["embeddings"][:3] == [128, "float32", 1]
    assert found["embeddings"][3] is None
