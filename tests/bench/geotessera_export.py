"""Export the one tile of a download with geotessera's own code, offline."""

from __future__ import annotations

import hashlib
from pathlib import Path


def export(root: str, lon: str, out: str) -> list[str]:
    """Export the tile at a longitude; its registries are written first, as geotessera 0.7 wants them."""
    import geopandas as gpd
    import pandas as pd
    from geotessera import GeoTessera
    from shapely.geometry import Point

    folder = Path(root)
    (npy,) = (p for p in folder.rglob(f"grid_{float(lon):.2f}_*.npy") if not p.stem.endswith("_scales"))
    scales, mask = npy.with_name(f"{npy.stem}_scales.npy"), next(folder.rglob(f"{npy.stem}.tiff"))
    lat, year = float(npy.stem.rpartition("_")[2]), int(npy.parent.parent.name)
    place = {
        "lat": [lat],
        "lon": [float(lon)],
        "lon_i": [round(float(lon) * 100)],
        "lat_i": [round(lat * 100)],
    }
    geometry = [Point(float(lon), lat)]
    facts = {
        "year": [year],
        "hash": [_sha(npy)],
        "scales_hash": [_sha(scales)],
        "mtime": [pd.Timestamp("2025-01-01")],
        "file_size": [npy.stat().st_size],
        "scales_size": [scales.stat().st_size],
    }
    gpd.GeoDataFrame({**place, **facts}, geometry=geometry, crs=4326).to_parquet(folder / "registry.parquet")
    of_mask = {"hash": [_sha(mask)], "file_size": [mask.stat().st_size]}
    gpd.GeoDataFrame({**place, **of_mask}, geometry=geometry, crs=4326).to_parquet(
        folder / "landmasks.parquet"
    )
    client = GeoTessera(embeddings_dir=folder, registry_dir=folder, cache_dir=folder / "cache")
    exported: list[str] = client.export_embedding_geotiffs([(year, float(lon), lat)], output_dir=out)
    return exported


def _sha(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
