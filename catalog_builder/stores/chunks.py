"""Windows of a store's arrays from whole chunks, of which the last ones decoded are kept.

A chunk is the least that can be read. Direct access asks for the same chunks again and again, a few rows at a
time; so does whoever reads neighbouring pixels. Neighbouring chunks that are missing are read together:
zarr-python then reads those that are neighbours in a shard in one request.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from catalog_builder.errors import FileChangedError, StoreError
from catalog_builder.storage import Meter
from catalog_builder.stores.open import OpenStore, read_region
from catalog_builder.stores.zones import ZoneGroup

BUDGET = 256 << 20
"""Bytes of decoded chunks that a process keeps: a tile of either layout."""
FRESH = 60.0
"""Seconds after which a chunk is read again: the store may have been filled meanwhile."""
FOLDER_BUDGET = 4 << 30
"""Bytes of chunks that the processes of a run keep on a disk: three rows of tiles across a zone."""
AT_ONCE = 128 << 20
"""Bytes of chunks that are read together, at most, unless one row of chunks is more."""


_AXES = (("y", "northing"), ("x", "easting"))


class Layout(NamedTuple):
    """How an array is cut into chunks."""

    rows: int
    """Rows of a chunk."""
    cols: int
    band_axis: int | None
    """Axis of the bands, without that of time: 0 or 2; None without bands."""
    bands: int
    item: int
    """Bytes of a pixel."""
    unwritten: float
    """Value of pixels in chunks that were never written."""


class _Key(NamedTuple):
    store: str
    snapshot: str
    epoch: int
    array: str
    time: int
    row: int
    col: int


class ChunkFolder:
    """Chunks that the processes of a run share on a disk, so that none fetches what another has fetched.

    Neighbouring tiles have chunks in common, and lie in different processes.
    """

    def __init__(self, path: Path, budget: int = FOLDER_BUDGET) -> None:
        self.path, self._budget, self._written = path, budget, 0

    def get(self, key: _Key) -> npt.NDArray[Any] | None:
        """Return a chunk; None if it is not there, or not any more."""
        try:
            found: npt.NDArray[Any] = np.load(self._file(key), allow_pickle=False)
        except (OSError, ValueError):
            return None
        return found

    def put(self, key: _Key, chunk: npt.NDArray[Any]) -> None:
        """Write a chunk; a disk that is full costs speed and nothing else."""
        path = self._file(key)
        with suppress(OSError):
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path, suffix=".part", delete=False) as file:
                np.save(file, chunk)
            Path(file.name).replace(path)
        self._written += chunk.nbytes
        if self._written > self._budget // 8:
            self._written = 0
            self._make_room()

    @contextmanager
    def reading(self, key: _Key) -> Iterator[None]:
        """Wait for other processes that read the same row of chunks."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._file(key._replace(col=-1)).with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        except OSError:
            yield
            return
        try:
            with suppress(OSError):  # a file system without locks: a chunk may be fetched twice
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _file(self, key: _Key) -> Path:
        return self.path / f"{hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()}.npy"

    def _make_room(self) -> None:
        found = []
        for path in self.path.glob("*.npy"):
            with suppress(OSError):
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._budget:
                return
            path.unlink(missing_ok=True)
            total -= size


