"""Fetch a region: plan, read in parallel, write, and resume where an earlier run stopped."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from shapely.geometry.base import BaseGeometry

from catalog_builder.console import Progress
from catalog_builder.errors import QueryError, StorageError, TesseraError
from catalog_builder.pixels.read import cost, is_quantized, read_window
from catalog_builder.pixels.values import Pixels, Quantized, Values
from catalog_builder.storage import Meter
from catalog_builder.storage.local import in_one_step
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.files import N_BANDS
from catalog_builder.vectors.find import find
from catalog_builder.vectors.plan import Output, Part, plan
from catalog_builder.vectors.sidecar import Sidecar
from catalog_builder.vectors.write import Dtype, Format, Mosaic, file_names, require, write

PARTS = ".parts"
"""Folder with the parts of an unfinished mosaic."""


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
    """Maximum size in bytes of an output in memory."""


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
        If the region has no tiles in these years, or an output is too large for memory.
    StorageError
        If the format's libraries are missing, or the folder cannot be written.
    """
    require(options.format)
    sources = find(catalog, options.region, options.years, options.dataset)
    outputs = plan(sources, options.region, tiles=options.tiles)
    if not outputs:
        raise QueryError("the region has no pixels in this catalogue for these years")
    dataset = sources[0].dataset
    report = Report(dataset=dataset)
    sidecar = Sidecar(out, dataset)
    todo: list[tuple[Output, str]] = []
    for output in outputs:
        fingerprint = _fingerprint(output, options)
        report.tile_years += len(output.parts)
        report.pixels += output.pixels
        if sidecar.has(output.name, fingerprint):
            report.kept += 1
            _note(report, out, output, options)
            continue
        _refuse_too_large(output, options)
        todo.append((output, fingerprint))
        for part in output.parts:
            n, exact = cost(part.source.place, part.window, part.mask)
            report.planned_bytes += n
            report.planned_exact &= exact
            report.whole_bytes += part.source.place.whole_bytes
    if dry_run:
        return report
    total = sum(len(o.parts) for o, _ in todo)
    meter = Meter()
    done = 0
    for output, fingerprint in todo:
        try:
            parts: dict[str, Pixels] = {}
            with _parts_folder(out, fingerprint, keep=len(output.parts) > 1) as folder:
                for part, pixels in _read_all(output.parts, options, folder, meter):
                    parts[part.source.id] = pixels
                    done += 1
                    progress("reading", done, total)
                paths = write(out, output.name, options.format, _mosaic(output, parts, options, dataset))
        except TesseraError as error:
            report.failed[output.name] = str(error)
            continue
        sidecar.add(output.name, fingerprint, [p.name for p in paths], output.year)
        _clear(out, fingerprint)
        report.written += 1
        _note(report, out, output, options)
    report.read_bytes, report.requests = meter.bytes, meter.requests
    return report


def _note(report: Report, out: Path, output: Output, options: Options) -> None:
    report.outputs.append(output.name)
    report.files += [out / n for n in file_names(output.name, options.format, options.dtype)]


def _fingerprint(output: Output, options: Options) -> str:
    """Return 16 hex digits that change with anything that affects the content of an output."""
    digest = hashlib.sha256(f"{options.format} {options.dtype} {options.bands}".encode())
    for part in output.parts:
        s = part.source
        digest.update(f"{s.id} {s.place.kind} {s.place.stamp} {s.place.size} {part.window}".encode())
        digest.update(np.packbits(part.mask).tobytes())
    return digest.hexdigest()[:16]


def _refuse_too_large(output: Output, options: Options) -> None:
    height, width = output.raster.shape
    need = height * width * (len(options.bands) * (4 if options.dtype == "float32" else 1) + 4)
    if need > options.max_bytes:
        raise QueryError(
            f"{output.name}: {width} x {height} pixels of {len(options.bands)} bands need"
            f" {need / 1e9:.1f} GB of memory: request fewer bands, int8, a smaller region, or one file per"
            " tile (--tiles)"
        )


# ------------------------------------------------------------------------------------------ reading


def _read_all(
    parts: Sequence[Part], options: Options, folder: Path | None, meter: Meter
) -> Iterator[tuple[Part, Pixels]]:
    """Yield parts as they are read, or were read by an earlier run."""

    def one(part: Part) -> Pixels:
        if options.dtype == "int8" and not is_quantized(part.source.place):
            raise StorageError(f"{part.source.id} is available as float32 only: use float32")
        kept = None if folder is None else folder / f"{part.source.id}.npz"
        if kept is not None and kept.exists():
            with np.load(kept, allow_pickle=False) as found:
                if "values" in found:
                    return Values(found["values"])
                return Quantized(found["codes"], found["scales"])
        pixels = read_window(part.source.place, part.window, options.bands, mask=part.mask, meter=meter)
        if kept is not None:
            with in_one_step(kept, lone=True, durable=False) as new:
                match pixels:
                    case Values(values):
                        np.savez(new, values=values)
                    case Quantized(codes, scales):
                        np.savez(new, codes=codes, scales=scales)
        return pixels

    pool = ThreadPoolExecutor(max(1, min(options.workers, len(parts))))
    waiting: Mapping[Future[Pixels], Part] = {pool.submit(one, p): p for p in parts}
    try:
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _parts_folder(out: Path, fingerprint: str, *, keep: bool) -> Iterator[Path | None]:
    """Yield a folder for finished parts of a mosaic; it is kept until the mosaic is written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = out / PARTS / fingerprint
        if keep:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written: {error}") from error
    yield folder if keep else None


def _clear(out: Path, fingerprint: str) -> None:
    shutil.rmtree(out / PARTS / fingerprint, ignore_errors=True)
    if (out / PARTS).is_dir() and not os.listdir(out / PARTS):  # noqa: PTH208
        (out / PARTS).rmdir()


# ---------------------------------------------------------------------------------------- assembling


def _mosaic(output: Output, parts: Mapping[str, Pixels], options: Options, dataset: Dataset) -> Mosaic:
    """Assemble the parts."""
    kind = Values if options.dtype == "float32" else Quantized
    whole: Pixels = kind.empty(output.raster.shape, len(options.bands))
    for part in output.parts:
        place = output.place(part)
        pixels = parts[part.source.id]
        if isinstance(whole, Values):
            whole.values[place][part.mask] = pixels.dequantized()[part.mask]
        elif isinstance(pixels, Quantized):
            whole.codes[place][part.mask] = pixels.codes[part.mask]
            whole.scales[place][part.mask] = pixels.scales[part.mask]
    return Mosaic(output.raster, options.bands, output.year, dataset, whole)
