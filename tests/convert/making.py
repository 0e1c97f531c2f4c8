"""Small sources for the converter's tests: a polar tile of 1121 x 180 pixels or less."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from catalog_builder.convert.encode.colours import Sample, fit_basis
from catalog_builder.convert.plan.job import ConvertOptions, Job
from catalog_builder.convert.plan.sources import Wanted, plan
from catalog_builder.convert.tile.convert import Result, convert_tile
from catalog_builder.item.basis import Basis
from catalog_builder.synthetic.sample import make_tile, write_npy_tile
from catalog_builder.synthetic.world import SampleTile
from catalog_builder.tile.grid import TileId

POLAR = TileId.from_name("grid_0.05_89.95")
"""The smallest tiles there are: close to the pole a tenth of a degree of longitude is some metres."""
YEAR = 2024

FILES = 5
"""Of a converted tile without colours: codes, scales, and the three documents of two float32 views."""
COLUMN = [POLAR, *(TileId(lat_i=8995, lon_i=lon_i) for lon_i in (605, 1205))]
"""The same column of three UTM zones: tiles of one shape."""


@cache
def sample(tile: TileId = POLAR, year: int = YEAR, seed: int = 0) -> SampleTile:
    """Return a synthetic tile with land, water and unprocessed pixels; do not change its arrays."""
    made = make_tile(tile, year, seed=seed)
    shape = made.scales.shape
    landmask = np.ones(shape, np.uint8)
    landmask[: shape[0] // 3, -1] = 0
    made.scales[-5:-3] = 0
    made.codes[-5:-3] = 0
    return SampleTile(tile, year, made.codes, made.scales, landmask)


def sample_basis() -> Basis:
    """Return colours fitted on :func:`sample`."""
    made = sample()
    inside = (made.scales > 0) & (made.landmask == 1)
    vectors = made.codes[inside].astype(np.float32) * made.scales[inside][:, None]
    return fit_basis([Sample("a", "synthetic", vectors[::16])])


def write_pair(
    root: Path, made: SampleTile | None = None, *, landmask: bool = True, sums: bool = False
) -> Path:
    """Write a pair as a download has it below ``root`` and return the ``.npy``.

    ``sums``: with the ``SHA256`` file that upstream's server has beside it, of the arrays as they are now.
    """
    made = made or sample()
    root.mkdir(parents=True, exist_ok=True)
    (root / "tessera_metadata.json").write_text('{"dataset_version": "0.0", "dataset_variant": "synthetic"}')
    written = write_npy_tile(
        root / "global_0.1_degree_representation", root / "global_0.1_degree_tiff_all", made
    )
    if not landmask:
        written.landmask.unlink()
    if not sums:
        written.npy.with_name("SHA256").unlink()
    return written.npy


def write_column(root: Path, years: Sequence[int] = (YEAR,)) -> Path:
    """Write the tiles of :data:`COLUMN`, which differ by a pixel: making others takes longer."""
    for year in years:
        for i, tile in enumerate(COLUMN):
            made = sample()
            scales = made.scales.copy()
            scales[0, 0] = 0.01 * (i + 1)
            write_pair(root, SampleTile(tile, year, made.codes, scales, made.landmask))
    return root


def contents(out: Path) -> dict[str, bytes]:
    """Return the files of an output by name, without the ledger."""
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("grid_*_*_*.*")}


def jobs_of(source: Path | str, **wanted: object) -> list[Job]:
    """Return the jobs of a source."""
    return list(plan([str(source)], Wanted(**wanted)).jobs())  # type: ignore[arg-type]


def convert_one(
    source: Path | str, out: Path, *, wanted: dict[str, object] | None = None, **options: object
) -> Result:
    """Convert the one job of a source in this process."""
    (job,) = jobs_of(source, **(wanted or {}))
    return convert_tile(job, ConvertOptions(str(out), **options))  # type: ignore[arg-type]
