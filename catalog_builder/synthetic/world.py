"""Synthetic embeddings: generated pixels that resemble TESSERA's.

A pixel's vector is a function of its position on the globe and of the year, so neighbouring tiles
agree at their seams (within a UTM zone bit for bit where their rasters overlap), and a year resembles
the one before. It is the sum of

- a land cover class, constant over a parcel of some hectares (a Voronoi cell); every year some
  parcels change their class,
- smooth fields of three wavelengths, with a part that differs from year to year,
- noise of the single pixel.

Fields live in 32 latent dimensions that one fixed matrix mixes to 128; classes, parcels and noise differ
in all of them. No band is stronger than another and their values are spread evenly rather than normally,
so that codes use the whole of int8 as real ones do: zstd saves 4 to 5 % of an array. The sum is quantised
as upstream does it: scale = max|x| / 127 in float32, code = rint(x / scale). A pixel's strength decides
its scale and not its codes; it is drawn so that scales are spread as upstream measured them.
Lakes, coasts and rivers come from another field; a few narrow bands are left unprocessed.

Everything random is a hash of integers, so a tile is the same on every machine and in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import exp
from statistics import NormalDist
from typing import cast

import numpy as np
import numpy.typing as npt

from catalog_builder.errors import GridError
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import PIXEL, TileId

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

GENERATOR = 2
"""Incremented whenever the pixels of a tile change, so that older files are regenerated."""

_RADIUS = 6_371_000.0
_LATENTS = 32
_STEP = 8
"""Pixels between the nodes where smooth fields are computed; bilinear in between."""
_PARCEL = 280.0
"""Metres between neighbouring parcels."""
_CHANGE = 0.12
"""Share of the parcels that change their class in a year."""
_FIRST_YEAR = 2000
_CLASS_PART, _PARCEL_PART, _GRAIN = np.float32(0.92), np.float32(0.63), np.float32(0.34)
"""What classes, parcels of a class and single pixels contribute, as deviations."""
_AMPLITUDE = np.float32(2.42)
"""Brings the scales to the published median, 0.064."""
_PARCEL_STRENGTH, _PIXEL_STRENGTH = np.float32(0.11), 0.1
"""Deviations of the logarithm of strength: with that of max|x| they bring the scales to the published
percentiles, 99.9 % at 0.119 and 99.99 % at 0.137."""
_N_CLASSES = 11
_WATER = _N_CLASSES
_NOISE_ROWS = 4096
_SWATH = 9_000.0
"""Metres between possible unprocessed bands."""
_SWATH_WIDTH = 90.0
_SWATH_NORMAL = np.array([0.45, -0.62, 0.643])

# What each hash is for; a different number gives an independent random value.
_FIELD, _SITE_U, _SITE_V, _TURN, _CLASS, _CLASS_VECTOR, _PARCEL_VECTOR, _MIX, _NOISE, _PIXEL = range(10)


@dataclass(frozen=True, slots=True)
class SampleTile:
    """One synthetic tile-year, in memory."""

    tile: TileId
    year: int
    codes: npt.NDArray[np.int8]
    """Quantised vectors, (H, W, 128), C order, -127 ... 127; 0 where unprocessed."""
    scales: Floats
    """(H, W); ``codes * scales`` is the vector. 0 where unprocessed."""
    landmask: npt.NDArray[np.uint8]
    """(H, W), 1 land, 0 water."""


def make_tile(tile: TileId, year: int, *, seed: int = 0, size: tuple[int, int] | None = None) -> SampleTile:
    """Generate the pixels of one tile-year.

    Parameters
    ----------
    tile, year
        Which one.
    seed
        Different seeds give different worlds.
    size
        (rows, columns) to generate only the upper left part of the tile: for fast tests.

    Raises
    ------
    GridError
        If the size is empty or larger than the tile.

    Notes
    -----
    A full tile at 52 degrees (1140 x 732) takes 0.5 s on one core and 250 MB. Pixels lie where
    upstream's are, on the 10 m grid of the UTM zone (``tile.raster("utm")``).
    """
    raster = tile.raster("utm")
    height, width = size or raster.shape
    if not (0 < height <= raster.height and 0 < width <= raster.width):
        raise GridError(f"size {size} does not fit {tile.name}: expected up to {raster.shape}")
    # Row 0 is the lattice row just below the top edge; rows count downwards, so they are negated north.
    first_row = -round(raster.transform.f / PIXEL)
    first_col = round(raster.transform.c / PIXEL)
    nodes = _Nodes.around(raster.epsg, first_row, first_col, height, width)
    where = nodes.points  # (rows, columns, 3)

    world = _key(seed)
    elevation = _field(where, 6000, 1, world, 100) + 0.5 * _field(where, 1700, 1, world, 101)
    elevation += 0.2 * _field(where, 500, 1, world, 102)
    river = _field(where, 5000, 1, world, 103) + 0.3 * _field(where, 1200, 1, world, 104)
    wetness, swath = (
        nodes.upsample(elevation[..., 0]),
        nodes.upsample(_field(where, 12_000, 1, world, 105)[..., 0]),
    )
    water = (wetness < -1.4) | (np.abs(nodes.upsample(river[..., 0])) < 0.008)
    xyz = [nodes.upsample(where[..., axis]) for axis in range(3)]
    unprocessed = _in_swath(xyz, year) & (swath > -0.3)

    label, table, strengths = _parcels(xyz, year, world)
    label[water] = len(table) - 1

    smooth = _mixed_to_bands(_smooth_latents(where, year, world))
    rows = np.arange(first_row, first_row + height, dtype=np.int64)
    cols = np.arange(first_col, first_col + width, dtype=np.int64)
    pixel = _hash(_key(seed, _PIXEL, year, raster.epsg), rows[:, None], cols)
    grain = (pixel >> np.uint64(40)).astype(np.intp) % _NOISE_ROWS
    codes, scales = _quantised(nodes, smooth, label, table, grain, unprocessed)
    scales *= _AMPLITUDE * strengths[label] * _strengths()[grain]
    return SampleTile(tile, year, codes, scales, (~water).astype(np.uint8))


@dataclass(frozen=True, slots=True)
class _Nodes:
    """A coarse lattice around a raster, fixed in the UTM zone, and how to get from it to pixels."""

    points: Doubles
    """(rows, columns, 3) metres from the centre of the earth."""
    row: Ints
    """(H,) node row at or above each pixel row."""
    row_weight: Floats
    """(H,) weight of the node row below it."""
    col: Ints
    col_weight: Floats

    @classmethod
    def around(cls, epsg: int, first_row: int, first_col: int, height: int, width: int) -> _Nodes:
        """Return the nodes that enclose a raster given by its first pixel's lattice row and column."""
        from pyproj import Transformer

        row, row_weight, node_rows = _axis(first_row, height)
        col, col_weight, node_cols = _axis(first_col, width)
        x, y = np.meshgrid(node_cols * PIXEL, -node_rows * PIXEL)
        lon, lat = np.radians(Transformer.from_crs(epsg, 4326, always_xy=True).transform(x, y))
        points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
        return cls(points * _RADIUS, row, row_weight, col, col_weight)

    def upsample(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Return node values (rows, columns) at the pixels (H, W), bilinear."""
        dtype = values.dtype
        down, right = self.row_weight.astype(dtype)[:, None], self.col_weight.astype(dtype)
        lines = values[self.row] + (values[self.row + 1] - values[self.row]) * down
        return cast(
            npt.NDArray[np.floating],
            lines[:, self.col] + (lines[:, self.col + 1] - lines[:, self.col]) * right,
        )


def _axis(first: int, count: int) -> tuple[Ints, Floats, Ints]:
    """Return, for pixels along one axis: node before each, weight of the node after it, all nodes."""
    pixels = np.arange(first, first + count, dtype=np.int64)
    before = pixels // _STEP
    weight = ((pixels - before * _STEP + 0.5) / _STEP).astype(np.float32)
    nodes = np.arange(before[0], before[-1] + 2) * _STEP
    return before - before[0], weight, nodes


# --- random numbers ---------------------------------------------------------------------------------


def _mixed(h: Hashes) -> Hashes:
    """Scramble 64 bits (the finaliser of splitmix64, Steele et al. 2014)."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def _hash(key: Hashes, *values: npt.NDArray[np.integer] | int) -> Hashes:
    """Hash integers, arrays of which broadcast, onto a key."""
    for value in values:
        key = _mixed(
            (key ^ np.asarray(value).astype(np.int64).view(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        )
    return key


def _key(*values: int) -> Hashes:
    """Return a key of shape (1,) made from integers (an array, so that it wraps without a warning)."""
    return _hash(np.zeros(1, np.uint64), *values)


def _uniform(h: Hashes) -> Floats:
    """Turn hashes into numbers in [0, 1)."""
    return (h >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _normal(h: Hashes) -> Floats:
    """Turn hashes into numbers of mean 0 and deviation 1: the sum of their four 16-bit words."""
    words = np.ascontiguousarray(h)[..., None].view(np.uint16).astype(np.float32)
    total = words[..., 0] + words[..., 1] + words[..., 2] + words[..., 3]
    return cast(Floats, (total / np.float32(65536) - np.float32(2)) * np.float32(np.sqrt(3)))


def _even(h: Hashes) -> Floats:
    """Turn hashes into evenly spread numbers of mean 0 and deviation 1."""
    return (_uniform(h) - np.float32(0.5)) * np.float32(np.sqrt(12))


@cache
def _mix() -> Floats:
    """Return the fixed matrix (32, 128) from latents to bands."""
    band, latent = np.arange(N_BANDS), np.arange(_LATENTS)[:, None]
    return _normal(_hash(_key(_MIX), latent, band)) / np.float32(np.sqrt(_LATENTS))


def _mixed_to_bands(latents: Floats) -> Floats:
    """Mix latents (..., 32) to bands (..., 128).

    One latent after the other, not by BLAS: the sum must not depend on how many rows there are.
    """
    bands = np.zeros((*latents.shape[:-1], N_BANDS), np.float32)
    for k, row in enumerate(_mix()):
        bands += latents[..., k, None] * row
    return bands


@cache
def _noise() -> Floats:
    """Return the pool (4096, 128) that pixels draw their noise from."""
    rows, band = np.arange(_NOISE_ROWS)[:, None], np.arange(N_BANDS)
    return _even(_hash(_key(_NOISE), rows, band)) * _GRAIN


@cache
def _strengths() -> Floats:
    """Return the pool (4096,) of factors that pixels draw their strength from: lognormal.

    By rank, so that the tail is right; in double precision, so that it is the same on every machine.
    """
    ranks = (NormalDist().inv_cdf((k + 0.5) / _NOISE_ROWS) for k in range(_NOISE_ROWS))
    return np.array([exp(_PIXEL_STRENGTH * rank) for rank in ranks], np.float32)


# --- fields of position -----------------------------------------------------------------------------


def _field(points: Doubles, wavelength: float, channels: int, world: Hashes, which: int) -> Floats:
    """Return smooth random fields (rows, columns, channels) of deviation about 1.

    Value noise on a cubic lattice in space, so there are no seams between zones or at the poles.
    """
    at = points / wavelength
    cell = np.floor(at).astype(np.int64)
    part = at - cell
    weight = (part * part * (3 - 2 * part)).astype(np.float32)
    low = cell.reshape(-1, 3).min(axis=0)
    size = cell.reshape(-1, 3).max(axis=0) - low + 2
    x, y, z = np.ogrid[tuple(slice(lo, lo + n) for lo, n in zip(low, size, strict=True))]
    corner = _hash(world, _FIELD, which, x, y, z)
    value = _normal(_hash(corner[..., None], np.arange(channels))).reshape(-1, channels)
    cell -= low
    first = (cell[..., 0] * size[1] + cell[..., 1]) * size[2] + cell[..., 2]
    out = np.zeros((*points.shape[:2], channels), np.float32)
    for dx, dy, dz in np.ndindex(2, 2, 2):
        share = np.ones(points.shape[:2], np.float32)
        for axis, far in enumerate((dx, dy, dz)):
            share = share * (weight[..., axis] if far else 1 - weight[..., axis])
        out += share[..., None] * value[first + (dx * size[1] + dy) * size[2] + dz]
    return out * np.float32(1.6)  # interpolation takes that much away


def _smooth_latents(points: Doubles, year: int, world: Hashes) -> Floats:
    """Return the part of the latents that varies smoothly, (rows, columns, 32)."""
    latents = np.float32(0.4) * _field(points, 4000, _LATENTS, world, 1)
    latents += np.float32(0.35) * _field(points, 800, _LATENTS, world, 2)
    latents += np.float32(0.3) * _field(points, 240, _LATENTS, world, 3)
    latents += np.float32(0.2) * _field(points, 3000, _LATENTS, _hash(world, year), 4)
    return latents


def _in_swath(xyz: list[npt.NDArray[np.floating]], year: int) -> Bools:
    """Return the mask (H, W) of pixels in a band that no satellite pass of the year covered."""
    x, y, z = xyz
    along = x * _SWATH_NORMAL[0] + y * _SWATH_NORMAL[1] + z * _SWATH_NORMAL[2]
    # Half a period at the point where the bands would close to a spot, so none is there.
    phase = (along - _RADIUS * np.linalg.norm(_SWATH_NORMAL)) / _SWATH + 0.5 + 0.07 * (year % 5)
    return cast(Bools, (phase - np.floor(phase)) * _SWATH < _SWATH_WIDTH)


# --- parcels ----------------------------------------------------------------------------------------


def _parcels(xyz: list[npt.NDArray[np.floating]], year: int, world: Hashes) -> tuple[Ints, Floats, Floats]:
    """Return each pixel's parcel (H, W), and the parcels' vectors (n + 1, 128) and strengths.

    The last of them are water's. The sphere is cut into the six faces of a cube, on which the parcels are
    Voronoi cells of jittered points.
    """
    label = np.empty(xyz[0].shape, np.int64)
    face = np.argmax(np.abs(np.stack(xyz)), axis=0)
    face += np.where(np.take_along_axis(np.stack(xyz), face[None], axis=0)[0] < 0, 3, 0)
    ids: list[Hashes] = []
    count = 0
    for number in np.unique(face):
        on = face == number
        main, first, second = (xyz[(number + k) % 3][on] for k in range(3))
        u, v = (np.arctan2(side, np.abs(main)) * (_RADIUS / _PARCEL) for side in (first, second))
        nearest, site_ids = _nearest_site(u, v, _hash(world, int(number)))
        label[on] = nearest + count
        count += len(site_ids)
        ids.append(site_ids)
    return label, *_parcel_vectors(np.concatenate(ids), year, world)


def _nearest_site(u: Doubles, v: Doubles, key: Hashes) -> tuple[Ints, Hashes]:
    """Return the nearest of the jittered lattice points for each position (n,), and the points' ids."""
    i, j = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    i0, j0 = i.min() - 1, j.min() - 1
    n_i, n_j = i.max() - i0 + 2, j.max() - j0 + 2
    ids = _hash(key, np.arange(i0, i0 + n_i)[:, None], np.arange(j0, j0 + n_j)).ravel()
    site_u = np.repeat(np.arange(n_i), n_j).astype(np.float32) + _uniform(_hash(ids, _SITE_U))
    site_v = np.tile(np.arange(n_j), n_i).astype(np.float32) + _uniform(_hash(ids, _SITE_V))
    here_u, here_v = (u - i0).astype(np.float32), (v - j0).astype(np.float32)
    own = (i - i0) * n_j + (j - j0)
    best, best_distance = own.copy(), np.full(len(u), np.inf, np.float32)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            site = own + (di * n_j + dj)
            distance = (site_u[site] - here_u) ** 2 + (site_v[site] - here_v) ** 2
            nearer = distance < best_distance
            np.copyto(best, site, where=nearer)
            np.copyto(best_distance, distance, where=nearer)
    return best, ids


def _parcel_vectors(ids: Hashes, year: int, world: Hashes) -> tuple[Floats, Floats]:
    """Return the parcels' vectors in a year, (n + 1, 128), and strengths; the last is water's."""
    turned = np.zeros(len(ids), np.int64)  # the year in which the parcel got its present class
    for y in range(_FIRST_YEAR, year + 1):
        turned[_uniform(_hash(ids, _TURN, y)) < _CHANGE] = y
    kind = (_uniform(_hash(ids, _CLASS, turned)) * _N_CLASSES).astype(np.int64)
    classes = _CLASS_PART * _even(
        _hash(world, _CLASS_VECTOR, np.arange(_N_CLASSES + 1)[:, None], np.arange(N_BANDS))
    )
    own = _even(_hash(ids[:, None], _PARCEL_VECTOR, turned[:, None], np.arange(N_BANDS)))
    vectors = np.concatenate([classes[kind] + _PARCEL_PART * own, classes[_WATER:]])
    strengths = np.exp(_PARCEL_STRENGTH * _normal(_hash(ids, _PARCEL_VECTOR)))
    return vectors, np.append(strengths, np.float32(1))


# --- the sum, quantised -----------------------------------------------------------------------------


def _quantised(
    nodes: _Nodes, smooth: Floats, label: Ints, table: Floats, grain: Ints, unprocessed: Bools
) -> tuple[npt.NDArray[np.int8], Floats]:
    """Sum the parts and quantise every pixel: codes (H, W, 128) and scales (H, W).

    A few rows at a time, so that the float32 vectors stay in the CPU cache.
    """
    height, width = label.shape
    codes = np.zeros((height, width, N_BANDS), np.int8)
    scales = np.zeros((height, width), np.float32)
    right = nodes.col_weight[:, None]
    vectors = np.empty((width, N_BANDS), np.float32)
    part = np.empty_like(vectors)
    for row in range(height):
        above = smooth[nodes.row[row]]
        line = above + (smooth[nodes.row[row] + 1] - above) * nodes.row_weight[row]
        np.take(line[1:] - line[:-1], nodes.col, axis=0, out=vectors, mode="clip")
        vectors *= right
        for source, index in ((line, nodes.col), (table, label[row]), (_noise(), grain[row])):
            vectors += np.take(source, index, axis=0, out=part, mode="clip")
        vectors[unprocessed[row]] = 0
        np.abs(vectors, out=part)
        scale = part.max(axis=1) / np.float32(127)
        scales[row] = scale
        np.divide(vectors, np.where(scale > 0, scale, 1)[:, None], out=vectors)
        codes[row] = np.rint(vectors, out=vectors)
    return codes, scales
