"""Region and years are one option each, which means the same in every verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from catalog_builder.cli.main import app
from catalog_builder.cli.options import parse_region, parse_years
from catalog_builder.errors import QueryError
from catalog_builder.manifests.part import Subset
from catalog_builder.tile.cover import cells_with_area, cover
from catalog_builder.tile.grid import Bounds, TileId, centres
from tests.support.catalogs import build_from, patch, write_manifest

VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
WORDS = {
    "years": {"--years", "--year"},
    "region": {"--region", "--bbox", "--region-file"},
    "layer": {"--layer"},
    "dataset": {"--dataset"},
}
TRIANGLE = shapely.Polygon([(0.02, 52.02), (0.55, 52.02), (0.02, 52.55)])


def run(*arguments: object) -> Any:
    done = CliRunner().invoke(app, [*map(str, arguments), "--quiet", "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 x 8 tiles of two years."""
    folder = tmp_path_factory.mktemp("options")
    manifests = [write_manifest(folder / f"m{y}", y, patch(0, 52, 8, 8)) for y in (2023, 2024)]
    for manifest in manifests:
        build_from(folder / "c", manifest, url="http://e.test", update=True)
    return folder


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_the_same_option_in_every_verb(word: str) -> None:
    found = {
        verb: set(option.opts)
        for verb, command in VERBS.items()
        for option in command.params
        if set(option.opts) & WORDS[word]
    }
    assert len(found) >= 5
    assert found == dict.fromkeys(found, WORDS[word])


def test_years_are_lists_of_spans() -> None:
    assert parse_years(["2017-2019,2024"]) == {2017, 2018, 2019, 2024}
    for bad in (["2017-"], ["2019-2017"], ["2017", "2018"], ["٢٠١٧"]):
        with pytest.raises(QueryError, match="--years"):
            parse_years(bad)


@pytest.mark.parametrize("option", ["--bbox", "--region", "--region-file"])
def test_coverage_takes_a_region_by_any_word(catalog: Path, tmp_path: Path, option: str) -> None:
    box = run("coverage", catalog / "c", option, "0.01,52.01,0.19,52.09")
    assert box["n_tiles"] == 2
    path = tmp_path / "r.geojson"
    path.write_text(shapely.to_geojson(TRIANGLE))
    assert run("coverage", catalog / "c", option, path)["n_tiles"] == cover(TRIANGLE).n_cells


@pytest.mark.parametrize("option", ["--years", "--year"])
def test_a_year_filters_in_every_verb(catalog: Path, tmp_path: Path, option: str) -> None:
    assert run("coverage", catalog / "c", option, 2023)["years"] == {"2023": 64}
    assert (
        run("export", catalog / "c", "--to", "ndjson", "--out", tmp_path / "i", option, 2023)["items"] == 64
    )
    found = run("convert", catalog / "c", option, 2023, "--dry-run")
    assert found["total"] == 64, "and not both years, as --year once did without a word"
    built = run("build", catalog / "m2023", catalog / "m2024", "--out", tmp_path / "b", option, 2024)
    assert [year["year"] for year in built["years"]] == [2024]


def test_build_and_convert_take_polygons_in_any_crs(catalog: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.gpkg"
    fine = shapely.segmentize(TRIANGLE, 0.01)
    geopandas.GeoDataFrame(geometry=[fine], crs="EPSG:4326").to_crs("EPSG:27700").to_file(path)
    n = len(cells_with_area(TRIANGLE))
    assert n == 21
    built = run("build", catalog / "m2024", "--out", tmp_path / "b", "--region", path)
    assert built["tiles"] == n
    assert run("convert", catalog / "c", "--region", path, "--years", 2023, "--dry-run")["total"] == n


TWENTIETHS = st.integers(0, 24).map(lambda n: n / 20)


@given(st.lists(TWENTIETHS, min_size=4, max_size=4, unique=True))
@settings(max_examples=60, deadline=None)
def test_a_polygon_that_is_a_box_selects_what_the_box_does(edges: list[float]) -> None:
    """Half of their edges are on the grid's lines, where cells touch and share no area."""
    west, east = sorted(edges[:2])
    south, north = sorted(edges[2:])
    box = Bounds(west, south, east, north)
    cells = np.arange(20 * 20)
    lat_i, lon_i = centres(900 + cells // 20, 1800 + cells % 20)
    by_box = Subset(bounds=box).keeps(lat_i, lon_i)
    by_polygon = Subset(bounds=shapely.Polygon(shapely.box(*box).exterior)).keeps(lat_i, lon_i)
    assert by_box is not None
    assert by_polygon is not None
    assert (by_box == by_polygon).all()


@given(st.lists(st.tuples(st.floats(0, 1.2), st.floats(0, 1.2)), min_size=3, max_size=8))
@settings(max_examples=60, deadline=None)
def test_cells_with_area_are_those_whose_part_has_some(corners: list[tuple[float, float]]) -> None:
    shape = shapely.convex_hull(shapely.MultiPoint(corners))
    found = set(cells_with_area(shape).tolist()) if shape.area > 1e-9 else set()
    for cell in cover(shape).cells().tolist():
        part = shapely.intersection(shape, shapely.box(*TileId.from_cell(cell).bounds))
        assert cell in found or part.area < 1e-9


def test_what_does_nothing_is_an_error() -> None:
    for given_, layer in ((None, "a"), (["0,0,1,1"], "a"), (["0,0,1,1", "0,0,2,2"], None)):
        with pytest.raises(QueryError, match=r"layer|expected only one"):
            parse_region(given_, layer)


def test_a_region_that_is_not_cut_is_warned_of_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.geojson"
    path.write_text(shapely.to_geojson(shapely.box(-179, -17, 179, -16)))
    assert parse_region([str(path)]) is not None
    (line,) = capsys.readouterr().err.strip().split("\n")
    assert line.startswith(f"warning: {path}, row 1: spans the globe")
    assert np.char.find(line, ".py") < 0
