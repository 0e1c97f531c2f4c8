"""Whatever the tile-years of a catalogue have, every output says the same of them.

The normal state while converting: some years have COGs, some have none, some tiles are float32, some are
known by a GeoTIFF only. Each output takes its items from the index or the builder's tables its own way.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pystac.validation
import pytest
import stac_geoparquet.arrow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.catalogue.snapshot import IndexSnapshot
from api.request.fields import Fields
from api.search.computed import COMPUTED, ZONE
from api.search.render import render
from catalog_builder.build.run import BuildOptions, build
from catalog_builder.catalog.extract import extracts
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.catalog.index.reader import Index
from catalog_builder.catalog.index.search.selection import Selection
from catalog_builder.convert.ledger.rows import FileRow, LedgerRow
from catalog_builder.item.statistics import encode_code_range, encode_statistics
from catalog_builder.manifests import ManifestPart
from catalog_builder.publish.geoparquet_export import write_geoparquet
from catalog_builder.publish.ndjson import write_ndjson
from catalog_builder.publish.pgstac.load import _items
from catalog_builder.publish.static import write_static
from catalog_builder.tile.datasets import dataset
from catalog_builder.tile.grid import TileId
from tests.support.tables import digest, landmask_table, tile_table

URL = "https://stac.example.org"
YEARS = (2022, 2023, 2024)
TILES = tuple(TileId.from_name(f"grid_{lon}_52.05") for lon in ("0.05", "0.15", "6.05"))

TileYear = dict[str, Any]

tile_year = st.fixed_dictionaries(
    {
        "source": st.sampled_from(["npy", "geotiff", "both", "ledger"]),
        "hashes": st.booleans(),
        "sizes": st.sampled_from(["", "formula", "odd"]),
        "mtime": st.booleans(),
        "cog": st.sampled_from(["", "", "native", "float32"]),
        "visual": st.booleans(),
        "statistics": st.booleans(),
        "code_range": st.booleans(),
        "grid": st.sampled_from(["utm", "source"]),
    }
).filter(lambda t: t["source"] != "ledger" or t["cog"])
"""What there is of a tile-year; of one that only the ledger knows there are COGs."""
catalogues = st.dictionaries(st.tuples(st.sampled_from(TILES), st.sampled_from(YEARS)), tile_year, min_size=1)


def _ledger_row(tile: TileId, year: int, has: TileYear) -> LedgerRow:
    native = has["cog"] == "native"
    content, visual = (digest(f"{tile.name}{year}{x}").hex()[:8] for x in "cv")
    stem = f"{year}/{tile.name}/{tile.name}_{year}"

    def file(name: str, size: int, header: int = 0) -> FileRow:
        return FileRow(f"{stem}_{content}_{name}", size, digest(f"{name}{tile.name}{year}").hex(), header)

    statistics = np.arange(512, dtype=np.float32).reshape(4, 128) / 7
    codes = np.stack([-np.arange(128), np.arange(128)]).astype(np.int8)
    return LedgerRow(
        f"v1/{year}/{tile.name}",
        "ok",
        dataset="v1",
        lat_i=tile.lat_i,
        lon_i=tile.lon_i,
        year=year,
        kind="npy" if has["source"] == "npy" else "geotiff",
        profile=has["cog"],
        grid=has["grid"],
        content=content,
        visual_content=visual if has["visual"] else "",
        embeddings=file("embeddings.tif", 8_000_000, 5000),
        scales=file("scales.tif", 900_000, 700) if native else None,
        vrt=file("f32.vrt", 40_000) if native else None,
        visual=file("visual.tif", 100_000, 900) if has["visual"] else None,
        thumbnail=file("thumbnail.png", 5000) if has["visual"] else None,
        valid_fraction=0.25,
        statistics=encode_statistics(statistics) if has["statistics"] else "",
        code_range=encode_code_range(codes) if has["code_range"] and native else "",
        finished="2025-01-01T00:00:00Z",
    )


@contextmanager
def built(found: dict[tuple[TileId, int], TileYear]) -> Iterator[tuple[Path, Index]]:
    """Build a catalogue of some tile-years, with a landmask for the first tile."""
    known = {at: has for at, has in found.items() if has["source"] != "ledger"}
    kinds = list(known.values())
    npy = [has["source"] != "geotiff" for has in kinds]
    sizes = []
    for (tile, _), has, there in zip(known, kinds, npy, strict=True):
        pixels = tile.raster().height * tile.raster().width
        right = (128 * pixels + 128, 4 * pixels + 128)
        sizes.append({"": (None, None), "formula": right, "odd": (1000, 500)}[has["sizes"] if there else ""])
    hashed = [has["hashes"] and there for has, there in zip(kinds, npy, strict=True)]
    table = tile_table(
        known,
        has_npy=npy,
        npy_size=[s[0] for s in sizes],
        scales_size=[s[1] for s in sizes],
        npy_sha256=[digest(f"n{i}") if yes else None for i, yes in enumerate(hashed)],
        scales_sha256=[digest(f"s{i}") if yes else None for i, yes in enumerate(hashed)],
        mtime=[datetime(2025, 8, 20, 1, 2, 3, tzinfo=UTC) if has["mtime"] else None for has in kinds],
        geotiff=["a b/%.tif" if has["source"] in ("geotiff", "both") else None for has in kinds],
        geotiff_size=[99 if has["sizes"] and has["source"] != "npy" else None for has in kinds],
    )
    parts = [ManifestPart("m", None, table), ManifestPart("l", None, landmasks=landmask_table(TILES[:1]))]
    rows = [_ledger_row(*at, has) for at, has in found.items() if has["cog"]]
    with tempfile.TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch:
        folder = Path(temporary)
        (folder / "ledger").mkdir()
        (folder / "ledger" / "a.jsonl").write_bytes(b"".join(row.to_json() + b"\n" for row in rows))
        patch.setattr("catalog_builder.build.staging.reader.read_dataset", lambda *_a, **_k: iter(parts))
        options = BuildOptions(dataset("v1"), url=URL, ledgers=(str(folder / "ledger"),))
        build(["table"], folder / "catalog", options)
        yield folder, CatalogFolder(folder / "catalog").open_index()


def expected_assets(tile: TileId, has: TileYear) -> set[str]:
    """Return the keys of a tile-year's assets, from what there is."""
    npy, geotiff = has["source"] in ("npy", "both"), has["source"] in ("geotiff", "both")
    keys = {"embeddings"}
    if has["cog"] or (npy and has["sizes"] != "odd"):
        keys |= {"embeddings_f32", "embeddings_f32_window"}
    if has["cog"] == "native":
        keys.add("scales")
    if has["cog"] and has["visual"]:
        keys |= {"visual", "thumbnail"}
    keys |= {"source_npy", "source_scales"} if npy else set()
    keys |= {"source_geotiff"} if geotiff else set()
    return keys | ({"landmask"} if tile == TILES[0] else set())


