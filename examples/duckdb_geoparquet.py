"""Ask the stac-geoparquet of a collection with DuckDB: no API, plain SQL over a static file.

DuckDB's httpfs extension can read the URL directly; here the file is downloaded first, so that nothing has
to be installed.

Run: TESSERA_API=http://localhost:8000/ python examples/duckdb_geoparquet.py
"""

import os
import tempfile
from pathlib import Path

import duckdb
import httpx

API = os.environ.get("TESSERA_API", "http://localhost:8000/").rstrip("/")
COLLECTION = os.environ.get("TESSERA_COLLECTION", "tessera-synthetic")

collection = httpx.get(f"{API}/collections/{COLLECTION}").raise_for_status().json()
mirrors = [a["href"] for a in collection["assets"].values() if "collection-mirror" in a["roles"]]
with tempfile.TemporaryDirectory() as folder:
    for i, href in enumerate(mirrors):
        (Path(folder) / f"{i}.parquet").write_bytes(httpx.get(href).raise_for_status().content)
    found = duckdb.sql(
        f"""
        SELECT "tessera:year" AS year, count(*) AS tiles, min(bbox.xmin) AS west, max(bbox.ymax) AS north,
               sum(CAST("tessera:cog" AS INTEGER)) AS converted
        FROM read_parquet('{folder}/*.parquet', union_by_name = true)
        GROUP BY year ORDER BY year
        """
    ).fetchall()
note = " (SYNTHETIC tiles)" if collection.get("tessera:synthetic") else ""
print(f"{collection['title']}{note}: {len(mirrors)} files")
print("year  tiles  converted  west   north")
for year, tiles, west, north, converted in found:
    print(f"{year}  {tiles:5}  {converted:9}  {west:5.1f}  {north:5.1f}")
