"""Fetch a region: plan, read in parallel, write, and resume where an earlier run stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from catalog_builder.console import Progress
from catalog_builder.errors import QueryError, TesseraError
from catalog_builder.pixels.read import cost
from catalog_builder.pixels.values import Pixels
from catalog_builder.storage import Meter
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.files import N_BANDS
from catalog_builder.vectors.find import Found, find
from catalog_builder.vectors.points.options import MAX_SCALE
from catalog_builder.vectors.regions.canvas import Canvas, Lattice
from catalog_builder.vectors.regions.grid import Grid
from catalog_builder.vectors.regions.parts import clear, corrupt_pixels, parts_folder, read_parts
from catalog_builder.vectors.regions.plan import Output, Plan, lattices, plan, plan_warped, ranges
from catalog_builder.vectors.regions.sidecar import Sidecar
from catalog_builder.vectors.regions.warp import Warp, grid_of, margin, warped
from catalog_builder.vectors.regions.write import (
    STREAMED,
    Dtype,
    Format,
    Mosaic,
    file_names,
    require,
    write,
    write_geotiffs,
)


@dataclass(frozen=True, slots=True)
class Options:
    """What to fetch, and how to write it."""

    region: BaseGeometry
    """OGC:CRS84."""
    years: frozenset[int] | None = None
    """Years to include; None: all."""
    dataset: str | None = None
    """Directory name or collection id; None: the only one, or the first real one."""
    format: Format = "geotiff"
    dtype: Dtype = "float32"
    """``float32`` values, or ``int8`` codes with the scales in a separate file."""
    bands: tuple[int, ...] = tuple(range(N_BANDS))
    """Dimensions, counted from 0."""
    tiles: bool = False
    """One output per tile-year instead of one per year and UTM zone."""
    workers: int = 4
    """Number of tile-years read concurrently."""
    max_bytes: int = 4 << 30
    """Maximum size in bytes of an output that is put together in memory: COG, NetCDF, Zarr."""
    max_scale: float | None = None
    """Pixels whose scale is at least this have no data; None: they are kept, and counted from 1.0 on."""
    skip_failed: bool = False
    """Write outputs without the tiles that cannot be read."""
    force: bool = False
    """Replace outputs of another region, or with other options."""
    name: str = ""
    """Beginning of the names of outputs; empty: the dataset."""
    grid_aligned: bool = False
    """All years have one shape and transform, so that they stack."""
    warp: Warp | None = None
    """One output per year across zones, on this grid; None: as tiles lie, in each zone."""
    one_file: bool = False
    """One output per year: as tiles lie where they are all on one lattice, else on that of the main zone."""

    def __post_init__(self) -> None:
        """Reject what cannot be done."""
        if self.max_scale is not None and not self.max_scale > 0:
            raise QueryError(f"max_scale: expected a number above 0, found {self.max_scale}")
        if self.tiles and (self.warp or self.one_file):
            raise QueryError("tiles: one file per tile and one grid for all tiles contradict each other")
        if self.warp is not None and self.dtype == "int8":
            raise QueryError("dtype: int8 codes cannot be resampled, only the values that they stand for")
        if "/" in self.name or "\\" in self.name or self.name.startswith("."):
            raise QueryError(f"name: expected the beginning of a file's name, found '{self.name}'")


@dataclass(slots=True)
class Report:
    """The report of a run, or of a dry run."""

    dataset: Dataset | None = None
    outputs: list[str] = field(default_factory=list)
    """Files that were written or already existed."""
    files: list[Path] = field(default_factory=list)
    written: int = 0
    kept: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Failed outputs, with the reason."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Tile-years that outputs were written without, with the reason."""
    missing: str = ""
    """Years and cells that the catalogue has not, in words; empty if it has all."""
    corrupt: int = 0
    """Pixels that were read with a scale that no embedding has: negative, infinite, or from 1.0 on (or
    from ``max_scale`` on)."""
    tile_years: int = 0
    pixels: int = 0
    """Number of pixels in the region."""
    planned_bytes: int = 0
    """Bytes to read for outputs that do not exist yet."""
    planned_exact: bool = True
    """False: an estimate from the sizes of compressed files."""
    read_bytes: int = 0
    requests: int = 0
    whole_bytes: int = 0
    """Bytes that downloading the same tile-years in full would take."""

    @property
    def is_synthetic(self) -> bool:
        """Whether the pixels are synthetic."""
        return self.dataset is not None and self.dataset.is_synthetic


