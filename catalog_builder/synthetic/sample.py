"""Synthetic tiles in upstream's own file formats, for experiments and tests.

:func:`sample_set` writes a small tree in the layout of a geotessera download (formats of geotessera 0.7)::

    tessera_metadata.json                                  which dataset this is: "synthetic"
    README.md
    global_0.1_degree_representation/<year>/<grid>/<grid>.npy          int8 (H, W, 128)
                                                  /<grid>_scales.npy   float32 (H, W)
                                                  /SHA256              as on upstream's server
                                                  /.synthetic          what it was made from
    global_0.1_degree_tiff_all/<grid>.tiff                 landmask, uint8
                              /SHA256SUM
    registry/registry_<year>.txt                           the text registry of geotessera 0.1.0
            /landmasks_lon<X>_lat<Y>.txt                   landmask blocks of geotessera 0.3 to 0.6

Every file is written atomically, ``.synthetic`` as the last of a tile: a second run keeps existing tiles
and an interrupted one resumes where it stopped.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from catalog_builder.errors import StorageError
from catalog_builder.storage import write_atomic
from catalog_builder.synthetic.geotiff import EMBEDDINGS_DIR, SYNTHETIC_TAG, write_geotiff_tile
from catalog_builder.synthetic.world import GENERATOR, SampleTile, make_tile
from catalog_builder.tile.datasets import SYNTHETIC, dataset, source_path
from catalog_builder.tile.grid import TileId

__all__ = [
    "DEFAULT_SET",
    "SampleSet",
    "SampleTile",
    "Written",
    "make_tile",
    "sample_set",
    "write_geotiff_tile",
    "write_npy_tile",
]

LANDMASKS_DIR = "global_0.1_degree_tiff_all"
METADATA_FILE = "tessera_metadata.json"
TileOfYear = tuple[TileId, int]

_CAMBRIDGE = [TileId(lat_i=lat_i, lon_i=lon_i) for lat_i in (5215, 5225) for lon_i in (5, 15)]
DEFAULT_SET: tuple[TileOfYear, ...] = (
    *((tile, 2024) for tile in _CAMBRIDGE),
    *((_CAMBRIDGE[1], year) for year in (2022, 2023)),
)
"""Four neighbouring tiles around Cambridge in 2024, and one of them in two more years: 660 MB."""

README = """# Synthetic TESSERA tiles

