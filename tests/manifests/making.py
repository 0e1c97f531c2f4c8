"""Small manifests and trees of every layout, made for the tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalog_builder.manifests import ManifestPart, ProblemLog, read_manifests
from catalog_builder.tile.grid import Bounds, TileId

Tile = tuple[int, str]
"""A year and a tile's name."""

TILES: list[Tile] = [
    (2023, "grid_0.15_52.05"),
    (2024, "grid_0.15_52.05"),
    (2024, "grid_-0.05_-0.05"),
    (2024, "grid_179.95_-89.95"),
    (2024, "grid_-179.95_89.95"),
]


def digest(text: str) -> str:
    """Return a hash that the name determines."""
    return hashlib.sha256(text.encode()).hexdigest()


def path_of(tile: Tile, tail: str = ".npy") -> str:
    year, name = tile
    return f"{year}/{name}/{name}{tail}"


def lines_of(tiles: Iterable[Tile]) -> list[str]:
    """Registry lines as geotessera 0.1.0 to 0.6 wrote them."""
    return [f"{p} {digest(p)}" for t in tiles for p in (path_of(t), path_of(t, "_scales.npy"))]


def text_of(tiles: Iterable[Tile]) -> str:
    return "".join(f"{line}\n" for line in lines_of(tiles))


def read(source: str | Path, **options: object) -> tuple[list[ManifestPart], ProblemLog]:
    problems = options.pop("problems", None) or ProblemLog()
    return list(read_manifests(source, problems=problems, **options)), problems  # type: ignore[arg-type]


def tiles_in(parts: Iterable[ManifestPart]) -> list[Tile]:
    """Return the tile-years of parts, sorted, repeats included."""
    return sorted(
        (row["year"], TileId(row["lat_i"], row["lon_i"]).name)
        for p in parts
        if p.tiles is not None
        for row in p.tiles.select(["lat_i", "lon_i", "year"]).to_pylist()
    )


def rows_in(parts: Iterable[ManifestPart]) -> dict[Tile, dict[str, object]]:
    return {
        (row["year"], TileId(row["lat_i"], row["lon_i"]).name): row
        for p in parts
        if p.tiles is not None
        for row in p.tiles.to_pylist()
    }


def masks_in(parts: Iterable[ManifestPart]) -> dict[str, dict[str, object]]:
    return {
        TileId(row["lat_i"], row["lon_i"]).name: row
        for p in parts
        if p.landmasks is not None
        for row in p.landmasks.to_pylist()
    }


def kinds(problems: ProblemLog) -> dict[str, int]:
    return {kind.name: n for kind, n in problems.counts.items()}


def make_tree(root: Path, tiles: Iterable[Tile], *, hashes: bool = False) -> None:
    """Write .npy pairs in upstream's layout below a folder; ``hashes`` adds the SHA256 files."""
    for i, (year, name) in enumerate(tiles):
        folder = root / str(year) / name
        folder.mkdir(parents=True)
        np.save(folder / f"{name}.npy", np.full((2, 3 + i, 128), i, dtype=np.int8))
        np.save(folder / f"{name}_scales.npy", np.full((2, 3 + i), i, dtype=np.float32))
        if hashes:
            lines = [
                f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n"
                for f in sorted(folder.glob("*.npy"))
            ]
            (folder / "SHA256").write_text("".join(lines))


def degrees(tiles: Iterable[Tile]) -> tuple[list[float], list[float], list[int]]:
    """Latitudes, longitudes and years of tiles."""
    ids = [(TileId.from_name(name), year) for year, name in tiles]
    return [t.lat for t, _ in ids], [t.lon for t, _ in ids], [y for _, y in ids]


def registry_table(tiles: list[Tile]) -> pa.Table:
    """Make the columns of a 0.7 registry, without the geometry."""
    lat, lon, year = degrees(tiles)
    return pa.table(
        {
            "lat": lat,
            "lon": lon,
            "year": year,
            "hash": [digest(path_of(t)) for t in tiles],
            "scales_hash": [digest(path_of(t, "_scales.npy")) for t in tiles],
            "mtime": pa.array([1_750_000_000_123_456_789] * len(tiles), pa.timestamp("ns")),
            "file_size": [100 + i for i in range(len(tiles))],
            "scales_size": [10 + i for i in range(len(tiles))],
        }
    )


def manifest_table(tiles: list[Tile], version: str = "1.0", variant: str = "vultr") -> pa.Table:
    """Make the columns of a 0.10 manifest."""
    lat, lon, year = degrees(tiles)
    root = "s3://tessera/tessera/npy/v1"
    time = pa.array([1_760_000_000_000] * len(tiles), pa.timestamp("ms", tz="UTC"))
    return pa.table(
        {
            "version": [version] * len(tiles),
            "variant": [variant] * len(tiles),
            "year": year,
            "lon": lon,
            "lat": lat,
            "directory": [f"{root}/{y}/{n}" for y, n in tiles],
            "grid_path": [f"{root}/{path_of(t)}" for t in tiles],
            "scales_path": [f"{root}/{path_of(t, '_scales.npy')}" for t in tiles],
            "grid_mtime": time,
            "scales_mtime": time,
            "grid_size": [100 + i for i in range(len(tiles))],
            "scales_size": [10 + i for i in range(len(tiles))],
            "lon_i": pa.array([round(v * 100) for v in lon], pa.int32()),
            "lat_i": pa.array([round(v * 100) for v in lat], pa.int32()),
        }
    )


BRITAIN = Bounds(-11.0, 49.0, 2.0, 61.0)
