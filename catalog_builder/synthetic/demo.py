"""What `make run` does: a catalogue of real manifests and a few synthetic tiles, served.

The real collection lists TESSERA v1 over Britain and Ireland as published; the synthetic one has
synthetic pixels on this disk, in the same formats, so that every access method can be tried offline.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.catalog.basis import load_basis
from catalog_builder.console import progress, result, say
from catalog_builder.convert.api import prepare as prepare_conversion
from catalog_builder.convert.api import target_of
from catalog_builder.convert.plan.job import ConvertOptions, Wanted
from catalog_builder.errors import ConvertError
from catalog_builder.synthetic.sample import DEFAULT_SET, sample_set
from catalog_builder.tile.datasets import SYNTHETIC, dataset
from catalog_builder.tile.grid import TileId

MANIFESTS = Path(__file__).parents[1] / "data" / "sample-manifests"
"""The real manifests shipped with the package; see PROVENANCE.md there."""


def prepare(
    folder: Path, url: str, *, quiet: bool = False, tile_years: Sequence[tuple[TileId, int]] = DEFAULT_SET
) -> Path:
    """Create or update the demo catalogue; return its folder.

    Parameters
    ----------
    folder
        Output folder, with ``catalog/`` and ``source/`` in it.
    url
        URL that it will be served at.
    tile_years
        The synthetic tiles to generate.
    """
    catalog = folder / "catalog"
    with progress("tile-years", quiet=quiet) as report:
        real = build([str(MANIFESTS)], catalog, BuildOptions(dataset("v1"), url=url), report)
    say(f"{real.collection}: {real.items:,} real tile-years of {real.tiles:,} tiles")
    with progress("synthetic tiles", quiet=quiet) as report:
        sample = sample_set(
            folder / "source",
            tile_years=tile_years,
            progress=lambda done, of, _: report("making tiles", done, of),
        )
    options = BuildOptions(
        dataset(SYNTHETIC),
        url=url,
        source_root=str(sample.embeddings),
        landmask_root=str(sample.landmasks),
    )
    build([str(sample.root)], catalog, options)
    _convert(catalog, max(year for _, year in tile_years), quiet=quiet)
    made = build([str(sample.root)], catalog, options)
    say(f"{made.collection}: {made.items} synthetic tile-years with pixels on this disk, the newest as COGs")
    return catalog


def _convert(catalog: Path, year: int, *, quiet: bool) -> None:
    """Convert a year of the synthetic tiles; the others stay as published, for direct access."""
    sources = [str(catalog)]
    options = ConvertOptions(out=target_of(sources))
    known = load_basis(options.out, SYNTHETIC) is not None
    wanted = Wanted(dataset=dataset(SYNTHETIC), years=frozenset([year]))
    with prepare_conversion(sources, options, wanted, quiet=quiet) as conversion:
        done = conversion.run(fit_visual=not known)
    result(conversion.text_of(done), conversion.data_of(done), as_json=False)
    if done.exit_code:
        raise ConvertError("a synthetic tile could not be converted; see above")


def greeting(url: str) -> str:
    """Return the URLs, and three commands to try, in the environment that this runs in."""
    tile, year = DEFAULT_SET[0]
    item = f"{tile.name}_{year}"
    lane = f"{url}/source/{SYNTHETIC}/{year}/{tile.name}"
    python, rio = (shlex.quote(path) for path in (sys.executable, str(Path(sys.executable).with_name("rio"))))
    return f"""
  Coverage map  {url}/coverage
  STAC API      {url}/
  API document  {url}/api.html
  STAC Browser  {url}/browser/

Three things to try in another terminal:

  1. find real tiles around Cambridge in 2024
     curl -s '{url}/search?collections=tessera-v1&bbox=0,52.1,0.2,52.3&datetime=2024-01-01T00:00:00Z' | {python} -m json.tool | head -40

  2. the same with pystac-client
     {python} -c "from pystac_client import Client; s = Client.open('{url}/').search(bbox=[0, 52.1, 0.2, 52.3]); print(s.matched(), [i.id for i in s.items()][:3])"

  3. one pixel, 128 bands, by range requests on {item} (synthetic pixels)
     {rio} sample {lane}/{tile.name}_f32.vrt <<< '[{_middle(tile.raster().bbox)}]' | cut -c1-120
"""  # noqa: E501 - commands are copied whole


def _middle(bbox: tuple[float, float, float, float]) -> str:
    west, south, east, north = bbox
    return f"{(west + east) / 2:.0f}, {(south + north) / 2:.0f}"
