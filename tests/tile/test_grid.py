"""The grid, against pyproj asked tile by tile and the figures that upstream's users published."""

from __future__ import annotations

import doctest
import math
from functools import cache

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from catalog_builder.errors import GridError
from catalog_builder.tile import grid
from catalog_builder.tile.grid import (
    LAT_EDGES,
    LON_EDGES,
    N_COLS,
    N_ROWS,
    Bounds,
    Raster,
    TileId,
    rasters,
    rows_cols_touching,
    snap_origin,
    split_antimeridian,
)

rows = st.integers(0, N_ROWS - 1)
cols = st.integers(0, N_COLS - 1)
tiles = st.builds(TileId.from_row_col, rows, cols)
unhurried = settings(deadline=None, max_examples=200)

to_utm = cache(lambda epsg: Transformer.from_crs(4326, epsg, always_xy=True))


def oracle(lon: float, lat: float) -> Raster:
    """Upstream's formula, written out for one tile (geotessera 0.11, ``zarr.py``)."""
    zone = min(max(math.floor((lon + 180) / 6) + 1, 1), 60)
    epsg = (32700 if lat < 0 else 32600) + zone
    (ulx, uly), (urx, ury), (llx, lly), (lrx, lry) = (
        to_utm(epsg).transform(lon + dx, lat + dy)
        for dx, dy in ((-0.05, 0.05), (0.05, 0.05), (-0.05, -0.05), (0.05, -0.05))
    )
    left, top = min(ulx, llx), max(uly, ury)
    width = round((max(urx, lrx) - left) / 10)
    height = round((top - min(lly, lry)) / 10)
    return Raster(epsg, Affine(10, 0, left, 0, -10, top), height, width)


class TestNames:
    @given(tiles)
    def test_round_trips(self, tile: TileId) -> None:
        assert TileId.from_name(tile.name) == tile
        assert TileId.from_row_col(tile.row, tile.col) == tile
        assert TileId.containing(tile.lon, tile.lat) == tile
        assert tile.name == f"grid_{tile.lon:.2f}_{tile.lat:.2f}"

    @pytest.mark.parametrize(
        ("name", "lon_i", "lat_i"),
        [
            ("grid_0.15_52.05", 15, 5205),
            ("grid_-0.05_10.05", -5, 1005),
            ("grid_-179.95_-89.95", -17995, -8995),
            ("grid_179.95_89.95", 17995, 8995),
        ],
    )
    def test_known(self, name: str, lon_i: int, lat_i: int) -> None:
        tile = TileId.from_name(name)
        assert (tile.lon_i, tile.lat_i, tile.name) == (lon_i, lat_i, name)

    @pytest.mark.parametrize(
        "name",
        [
            "grid_0.10_52.05",  # an edge, not a centre
            "grid_180.05_52.05",
            "grid_0.15_90.05",
            "grid_0.15_-90.05",
            "grid_0.155_52.05",
            "grid_0.15_52.05_2024",
            "grid_0.15_52.05\n",
            "grid_00.15_52.05",
            "grid_+0.15_52.05",
            "grid_.15_52.05",
            "grid_0.15",
            "tile_0.15_52.05",
            "GRID_0.15_52.05",
            "grid_0,15_52,05",
            "grid_0.1٥_52.05",  # other scripts have digits too
            "",
        ],
    )
    def test_off_the_grid(self, name: str) -> None:
        with pytest.raises(GridError) as error:
            TileId.from_name(name)
        assert "expected" in str(error.value)

    def test_centres_from_int16_columns(self) -> None:
        tile = TileId(lat_i=np.int16(8995), lon_i=np.int16(17995))  # type: ignore[arg-type]
        assert (tile.row, tile.col, tile.epsg) == (1799, 3599, 32660)
        assert tile == TileId(8995, 17995)

    @pytest.mark.parametrize(("row", "col"), [(-1, 0), (1800, 0), (0, -1), (0, 3600)])
    def test_no_such_row_or_column(self, row: int, col: int) -> None:
        with pytest.raises(GridError, match="off the grid"):
            TileId.from_row_col(row, col)
        with pytest.raises(GridError):
            rasters(np.array([row]), np.array([col]))