class Chunks:
    """The chunks decoded last, for all threads of a process."""

    folder: ChunkFolder | None = None
    """Where processes of a run share chunks, while one converts."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._budget, self._bytes = budget, 0
        self._found: OrderedDict[_Key, tuple[npt.NDArray[Any], float]] = OrderedDict()
        self._lock = threading.Lock()
        # who asks for a chunk that is being read waits for it, instead of reading it as well
        self._reading = [threading.Lock() for _ in range(64)]

    def share(self, path: Path | None) -> None:
        """Share chunks with other processes in a folder from now on; None: no more."""
        if path is None or self.folder is None or self.folder.path != path:
            self.folder = None if path is None else ChunkFolder(path)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return self._bytes

    def get(self, key: _Key) -> npt.NDArray[Any] | None:
        """Return a chunk; None if it is not kept, or was read too long ago."""
        with self._lock:
            found = self._found.get(key)
            if found is not None and time.monotonic() - found[1] <= FRESH:
                self._found.move_to_end(key)
                return found[0]
        chunk = None if self.folder is None else self.folder.get(key)
        if chunk is not None:
            self._keep(key, chunk)
        return chunk

    def put(self, key: _Key, chunk: npt.NDArray[Any]) -> None:
        """Keep a chunk that was read."""
        self._keep(key, chunk)
        if self.folder is not None:
            self.folder.put(key, chunk)

    def _keep(self, key: _Key, chunk: npt.NDArray[Any]) -> None:
        """Keep a chunk in memory, and drop those that were not used for longest."""
        with self._lock:
            before = self._found.pop(key, None)
            self._bytes += chunk.nbytes - (before[0].nbytes if before else 0)
            self._found[key] = chunk, time.monotonic()
            while self._bytes > self._budget and len(self._found) > 1:
                _, (dropped, _) = self._found.popitem(last=False)
                self._bytes -= dropped.nbytes

    def reading(self, key: _Key) -> threading.Lock:
        """Return the lock of those who read a row of chunks."""
        return self._reading[hash(key._replace(col=0)) % len(self._reading)]


CHUNKS = Chunks()


@dataclass(frozen=True, slots=True)
class _Rectangle:
    """Neighbouring chunks, counted in chunks; the ends are excluded."""

    row: int
    col: int
    end_row: int
    end_col: int


def read_array(
    store: OpenStore,
    group: ZoneGroup,
    name: str,
    at: tuple[int, int, int],
    wanted: npt.NDArray[np.bool_],
    out: npt.NDArray[Any],
    meter: Meter,
) -> None:
    """Read the chunks of wanted pixels of a window into an array, which keeps what it has elsewhere.

    Parameters
    ----------
    store, group, name
        The array.
    at
        Time index, row and column of the window in the group; it may reach over the group's edges.
    wanted
        Bool (rows, columns) of the window. Other pixels of the same chunks are filled in as well.
    out
        (rows, columns) or (rows, columns, bands), of the array's type.
    meter
        Counts what is read.

    Raises
    ------
    StorageError
        If a chunk cannot be read or decoded; also if shards are replaced again and again.
    """
    layout = layout_of(store, group, name)
    touched = chunks_touched(layout, group, at, wanted)

    def paste(place: tuple[int, int], chunk: npt.NDArray[Any]) -> None:
        _paste(out, at, layout, place, chunk)

    _read_chunks(store, group, name, at[0], touched, paste, meter)


def pick_array(
    store: OpenStore,
    group: ZoneGroup,
    name: str,
    at: tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]],
    out: npt.NDArray[Any],
    meter: Meter,
) -> None:
    """Read single pixels into an array, which keeps what it has of those outside of the group.

    Parameters
    ----------
    store, group, name
        The array.
    at
        Time index, and rows and columns (n,) in the group.
    out
        (n,) or (n, bands), of the array's type.
    meter
        Counts what is read.

    Raises
    ------
    StorageError
        As :func:`read_array`.
    """
    time, rows, cols = at
    layout = layout_of(store, group, name)
    inside = np.flatnonzero((rows >= 0) & (rows < group.rows) & (cols >= 0) & (cols < group.cols))
    wide = group.cols // layout.cols + 1
    number = rows[inside] // layout.rows * wide + cols[inside] // layout.cols
    order = inside[np.argsort(number, kind="stable")]
    numbers, first = np.unique(np.sort(number), return_index=True)
    of = dict(zip(numbers.tolist(), np.split(order, first[1:]), strict=True)) if len(numbers) else {}

    def pick(place: tuple[int, int], chunk: npt.NDArray[Any]) -> None:
        mine = of[place[0] * wide + place[1]]
        out[mine] = chunk[rows[mine] - place[0] * layout.rows, cols[mine] - place[1] * layout.cols]

    touched = [divmod(int(n), wide) for n in numbers]
    _read_chunks(store, group, name, time, touched, pick, meter)


def chunks_touched(
    layout: Layout, group: ZoneGroup, at: tuple[int, int, int], wanted: npt.NDArray[np.bool_]
) -> list[tuple[int, int]]:
    """Return the rows and columns of the chunks that wanted pixels of a window lie in."""
    rows, cols = np.nonzero(wanted)
    rows, cols = rows + at[1], cols + at[2]
    inside = (rows >= 0) & (rows < group.rows) & (cols >= 0) & (cols < group.cols)
    wide = group.cols // layout.cols + 1
    numbers = np.unique(rows[inside] // layout.rows * wide + cols[inside] // layout.cols)
    return [divmod(int(number), wide) for number in numbers]


def _read_chunks(
    store: OpenStore,
    group: ZoneGroup,
    name: str,
    time: int,
    touched: list[tuple[int, int]],
    take: Callable[[tuple[int, int], npt.NDArray[Any]], None],
    meter: Meter,
) -> None:
    """Give chunks to a function: those that are kept, and the others read together."""
    try:
        _take_chunks(store, group, name, time, touched, take, meter)
    except FileChangedError:  # what was kept of the store is forgotten
        _take_chunks(store, group, name, time, touched, take, meter)


def _take_chunks(
    store: OpenStore,
    group: ZoneGroup,
    name: str,
    time: int,
    touched: list[tuple[int, int]],
    take: Callable[[tuple[int, int], npt.NDArray[Any]], None],
    meter: Meter,
) -> None:
    layout, folder = layout_of(store, group, name), CHUNKS.folder
    # among processes a row of chunks at a time, so that none waits for one that waits for it
    rows = [list(row) for _, row in groupby(touched, key=itemgetter(0))] if folder else [touched]
    for row in filter(None, rows):
        first = _key(store, group, name, time, row[0])
        with CHUNKS.reading(first), folder.reading(first) if folder else nullcontext():
            missing = []
            for place in row:
                chunk = CHUNKS.get(_key(store, group, name, time, place))
                if chunk is None:
                    missing.append(place)
                else:
                    take(place, chunk)
            for part in _rectangles(missing, AT_ONCE // (layout.rows * layout.cols * layout.item)):
                for place, chunk in _read(store, group, name, time, layout, part, meter):
                    take(place, chunk)


def _key(store: OpenStore, group: ZoneGroup, name: str, time: int, place: tuple[int, int]) -> _Key:
    return _Key(store.address, store.snapshot, store.kept.epoch, f"{group.name}/{name}", time, *place)


def layout_of(store: OpenStore, group: ZoneGroup, name: str) -> Layout:
    """Return how an array of a group is cut into chunks; read once."""
    return store.remembered(f"{group.name}/{name}", lambda: _layout(store, group, name))


def _layout(store: OpenStore, group: ZoneGroup, name: str) -> Layout:
    array = store.array(group.name, name)
    names = list(getattr(array.metadata, "dimension_names", None) or ())
    try:
        rows, cols = (next(names.index(n) for n in pair if n in names) for pair in _AXES)
    except (StopIteration, RuntimeError):
        raise StoreError(
            f"{store.address}: the axes of {group.name}/{name} are {names}, expected time, y, x or time,"
            " northing, easting, and band"
        ) from None
    band = names.index("band") if "band" in names else None
    bands = 1 if band is None else array.shape[band]
    return Layout(
        array.chunks[rows],
        array.chunks[cols],
        None if band is None else band - 1,
        bands,
        bands * array.dtype.itemsize,
        float(array.fill_value),
    )


def _read(
    store: OpenStore,
    group: ZoneGroup,
    name: str,
    time: int,
    layout: Layout,
    part: _Rectangle,
    meter: Meter,
) -> Iterator[tuple[tuple[int, int], npt.NDArray[Any]]]:
    """Yield chunks by their place, as (rows, columns[, bands])."""
    rows = slice(part.row * layout.rows, min(part.end_row * layout.rows, group.rows))
    cols = slice(part.col * layout.cols, min(part.end_col * layout.cols, group.cols))
    key: list[Any] = [time, rows, cols]
    if layout.band_axis is not None:
        key.insert(layout.band_axis + 1, slice(None))
    found = read_region(store, group.name, name, tuple(key), meter)
    if layout.band_axis == 0:
        found = found.transpose(1, 2, 0)
    epoch = store.kept.epoch
    for row in range(part.row, part.end_row):
        for col in range(part.col, part.end_col):
            r, c = (row - part.row) * layout.rows, (col - part.col) * layout.cols
            chunk = found[r : r + layout.rows, c : c + layout.cols].copy()
            if store.kept.epoch == epoch:
                CHUNKS.put(_key(store, group, name, time, (row, col)), chunk)
            yield (row, col), chunk


def _paste(
    out: npt.NDArray[Any],
    at: tuple[int, int, int],
    layout: Layout,
    place: tuple[int, int],
    chunk: npt.NDArray[Any],
) -> None:
    """Copy the part of a chunk that lies in a window."""
    row, col = place[0] * layout.rows - at[1], place[1] * layout.cols - at[2]
    r0, r1 = max(row, 0), min(row + chunk.shape[0], out.shape[0])
    c0, c1 = max(col, 0), min(col + chunk.shape[1], out.shape[1])
    out[r0:r1, c0:c1] = chunk[r0 - row : r1 - row, c0 - col : c1 - col]


def _rectangles(places: list[tuple[int, int]], most: int) -> Iterator[_Rectangle]:
    """Yield places in row order as rectangles, of at most so many where a row of them is not more."""
    runs: list[_Rectangle] = []
    for row, col in places:
        if runs and runs[-1].row == row and runs[-1].end_col == col:
            runs[-1] = _Rectangle(row, runs[-1].col, row + 1, col + 1)
        else:
            runs.append(_Rectangle(row, col, row + 1, col + 1))
    open_: dict[tuple[int, int], _Rectangle] = {}
    for run in runs:
        above = open_.get((run.col, run.end_col))
        size = (run.end_col - run.col) * (run.end_row - (above.row if above else run.row))
        if above is not None and above.end_row == run.row and size <= most:
            open_[run.col, run.end_col] = _Rectangle(above.row, run.col, run.end_row, run.end_col)
            continue
        if above is not None:
            yield above
        open_[run.col, run.end_col] = run
    yield from open_.values()
