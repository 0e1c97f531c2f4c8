"""What a conversion works on: small frozen values that travel to other processes and machines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from catalog_builder.tile.datasets import Dataset, dataset
from catalog_builder.tile.grid import Bounds, TileId

if TYPE_CHECKING:
    from catalog_builder.convert.encode.overviews import Method
    from catalog_builder.convert.encode.tiff import Compression, Interleave, Predictor
    from catalog_builder.item.basis import Basis
    from catalog_builder.tile.grid import Grid

type JobKind = Literal["npy", "geotiff"]
type Profile = Literal["native", "float32"]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file that a job reads, as it was when the job was planned."""

    address: str
    """Absolute path, ``s3://…`` or ``http(s)://…``."""
    size: int | None = None
    """Bytes, where known before reading."""
    version: str = ""
    """What changes when the file does: a time of modification in nanoseconds, or an ETag."""
    sha256: str = ""
    """Lower-case hex from a manifest; the file must have it."""

    @property
    def stamp(self) -> str:
        """What identifies the content as far as it is known without reading it."""
        return self.sha256 or f"{'?' if self.size is None else self.size}:{self.version}"


@dataclass(frozen=True, slots=True)
class Job:
    """One raster to convert: a tile-year where that is known beforehand, else just a file."""

    kind: JobKind
    main: SourceFile
    """The embedding ``.npy``, or the GeoTIFF."""
    scales: SourceFile | None = None
    """The ``_scales.npy`` of a pair."""
    landmask: SourceFile | None = None
    dataset: str | None = None
    """Directory name of the dataset where the plan knows it; tags of a GeoTIFF must agree."""
    tile: TileId | None = None
    """None: the GeoTIFF's tags decide, or it is not a tile at all."""
    year: int | None = None

    @property
    def id(self) -> str:
        """Stable name: ``v1/2024/grid_0.15_52.05`` for tile-years, the address for other files."""
        if self.tile is None or self.year is None:
            return self.main.address
        return f"{self.dataset or '?'}/{self.year}/{self.tile.name}"

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """Everything that is read."""
        return tuple(f for f in (self.main, self.scales, self.landmask) if f is not None)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change when a source file does, or a landmask comes or goes."""
        parts = [
            self.kind,
            *(("" if f is None else f.stamp) for f in (self.main, self.scales, self.landmask)),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    @property
    def bytes_in(self) -> int:
        """Bytes to read; by the tile's formula where the source does not say."""
        known = sum(f.size or 0 for f in self.files)
        if self.main.size is not None or self.tile is None:
            return known
        raster = self.tile.raster()
        pixels = raster.height * raster.width
        return pixels * (132 if self.kind == "npy" else 450)


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """How to convert; equal options and equal sources give equal files."""

    out: str
    """Folder or ``s3://`` address below which the files go."""
    profile: Profile = "native"
    grid: Grid = "utm"
    overviews: Method = "average"
    block_size: int = 128
    """Measured best of 64 ... 512 over the four access patterns; see docs of the converter."""
    interleave: Interleave = "tile"
    compression: Compression = "zstd"
    level: int = 1
    predictor: Predictor | None = None
    """None: 2 for codes, 3 for floats."""
    bases: tuple[Basis, ...] = ()
    """Colours, of one or several datasets; a dataset without gets no ``visual`` and no ``thumbnail``."""
    verify: bool = False
    """Reopen every file with GDAL and compare every pixel with the source."""
    run: str = ""
    """Name of the run: its unfinished files lie in ``.staging/<run>`` below ``out``."""
    durable: bool = True
    """Flush files to the disk before they get their names."""
    max_pixels_bytes: int = 4 << 30
    """Largest raster, uncompressed, that is converted in memory."""

    def basis_for(self, directory: str) -> Basis | None:
        """Return the colours of a dataset."""
        return next((b for b in self.bases if b.dataset == directory), None)

    def digest_for(self, directory: str) -> str:
        """Return 16 hex digits of everything that decides what is in the files of a dataset's tile."""
        said = [f"{name}={getattr(self, name)}" for name in _DECISIVE]
        basis = self.basis_for(directory)
        said.append(basis.to_json() if basis is not None else "")
        return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


_DECISIVE = (
    "profile",
    "grid",
    "overviews",
    "block_size",
    "interleave",
    "compression",
    "level",
    "predictor",
)


def tile_folder(directory: str, year: int, tile: TileId) -> str:
    """Return the folder of a tile-year's files below ``out``: ``v1/2024/grid_0.15_52.05``."""
    return f"{dataset(directory).directory}/{year}/{tile.name}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asks for; everything by default."""

    dataset: Dataset | None = None
    """What the sources hold, where they do not say."""
    years: frozenset[int] | None = None
    bounds: Bounds | None = None
    missing: bool = False
    """Of a catalogue: only tile-years that are not converted."""
    source_root: str | None = None
    """Where the files of a manifest or catalogue are; by default where they are published."""
    landmask_root: str | None = None
    """Where ``<grid>.tiff`` landmasks are."""
    year: int | None = None
    """Year of ``.npy`` files whose folder does not say it."""
    shard: tuple[int, int] | None = None
    """(i, N): the i-th of N parts, i from 0; parts are disjoint and together everything."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The jobs of some sources."""

    total: int
    """How many tile-years and files there are, before what is done already is left out."""
    jobs: Callable[[], Iterator[Job]]
    """Gives the jobs, as often as it is called, in a stable order."""
    notes: tuple[str, ...] = ()
    """What was left out, and why."""
