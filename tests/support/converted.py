"""A catalogue with pixels: synthetic tiles on Svalbard, where tiles are narrow and so small.

Two neighbours and one more year are converted, with false colours; one year of the first is not.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.catalog.basis import store_basis
from catalog_builder.convert.fit_colours import fit_visual
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.plan.sources import Wanted, plan
from catalog_builder.convert.run import run
from catalog_builder.convert.workers.processes import ExecutorWorkers, Inline
from catalog_builder.synthetic.sample import sample_set
from catalog_builder.tile.datasets import dataset
from catalog_builder.tile.grid import TileId

FIRST = TileId.from_name("grid_15.65_78.25")
NEIGHBOUR = TileId.from_name("grid_15.75_78.25")
RAW_YEAR = 2022
"""Of the first tile: not converted."""
CONVERTED = ((FIRST, 2024), (NEIGHBOUR, 2024), (FIRST, 2023))
COLLECTION = "tessera-synthetic"


@dataclass(frozen=True, slots=True)
class Converted:
    """Where it is."""

    root: Path
    catalog: Path
    embeddings: Path
    """Source tiles, ``<year>/<grid>/<grid>.npy``."""


@cache
def converted() -> Converted:
    """Make the catalogue once a process; about 100 MB, removed at the end."""
    root = Path(tempfile.mkdtemp(prefix="tessera-converted-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    sample = sample_set(root / "source", tile_years=[*CONVERTED, (FIRST, RAW_YEAR)], workers=1)
    catalog = root / "catalog"
    options = BuildOptions(
        dataset("synthetic"),
        url="http://cat",
        source_root=str(sample.embeddings),
        landmask_root=str(sample.landmasks),
    )
    out = catalog / "cogs"
    job = ConvertOptions(out=str(out), durable=False)
    wanted = Wanted(dataset=dataset("synthetic"), years=frozenset({2023, 2024}))
    chosen = plan([str(sample.embeddings)], wanted)
    workers = ExecutorWorkers(Inline(), window=1)
    job = ConvertOptions(out=str(out), durable=False, bases=tuple(fit_visual(chosen, job, workers)))
    for basis in job.bases:
        store_basis(str(out), basis)
    report = run(chosen, job, workers)
    assert report.converted == len(CONVERTED), report
    build([str(sample.root)], catalog, options)
    return Converted(root, catalog, sample.embeddings)