class TestManyTiles:
    @pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
    def test_arrays_as_single_tiles(self, dtype: type[np.integer]) -> None:
        made = [TileId(lat_i, lon_i) for lat_i in (-8995, -5, 5, 8995) for lon_i in (-17995, -5, 5, 17995)]
        row, col = np.array([(t.row, t.col) for t in made], dtype).T
        lat_i, lon_i = np.array([(t.lat_i, t.lon_i) for t in made], dtype).T
        assert np.array_equal(grid.centres(row, col), [lat_i, lon_i])
        assert np.array_equal(grid.of_centres(lat_i, lon_i), [row, col])
        cell = grid.cells(row, col)
        assert cell.tolist() == [t.row * 3600 + t.col for t in made] == [t.cell for t in made]
        assert np.array_equal(grid.rows_cols(cell), [row, col])
        assert [TileId.from_cell(c) for c in cell.tolist()] == made
        assert grid.epsg_codes(row, col).tolist() == [t.epsg for t in made]

    def test_texts_are_those_of_names(self) -> None:
        lat, lon = grid.centre_texts()
        for row, col in ((0, 0), (899, 1799), (900, 1800), (1799, 3599)):
            assert f"grid_{lon[col]}_{lat[row]}" == TileId.from_row_col(row, col).name

    def test_examples(self) -> None:
        assert doctest.testmod(grid).failed == 0


class TestCells:
    @given(st.floats(-180, 180), st.floats(-90, 90))
    def test_every_point_lies_in_one_cell(self, lon: float, lat: float) -> None:
        tile = TileId.containing(lon, lat)
        west, south, east, north = tile.bounds
        assert west <= lon < east or (lon == east == 180)
        assert south <= lat < north or (lat == north == 90)

    @pytest.mark.parametrize(
        ("lon", "lat", "name"),
        [
            (0.1, 52.0, "grid_0.15_52.05"),  # south and west edges belong to the cell
            (0.0, 0.0, "grid_0.05_0.05"),
            (-0.0, -0.0, "grid_0.05_0.05"),
            (-1e-12, -1e-12, "grid_-0.05_-0.05"),
            (180.0, 90.0, "grid_179.95_89.95"),
            (-180.0, -90.0, "grid_-179.95_-89.95"),
        ],
    )
    def test_edges(self, lon: float, lat: float, name: str) -> None:
        assert TileId.containing(lon, lat).name == name

    def test_decimals_as_users_type_them(self) -> None:
        """Every edge, typed with one decimal, is the western edge of its own cell."""
        for i in range(N_COLS):
            typed = float(f"{(i - 1800) / 10:.1f}")
            assert TileId.containing(typed, 0.05).col == i
            assert LON_EDGES[i] == typed

    @pytest.mark.parametrize(
        ("lon", "lat"), [(180.1, 0), (-180.1, 0), (0, 90.1), (math.nan, 0), (0, math.inf)]
    )
    def test_not_on_the_globe(self, lon: float, lat: float) -> None:
        with pytest.raises(GridError, match="not on the globe"):
            TileId.containing(lon, lat)

    @given(tiles)
    def test_bounds_are_the_edges(self, tile: TileId) -> None:
        assert tile.bounds == (
            LON_EDGES[tile.col],
            LAT_EDGES[tile.row],
            LON_EDGES[tile.col + 1],
            LAT_EDGES[tile.row + 1],
        )
        assert tile.bounds.west == round(tile.lon - 0.05, 2)
        assert tile.bounds.north == round(tile.lat + 0.05, 2)

    @given(tiles)
    def test_order_is_south_to_north_then_west_to_east(self, tile: TileId) -> None:
        other = TileId.from_row_col(900, 1800)
        assert (tile < other) == (tile.row * N_COLS + tile.col < 900 * N_COLS + 1800)


