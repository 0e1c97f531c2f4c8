"""Verification of outputs: every pixel against the source, through GDAL, every checksum against the ledger.

GDAL decodes what our own writer encoded, so a mistake in the writer cannot hide itself.
"""

from __future__ import annotations

import hashlib
import shlex
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from catalog_builder import storage
from catalog_builder.convert.encode import quantize
from catalog_builder.convert.encode.predictor import MISREADERS
from catalog_builder.convert.ledger.encoding import encoding_of
from catalog_builder.convert.ledger.reader import latest, read_rows
from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.convert.plan.job import ConvertOptions, Job, SourceFile
from catalog_builder.convert.tile.plain_raster import compare_again
from catalog_builder.convert.tile.source import Source, read_source
from catalog_builder.errors import TesseraError
from catalog_builder.pixels.whole import gdal_reason
from catalog_builder.raster.gdal import CONVERTING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import rasterio


@dataclass(frozen=True, slots=True)
class Misread:
    """A sound file that some readers misread: planar, of several bands, with a predictor."""

    file: str
    """Path below the output folder."""
    predictor: int
    """TIFF tag 317: 2 or 3."""


@dataclass(frozen=True, slots=True)
class MisreadFiles:
    """Files that some readers misread; a warning, for they are sound."""

    files: tuple[Misread, ...]
    readers: tuple[str, ...]
    """Programs that get their values wrong, without an error."""
    command: str
    """What converts them again; its sources and options are those of before."""


@dataclass(frozen=True, slots=True)
class EarlierViews:
    """Float32 views of an earlier form; a warning, for alone GDAL 3.7 and newer read them right."""

    files: tuple[str, ...]
    """Paths below the output folder."""
    command: str
    """What writes them anew; its sources and options are those of before."""


@dataclass(frozen=True, slots=True)
class WithoutStatistics:
    """Tile-years of earlier versions, whose items have no statistics of the codes; they are sound."""

    tiles: int
    command: str
    """What adds them, without writing a file; its sources and options are those of before."""


@dataclass(frozen=True, slots=True)
class TileCheck:
    """What a check of one ledger row found."""

    job: str
    problems: tuple[str, ...]
    files: int
    """Files whose checksum was compared."""
    pixels: bool
    """Whether every pixel was compared with the source."""
    note: str = ""
    """Why pixels were not compared."""
    misread: tuple[Misread, ...] = ()


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """What :func:`validate_results` found."""

    checked: int
    """Ledger rows whose files were checked."""
    files: int
    pixels: int
    """Rows whose every pixel was compared with its source."""
    asked: bool
    """Whether pixels were to be compared."""
    failed: tuple[TileCheck, ...]
    """Rows with problems."""
    notes: tuple[TileCheck, ...]
    """Rows whose pixels could not be compared."""
    misread: MisreadFiles | None
    """None if there is no such file."""
    earlier_views: EarlierViews | None
    """None if there is no such file."""
    without_statistics: WithoutStatistics | None
    """None if all have them."""

    @property
    def sound(self) -> bool:
        """Whether there are no problems."""
        return not self.failed


def validate_results(
    out: str,
    ledgers: Sequence[str] | None = None,
    *,
    pixels: bool = True,
    executor: Executor | None = None,
    progress: Callable[[int, int, TileCheck], None] | None = None,
) -> ValidationReport:
    """Check converted tiles: every file's size and SHA-256, every pixel against the source.

    Parameters
    ----------
    out
        Folder or ``s3://`` URL of the outputs.
    ledgers
        Its ledgers; by default ``<out>/ledger``.
    pixels
        Whether to read the sources again and compare every pixel. Sources that changed since, or are
        gone, are noted, not failures: the files are still what the ledger says.
    executor
        Where to check; by default one after the other in this process.
    progress
        Called with (done, total, check).

    Raises
    ------
    StorageError
        If there is no ledger.
    """
    rows = sorted(
        latest(read_rows(list(ledgers or [storage.join(out, "ledger")])), ok_only=True).values(),
        key=lambda r: r.job,
    )
    check = partial(check_row, out, pixels=pixels)
    checks = []
    for found in map(check, rows) if executor is None else executor.map(check, rows):
        checks.append(found)
        if progress is not None:
            progress(len(checks), len(rows), found)
    misread = tuple(m for c in checks for m in c.misread)
    command = f"tessera-stac convert SOURCE... --out {shlex.quote(out)} --redo"
    views = tuple(row.vrt.path for row in rows if row.vrt is not None and row.has_earlier_view)
    lacking = sum(row.lacks_code_range for row in rows)
    return ValidationReport(
        checked=len(checks),
        files=sum(c.files for c in checks),
        pixels=sum(c.pixels for c in checks),
        asked=pixels,
        failed=tuple(c for c in checks if c.problems),
        notes=tuple(c for c in checks if c.note and not c.problems),
        misread=MisreadFiles(misread, MISREADERS, f"{command} predictor") if misread else None,
        earlier_views=EarlierViews(views, f"{command} view") if views else None,
        without_statistics=WithoutStatistics(lacking, f"{command} statistics") if lacking else None,
    )


