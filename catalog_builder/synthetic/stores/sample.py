"""Synthetic tiles as one of upstream's stores, with its land list and, for Icechunk, its registry.

:func:`sample_store` writes into a folder named after the container::

    zarr/synthetic.zarr                                        groups utm01 … utm60
    icechunk/synthetic.icechunk                                groups 01N … 60S
    icechunk/synthetic.registry/parts/zone=33N/year=2024/…     which blocks were embedded
    <container>/global_0.1_degree_tiff_all/<grid>.tiff         landmasks
                                          /registry.txt        the land list: their names and SHA-256
    <container>/README.md, .synthetic                          what it was made from

The folder appears once it is complete.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from catalog_builder.errors import StorageError
from catalog_builder.extras import install_line
from catalog_builder.synthetic.sample import (
    README,
    SampleSet,
    TileOfYear,
    sample_set,
)
from catalog_builder.synthetic.stores.icechunk_store import Irregularities, write_icechunk
from catalog_builder.synthetic.stores.zarr_store import write_zarr
from catalog_builder.synthetic.world import GENERATOR
from catalog_builder.tile.datasets import SYNTHETIC, dataset
from catalog_builder.tile.grid import TileId

StoreContainer = Literal["zarr", "icechunk"]
STORE_CONTAINERS: tuple[StoreContainer, ...] = get_args(StoreContainer)

DEFAULT_STORE_SET: tuple[TileOfYear, ...] = tuple(
    (TileId.from_name(name), 2024)
    for name in ("grid_17.85_83.95", "grid_17.95_83.95", "grid_18.05_83.95", "grid_15.05_-79.75")
)
"""Neighbours that overlap, the last of UTM zone 33 and the first of zone 34, and one in the south of zone 33
that lies in two shards. Near the poles, where tiles are narrow: 90 MB."""

_STAMP = ".synthetic"
_NEEDED = {"zarr": ("zarr",), "icechunk": ("zarr", "icechunk", "pcodec")}
_LAND = "global_0.1_degree_tiff_all"


@dataclass(frozen=True, slots=True)
class SampleStore:
    """The output of :func:`sample_store`."""

    folder: Path
    container: StoreContainer
    tile_years: tuple[TileOfYear, ...]
    kept: bool
    """Whether it already existed."""

    @property
    def store(self) -> Path:
        """The Zarr store or the Icechunk repository."""
        return self.folder / f"{SYNTHETIC}.{self.container}"

    @property
    def registry(self) -> Path:
        """Folder of ``parts``; exists beside an Icechunk repository."""
        return self.folder / f"{SYNTHETIC}.registry"

    @property
    def land(self) -> Path:
        """The land list, ``registry.txt`` among the landmasks."""
        return self.folder / _LAND / "registry.txt"

    @property
    def n_bytes(self) -> int:
        """Size of the store."""
        return sum(path.stat().st_size for path in self.store.rglob("*") if path.is_file())


def sample_store(
    root: str | Path,
    container: StoreContainer,
    *,
    tile_years: Sequence[TileOfYear] = DEFAULT_STORE_SET,
    seed: int = 0,
    workers: int | None = None,
    tiles: SampleSet | None = None,
    irregularities: Irregularities | None = None,
    progress: Callable[[str, int, int], None] = lambda _what, _done, _of: None,
) -> SampleStore:
    """Write synthetic tiles as a store.

    Parameters
    ----------
    root
        Local folder, created if necessary.
    container
        ``zarr`` or ``icechunk``.
    tile_years
        The tile-years to generate.
    seed, workers
        See :func:`~catalog_builder.synthetic.sample.sample_set`.
    tiles
        ``.npy`` files of these tile-years and this seed, if there are any already.
    irregularities
        For tests of readers; Icechunk only.
    progress
        Called with (what is done, how many, of how many).

    Raises
    ------
    StorageError
        If optional packages are missing, a file cannot be written, or the folder has a store of other tiles.
    """
    require(container)
    root = Path(root)
    wanted = tuple(dict.fromkeys(tile_years))
    folder = root / container
    made = SampleStore(folder, container, wanted, kept=folder.exists())
    stamp = _stamp(wanted, seed, irregularities)
    if made.kept:
        _check_same(folder, stamp)
        return made
    root.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{container}-", dir=root) as temporary:
            if tiles is None:
                tiles = sample_set(
                    Path(temporary) / "npy",
                    tile_years=wanted,
                    seed=seed,
                    workers=workers,
                    progress=lambda done, of, _: progress("making tiles", done, of),
                )
            making = SampleStore(Path(temporary) / container, container, wanted, kept=False)
            making.folder.mkdir()
            first, last = dataset(SYNTHETIC).years
            years = sorted({*range(first, last + 1), *(year for _, year in wanted)})
            report = lambda done, of: progress("writing shards", done, of)  # noqa: E731
            if container == "zarr":
                write_zarr(making.store, tiles.written, years, report)
            else:
                write_icechunk(making.store, making.registry, tiles.written, years, report, irregularities)
            _write_land(making, tiles)
            (making.folder / "README.md").write_text(README)
            (making.folder / _STAMP).write_text(stamp)
            making.folder.rename(folder)
    except OSError as error:
        raise StorageError(f"{folder}: {error}") from error
    return made


def require(container: StoreContainer) -> None:
    """Reject a container whose libraries are missing, before anything is made.

    Raises
    ------
    StorageError
        With what to install.
    """
    missing = [name for name in _NEEDED[container] if find_spec(name) is None]
    if missing:
        raise StorageError(f"--container {container} needs {' and '.join(missing)}: {install_line('zarr')}")


def _stamp(wanted: tuple[TileOfYear, ...], seed: int, irregularities: Irregularities | None) -> str:
    """Return the text that records how a store was made."""
    lines = [f"Not TESSERA data: tessera-stac sample, generator {GENERATOR}, seed {seed}"]
    lines += [f"{tile.name}_{year}" for tile, year in wanted]
    if odd := irregularities:  # sorted: sets are in no order
        lines += [f"incomplete {fill}" for fill in sorted(odd.incomplete)]
        lines += [f"refilled {fill}" for fill in sorted(odd.refilled)]
        lines += [f"refused {block}: {share}" for block, share in sorted(odd.refused.items())]
    return "".join(f"{line}\n" for line in lines)


def _check_same(folder: Path, stamp: str) -> None:
    path = folder / _STAMP
    if not path.is_file():
        raise StorageError(f"{folder}: exists and was not made by tessera-stac sample; choose another folder")
    if path.read_text() != stamp:
        raise StorageError(f"{folder}: has a sample of other tiles or another seed; remove it first")


def _write_land(made: SampleStore, tiles: SampleSet) -> None:
    """Write the landmasks, and list them as upstream does: name and SHA-256.

    Those beside an Icechunk repository are land throughout: there the list itself is the mask.
    """
    import numpy as np
    import rasterio

    made.land.parent.mkdir()
    lines = set()
    for written in tiles.written:
        path = made.land.parent / written.landmask.name
        shutil.copyfile(written.landmask, path)
        if made.container == "icechunk":
            with rasterio.open(path, "r+") as mask:
                mask.write(np.ones(mask.shape, np.uint8), 1)
        lines.add(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n")
    made.land.write_text("".join(sorted(lines)))