**These pixels are made up.** They were written by `tessera-stac sample` in the file formats of TESSERA
(https://github.com/ucam-eo/geotessera), for trying out and testing software. They hold no information
about the places they are named after. Do not publish them as TESSERA data.
"""


@dataclass(frozen=True, slots=True)
class Written:
    """One tile-year on disk."""

    tile: TileId
    year: int
    npy: Path
    npy_sha256: str
    scales: Path
    scales_sha256: str
    landmask: Path
    kept: bool
    """Whether it already existed."""

    @property
    def n_bytes(self) -> int:
        """Size of the .npy pair."""
        return self.npy.stat().st_size + self.scales.stat().st_size


@dataclass(frozen=True, slots=True)
class SampleSet:
    """The output of :func:`sample_set`."""

    root: Path
    embeddings: Path
    """Folder of ``<year>/<grid>/<grid>.npy``."""
    landmasks: Path
    """Folder of ``<grid>.tiff``."""
    registries: list[Path]
    """Text manifests with the SHA-256 of every file."""
    written: list[Written]


def sample_set(
    root: str | Path,
    *,
    tile_years: Sequence[TileOfYear] = DEFAULT_SET,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    workers: int | None = None,
    progress: Callable[[int, int, Written], None] | None = None,
) -> SampleSet:
    """Write synthetic tiles with all the files that accompany upstream's tiles.

    Parameters
    ----------
    root
        Local folder, created if necessary. Tiles of earlier calls are kept and listed too.
    tile_years
        The tile-years to generate.
    seed, size
        See :func:`make_tile`. A size that differs from upstream's formula is for tests only.
    workers
        Number of processes; by default one per core, at most four. 1: run in this process.
    progress
        Called with (done, total, tile-year) whenever one is finished.

    Raises
    ------
    StorageError
        If a file cannot be written, or the folder contains another dataset.
    """
    root = Path(root)
    _check_dataset(root)
    _write_text(root / "README.md", README)
    embeddings, landmasks = root / EMBEDDINGS_DIR, root / LANDMASKS_DIR
    written: dict[TileOfYear, Written] = {}

    def finish(done: Written) -> None:
        written[done.tile, done.year] = done
        if progress is not None:
            progress(len(written), len(wanted), done)

    wanted = list(dict.fromkeys(tile_years))
    missing: list[TileOfYear] = []
    for tile, year in wanted:
        found = _find(embeddings, landmasks, tile, year, _stamp(seed, size))
        if found is None:
            missing.append((tile, year))
        else:
            finish(found)
    try:
        with _executor(workers, len(missing)) as executor:
            jobs = [(embeddings, landmasks, tile, year, seed, size) for tile, year in missing]
            if executor is None:
                for job in jobs:
                    finish(_make_and_write(*job))
            else:
                for future in as_completed([executor.submit(_make_and_write, *job) for job in jobs]):
                    finish(future.result())
    finally:
        registries = _write_registries(root)  # for the existing tiles, even after a failure
    return SampleSet(root, embeddings, landmasks, registries, [written[key] for key in wanted])


def write_npy_tile(
    embeddings: str | Path, landmasks: str | Path, sample: SampleTile, *, seed: int = 0
) -> Written:
    """Write a tile-year as upstream's .npy pair with its checksums, and the tile's landmask.

    Parameters
    ----------
    embeddings
        Folder of ``<year>/<grid>/<grid>.npy``.
    landmasks
        Folder of ``<grid>.tiff``.
    sample
        The pixels.
    seed
        The seed they were generated with; written to ``.synthetic``, so that they are recognised.

    Raises
    ------
    StorageError
        If a file cannot be written.
    """
    tile, year = sample.tile, sample.year
    size = None if sample.landmask.shape == tile.raster().shape else sample.landmask.shape
    npy, scales, sums, stamp, landmask = _paths(Path(embeddings), Path(landmasks), tile, year)
    for path in (stamp, sums):  # while they are missing, the tile is incomplete
        path.unlink(missing_ok=True)
    _write_landmask(landmask, sample)
    npy_sha256 = _write_npy(npy, sample.codes)
    scales_sha256 = _write_npy(scales, sample.scales)
    _write_text(sums, f"{npy_sha256}  {npy.name}\n{scales_sha256}  {scales.name}\n")
    _write_text(stamp, _stamp(seed, size))
    return Written(tile, year, npy, npy_sha256, scales, scales_sha256, landmask, kept=False)


# --- one tile-year ----------------------------------------------------------------------------------


class _Paths(NamedTuple):
    npy: Path
    scales: Path
    sums: Path
    stamp: Path
    landmask: Path


def _paths(embeddings: Path, landmasks: Path, tile: TileId, year: int) -> _Paths:
    npy = embeddings / source_path(year, tile.name)
    return _Paths(
        npy,
        embeddings / source_path(year, tile.name, "_scales.npy"),
        npy.with_name("SHA256"),
        npy.with_name(".synthetic"),  # hidden, so that no reader takes it for data
        landmasks / f"{tile.name}.tiff",
    )


def _stamp(seed: int, size: tuple[int, ...] | None) -> str:
    """Return the text that records how a tile was generated."""
    pixels = "full" if size is None else "x".join(map(str, size))
    return f"Not TESSERA data: tessera-stac sample, generator {GENERATOR}, seed {seed}, size {pixels}\n"


def _find(embeddings: Path, landmasks: Path, tile: TileId, year: int, wanted: str) -> Written | None:
    """Return a tile-year if it exists, is complete and was generated in the same way; otherwise None."""
    npy, scales, sums, stamp, landmask = _paths(embeddings, landmasks, tile, year)
    try:
        if stamp.read_text() != wanted or not landmask.is_file():
            return None
        digests = {name: digest for digest, name in map(str.split, sums.read_text().splitlines())}
        # The header determines the expected length of the file; the stamp vouches for the rest.
        for path in (npy, scales):
            array = np.load(path, mmap_mode="r")
            if path.stat().st_size != 128 + array.nbytes:
                return None
        return Written(tile, year, npy, digests[npy.name], scales, digests[scales.name], landmask, kept=True)
    except (OSError, ValueError, KeyError):
        return None


def _make_and_write(
    embeddings: Path, landmasks: Path, tile: TileId, year: int, seed: int, size: tuple[int, int] | None
) -> Written:
    """Generate a tile-year and write it: the job of a worker."""
    return write_npy_tile(embeddings, landmasks, make_tile(tile, year, seed=seed, size=size), seed=seed)


@contextmanager
def _executor(workers: int | None, n_jobs: int) -> Iterator[Executor | None]:
    """Yield a pool of processes, or None if one process is enough."""
    count = min(workers or min(os.cpu_count() or 1, 4), n_jobs)
    # spawn: forking a process that runs threads (GDAL, BLAS) can hang
    pool = ProcessPoolExecutor(count, get_context("spawn")) if count > 1 else nullcontext()
    with pool as executor:
        yield executor


def _write_npy(path: Path, array: npt.NDArray[Any]) -> str:
    """Write the same bytes as ``np.save`` and return their SHA-256, in one pass over the data."""
    array = np.ascontiguousarray(array)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    digest = hashlib.sha256()
    with write_atomic(path) as temporary, temporary.open("wb") as file:
        for part in (header.getvalue(), memoryview(array).cast("B")):
            digest.update(part)
            file.write(part)
    return digest.hexdigest()


def _write_landmask(path: Path, sample: SampleTile) -> None:
    """Write the landmask GeoTIFF, with the unsnapped transform of upstream's files."""
    import rasterio

    raster = sample.tile.raster("source")
    height, width = sample.landmask.shape
    with (
        write_atomic(path) as temporary,
        rasterio.open(
            temporary,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=1,
            dtype="uint8",
            crs=f"EPSG:{raster.epsg}",
            transform=raster.transform,
            compress="lzw",
        ) as dst,
    ):
        dst.write(sample.landmask, 1)
        dst.update_tags(**{SYNTHETIC_TAG: "YES"})


# --- what lies beside the tiles ---------------------------------------------------------------------


def _check_dataset(root: Path) -> None:
    """Refuse to write synthetic tiles among real ones."""
    path = root / METADATA_FILE
    try:
        variant = json.loads(path.read_text()).get("dataset_variant")
    except FileNotFoundError:
        variant = None if next(root.glob(f"{EMBEDDINGS_DIR}/*/grid_*"), None) else SYNTHETIC
    except (OSError, ValueError, AttributeError) as error:
        raise StorageError(f"{path}: {error}") from error
    if variant != SYNTHETIC:
        raise StorageError(
            f"{root}: holds tiles of dataset variant '{variant or 'unknown'}'; "
            "synthetic tiles need a separate folder"
        )


def _write_registries(root: Path) -> list[Path]:
    """Write checksums, registries and the sidecar of all tiles below a folder, and return the registries."""
    years: dict[int, list[str]] = defaultdict(list)
    for sums in root.glob(f"{EMBEDDINGS_DIR}/*/grid_*/SHA256"):
        year, grid = int(sums.parent.parent.name), sums.parent.name
        for line in sums.read_text().splitlines():
            digest, name = line.split()
            years[year].append(f"{year}/{grid}/{name} {digest}")
    masks: list[str] = []
    blocks: dict[tuple[int, int], list[str]] = defaultdict(list)
    for path in sorted((root / LANDMASKS_DIR).glob("grid_*.tiff")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        tile = TileId.from_name(path.stem)
        masks.append(f"{digest}  {path.name}")
        # blocks of 5 degrees, named by their lower left corner
        blocks[tile.lon_i // 500 * 5, tile.lat_i // 500 * 5].append(f"{path.name} {digest}")
    texts = {f"registry_{year}.txt": lines for year, lines in years.items()}
    texts |= {f"landmasks_lon{lon}_lat{lat}.txt": lines for (lon, lat), lines in blocks.items()}
    for name, lines in texts.items():
        _write_text(root / "registry" / name, _lines(sorted(lines)))
    if masks:
        _write_text(root / LANDMASKS_DIR / "SHA256SUM", _lines(masks))
    _write_metadata(root, {year: len(lines) // 2 for year, lines in years.items()})
    return sorted(root / "registry" / name for name in texts)


def _write_metadata(root: Path, tiles_of: dict[int, int]) -> None:
    """Write the sidecar that geotessera 0.9 and later keep beside a download."""
    ds = dataset(SYNTHETIC)
    facts: dict[str, Any] = {
        "dataset_path": ds.directory,
        "dataset_variant": ds.variant,
        "dataset_version": ds.version,
        "dataset_version_path": ds.landmask_directory,
        "embeddings_subdir": EMBEDDINGS_DIR,
        "format": "npy",
        "note": "Made up by tessera-stac sample. Not TESSERA data.",
        "tile_count": sum(tiles_of.values()),
        # upstream has one year here; a list states that there are more
        "year": next(iter(tiles_of)) if len(tiles_of) == 1 else sorted(tiles_of),
    }
    path = root / METADATA_FILE
    if path.is_file():
        before = json.loads(path.read_text())
        before.pop("generated_at", None)
        if before == facts:
            return
    facts["generated_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    _write_text(path, json.dumps(facts, indent=2, sort_keys=True) + "\n")


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _write_text(path: Path, text: str) -> None:
    """Write a small file, unless its content is unchanged."""
    if path.is_file() and path.read_text() == text:
        return
    with write_atomic(path) as temporary:
        temporary.write_text(text, newline="\n")