def check_row(out: str, row: LedgerRow, *, pixels: bool = True) -> TileCheck:
    """Check the files of one ledger row; nothing is raised."""
    from rasterio.errors import RasterioIOError

    problems: list[str] = []
    misread: list[Misread] = []
    note = ""
    compared = False
    with tempfile.TemporaryDirectory(prefix="tessera-check-") as folder:
        for role, file in row.files.items():
            address = storage.join(out, file.path)
            path = storage.local_path(address) if not storage.scheme(address) else Path(folder) / role
            try:
                if storage.scheme(address):
                    storage.fetch_to(address, path)
                elif path.exists() and (why := storage.local.oddity(path)):
                    problems.append(f"{address}: {why}")
                    continue
                with path.open("rb") as stream:
                    sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
                if path.stat().st_size != file.size:
                    problems.append(f"{address}: {path.stat().st_size} bytes, the ledger says {file.size}")
                elif sha256 != file.sha256:
                    problems.append(f"{address}: SHA-256 is {sha256}, the ledger says {file.sha256}")
                elif file.header_size:
                    stored = encoding_of(path)
                    if stored.is_misread:
                        misread.append(Misread(file.path, stored.predictor))
            except RasterioIOError as error:
                problems.append(f"{address}: cannot be opened: {gdal_reason(error)}")
            except FileNotFoundError:
                problems.append(f"{address}: missing")
            except (OSError, TesseraError) as error:
                problems.append(str(error))
        if pixels and not problems:
            root, staged = (Path(folder), True) if storage.scheme(out) else (storage.local_path(out), False)
            try:
                problems += _differences(root, row, out, staged=staged)
            except TesseraError as error:
                note = f"pixels not compared: {error}"
            else:
                compared = True
    return TileCheck(row.job, tuple(problems), len(row.files), compared, note, tuple(misread))


def _differences(root: Path, row: LedgerRow, out: str, *, staged: bool) -> list[str]:
    """Read a row's source again and return how its files differ from it."""
    job = job_of(row)
    if row.profile != "raster":
        return compare(root, row, read_source(job, options_of(row, out)), staged=staged)
    import rasterio

    if row.embeddings is None:
        return [f"{row.job}: the ledger names no file"]
    with rasterio.Env(**CONVERTING):
        return compare_again(job, row, root / ("embeddings" if staged else row.embeddings.path))


def job_of(row: LedgerRow) -> Job:
    """Return the job of a ledger row, its sources required to be the bytes that were converted."""
    found = {s.role: SourceFile(s.address, s.size, "", s.sha256) for s in row.sources}
    return Job(
        "npy" if row.kind == "npy" else "geotiff",
        found["main"],
        found.get("scales"),
        found.get("landmask"),
        row.dataset or None,
        row.tile,
        row.year,
    )


def options_of(row: LedgerRow, out: str) -> ConvertOptions:
    """Return options that read a row's source as its conversion did."""
    return ConvertOptions(
        out,
        profile="float32" if row.profile == "float32" else "native",
        grid="source" if row.grid == "source" else "utm",
    )


def compare(root: Path, row: LedgerRow, source: Source, *, staged: bool) -> list[str]:
    """Return how a tile's files differ from its source, at full resolution; empty if they do not.

    Parameters
    ----------
    root
        The output folder, or the folder of the staged files (named by their roles).
    source
        What the files were made from.
    """
    problems: list[str] = []
    paths = {role: root / (role if staged else file.path) for role, file in row.files.items()}
    t = tuple(source.raster.transform)[:6]
    with _opened(paths["embeddings"], problems) as ds:
        if ds is None:
            return problems
        if (ds.count, ds.shape) != (len(ds.indexes), source.raster.shape) or tuple(ds.transform)[:6] != t:
            problems.append(f"{paths['embeddings']}: {ds.count} bands, {ds.shape}, {tuple(ds.transform)[:6]}")
            return problems
        if ds.crs.to_epsg() != source.raster.epsg:
            problems.append(f"{paths['embeddings']}: CRS {ds.crs}, expected EPSG:{source.raster.epsg}")
        problems += _compare_strips(ds, paths["embeddings"], source, native=row.profile == "native")
    if "scales" in paths and source.scales is not None:
        with _opened(paths["scales"], problems) as ds:
            if ds is not None and not np.array_equal(
                ds.read(1).view(np.uint32)[source.valid], source.scales.view(np.uint32)[source.valid]
            ):
                problems.append(f"{paths['scales']}: differs from the source's scales")
            if ds is not None and not np.isnan(ds.read(1)[~source.valid]).all():
                problems.append(f"{paths['scales']}: not NaN where there is no data")
    return problems


@contextmanager
def _opened(path: Path, problems: list[str]) -> Iterator[rasterio.DatasetReader | None]:
    import rasterio

    try:
        ds = rasterio.open(path, driver="GTiff")
    except rasterio.errors.RasterioIOError as error:
        problems.append(f"{path}: cannot be opened: {gdal_reason(error)}")
        yield None
        return
    with ds:
        try:
            yield ds
        except rasterio.errors.RasterioIOError as error:
            problems.append(f"{path}: cannot be read: {gdal_reason(error)}")


def _compare_strips(ds: rasterio.DatasetReader, path: Path, source: Source, *, native: bool) -> list[str]:
    """Compare a strip of blocks at a time, as bits."""
    from rasterio.windows import Window

    step = ds.block_shapes[0][0]
    for start in range(0, ds.height, step):
        n = min(step, ds.height - start)
        rows = slice(start, start + n)
        found = np.empty((n, ds.width, ds.count), ds.dtypes[0])
        ds.read(window=Window(0, start, ds.width, n), out=found.transpose(2, 0, 1))
        if native:
            same = bool(np.array_equal(found, source.pair[0][rows]))
        else:
            expected = source.values[rows] if source.values is not None else _values(source, rows)
            inside = source.valid[rows]
            same = bool(
                np.array_equal(found[inside].view(np.uint32), expected[inside].view(np.uint32))
                and np.isnan(found[~inside]).all()
            )
        if not same:
            return [f"{path}: rows {start} to {start + n} differ from the source"]
    return []


def _values(source: Source, rows: slice) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    codes, scales = source.pair
    return quantize.dequantize(codes[rows], scales[rows])