def plain(value: Any) -> Any:
    """Bring times to instants and leave out nulls: Arrow has every key in every row."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, str) and value[-1:] == "Z" and value[4:5] == "-":
        return datetime.fromisoformat(value)
    return value


def without_links(item: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in item.items() if k != "links"}


def parquet_items(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in folder.rglob("items.parquet"):
        for item in stac_geoparquet.arrow.stac_table_to_items(pq.ParquetFile(path).read()):
            found[item["id"]] = item
    return found


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(catalogues, st.data())
def test_every_output_says_the_same(found: dict[tuple[TileId, int], TileYear], data: st.DataObject) -> None:
    with built(found) as (folder, index):
        (record,) = index.collections.values()
        rows = index.page(Selection([record.ordinal]), 1000)
        snapshot = IndexSnapshot(index, "1")
        items = {i["id"]: i for i in map(orjson.loads, render(snapshot, rows, URL))}
        assert items.keys() == {f"{tile.name}_{year}" for tile, year in found}
        for (tile, year), has in found.items():
            item = items[f"{tile.name}_{year}"]
            # what the server computes is in its own items alone
            assert (item["assets"].pop(COMPUTED, None) is not None) == bool(has["cog"]), has
            expected = expected_assets(tile, has)
            can_be_read = {"embeddings_f32", "source_geotiff"} & expected
            assert (item["assets"].pop(ZONE, None) is not None) == bool(can_be_read), has
            assert set(item["assets"]) == expected, has
            assert item["properties"]["tessera:cog"] == bool(has["cog"])
            pystac.validation.validate_dict(core(item))

        parts = extracts(index)
        write_ndjson(str(folder / "items.ndjson"), parts)
        lines = [orjson.loads(line) for line in (folder / "items.ndjson").read_bytes().splitlines()]
        # with_map_links: what only a server can say
        own = {i: {k: v for k, v in item.items() if k != "links"} for i, item in items.items()}
        own = {i: {**item, "stac_extensions": lines[0]["stac_extensions"]} for i, item in own.items()}
        assert {i["id"]: without_links(i) for i in lines} == own
        loaded = list(_items(parts[0], rows))
        assert {i["id"]: without_links(i) for i in loaded} == own
        write_geoparquet(folder / "parquet", parts)
        for of in (folder / "catalog", folder / "parquet"):
            assert {i: plain(without_links(x)) for i, x in parquet_items(of).items()} == plain(own)
        write_static(folder / "static", parts)
        static = [orjson.loads(p.read_bytes()) for p in (folder / "static").rglob("grid_*.json")]
        assert {i["id"]: without_links(i) for i in static if i["type"] == "Feature"} == own

        # any part of the columns
        some = ["type", "geometry", "assets", "links", "assets.embeddings.href", "tessera:valid_fraction"]
        names = data.draw(st.lists(st.sampled_from([*some, "properties", "id"]), min_size=1, unique=True))
        texts = render(snapshot, rows, URL, fields=Fields(tuple(names)))
        for row, text in zip(render(snapshot, rows, URL), texts, strict=True):
            assert is_part(orjson.loads(text), orjson.loads(row))
        for of in (folder / "catalog", folder / "parquet"):
            paths = sorted(of.rglob("items.parquet"))
            schemas = [pq.read_schema(path) for path in paths]
            assert all(schema.equals(schemas[0]) for schema in schemas)  # a dataset of all years
            columns = data.draw(st.lists(st.sampled_from(schemas[0].names), min_size=1, unique=True))
            table = ds.dataset(paths)
            assert table.to_table(columns=columns).equals(table.to_table().select(columns))


def core(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item that is checked against the core schemas alone, which pystac brings along."""
    return {**item, "stac_extensions": []}


def is_part(part: Any, whole: Any) -> bool:
    """Whether an object is another one less some keys."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(k in whole and is_part(v, whole[k]) for k, v in part.items())
    return bool(part == whole)