class TestRasters:
    @unhurried
    @given(tiles)
    def test_formula(self, tile: TileId) -> None:
        ours, expected = tile.raster("source"), oracle(tile.lon, tile.lat)
        assert (ours.epsg, ours.shape) == (expected.epsg, expected.shape)
        assert ours.transform.almost_equals(expected.transform, 1e-4)

    def test_formula_in_every_zone_and_at_both_poles(self) -> None:
        rng = np.random.default_rng(0)
        for zone in range(60):
            for row in (0, 1, 899, 900, 1798, 1799, *rng.integers(0, N_ROWS, 4)):
                tile = TileId.from_row_col(int(row), zone * 60 + int(rng.integers(0, 60)))
                ours, expected = tile.raster("source"), oracle(tile.lon, tile.lat)
                assert (ours.epsg, ours.shape) == (expected.epsg, expected.shape)
                assert ours.transform.almost_equals(expected.transform, 1e-4)
                assert tile.utm_zone == zone + 1

    def test_published_figures(self) -> None:
        """From the issue that reported the pixel offset, and from third-party checks of landmasks."""
        raster = TileId.from_name("grid_0.05_51.95").raster("source")
        west, south, east, north = raster.bbox
        assert (west, north) == pytest.approx((293612.221, 5765288.255), abs=5e-4)
        assert (east, south) == pytest.approx((300932.221, 5753888.255), abs=5e-4)
        assert (raster.width, raster.height) == (732, 1140)

        raster = TileId.from_name("grid_0.15_52.05").raster("source")
        assert (raster.epsg, raster.width, raster.height) == (32631, 729, 1139)
        assert (raster.transform.c, raster.transform.f) == pytest.approx((300933.936, 5776128.478), abs=5e-4)

        raster = TileId.from_name("grid_0.05_-0.05").raster("source")
        assert (raster.epsg, raster.width, raster.height) == (32731, 1114, 1107)
        assert raster.transform.f == pytest.approx(10_000_000, abs=5e-4)

    @pytest.mark.parametrize(
        ("name", "epsg"),
        [
            ("grid_5.05_60.05", 32631),  # western Norway: zone 31, not 32
            ("grid_9.05_78.05", 32632),  # Svalbard: zone 32, not 33
            ("grid_-179.95_0.05", 32601),
            ("grid_179.95_-0.05", 32760),
            ("grid_-0.05_51.45", 32630),
            ("grid_0.05_51.45", 32631),
        ],
    )
    def test_zones_without_exceptions(self, name: str, epsg: int) -> None:
        assert TileId.from_name(name).epsg == TileId.from_name(name).raster().epsg == epsg

    @given(tiles)
    def test_snapped_origin_is_on_the_lattice_and_less_than_a_pixel_outside(self, tile: TileId) -> None:
        source, utm = tile.raster("source"), tile.raster("utm")
        assert utm.transform.c % 10 == utm.transform.f % 10 == 0
        assert -1e-6 < source.transform.c - utm.transform.c < 10
        assert -1e-6 < utm.transform.f - source.transform.f < 10
        assert utm.shape == source.shape

    def test_equator_stays_on_the_lattice(self) -> None:
        """The last bit of the projection must not move a corner that lies on the lattice."""
        south = rasters(np.full(N_COLS, 899), np.arange(N_COLS))
        assert (south.origin_y == 10_000_000).all()
        x, y = snap_origin(np.array([500000.0, 499999.99999999994]), np.array([0.0, 1e-9]))
        assert x.tolist() == [500000.0, 500000.0]
        assert y.tolist() == [0.0, 0.0]

    @unhurried
    @given(st.lists(st.tuples(rows, cols), min_size=1, max_size=30), st.sampled_from(["utm", "source"]))
    def test_many_equal_one_by_one(self, places: list[tuple[int, int]], grid: str) -> None:
        row, col = np.array(places).T
        many = rasters(row, col, grid)  # type: ignore[arg-type]
        for i, place in enumerate(places):
            one = TileId.from_row_col(*place).raster(grid)  # type: ignore[arg-type]
            assert (many.epsg[i], many.height[i], many.width[i]) == (one.epsg, one.height, one.width)
            assert (many.origin_x[i], many.origin_y[i]) == (one.transform.c, one.transform.f)

    def test_small_integer_arrays(self) -> None:
        """The tile table's int16 columns must not overflow."""
        row, col = np.array([1420, 1799], np.int16), np.array([1801, 3599], np.int16)
        small, large = rasters(row, col), rasters(row.astype(np.int64), col.astype(np.int64))
        np.testing.assert_array_equal(small.epsg, large.epsg)
        np.testing.assert_array_equal(small.origin_x, large.origin_x)

    def test_no_tiles(self) -> None:
        assert rasters(np.empty(0, np.int64), np.empty(0, np.int64)).epsg.shape == (0,)

    @unhurried
    @given(st.integers(60, 1739), cols)
    def test_raster_covers_its_cell_and_meets_the_next(self, row: int, col: int) -> None:
        """The raster circumscribes the cell to within half a pixel, so neighbours leave no gap."""
        tile = TileId.from_row_col(row, col)
        raster = tile.raster("source")
        west, south, east, north = raster.bbox
        lon_lat = [(lon, lat) for lon in tile.bounds[::2] for lat in tile.bounds[1::2]]
        x, y = to_utm(raster.epsg).transform(*zip(*lon_lat, strict=True))
        assert west - 1e-3 <= min(x)
        assert max(x) <= east + 5.001
        assert south - 5.001 <= min(y)
        assert max(y) <= north + 1e-3
        if (col + 1) % 60:  # the next one is in the same zone
            assert TileId.from_row_col(row, col + 1).raster("source").bbox[0] <= east + 5.001
        if row != 899:
            assert TileId.from_row_col(row + 1, col).raster("source").bbox[1] <= north + 5.001


