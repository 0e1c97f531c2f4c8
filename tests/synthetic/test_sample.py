"""Synthetic tiles: upstream's formats to the byte, and pixels that behave like real ones."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zstandard
from pyproj import Transformer

from catalog_builder.errors import GridError, StorageError
from catalog_builder.synthetic.sample import (
    DEFAULT_SET,
    SampleTile,
    Written,
    make_tile,
    sample_set,
    write_geotiff_tile,
    write_npy_tile,
)
from catalog_builder.tile.datasets import dataset
from catalog_builder.tile.grid import TileId

CAMBRIDGE = TileId.from_name("grid_0.15_52.15")
POLAR = TileId.from_name("grid_15.05_83.65")  # the smallest full tiles there are
SMALL = (40, 30)


@pytest.fixture(scope="module")
def cambridge() -> SampleTile:
    return make_tile(CAMBRIDGE, 2024)


@pytest.fixture(scope="module")
def small() -> SampleTile:
    return make_tile(CAMBRIDGE, 2024, size=SMALL)


def vectors(sample: SampleTile) -> np.ndarray:
    return sample.codes.astype(np.float32) * sample.scales[..., None]


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # unprocessed pixels have no direction: NaN
        return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


class TestPixels:
    def test_arrays(self, cambridge: SampleTile) -> None:
        shape = CAMBRIDGE.raster().shape
        assert cambridge.codes.shape == (*shape, 128)
        assert cambridge.scales.shape == cambridge.landmask.shape == shape
        assert cambridge.codes.dtype == np.int8
        assert cambridge.codes.flags.c_contiguous
        assert (cambridge.scales.dtype, cambridge.landmask.dtype) == (np.float32, np.uint8)

    def test_quantised_per_pixel_as_upstream(self, cambridge: SampleTile) -> None:
        done = cambridge.scales > 0
        largest = np.abs(cambridge.codes.astype(np.int16)).max(axis=-1)
        assert (largest[done] == 127).all()  # scale = max|x| / 127
        assert (largest[~done] == 0).all()
        assert (cambridge.scales[~done] == 0).all()
        assert cambridge.codes.min() == -127

    def test_water_and_unprocessed_areas(self, cambridge: SampleTile) -> None:
        assert 0.01 < (cambridge.landmask == 0).mean() < 0.3
        assert 0.001 < (cambridge.scales == 0).mean() < 0.05
        assert set(np.unique(cambridge.landmask)) == {0, 1}

    def test_statistics_are_like_the_published_ones(self, cambridge: SampleTile) -> None:
        codes, scales = cambridge.codes, cambridge.scales
        # upstream's measurement of v1
        median, p999, p9999 = np.percentile(scales[scales > 0], [50, 99.9, 99.99])
        assert median == pytest.approx(0.064, rel=0.05)
        assert p999 == pytest.approx(0.119, rel=0.08)
        assert p9999 == pytest.approx(0.137, rel=0.08)
        assert scales.max() < 0.3
        assert 47 < codes[scales > 0].std() < 53
        # Published chunks of 8.39 MB take 8.0 to 8.1 MB; an array and a chunk of it, as they lie in memory.
        for pixels in (codes, np.ascontiguousarray(codes[400:656, 200:456])):
            for level in (1, 3):
                assert 1.03 < pixels.nbytes / len(zstandard.compress(pixels, level)) < 1.06
        # Band by band, as in a COG, neighbours lie side by side and still save little.
        block = codes[400:528, 200:328].transpose(2, 0, 1).copy()
        assert 1.03 < block.nbytes / len(zstandard.compress(block, 1)) < 1.09

    def test_neighbouring_pixels_are_alike(self, cambridge: SampleTile) -> None:
        part = vectors(cambridge)[500:700, 300:500]
        assert np.median(cosine(part[:, 1:], part[:, :-1])) > 0.9
        assert abs(np.median(cosine(part[:, 150:], part[:, :-150]))) < 0.6

    def test_same_again_and_a_part_is_a_part(self, cambridge: SampleTile, small: SampleTile) -> None:
        again = make_tile(CAMBRIDGE, 2024, size=SMALL)
        for name in ("codes", "scales", "landmask"):
            full, part = getattr(cambridge, name), getattr(small, name)
            np.testing.assert_array_equal(part, getattr(again, name))
            np.testing.assert_array_equal(part, full[: SMALL[0], : SMALL[1]])

    def test_another_seed_is_another_world(self, small: SampleTile) -> None:
        other = make_tile(CAMBRIDGE, 2024, seed=1, size=SMALL)
        assert np.median(np.abs(cosine(vectors(other), vectors(small)))) < 0.7

    def test_years_differ_a_little_and_some_parcels_a_lot(self) -> None:
        before, after = (vectors(make_tile(POLAR, year)) for year in (2023, 2024))
        alike = cosine(before, after)
        assert np.nanmedian(alike) > 0.9
        assert 0.05 < np.nanmean(alike < 0.6) < 0.3

    @pytest.mark.parametrize("other", ["grid_12.15_83.65", "grid_12.05_83.75"])
    def test_neighbours_are_equal_where_they_overlap(self, other: str) -> None:
        # Far from the central meridian the cells lie askew in their rasters, which overlap the more.
        a, b = (make_tile(TileId.from_name(name), 2024) for name in ("grid_12.05_83.65", other))
        ra, rb = a.tile.raster().transform, b.tile.raster().transform
        right, down = round((rb.c - ra.c) / 10), round((ra.f - rb.f) / 10)
        in_a = (
            slice(max(down, 0), down + b.scales.shape[0]),
            slice(max(right, 0), right + b.scales.shape[1]),
        )
        in_b = slice(max(-down, 0), None), slice(max(-right, 0), None)
        for name in ("codes", "scales", "landmask"):
            one, two = getattr(a, name)[in_a], getattr(b, name)[in_b]
            height, width = min(one.shape[0], two.shape[0]), min(one.shape[1], two.shape[1])
            assert height > 3
            assert width > 3
            np.testing.assert_array_equal(one[:height, :width], two[:height, :width])

    @pytest.mark.parametrize(
        ("west", "east"),
        [
            ("grid_11.95_83.65", "grid_12.05_83.65"),  # zones 32 and 33
            ("grid_-179.95_83.65", "grid_179.95_83.65"),  # the antimeridian
        ],
    )
    def test_no_seam_between_zones(self, west: str, east: str) -> None:
        a, b = make_tile(TileId.from_name(west), 2024), make_tile(TileId.from_name(east), 2024)
        ra, rb = a.tile.raster(), b.tile.raster()
        row, col = np.indices(ra.shape)
        x, y = ra.transform @ (col + 0.5, row + 0.5)
        x, y = Transformer.from_crs(ra.epsg, rb.epsg, always_xy=True).transform(x, y)
        other_col, other_row = np.floor(np.array(~rb.transform @ (x, y))).astype(int)
        inside = (other_row >= 0) & (other_row < rb.height) & (other_col >= 0) & (other_col < rb.width)
        assert inside.sum() > 3000
        to = other_row[inside], other_col[inside]
        assert (a.landmask[inside] == b.landmask[to]).mean() > 0.98
        assert np.nanmedian(cosine(vectors(a)[inside], vectors(b)[to])) > 0.9

    @pytest.mark.parametrize(
        "name", ["grid_0.05_-0.05", "grid_45.05_-35.25", "grid_-179.95_-83.65", "grid_9.95_89.95"]
    )
    def test_anywhere_on_earth(self, name: str) -> None:
        sample = make_tile(TileId.from_name(name), 2017, size=(9, 2))
        assert sample.codes.shape == (9, 2, 128)
        assert np.isfinite(sample.scales).all()

    @pytest.mark.parametrize("size", [(0, 5), (5, 0), (5000, 5), (5, 5000)])
    def test_size_that_does_not_fit(self, size: tuple[int, int]) -> None:
        with pytest.raises(GridError, match="does not fit"):
            make_tile(CAMBRIDGE, 2024, size=size)


class TestNpy:
    def test_bytes(self, tmp_path: Path) -> None:
        """A full tile, byte by byte: 128 bytes of header, then the values."""
        sample = make_tile(POLAR, 2024)
        written = write_npy_tile(tmp_path / "emb", tmp_path / "masks", sample)
        name = POLAR.name
        assert written.npy == tmp_path / "emb" / "2024" / name / f"{name}.npy"
        assert written.scales.name == f"{name}_scales.npy"
        assert written.landmask == tmp_path / "masks" / f"{name}.tiff"
        height, width = POLAR.raster().shape
        for path, digest, array, descr in (
            (written.npy, written.npy_sha256, sample.codes, "|i1"),
            (written.scales, written.scales_sha256, sample.scales, "<f4"),
        ):
            data = path.read_bytes()
            assert data[:8] == b"\x93NUMPY\x01\x00"
            assert int.from_bytes(data[8:10], "little") == 118
            assert ast.literal_eval(data[10:128].decode()) == {
                "descr": descr,
                "fortran_order": False,
                "shape": array.shape,
            }
            assert data[128:] == array.tobytes()
            assert hashlib.sha256(data).hexdigest() == digest
        assert written.n_bytes == 132 * height * width + 256

    def test_landmask(self, tmp_path: Path, small: SampleTile) -> None:
        written = write_npy_tile(tmp_path, tmp_path, small)
        with rasterio.open(written.landmask) as src:
            assert (src.count, src.dtypes[0], src.shape, src.nodata) == (1, "uint8", SMALL, None)
            assert src.crs.to_epsg() == 32631
            assert src.transform.almost_equals(CAMBRIDGE.raster("source").transform, 1e-6)
            assert src.tags()["TESSERA_SYNTHETIC"] == "YES"
            np.testing.assert_array_equal(src.read(1), small.landmask)


class TestGeotiff:
    @pytest.mark.parametrize(
        ("exporter", "name", "tags"),
        [
            (
                "0.5.1",
                "tessera_2024_lat52.15_lon0.15.tif",
                {"TESSERA_DATASET_VERSION": "v1", "GEOTESSERA_VERSION": "0.5.1"},
            ),
            (
                "0.7.5",
                "global_0.1_degree_representation/2024/grid_0.15_52.15/grid_0.15_52.15_2024.tiff",
                {"TESSERA_DATASET_VERSION": "v1", "GEOTESSERA_VERSION": "0.7.5"},
            ),
            *(
                (
                    version,
                    "global_0.1_degree_representation/2024/grid_0.15_52.15/grid_0.15_52.15_2024.tiff",
                    {
                        "TESSERA_DATASET_VERSION": "1.0",
                        "TESSERA_DATASET_VERSION_PATH": "v1",
                        "TESSERA_DATASET_VARIANT": "vultr",
                        "GEOTESSERA_VERSION": f"{version}.0",
                    },
                )
                for version in ("0.10", "0.11")
            ),
        ],
    )
    def test_as_each_version_writes_it(
        self, tmp_path: Path, small: SampleTile, exporter: str, name: str, tags: dict[str, str]
    ) -> None:
        path = write_geotiff_tile(tmp_path, small, exporter, labelled=dataset("v1"))  # type: ignore[arg-type]
        assert path == tmp_path / name
        with rasterio.open(path) as src:
            assert src.tags() == tags | {
                "TESSERA_YEAR": "2024",
                "TESSERA_TILE_LAT": "52.15",
                "TESSERA_TILE_LON": "0.15",
                "TESSERA_DESCRIPTION": "GeoTessera satellite embedding tile",
                "TESSERA_SYNTHETIC": "YES",
                "AREA_OR_POINT": "Area",
            }
            if exporter == "0.11":
                assert np.isnan(src.nodata)
            else:
                assert src.nodata is None
            assert set(src.dtypes) == {"float32"}
            assert src.count == 128
            assert src.descriptions == tuple(f"Tessera_Band_{i}" for i in range(128))
            assert set(src.block_shapes) == {(256, 256)}
            assert src.profile["compress"] == "lzw"
            assert src.profile["interleave"] == "pixel"
            assert src.overviews(1) == []
            np.testing.assert_array_equal(src.read(), vectors(small).transpose(2, 0, 1))

    def test_synthetic_unless_told(self, tmp_path: Path, small: SampleTile) -> None:
        for exporter, version in (("0.7.5", "synthetic"), ("0.11", "0.0")):
            with rasterio.open(write_geotiff_tile(tmp_path, small, exporter)) as src:  # type: ignore[arg-type]
                assert src.tags()["TESSERA_DATASET_VERSION"] == version
                assert src.tags().get("TESSERA_DATASET_VARIANT", "synthetic") == "synthetic"

    def test_equals_what_geotessera_writes(self, tmp_path: Path, small: SampleTile) -> None:
        """The exporter of geotessera 0.7.5 itself, given the same pixels, as the oracle."""
        import geotessera

        raster = CAMBRIDGE.raster("source")
        client = object.__new__(geotessera.GeoTessera)  # without its registry, which is online
        client.dataset_version = "v1"
        client.fetch_embedding = lambda *_: (vectors(small), f"EPSG:{raster.epsg}", raster.transform)
        theirs = client.export_embedding_geotiff(0.15, 52.15, tmp_path / "theirs.tiff", 2024)
        ours = write_geotiff_tile(tmp_path, small, "0.7.5", labelled=dataset("v1"))
        with rasterio.open(theirs) as a, rasterio.open(ours) as b:
            assert b.tags() == a.tags() | {"TESSERA_SYNTHETIC": "YES", "GEOTESSERA_VERSION": "0.7.5"}
            assert str(b.profile) == str(a.profile)
            assert b.descriptions == a.descriptions
            np.testing.assert_array_equal(a.read(), b.read())


class TestSet:
    TILES = ((CAMBRIDGE, 2023), (CAMBRIDGE, 2024), (TileId.from_name("grid_-0.05_-0.05"), 2024))

    @pytest.mark.service
    def test_tree(self, tmp_path: Path) -> None:
        seen: list[tuple[int, int, Written]] = []
        made = sample_set(
            tmp_path,
            tile_years=self.TILES,
            size=SMALL,
            workers=1,
            progress=lambda done, total, written: seen.append((done, total, written)),
        )
        assert [(done, total) for done, total, _ in seen] == [(1, 3), (2, 3), (3, 3)]
        assert [(w.tile, w.year) for w in made.written] == list(self.TILES)
        assert [p.name for p in made.registries] == [
            "landmasks_lon-5_lat-5.txt",
            "landmasks_lon0_lat50.txt",
            "registry_2023.txt",
            "registry_2024.txt",
        ]
        for registry in made.registries:
            lines = registry.read_text().splitlines()
            assert lines == sorted(lines)
            below = made.landmasks if registry.name.startswith("landmasks") else made.embeddings
            for line in lines:
                path, digest = line.split(" ")
                assert hashlib.sha256((below / path).read_bytes()).hexdigest() == digest
        assert len((tmp_path / "registry" / "registry_2024.txt").read_text().splitlines()) == 4
        for sums in [made.landmasks / "SHA256SUM", *tmp_path.rglob("SHA256")]:
            subprocess.run(["sha256sum", "--quiet", "--check", sums.name], cwd=sums.parent, check=True)
        sidecar = json.loads((tmp_path / "tessera_metadata.json").read_text())
        assert (sidecar["dataset_variant"], sidecar["tile_count"]) == ("synthetic", 3)
        assert {p.name for p in tmp_path.rglob(".*") if p.is_file()} == {".synthetic"}

    def test_second_run_keeps_and_goes_on(self, tmp_path: Path) -> None:
        def run(**changes: object) -> list[bool]:
            made = sample_set(
                tmp_path, **({"tile_years": self.TILES[:2], "size": SMALL, "workers": 1} | changes)
            )  # type: ignore[arg-type]
            return [w.kept for w in made.written]

        assert run() == [False, False]
        times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
        assert run() == [True, True]
        assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == times
        npy = next(tmp_path.rglob("2024/*/*52.15.npy"))
        with npy.open("r+b") as file:
            file.truncate(1000)
        assert run() == [True, False]
        npy.with_name(".synthetic").unlink()  # as if interrupted
        assert run() == [True, False]
        assert run(tile_years=self.TILES) == [True, True, False]
        assert run(seed=7) == [False, False]
        assert run(seed=7, size=(8, 8)) == [False, False]

    @pytest.mark.service
    def test_processes_make_the_same(self, tmp_path: Path) -> None:
        one = sample_set(tmp_path / "1", tile_years=self.TILES[1:], size=SMALL, workers=1)
        two = sample_set(tmp_path / "2", tile_years=self.TILES[1:], size=SMALL, workers=2)
        assert [w.npy_sha256 for w in one.written] == [w.npy_sha256 for w in two.written]

    def test_never_among_real_tiles(self, tmp_path: Path) -> None:
        (tmp_path / "tessera_metadata.json").write_text('{"dataset_variant": "vultr"}')
        with pytest.raises(StorageError, match="vultr"):
            sample_set(tmp_path, tile_years=self.TILES, size=SMALL)
        (tmp_path / "tessera_metadata.json").write_text("{")
        with pytest.raises(StorageError, match=r"tessera_metadata\.json"):
            sample_set(tmp_path, tile_years=self.TILES, size=SMALL)
        (tmp_path / "tessera_metadata.json").unlink()
        (tmp_path / "global_0.1_degree_representation" / "2024" / "grid_0.05_52.15").mkdir(parents=True)
        with pytest.raises(StorageError, match="unknown"):
            sample_set(tmp_path, tile_years=self.TILES, size=SMALL)

    def test_geotessera_reads_it(self, tmp_path: Path) -> None:
        from geotessera import tiles

        made = sample_set(tmp_path, tile_years=[(CAMBRIDGE, 2024)], size=SMALL, workers=1)
        (found,) = tiles.discover_tiles(tmp_path)
        assert (found.grid_name, found.year, found.height, found.width) == (CAMBRIDGE.name, 2024, *SMALL)
        assert found.crs.to_epsg() == CAMBRIDGE.epsg
        expected = (
            np.load(made.written[0].npy).astype(np.float32) * np.load(made.written[0].scales)[..., None]
        )
        np.testing.assert_array_equal(found.load_embedding(), expected)

    def test_default_set_is_a_square_and_a_series(self) -> None:
        assert len(DEFAULT_SET) == 6
        newest = {tile for tile, year in DEFAULT_SET if year == 2024}
        assert {(t.row, t.col) for t in newest} == {(1421, 1800), (1421, 1801), (1422, 1800), (1422, 1801)}
        assert sorted(year for tile, year in DEFAULT_SET if tile == CAMBRIDGE) == [2022, 2023, 2024]
