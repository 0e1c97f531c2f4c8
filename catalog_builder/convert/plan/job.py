"""Jobs and options of a conversion: small frozen values that are sent to other processes and machines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from shapely.geometry.base import BaseGeometry

from catalog_builder import storage
from catalog_builder.convert.encode.blocks import BLOCK_SIZE, OVERVIEW_BLOCK_SIZE
from catalog_builder.tile.datasets import Dataset, dataset
from catalog_builder.tile.grid import Bounds, TileId

if TYPE_CHECKING:
    from catalog_builder.convert.encode.overviews import Method
    from catalog_builder.convert.encode.tiff import Compression, Interleave, Predictor
    from catalog_builder.convert.ledger.rows import LedgerRow
    from catalog_builder.item.basis import Basis
    from catalog_builder.tile.grid import Grid

type JobKind = Literal["npy", "geotiff", "store"]
type Profile = Literal["native", "float32"]
type Redo = Literal["predictor", "view", "statistics", "layout"]
"""Which of the results that are there are to be done again. ``predictor``: those whose embeddings some
readers misread. ``layout``: those with the blocks of earlier versions. ``view``: of those whose float32 view
some readers misread, that view alone. ``statistics``: of those that have none of their codes, these alone."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file that a job reads, as it was when the job was planned."""

    address: str
    """Absolute path, ``s3://…`` or ``http(s)://…``."""
    size: int | None = None
    """Bytes, where known before reading."""
    version: str = ""
    """Changes when the file does: modification time in nanoseconds, or an ETag."""
    sha256: str = ""
    """Lower-case hex from a manifest; the file must have it."""
    sums: str = ""
    """Where no manifest says it: the ``SHA256`` or ``SHA256SUM`` file beside it, which may."""

    @property
    def stamp(self) -> str:
        """Identifies the content as far as possible without reading it."""
        return self.sha256 or f"{'?' if self.size is None else self.size}:{self.version}"