def get(catalog: str, out: Path, options: Options, progress: Progress, *, dry_run: bool = False) -> Report:
    """Fetch a region of a catalogue into a folder.

    Parameters
    ----------
    catalog
        A catalogue folder, or the URL of a tessera-stac API.
    out
        The output folder, created if necessary. It holds one dataset.
    progress
        Called after every tile-year that was read.
    dry_run
        Only report what would be read.

    Returns
    -------
    Report
        Failed outputs are listed with the reason; all others are complete.

    Raises
    ------
    CatalogError
        If the catalogue cannot be opened.
    DatasetError
        If it does not have the dataset, or the folder contains another one.
    QueryError
        If the region has no tiles in these years, an output is too large for memory, or it would replace one
        of another region.
    StorageError
        If the format's libraries are missing, or the folder cannot be written.
    """
    require(options.format)
    found = find(catalog, options.region, options.years, options.dataset)
    planned = _plan(found, options)
    if not planned.outputs and not planned.lost:
        raise QueryError(_nothing(planned, options.region))
    run = _Run(out, options, planned, found.dataset)
    todo = run.choose()
    if dry_run:
        return run.report
    total = sum(len(output.parts) for output in todo)
    for output in todo:
        run.make(output, progress, total)
    run.report.read_bytes, run.report.requests = run.meter.bytes, run.meter.requests
    return run.report


def _plan(found: Found, options: Options) -> Plan:
    planned = plan(
        found, options.region, tiles=options.tiles, aligned=options.grid_aligned, name=options.name
    )
    is_one = len(lattices([part for output in planned.outputs for part in output.parts])) == 1
    if not planned.outputs or (options.warp is None and (is_one or not options.one_file)):
        return planned
    if options.dtype == "int8":
        raise QueryError(
            "dtype: the region has several zones, and int8 codes cannot be resampled: use float32"
        )
    warp = options.warp or Warp()
    grid = grid_of(warp, found, options.region)
    return plan_warped(found, options.region, grid, margin(warp, grid), options.name)


def _nothing(planned: Plan, region: BaseGeometry) -> str:
    message = "the region has no pixels in this catalogue for these years"
    if planned.years:
        return f"{message}: it has {ranges(planned.years)} there"
    west, south, east, north = region.bounds
    if -90 <= west <= east <= 90:
        message += f"; are longitude and latitude swapped? It lies at {west:g} to {east:g} degrees east and"
        message += f" {south:g} to {north:g} degrees north"
    return message


