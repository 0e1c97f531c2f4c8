"""Reading the parts of an output, which are kept on disk until it is written: a rerun goes on from them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalog_builder.errors import StorageError, TesseraError
from catalog_builder.pixels.read import is_quantized, read_window
from catalog_builder.pixels.values import Pixels, Quantized, Values
from catalog_builder.storage import Meter
from catalog_builder.storage.local import in_one_step
from catalog_builder.vectors.regions.plan import Part

PARTS = ".parts"
"""Folder with the parts of an unfinished output."""
_ROWS = 64
"""Rows of a part that are looked at together."""


@contextmanager
def parts_folder(out: Path, fingerprint: str) -> Iterator[Path]:
    """Yield a folder for the parts of an output; it is kept until :func:`clear`.

    Raises
    ------
    StorageError
        If it cannot be made.
    """
    folder = out / PARTS / fingerprint
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written: {error}") from error
    yield folder


def clear(out: Path, fingerprint: str) -> None:
    """Remove the parts of a finished output."""
    shutil.rmtree(out / PARTS / fingerprint, ignore_errors=True)
    if (out / PARTS).is_dir() and not os.listdir(out / PARTS):  # noqa: PTH208
        (out / PARTS).rmdir()


def read_parts(
    parts: Sequence[Part],
    bands: tuple[int, ...],
    folder: Path,
    meter: Meter,
    *,
    workers: int,
    codes_only: bool,
) -> Iterator[tuple[Part, Pixels | TesseraError]]:
    """Yield parts as they are read, or were read by an earlier run, or why one cannot be read.

    The pixels are files of the folder, mapped into memory.

    Parameters
    ----------
    parts
        What to read.
    bands
        Dimensions, counted from 0.
    folder
        Of :func:`parts_folder`.
    meter
        Counts what is read.
    workers
        Number of parts read concurrently.
    codes_only
        Whether parts that are not codes and scales are an error.
    """

    def one(part: Part) -> Pixels:
        if codes_only and not is_quantized(part.source.place):
            raise StorageError(f"{part.source.id} is available as float32 only: use float32")
        found = _kept(folder, part.source.id)
        if found is None:
            pixels = read_window(part.source.place, part.window, bands, mask=part.mask, meter=meter)
            _keep(folder, part.source.id, pixels)
            found = _kept(folder, part.source.id)
        if found is None:
            raise StorageError(f"{folder}: {part.source.id} was removed while it was used")
        return found

    pool = ThreadPoolExecutor(max(1, min(workers, len(parts))))
    waiting: Mapping[Future[Pixels], Part] = {pool.submit(one, p): p for p in parts}
    try:
        for future in as_completed(waiting):
            try:
                yield waiting[future], future.result()
            except TesseraError as error:
                yield waiting[future], error
    finally:
        pool.shutdown(cancel_futures=True)


def corrupt_pixels(part: Part, pixels: Pixels, max_scale: float) -> int:
    """Return how many pixels in a part's own cell have a scale that no embedding has."""
    total = 0
    for top in range(0, part.window.height, _ROWS):
        rows = slice(top, top + _ROWS)
        piece: Pixels
        if isinstance(pixels, Quantized):
            piece = Quantized(pixels.codes[rows], pixels.scales[rows])
        else:
            piece = Values(pixels.values[rows])
        total += int((piece.corrupt(max_scale) & part.own[rows]).sum())
    return total


def _keep(folder: Path, item: str, pixels: Pixels) -> None:
    arrays: Mapping[str, npt.NDArray[np.generic]] = (
        {"codes": pixels.codes, "scales": pixels.scales}  # scales come last: with them it is whole
        if isinstance(pixels, Quantized)
        else {"values": pixels.values}
    )
    for name, array in arrays.items():
        with (
            in_one_step(folder / f"{item}.{name}.npy", lone=True, durable=False) as new,
            new.open("wb") as file,
        ):
            np.save(file, array, allow_pickle=False)


def _kept(folder: Path, item: str) -> Pixels | None:
    try:
        values, scales = (folder / f"{item}.{name}.npy" for name in ("values", "scales"))
        if values.exists():
            return Values(np.load(values, mmap_mode="r", allow_pickle=False))
        if scales.exists():
            codes = np.load(folder / f"{item}.codes.npy", mmap_mode="r", allow_pickle=False)
            return Quantized(codes, np.load(scales, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise StorageError(f"{folder}: {item} cannot be read again: {error}") from error
    return None
