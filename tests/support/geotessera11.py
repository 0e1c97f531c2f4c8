"""geotessera 0.11 as the oracle for its stores: a script for where it is installed, ``geotessera11.lock``.

``python geotessera11.py make ROOT STORE FIRST LAST ZONE`` makes a Zarr store of the sample below ROOT, with a
time axis of some years, and fills one of its zones, with geotessera's own code: 10 s of a core a shard.

``python geotessera11.py read STORE OUT.npz JSON`` reads windows of a Zarr store or an Icechunk repository.
The JSON is a list of ``{"zone": 33, "year": 2024, "bbox": [west, south, east, north]}``, metres on the
zone's northern CRS. Saved are, by the number n of the window, ``codes_n`` (H, W, 128), ``scales_n`` (H, W),
``values_n`` (H, W, 128) float32, and ``transform_n``.

``python geotessera11.py probe STORE YEAR JSON`` prints what geotessera says of points, a list of
``[longitude, latitude]``: valid, water, nodata or outside.

``python geotessera11.py sample STORE YEAR OUT.npy JSON`` samples points, float32 (n, 128), NaN without data.

``python geotessera11.py survey STORE YEAR OUT.npz JSON`` does with a store, or the URL of one, what users do
with it at points: probes, samples, reads a region and patches around each, and exports the first region.

``python geotessera11.py place JSON`` prints where it puts tiles, ``[longitude, latitude]`` by zone, in
the Zarr store of their land list: ``[west, top, rows, columns, [[row, column, height, width], …]]`` by zone.

``python geotessera11.py constants`` prints what it takes for granted of the first of these stores.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd


def make(root, store, first, last, zone):
    from geotessera.registry import Registry
    from geotessera.zarr import fill_store, init_store

    root = Path(root)
    rows = []
    for path in sorted(root.glob("global_0.1_degree_representation/*/grid_*/*_scales.npy")):
        lon, lat = map(float, path.parent.name.split("_")[1:])
        pair = path.with_name(path.name.replace("_scales", "")), path
        sizes = dict(zip(("grid_size", "scales_size"), (p.stat().st_size for p in pair), strict=True))
        rows.append({"year": int(path.parents[1].name), "lon": lon, "lat": lat, **sizes})
    places = pd.DataFrame(rows)
    manifest, masks = Path(f"{store}.manifest.parquet"), Path(f"{store}.landmasks.parquet")
    manifest.parent.mkdir(parents=True, exist_ok=True)
    places.to_parquet(manifest)
    land = places[["lon", "lat"]].drop_duplicates()
    land.assign(file_size=1).to_parquet(masks)
    registry = Registry(
        "0.0", "synthetic", embeddings_dir=root, registry_path=manifest, landmasks_registry_path=masks
    )
    years = list(range(int(first), int(last) + 1))
    init_store(registry, store, years, geotessera_version="0.11.0", model_version="0.0")
    how = {"workers": 1, "spill_dir": f"{store}.spill", "collect_stretch_stats": False, "consolidate": True}
    for year in dict.fromkeys(places["year"]):
        fill_store(registry, store, year=year, zones=[int(zone)], **how)


def read(store, out, windows):
    from geotessera.store import GeoTesseraZarr

    client = GeoTesseraZarr(store)
    found = {}
    for n, window in enumerate(json.loads(windows)):
        zone = client.open_zone(zone=window["zone"])
        bbox, year = tuple(window["bbox"]), window["year"]
        codes, scales, transform = zone.tessera.read_region_quantized(bbox, year)
        values, _ = zone.tessera.read_region(bbox, year)
        found |= {f"codes_{n}": codes, f"scales_{n}": scales, f"values_{n}": values}
        found[f"transform_{n}"] = np.array(transform[:6])
    np.savez(out, **found)


def probe(store, year, points):
    from geotessera.store import GeoTesseraZarr

    client = GeoTesseraZarr(store)
    print(json.dumps([client.probe(*point, int(year), search_px=0)[1] for point in json.loads(points)]))


def sample(store, year, out, points):
    from geotessera.store import GeoTesseraZarr

    points = [tuple(point) for point in json.loads(points)]
    found = GeoTesseraZarr(store).sample_points(points, int(year), cross_zone=False, search_px=0)
    np.save(out, found)


def survey(store, year, out, points):
    import tempfile

    import rasterio
    from geotessera.store import GeoTesseraZarr

    client, year = GeoTesseraZarr(store), int(year)
    points = [tuple(point) for point in json.loads(points)]
    found = {"years": client.years, "bands": client.n_bands, "model": client.model_version}
    found["probes"] = [client.probe(*point, year)[1] for point in points]
    found["samples"] = client.sample_points(points, year)
    for n, (lon, lat) in enumerate(points):
        bbox = (lon - 0.01, lat - 0.002, lon + 0.01, lat + 0.002)
        try:
            found[f"patch_{n}"], transform, crs = client.read_patch(lon, lat, year, 40)
            found |= {f"patch_transform_{n}": transform[:6], f"patch_crs_{n}": crs}
            found[f"region_{n}"], transform, crs = client.read_region(bbox, year)
        except (IndexError, KeyError) as error:  # beyond the grid of a zone; of a zone that there is not
            found[f"region_{n}"] = str(error)
            continue
        found |= {f"region_transform_{n}": transform[:6], f"region_crs_{n}": crs}
        if n == 0:
            with tempfile.TemporaryDirectory() as folder:
                for path in client.export_geotiffs(bbox, year, folder):
                    with rasterio.open(path) as tiff:
                        found[f"tiff_{Path(path).name}"] = tiff.read()
                        found[f"tiff_transform_{Path(path).name}"] = tiff.transform[:6]
    np.savez(out, **found)


def place(zones):
    from geotessera.zarr import _compute_zone_grid_from_landmask, _tile_pixel_offset, project_tile

    found = {}
    for zone, centres in json.loads(zones).items():
        grid = _compute_zone_grid_from_landmask(int(zone), centres, [2024])
        tiles = [project_tile(lon, lat, 2024) for lon, lat in centres]
        windows = [[*_tile_pixel_offset(tile, grid), tile.height, tile.width] for tile in tiles]
        found[zone] = [grid.origin_x, grid.origin_y, grid.height_px, grid.width_px, windows]
    print(json.dumps(found))


def constants():
    from geotessera import zarr

    print(json.dumps({name: getattr(zarr, name) for name in ("SHARD_SIZE", "INNER_CHUNK", "N_BANDS")}))


if __name__ == "__main__":
    calls = (make, read, probe, sample, survey, place, constants)
    next(call for call in calls if call.__name__ == sys.argv[1])(*sys.argv[2:])