class TestBoxes:
    edge = st.one_of(st.sampled_from(LON_EDGES[1700:1900]), st.floats(-10, 10))

    @settings(deadline=None)
    @given(edge, edge, edge, edge)
    def test_touching_equals_shapely(self, a: float, b: float, c: float, d: float) -> None:
        box = Bounds(min(a, c), min(b, d), max(a, c), max(b, d))
        found_rows, found_cols = rows_cols_touching(box)
        lon, lat = np.array(LON_EDGES), np.array(LAT_EDGES)
        column = shapely.box(lon[:-1], -90, lon[1:], 90)
        line = shapely.box(-180, lat[:-1], 180, lat[1:])
        shape = shapely.LineString([box[:2], box[2:]])  # meets the same rows and columns as its box
        assert list(found_cols) == np.flatnonzero(shapely.intersects(column, shape)).tolist()
        assert list(found_rows) == np.flatnonzero(shapely.intersects(line, shape)).tolist()

    def test_whole_world(self) -> None:
        assert rows_cols_touching(Bounds(-180, -90, 180, 90)) == (range(N_ROWS), range(N_COLS))

    def test_beside_the_world(self) -> None:
        found_rows, found_cols = rows_cols_touching(Bounds(181, 91, 182, 92))
        assert len(found_rows) == len(found_cols) == 0

    @pytest.mark.parametrize(
        ("box", "expected"),
        [
            ((-1, 50, 1, 51), [(-1, 50, 1, 51)]),
            ((170, -10, -170, 10), [(170, -10, 180, 10), (-180, -10, -170, 10)]),
            ((180, 0, -180, 1), [(180, 0, 180, 1), (-180, 0, -180, 1)]),
            ((5, 5, 5, 5), [(5, 5, 5, 5)]),
        ],
    )
    def test_split(self, box: tuple[float, ...], expected: list[tuple[float, ...]]) -> None:
        assert split_antimeridian(*box) == expected

    @pytest.mark.parametrize(
        ("box", "reason"),
        [
            ((0, 2, 1, 1), "north of its north"),
            ((-181, 0, 1, 1), "longitudes"),
            ((0, 0, 1, 91), "latitudes"),
            ((0, math.nan, 1, 1), "finite"),
            ((0, 0, math.inf, 1), "finite"),
        ],
    )
    def test_bad_box(self, box: tuple[float, ...], reason: str) -> None:
        with pytest.raises(GridError, match=reason):
            split_antimeridian(*box)