class _Run:
    """One run of :func:`get`."""

    def __init__(self, out: Path, options: Options, planned: Plan, dataset: Dataset) -> None:
        self.report, self.meter = Report(dataset=dataset, missing=planned.missing), Meter()
        self._out, self._options, self._planned, self._dataset = out, options, planned, dataset
        self._sidecar = Sidecar(out, dataset)
        self._request = _request(options)
        self._done = 0

    def choose(self) -> list[Output]:
        """Return the outputs to make; those that are there are reported.

        Raises
        ------
        QueryError
            If one would replace another one, or is too large.
        """
        report, todo = self.report, []
        for name, lost in self._planned.lost.items():
            report.tile_years += len(lost)
            if not self._options.skip_failed or all(o.name != name for o in self._planned.outputs):
                report.failed[name] = "; ".join(lost.values())
            else:
                report.skipped |= lost
        for output in self._planned.outputs:
            report.tile_years += len(output.parts)
            report.pixels += output.pixels
            if output.name in report.failed:
                continue
            if self._sidecar.has(output.name, _fingerprint(output, self._options)):
                report.kept += 1
                self._note(output)
                continue
            self._refuse_too_large(output)
            todo.append(output)
            for part in output.parts:
                n, exact = cost(part.source.place, part.window, part.mask)
                report.planned_bytes += n
                report.planned_exact &= exact
                report.whole_bytes += part.source.place.whole_bytes
        if not self._options.force:
            self._refuse_conflicts(todo)
        return todo

    def make(self, output: Output, progress: Progress, total: int) -> None:
        """Read and write one output; a failure is reported."""
        fingerprint, options = _fingerprint(output, self._options), self._options
        skipped = dict(self._planned.lost.get(output.name, {}))
        try:
            with parts_folder(self._out, fingerprint) as folder:
                parts = self._read(output, folder, skipped, progress, total)
                with self._canvas(output, parts, folder) as canvas:
                    mosaic = self._mosaic(output, output.grid, canvas, self._about(output, skipped))
                    paths = write(self._out, output.name, options.format, mosaic)
        except TesseraError as error:
            self.report.failed[output.name] = str(error)
            return
        entry = {
            "fingerprint": fingerprint,
            "request": self._request,
            "bbox": _bbox(options.region),
            "files": [path.name for path in paths],
            "year": output.year,
        }
        self._sidecar.add(output.name, entry | ({"skipped": sorted(skipped)} if skipped else {}))
        if (
            skipped.keys() <= self._planned.lost.get(output.name, {}).keys()
        ):  # else a rerun uses what was read
            clear(self._out, fingerprint)
        self.report.skipped |= skipped
        self.report.written += 1
        self._note(output)

    def _read(
        self, output: Output, folder: Path, skipped: dict[str, str], progress: Progress, total: int
    ) -> dict[str, Pixels]:
        """Return the pixels of an output's parts by item; add those that cannot be read to ``skipped``."""
        options, parts = self._options, dict[str, Pixels]()
        limit = MAX_SCALE if options.max_scale is None else options.max_scale
        first: TesseraError | None = None
        reading = read_parts(
            output.parts,
            options.bands,
            folder,
            self.meter,
            workers=options.workers,
            codes_only=options.dtype == "int8",
        )
        for part, pixels in reading:
            self._done += 1
            progress("reading", self._done, total)
            if isinstance(pixels, TesseraError):
                if not options.skip_failed:
                    raise pixels
                skipped[part.source.id], first = str(pixels), first or pixels
                continue
            self.report.corrupt += corrupt_pixels(part, pixels, limit)
            parts[part.source.id] = pixels
        if first is not None and not parts:
            raise first
        return parts

    @contextmanager
    def _canvas(self, output: Output, parts: Mapping[str, Pixels], folder: Path) -> Iterator[Canvas]:
        """Yield the pixels of an output, which are read a window at a time."""
        options = self._options

        def lattice(of: Output) -> Lattice:
            return Lattice(
                of,
                parts,
                len(options.bands),
                is_quantized=options.dtype == "int8",
                max_scale=options.max_scale,
            )

        if not output.is_warped:
            yield lattice(output)
            return
        zones: dict[int, list[Path]] = {}
        for epsg, of_zone in lattices(output.parts).items():
            for one in of_zone:
                path = folder / f"{one.name}.tif"
                write_geotiffs([path], self._mosaic(one, one.grid, lattice(one), {}))
                zones.setdefault(epsg, []).append(path)
        warp = options.warp or Warp()
        with warped(output.grid, options.region, zones, warp, len(options.bands)) as canvas:
            yield canvas

    def _mosaic(self, output: Output, grid: Grid, canvas: Canvas, about: Mapping[str, str]) -> Mosaic:
        return Mosaic(
            grid,
            self._options.bands,
            output.year,
            self._dataset,
            canvas,
            about,
            is_sparse=output.is_warped,
        )

    def _about(self, output: Output, skipped: Mapping[str, str]) -> dict[str, str]:
        """Return what a file says of its region."""
        about = {"TESSERA_REGION": ",".join(map(str, _bbox(self._options.region)))}
        if output.is_warped:
            about["TESSERA_RESAMPLING"] = (self._options.warp or Warp()).resampling
            about["TESSERA_ZONES"] = ", ".join(f"EPSG:{epsg}" for epsg in sorted(lattices(output.parts)))
        if self._planned.missing:
            about["TESSERA_MISSING"] = self._planned.missing
        if skipped:
            about["TESSERA_SKIPPED"] = ", ".join(sorted(skipped))
        return about

    def _note(self, output: Output) -> None:
        self.report.outputs.append(output.name)
        self.report.files += [self._out / name for name in self._files(output)]

    def _files(self, output: Output) -> list[str]:
        return file_names(output.name, self._options.format, self._options.dtype)

    def _refuse_conflicts(self, todo: Sequence[Output]) -> None:
        conflicts = [self._sidecar.conflict(o.name, self._request, self._files(o)) for o in todo]
        conflicts = [reason for reason in conflicts if reason]
        if conflicts:
            more = f" ({len(conflicts)} outputs)" if len(conflicts) > 1 else ""
            raise QueryError(
                f"{self._out}: {conflicts[0]}{more}: choose another folder, another --name, or"
                " replace it with --force"
            )

    def _refuse_too_large(self, output: Output) -> None:
        options, (height, width) = self._options, output.grid.shape
        need = height * width * (len(options.bands) * (4 if options.dtype == "float32" else 1) + 4)
        if options.format not in STREAMED and need > options.max_bytes:
            raise QueryError(
                f"{output.name}: {width} x {height} pixels of {len(options.bands)} bands need"
                f" {need / 1e9:.1f} GB of memory as {options.format}, and {options.max_bytes / 1e9:.1f} are"
                " allowed: use --format geotiff or npy, which need little, allow more (--max-memory), or"
                " request fewer bands, int8, a smaller region, or one file per tile (--tiles)"
            )


def _bbox(region: BaseGeometry) -> list[float]:
    return [round(float(value), 6) for value in region.bounds]


def _request(options: Options) -> str:
    """Return 16 hex digits that change with the region and how it is written."""
    said = (options.format, options.dtype, options.bands, options.max_scale, options.grid_aligned)
    digest = hashlib.sha256(repr((said, options.warp, options.one_file)).encode())
    digest.update(shapely.to_wkb(shapely.normalize(options.region)))
    return digest.hexdigest()[:16]


def _fingerprint(output: Output, options: Options) -> str:
    """Return 16 hex digits that change with anything that affects the content of an output."""
    said = (options.format, options.dtype, options.bands, options.max_scale, output.grid)
    resampling = (options.warp or Warp()).resampling if output.is_warped else ""
    digest = hashlib.sha256(repr((said, resampling)).encode())
    for part in output.parts:
        s = part.source
        digest.update(f"{s.id} {s.place.kind} {s.place.stamp} {s.place.size} {part.window}".encode())
        digest.update(np.packbits(part.mask).tobytes())
    return digest.hexdigest()[:16]
