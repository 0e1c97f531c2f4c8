"""How far zones reach, and which tiles touch a window: against upstream's rule and a search of all tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pyproj import Transformer

from catalog_builder.pixels.window import Window
from catalog_builder.stores.extent import SHARD, of_store, view_groups, zone_group
from catalog_builder.stores.zones import ZoneGroup
from catalog_builder.tile.grid import COLS_PER_ZONE, N_COLS, TileId
from catalog_builder.zone_arrays.touching import tiles_touching


def all_corners(tiles: list[TileId], zone: int) -> tuple[np.ndarray, np.ndarray]:
    bounds = np.array([tile.bounds for tile in tiles])
    to_utm = Transformer.from_crs(4326, 32600 + zone, always_xy=True)
    return to_utm.transform(bounds[:, [0, 2, 0, 2]], bounds[:, [3, 3, 1, 1]])


@pytest.mark.parametrize("zone", [1, 31, 60])
def test_an_extent_is_that_of_every_corner(zone: int) -> None:
    """By a few tiles of each row as by all of them, in both hemispheres and across the central meridian."""
    rng = np.random.default_rng(zone)
    for rows in ((200, 1700), (900, 1700), (200, 900), (890, 910)):
        cells = rng.integers(*rows, 60) * N_COLS + rng.integers(0, COLS_PER_ZONE, 60) + 60 * (zone - 1)
        group = zone_group(zone, cells, [2024])
        x, y = all_corners([TileId.from_cell(int(cell)) for cell in cells], zone)
        assert group.west == np.floor(x.min() / 10) * 10
        assert group.top == np.ceil(y.max() / 10) * 10
        for pixels, metres in ((group.cols, x.max() - group.west), (group.rows, group.top - y.min())):
            assert pixels % SHARD == 0
            assert 0 <= pixels - metres / 10 < SHARD


def test_tiles_that_touch_a_window_are_those_whose_rasters_do() -> None:
    """All tiles of a zone near a window are looked at, one by one; the order is upstream's."""
    rng = np.random.default_rng(5)
    group = ZoneGroup("utm31", 32631, 200000, 9300000, 1_900_000, 70_000, (2024,), (2024,))
    for _ in range(40):
        centre = TileId.from_row_col(int(rng.integers(120, 1720)), 1800 + int(rng.integers(1, 59)))
        row, col = group.position(centre.raster())
        window = Window(row + int(rng.integers(-40, 1200)), max(col + int(rng.integers(-40, 900)), 0), 32, 32)
        expected = []
        for lon in range(-4, 5):
            for lat in range(-4, 5):
                tile = TileId(centre.lat_i + 10 * lat, centre.lon_i + 10 * lon)
                if tile.utm_zone != 31:
                    continue
                raster = tile.raster()
                r, c = group.position(raster)
                if (
                    window.row - raster.height < r < window.row + 32
                    and window.col - raster.width < c < window.col + 32
                ):
                    expected.append((tile.lon_i, tile.lat_i, r, c, *raster.shape))
        found = [
            (t.tile.lon_i, t.tile.lat_i, t.row, t.col, t.height, t.width)
            for t in tiles_touching(group, window)
        ]
        assert found == sorted(expected)


def test_a_zone_of_a_store_keeps_its_grid_until_tiles_lie_beyond() -> None:
    tile = TileId.from_name("grid_0.15_52.05")
    cells, none = np.array([tile.cell]), np.empty(0, np.int64)
    own = ZoneGroup("utm31", 32631, 280_000, 5_800_000, 8192, 8192, (2023, 2024), (2024,))
    assert view_groups(cells, none, [2024], [own]) == (replace(own, complete=(2023, 2024)),)
    small = replace(own, west=302_000, rows=2048, cols=2048)
    (found,) = view_groups(cells, none, [2022], [small])
    assert (found.west, found.cols) == (302_000 - 10 * SHARD, SHARD + 2048)
    assert (found.top, found.rows) == (5_800_000, 2048 + SHARD)
    assert found.years == (2022, 2023, 2024)
    assert found.position(tile.raster())[0] + tile.raster().height <= found.rows


def test_hemispheres_are_put_together_as_upstream_presents_them() -> None:
    """Rows beyond the equator are the other group's."""
    north = ZoneGroup("31N", 32631, 163_840, 20_480, 4096, 2048, (2024,), (2024,))
    south = ZoneGroup("31S", 32731, 143_360, 10_020_480, 4096, 2048, (2024,), (2024,))
    found = of_store([north, south], 31)
    assert found == ZoneGroup("utm31", 32631, 143_360, 20_480, 2048 + 2048, 4096, (2024,), (2024,))
    assert of_store([south], 31) == replace(found, top=0, rows=2048, cols=2048)
    assert of_store([south], 32) is None
