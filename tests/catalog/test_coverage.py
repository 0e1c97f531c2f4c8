"""Coverage: upstream's classes, counts, and the map's pixels."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from catalog_builder.catalog.coverage.picture import coverage_png
from catalog_builder.catalog.coverage.table import coverage_table, touching
from catalog_builder.errors import QueryError
from catalog_builder.tile.cover import cover
from catalog_builder.tile.grid import TileId
from catalog_builder.tile.regions.region import region_of
from catalog_builder.tile.years import COVERAGE_NAMES, coverage_codes, year_bits, years_of

GREEN, BLUE, ORANGE = (97, 158, 100), (97, 98, 183), (250, 182, 100)
"""Upstream's colours at 60 % on the map's ground."""

year_sets = st.sets(st.integers(2000, 2031), min_size=1, max_size=10)


def upstream_class(has: set[int], years: set[int]) -> str:
    """Classify by the rule in words, as geotessera's ``visualization.py`` states it."""
    if has == years:
        return "full"
    return "latest" if has == {max(years)} else "partial"


def as_arrays(tiles: dict[str, list[int]]) -> tuple[np.ndarray, np.ndarray]:
    ids = [TileId.from_name(name) for name in tiles]
    cell = np.array([t.row * 3600 + t.col for t in ids], np.int32)
    return cell, np.array([year_bits(years) for years in tiles.values()], np.uint32)


def picture(cell: np.ndarray, mask: np.ndarray, years: list[int], **options: object) -> np.ndarray:
    file = io.BytesIO()
    coverage_png(file, cell, mask, years, **options)  # type: ignore[arg-type]
    return np.asarray(Image.open(file).convert("RGB"))


