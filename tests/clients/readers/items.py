"""Read items with one of many readers: a script for the environment of ``readers.lock``.

``python items.py READER API FOLDER``: prints JSON, ``[version, {id: [west, south, east, north, year]}]``,
bounds by the reader's own geometry. API is the root of a server, FOLDER a collection's ``items`` in a
catalogue folder.
"""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path


def of_items(items):
    from shapely.geometry import shape

    return {i["id"]: [*shape(i["geometry"]).bounds, i["properties"]["tessera:year"]] for i in items}


def of_frame(frame):
    bounds = frame.geometry.bounds.to_numpy().tolist()
    years = frame["tessera:year"].tolist()
    return {i: [*b, int(y)] for i, b, y in zip(frame["id"], bounds, years, strict=True)}


def collection_of(folder):
    return Path(folder).parent.name


def with_pystac(api, folder):
    import pystac

    address = f"{api}/collections/{collection_of(folder)}/items?limit=100"
    found = pystac.ItemCollection.from_file(address)
    return of_items([item.to_dict() for item in found])


def with_pystac_client(api, folder):
    from pystac_client import Client

    found = Client.open(api).search(collections=[collection_of(folder)])
    return of_items(found.items_as_dicts())


def with_rustac(api, folder):
    import rustac

    searched = of_items(rustac.search_sync(api, collections=[collection_of(folder)]))
    read = {}
    for path in sorted(Path(folder).rglob("*.parquet")):
        read |= of_items(rustac.read_sync(str(path))["features"])
    assert read == searched, f"by the API {sorted(searched)}, from parquet {sorted(read)}"
    return read


def with_stac_geoparquet(api, folder):
    import pyarrow.parquet as pq
    from stac_geoparquet.arrow import stac_table_to_items

    found = {}
    for path in sorted(Path(folder).rglob("*.parquet")):
        found |= of_items(stac_table_to_items(pq.ParquetFile(path).read()))
    return found


def with_geopandas(api, folder):
    import geopandas

    found = {}
    for path in sorted(Path(folder).rglob("*.parquet")):
        found |= of_frame(geopandas.read_parquet(path))
    whole = of_frame(geopandas.read_parquet(folder))
    assert whole == found, "the folder and its files differ"
    return whole


def with_dask_geopandas(api, folder):
    import dask_geopandas

    return of_frame(dask_geopandas.read_parquet(folder).compute())


def with_lonboard(api, folder):
    import geopandas
    import pyarrow.parquet as pq
    from lonboard import SolidPolygonLayer

    found = {}
    for path in sorted(Path(folder).rglob("*.parquet")):
        layer = SolidPolygonLayer(pq.read_table(path, partitioning=None))
        found |= of_frame(geopandas.GeoDataFrame.from_arrow(layer.table))
    return found


def with_duckdb(api, folder):
    import duckdb

    rows = duckdb.sql(
        'SELECT id, bbox.xmin, bbox.ymin, bbox.xmax, bbox.ymax, "tessera:year"'
        f" FROM read_parquet('{folder}/*/*.parquet', hive_partitioning = true)"
    ).fetchall()
    return {row[0]: list(row[1:]) for row in rows}


READERS = {
    "pystac": with_pystac,
    "pystac-client": with_pystac_client,
    "rustac": with_rustac,
    "stac-geoparquet": with_stac_geoparquet,
    "geopandas": with_geopandas,
    "dask-geopandas": with_dask_geopandas,
    "lonboard": with_lonboard,
    "duckdb": with_duckdb,
}


def main(reader, api, folder):
    warnings.simplefilter("ignore")
    print(json.dumps([version(reader), READERS[reader](api, folder)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