@dataclass(frozen=True, slots=True)
class Job:
    """One raster to convert: a tile-year if that is known in advance, otherwise just a file."""

    kind: JobKind
    main: SourceFile
    """The embedding ``.npy``, the GeoTIFF, or the root of a Zarr or Icechunk store."""
    scales: SourceFile | None = None
    """The ``_scales.npy`` of a pair."""
    landmask: SourceFile | None = None
    dataset: str | None = None
    """Directory name of the dataset where the plan knows it; tags of a GeoTIFF must agree."""
    tile: TileId | None = None
    """None: the GeoTIFF's tags decide, or it is not a tile at all."""
    year: int | None = None
    renews: LedgerRow | None = None
    """Of this result only the part is to be done again that its ``only`` names."""
    rivals: tuple[Job, ...] = ()
    """Other places of the same tile-year, which must have the same content."""
    doubt: str = ""
    """Why the plan does not know the dataset although something says one; tags of a GeoTIFF may."""
    fault: str = ""
    """Why this cannot be converted, where the plan found that already: nothing is read."""
    beside: tuple[SourceFile, ...] = ()
    """Files that belong to a raster that is not known to be a tile, such as ``.aux.xml`` and ``.msk``."""

    @property
    def id(self) -> str:
        """Stable name: ``v1/2024/grid_0.15_52.05`` for tile-years, the path or URL for other files."""
        if self.tile is None or self.year is None:
            return self.main.address
        return f"{self.dataset or '?'}/{self.year}/{self.tile.name}"

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """All files that are read."""
        return tuple(f for f in (self.main, self.scales, self.landmask) if f is not None)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change when a source file does, or one beside it comes or goes."""
        parts = [
            self.kind,
            *(("" if f is None else f.stamp) for f in (self.main, self.scales, self.landmask)),
            *(rival.fingerprint for rival in self.rivals),
            *(f"{f.address}:{f.stamp}" for f in self.beside),
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
        return pixels * (450 if self.kind == "geotiff" else 132)


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """Conversion options; equal options and equal sources give equal files."""

    out: str
    """Folder or ``s3://`` URL for the output files."""
    profile: Profile = "native"
    grid: Grid = "utm"
    overviews: Method = "average"
    block_size: int = BLOCK_SIZE
    """Rows and columns of the embeddings' blocks; scales are in strips as wide as the tile. Measured best of
    32 to 256 over the access patterns, see :mod:`catalog_builder.convert.encode.cog`."""
    overview_block_size: int = OVERVIEW_BLOCK_SIZE
    """The same of overviews, also those of scales; the pyramid ends with one such block."""
    interleave: Interleave = "tile"
    compression: Compression = "zstd"
    level: int = 1
    predictor: Predictor | None = None
    """None: none in planar files of several bands, else by data type; see
    :func:`~catalog_builder.convert.encode.predictor.default_predictor`."""
    bases: tuple[Basis, ...] = ()
    """Colours, of one or several datasets; a dataset without gets no ``visual`` and no ``thumbnail``."""
    verify: bool = False
    """Reopen every file with GDAL and compare every pixel with the source; rasters that are not tiles always
    are."""
    run: str = ""
    """Name of the run: its unfinished files lie in ``.staging/<run>`` below ``out``."""
    durable: bool = True
    """Flush files to disk before they get their final names."""

    def basis_for(self, directory: str) -> Basis | None:
        """Return the colours of a dataset."""
        return next((b for b in self.bases if b.dataset == directory), None)

    def digest_for(self, directory: str) -> str:
        """Return 16 hex digits of everything that affects the content of a dataset's files."""
        return self._digest(directory, _DECISIVE)

    def pixel_digest_for(self, directory: str) -> str:
        """Return the same without the colours: results that agree in it differ in their images at most."""
        return replace(self, bases=()).digest_for(directory)

    def earlier_digests_for(self, directory: str) -> frozenset[str]:
        """Return what :meth:`digest_for` was when all levels of both files had blocks of one size.

        Where no other size is asked for now, also of the size that was the default then.
        """
        names = tuple(name for name in _DECISIVE if name != "overview_block_size")
        asked = {self}
        if (self.block_size, self.overview_block_size) == (BLOCK_SIZE, OVERVIEW_BLOCK_SIZE):
            asked.add(replace(self, block_size=EARLIER_BLOCK_SIZE))
        return frozenset(options._digest(directory, names) for options in asked)

    def _digest(self, directory: str, names: tuple[str, ...]) -> str:
        said = [f"{name}={getattr(self, name)}" for name in names]
        basis = self.basis_for(directory)
        said.append(basis.to_json() if basis is not None else "")
        return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


EARLIER_BLOCK_SIZE = 128
"""Default of versions that had one block size for all levels of both files."""
_DECISIVE = (
    "profile",
    "grid",
    "overviews",
    "block_size",
    "overview_block_size",
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
    """The user's selection; everything by default."""

    dataset: Dataset | None = None
    """Dataset of the sources, if they do not state it."""
    years: frozenset[int] | None = None
    """Also the year of ``.npy`` files, if it is one and no folder says any."""
    bounds: Bounds | BaseGeometry | None = None
    """A box, or polygons in degrees (OGC:CRS84): cells that share area with it."""
    missing: bool = False
    """For a catalogue: only tile-years that are not converted."""
    source_root: str | None = None
    """Location of the files of a manifest or catalogue; by default where they are published."""
    landmask_root: str | None = None
    """Location of ``<grid>.tiff`` landmasks."""
    shard: tuple[int, int] | None = None
    """(i, N): the i-th of N parts, i from 0; parts are disjoint and together everything."""

    def __post_init__(self) -> None:
        """Check the URLs, to which names of files are appended.

        Raises
        ------
        StorageError
            If one contains credentials or a query.
        """
        for option, base in (("--source-root", self.source_root), ("--landmask-root", self.landmask_root)):
            if base is not None:
                storage.check_base(base, option)


@dataclass(frozen=True, slots=True)
class Plan:
    """The jobs of some sources."""

    total: int
    """Number of tile-years and files, including completed ones; without ``faults``."""
    jobs: Callable[[], Iterator[Job]]
    """Returns the jobs in a stable order, those with a fault last; can be called repeatedly."""
    notes: tuple[str, ...] = ()
    """What was skipped, and why."""
    faults: tuple[Job, ...] = ()
    """What is broken and no job of its own; of a whole plan they are among the jobs."""
    distinct: bool = False
    """Whether no two jobs can be of one tile-year."""