def count(image: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((np.abs(image.astype(int) - color).max(axis=-1) <= 1).sum())


class TestCodes:
    @settings(deadline=None)
    @given(year_sets, st.lists(year_sets, min_size=1, max_size=20))
    def test_the_rule(self, years: set[int], tiles: list[set[int]]) -> None:
        inside = [has & years for has in tiles]
        mask = np.array([year_bits(has) for has in tiles], np.uint32)
        codes = coverage_codes(mask, sorted(years))
        assert codes.dtype == np.uint8
        expected = [upstream_class(has, years) for has in inside]
        assert [COVERAGE_NAMES[code] for code in codes] == expected

    def test_one_year_is_always_full(self) -> None:
        assert coverage_codes(np.array([1 << 24], np.uint32), [2024]).tolist() == [0]

    def test_no_tiles(self) -> None:
        assert coverage_codes(np.empty(0, np.uint32), [2023, 2024]).shape == (0,)

    @given(year_sets)
    def test_years_of(self, years: set[int]) -> None:
        assert set(years_of(year_bits(years))) == years


class TestTable:
    @settings(deadline=None)
    @given(year_sets, st.lists(year_sets, max_size=30))
    def test_counts(self, years: set[int], tiles: list[set[int]]) -> None:
        inside = [frozenset(has & years) for has in tiles if has & years]
        table = coverage_table(np.array([year_bits(has) for has in tiles], np.uint32), sorted(years))
        assert table.n_tiles == len(inside)
        assert table.n_tile_years == sum(map(len, inside))
        assert table.years == {y: sum(y in has for has in inside) for y in sorted(years)}
        classes = Counter(upstream_class(set(has), years) for has in inside)
        assert table.classes == {name: classes[name] for name in COVERAGE_NAMES}
        assert {frozenset(c): n for c, n in table.combinations} == Counter(inside)
        assert [n for _, n in table.combinations] == sorted((n for _, n in table.combinations), reverse=True)


def test_touching_is_cover() -> None:
    cell = np.arange(1400 * 3600, 1430 * 3600, dtype=np.int32)
    region = shapely.Point(10, 51.5).buffer(0.7)
    np.testing.assert_array_equal(cell[touching(cell, region)], cover(region).cells())


YEARS = [2022, 2023, 2024]
TILES = {
    "grid_0.05_52.05": [2022, 2023, 2024],
    "grid_0.15_52.05": [2024],
    "grid_0.25_52.05": [2022],
    "grid_0.35_52.05": [2022, 2024],
    "grid_170.05_-30.05": [2024],
}


class TestMap:
    def test_colours_and_sizes(self) -> None:
        """Every tile is a rectangle of its colour, true to shape; the far one is left out."""
        image = picture(*as_arrays(TILES), YEARS, region=region_of("0.01,52.01,0.39,52.09"), width=300)
        per_cell = 300 // 6  # four cells and a margin of one
        tall = round(per_cell / np.cos(np.radians(52.05)))
        legend = 14**2
        for color, tiles in ((GREEN, 1), (BLUE, 1), (ORANGE, 2)):
            area = tiles * per_cell * tall
            assert 0.9 * area < count(image, color) < area + 2 * legend

    def test_years_choose(self) -> None:
        region = region_of("0.01,52.01,0.39,52.09")
        one = picture(*as_arrays(TILES), [2022], region=region, width=300)
        assert count(one, GREEN) > 3 * 40 * 60  # three tiles have 2022, and all are green
        assert count(one, BLUE) == count(one, ORANGE) == 0

    def test_only_tiles_that_touch_the_region(self) -> None:
        triangle = shapely.Polygon([(0.02, 52.02), (0.08, 52.02), (0.05, 52.08)])
        image = picture(*as_arrays(TILES), YEARS, region=triangle, width=300)
        assert count(image, GREEN) > 1000
        assert max(count(image, BLUE), count(image, ORANGE)) < 500  # the legend

    def test_across_the_antimeridian_in_one_piece(self) -> None:
        tiles = {"grid_179.95_-17.05": [2024], "grid_-179.95_-17.05": [2024]}
        image = picture(*as_arrays(tiles), YEARS, region=region_of("179.9,-17.1,-179.9,-17.0"), width=400)
        found = np.flatnonzero((np.abs(image.astype(int) - BLUE).max(axis=-1) <= 1).sum(axis=0) > 25)
        assert np.diff(found).max() <= 2  # but for the line between them
        assert len(found) > 100

    def test_world(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(1)
        cell = np.unique(rng.integers(330 * 3600, 1700 * 3600, 2000)).astype(np.int32)
        path = tmp_path / "map.png"
        coverage_png(path, cell, np.full(len(cell), 1 << 24, np.uint32), YEARS, width=900)
        image = np.asarray(Image.open(path))
        assert image.shape[1] > 900
        assert image.shape[0] < image.shape[1]
        plain = picture(cell[:0], np.empty(0, np.uint32), YEARS, width=900)
        assert [p.name for p in tmp_path.iterdir()] == ["map.png"]
        # a lone tile, a sixteenth of a pixel, is still seen
        assert (np.abs(image.astype(int) - plain).max(axis=-1) > 15).sum() > 1500

    def test_others_are_faint(self) -> None:
        cell, mask = as_arrays(TILES)
        region = region_of("0.01,52.01,0.39,52.19")
        land = np.array([TileId.from_name("grid_0.15_52.15").row * 3600 + 1801], np.int32)
        assert count(picture(cell, mask, YEARS, region=region, others=land), (224, 226, 222)) > 1000
        assert count(picture(cell, mask, YEARS, region=region), (224, 226, 222)) < 100

    def test_refused(self) -> None:
        cell, mask = as_arrays(TILES)
        with pytest.raises(QueryError, match="at least one year"):
            picture(cell, mask, [])
        with pytest.raises(QueryError, match="width"):
            picture(cell, mask, YEARS, width=10)
        with pytest.raises(QueryError, match="touches no cell"):
            picture(cell, mask, YEARS, region=shapely.Point(190, 0))


@pytest.mark.parametrize(
    "region", ["-180,-90,180,90", "0,89.95,10,90", "-180,-90,-170,-89", "179.99,0,180,0.01"]
)
def test_any_region_can_be_drawn(region: str) -> None:
    cell, mask = as_arrays(TILES)
    image = picture(cell, mask, YEARS, region=region_of(region), width=300)
    assert 100 < image.shape[0] < 8400
