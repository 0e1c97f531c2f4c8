"""Readers of tables that know GeoParquet find the geometry of the catalogue's files: of one, and of a folder.

pyarrow, on which they stand, asks the schema that the writer stored, not the file's own metadata.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import geopandas
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import shapely

from catalog_builder.catalog.extract import extracts
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.publish.geoparquet_export import write_geoparquet
from tests.conftest import plain_environment
from tests.support.converted import COLLECTION, FIRST, NEIGHBOUR, Converted
from tests.support.environments import environment

CELLS = {tile.name: shapely.box(*tile.bounds) for tile in (FIRST, NEIGHBOUR)}


@pytest.fixture(scope="module", params=["catalogue", "export"])
def folder(
    request: pytest.FixtureRequest, tiles: Converted, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a folder of ``year=YYYY/items.parquet``, the builder's and the exporter's."""
    if request.param == "catalogue":
        return tiles.catalog / COLLECTION / "items"
    out = tmp_path_factory.mktemp("export")
    write_geoparquet(out, extracts(CatalogFolder(tiles.catalog).open_index(), url="http://e.test"))
    return out / COLLECTION


def check(frame: Any, n: int) -> None:
    assert len(frame) == n
    assert frame.geometry.name == "geometry"
    assert frame.crs.to_authority() == ("OGC", "CRS84")
    for name, geometry in zip(frame["tessera:tile"], frame.geometry, strict=True):
        assert geometry.equals(CELLS[name])


def test_geopandas(folder: Path) -> None:
    check(geopandas.read_parquet(folder), 4)
    check(geopandas.read_parquet(folder, columns=["geometry", "tessera:tile"]), 4)
    check(geopandas.read_parquet(folder / "year=2024" / "items.parquet", bbox=CELLS[FIRST.name].bounds), 2)


def test_pyarrow_sees_it_in_the_schema_and_in_the_file(folder: Path) -> None:
    for path in folder.rglob("items.parquet"):
        schema = pq.read_schema(path)
        geo = json.loads(schema.metadata[b"geo"])
        assert geo["primary_column"] == "geometry"
        stac = json.loads(schema.metadata[b"stac-geoparquet"])
        assert list(stac["collections"]) == [COLLECTION]
        # DuckDB, GDAL and whoever knows no Arrow look into the file's footer
        footer = pq.ParquetFile(path).metadata.metadata
        assert {name: footer[name] for name in (b"geo", b"stac-geoparquet")} == schema.metadata
    assert b"geo" in pyarrow.dataset.dataset(folder, partitioning="hive").schema.metadata


_OTHERS = """
import json, sys
import dask_geopandas, geopandas, pyarrow.dataset as ds
from lonboard import PolygonLayer, viz

folder = sys.argv[1]
frame = dask_geopandas.read_parquet(folder).compute()
table = ds.dataset(folder, partitioning="hive").to_table(columns=["geometry", "id"])
layer = PolygonLayer(table)
(drawn,) = viz(table).layers
print(json.dumps({
    "tiles": dict(zip(frame["id"], frame.geometry.to_wkt())),
    "crs": frame.crs.to_authority(),
    "rows": layer.table.num_rows,
    "extension": layer.table.schema.field("geometry").metadata_str["ARROW:extension:name"],
    "drawn": type(drawn).__name__,
    "bbox": [round(getattr(drawn._bbox, edge), 2) for edge in ("minx", "miny", "maxx", "maxy")],
}))
"""


def test_dask_geopandas_and_lonboard(folder: Path, tmp_path: Path) -> None:
    python = environment(Path(__file__).parent / "readers" / "readers.lock")
    done = subprocess.run(
        [python, "-c", _OTHERS, folder],
        cwd=tmp_path,
        env=plain_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert {i.rpartition("_")[0] for i in said["tiles"]} == set(CELLS)
    for name, text in said["tiles"].items():
        assert shapely.from_wkt(text).equals(CELLS[name.rpartition("_")[0]])
    assert said["crs"] == ["OGC", "CRS84"]
    assert (said["rows"], said["extension"]) == (4, "geoarrow.polygon")
    assert said["drawn"] == "PolygonLayer"
    assert said["bbox"] == [15.6, 78.2, 15.8, 78.3]
