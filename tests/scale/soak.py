"""A soak: clients that ask without a pause, rebuilds swapped in meanwhile, and what the processes hold.

One asyncio process plays all clients. Every answer is checked; memory and open files of every server
process are noted all the time.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np
import orjson

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.tile.datasets import dataset
from tests.bench.measure import own_memory, tree
from tests.bench.serve import tessera
from tests.deploy.processes import open_indexes
from tests.scale.client import Connection, Request, Response
from tests.scale.manifests import Written
from tests.scale.traffic import Asked, Kind, Traffic, following
from tests.support.converted import converted
from tests.support.oracle import Oracle

CLIENTS, WORKERS = 32, 2
STAY = 100
"""Requests after which a client connects anew, so that no worker has all of them for ever."""
REFRESH = 1.0
"""Seconds after which a server has noticed a rebuild."""
MOST_ERRORS = 20
"""Errors that are kept to be shown."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the server's processes held at a moment."""

    at: float
    """Seconds since the start."""
    memory: dict[int, float]
    """By process, 10**6 bytes that it holds alone."""
    files: dict[int, int]
    """Open file descriptors by process."""
    indexes: dict[int, int]
    """Builds whose index is open, by process."""


@dataclass(slots=True)
class Log:
    """What was seen."""

    times: defaultdict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """By kind: when it was asked (seconds since the start), how long it took (seconds)."""
    errors: list[str] = field(default_factory=list)
    n_errors: int = 0
    sent: int = 0
    """Bytes of bodies received."""
    statuses: Counter[int] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    builds: list[tuple[float, float]] = field(default_factory=list)
    """When each rebuild began and ended."""
    generations: set[str] = field(default_factory=set)
    """Builds that answers came from."""
    seconds: float = 0.0
    client_cpu: float = 0.0
    """CPU seconds of the clients' process."""

    def wrong(self, text: str) -> None:
        self.n_errors += 1
        if len(self.errors) < MOST_ERRORS:
            self.errors.append(text[:500])

    @property
    def requests(self) -> int:
        return sum(map(len, self.times.values()))

    def table(self) -> list[list[str]]:
        """Return n, median, 95 %, 99 %, most (ms) by kind, of all, and of what was asked during rebuilds."""
        rows = [_row(kind, [s for _, s in seen]) for kind, seen in self.times.items()]
        rows.sort(key=lambda row: row[0])
        everything = [pair for seen in self.times.values() for pair in seen]
        during = [s for at, s in everything if any(a <= at <= b for a, b in self.builds)]
        without = [s for at, s in everything if not any(a <= at <= b for a, b in self.builds)]
        rows.append(_row("all", [s for _, s in everything]))
        rows += [
            _row(f"all, {what} a rebuild", s) for what, s in (("without", without), ("beside", during)) if s
        ]
        return rows

    def by_minute(self, pid: int, since: float = 0) -> list[float]:
        """Return the median memory of a process in each minute from a second on, 10**6 bytes."""
        minutes = defaultdict(list)
        for sample in self.samples:
            if pid in sample.memory and since <= sample.at < self.seconds:
                minutes[int(sample.at // 60)].append(sample.memory[pid])
        return [statistics.median(held) for _, held in sorted(minutes.items())]

    def spans(self, settle: float) -> list[tuple[float, float]]:
        """Return when no build was made or taken up: from ``settle`` seconds after one to the next."""
        starts = [settle, *(end + settle for _, end in self.builds)]
        return list(zip(starts, [*(begun for begun, _ in self.builds), self.seconds], strict=True))

    def growth(self, span: tuple[float, float]) -> dict[int, Growth]:
        """Return what each process' memory did in a span of the time."""
        there = [s for s in self.samples if span[0] <= s.at <= span[1]]
        found = {}
        for pid in there[-1].memory if there else ():
            at = np.array([s.at for s in there if pid in s.memory])
            held = np.array([s.memory[pid] for s in there if pid in s.memory])
            files = [s.files[pid] for s in there if pid in s.files]
            slope = float(np.polyfit(at / 60, held, 1)[0]) if len(at) > 1 else 0.0
            found[pid] = Growth(float(np.median(held)), float(held.max()), slope, min(files), max(files))
        return found


@dataclass(frozen=True, slots=True)
class Growth:
    """A process in a span of time, 10**6 bytes."""

    median: float
    most: float
    per_minute: float
    """Slope of the line of least squares."""
    fewest_files: int
    most_files: int


def _row(name: str, seconds: Sequence[float]) -> list[str]:
    ms = sorted(s * 1e3 for s in seconds)
    at = [ms[min(int(len(ms) * q), len(ms) - 1)] for q in (0.95, 0.99)]
    return [name, f"{len(ms):,}", f"{statistics.median(ms):.1f}", *(f"{v:.1f}" for v in at), f"{ms[-1]:.0f}"]


def soak_catalog(out: Path, planet: Path) -> Path:
    """Make a catalogue of a built one and of converted synthetic tiles; return its folder.

    The built one's files are linked, not copied: a build never changes a file that is there.
    """
    if out.exists():
        shutil.rmtree(out)
    shutil.copytree(planet, out, symlinks=True, copy_function=os.link, ignore=shutil.ignore_patterns(".lock"))
    made = converted()
    shutil.copytree(made.catalog / "cogs", out / "cogs")
    options = BuildOptions(
        dataset("synthetic"), url="http://127.0.0.1:8000", source_root=str(made.embeddings)
    )
    build([str(made.embeddings.parent)], out, options)
    return out


Change = Callable[[], str]
"""Puts another build of a catalogue into its place; returns what went wrong, if anything."""


def rebuild(catalog: Path, written: Written) -> Change:
    """Return what rebuilds a catalogue from manifests, in a process of its own."""

    def change() -> str:
        command = [sys.executable, "-m", "catalog_builder.cli", "build", *map(str, written.sources)]
        command += ["--out", str(catalog), "--url", "http://127.0.0.1:8000", "--quiet", "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        good = not done.returncode and orjson.loads(done.stdout)["published"]
        return "" if good else f"rebuild: {done.returncode} {done.stdout} {done.stderr}"

    return change


def swaps(catalog: Path, n: int) -> list[Change]:
    """Return what puts two copies of a catalogue's build in its place in turn, as a build does at its end."""
    link = catalog / ".current"
    target, current = link.readlink(), link.resolve()
    copies = [current.with_name(f"copy-{i}") for i in range(2)]
    for copy in copies:
        shutil.copytree(current, copy, copy_function=os.link)
        (copy / "index.sqlite").unlink()
        shutil.copy(current / "index.sqlite", copy)  # a file of its own, as a server tells builds by

    def to(copy: Path) -> Change:
        def change() -> str:
            new = catalog / ".new"
            new.symlink_to(target.with_name(copy.name))
            new.replace(link)
            return ""

        return change

    return [to(copies[i % 2]) for i in range(n)]


def run(
    catalog: Path,
    written: Written,
    changes: Sequence[Change],
    seconds: float,
    *,
    every: float,
    clients: int = CLIENTS,
) -> Log:
    """Let clients ask for some seconds; make changes, spread over the time, meanwhile.

    They ask on until the last change has been served for a moment, but no longer than twice the seconds.

    Parameters
    ----------
    catalog
        From :func:`soak_catalog`.
    written
        The manifests that it was built from.
    changes
        To builds of the same tile-years.
    every
        Seconds between samples of memory and files.
    """
    oracle = Oracle.of_parquet(written.manifest)
    cogs, sources = catalog / "cogs", converted().embeddings
    files = [f"cogs/{p.relative_to(cogs)}" for p in sorted(cogs.rglob("*_embeddings.tif"))]
    local = [f"synthetic/{p.relative_to(sources)}" for p in sorted(sources.rglob("*[0-9].npy"))]
    traffic = Traffic(oracle, files, local)
    log = Log()
    with tessera(catalog, WORKERS) as server:
        start = time.perf_counter()
        stopped, built = threading.Event(), threading.Event()
        watcher = threading.Thread(target=_watch, args=(server.process.pid, start, every, log, stopped))
        builder = threading.Thread(target=_change, args=(changes, start, seconds, log, built))
        for thread in (watcher, builder):
            thread.start()
        cpu = time.process_time()

        def goes_on() -> bool:
            passed = time.perf_counter() - start
            return passed < seconds or (not built.is_set() and passed < 2 * seconds)

        asyncio.run(_ask(server.port, traffic.kinds(), start, goes_on, clients, log))
        log.client_cpu = time.process_time() - cpu
        log.seconds = time.perf_counter() - start
        builder.join()
        stopped.set()
        watcher.join()
    return log


def _watch(pid: int, start: float, every: float, log: Log, stopped: threading.Event) -> None:
    over = False
    while not over:
        over = stopped.wait(every)  # and once more, when nobody asks
        held, files, indexes = {}, {}, {}
        for each in tree(pid):
            try:
                held[each] = own_memory(each)
                files[each] = len(list(Path(f"/proc/{each}/fd").iterdir()))
                indexes[each] = len(open_indexes(each))
            except (OSError, IndexError):
                continue
        log.samples.append(Sample(time.perf_counter() - start, held, files, indexes))


def _change(
    changes: Sequence[Change], start: float, seconds: float, log: Log, built: threading.Event
) -> None:
    """Make the changes, spread over the time."""
    for i, change in enumerate(changes, 1):
        time.sleep(max(start + seconds * i / (len(changes) + 1) - time.perf_counter(), 0))
        begun = time.perf_counter() - start
        if wrong := change():
            log.wrong(wrong)
        log.builds.append((begun, time.perf_counter() - start))
    time.sleep(2 * REFRESH)
    built.set()


async def _ask(
    port: int, kinds: Sequence[Kind], start: float, goes_on: Callable[[], bool], clients: int, log: Log
) -> None:
    weights = list(accumulate(kind.weight for kind in kinds))

    async def client(number: int) -> None:
        rng, connection, n = random.Random(number), Connection(port), 0
        while goes_on():
            n += 1
            if (n + number) % STAY == 0:
                await connection.close()
            (kind,) = rng.choices(kinds, cum_weights=weights)
            asked = kind.draw(rng)
            response = await _once(connection, kind.name, asked, start, log)
            for _ in range(kind.follow):
                path = next(following(response), None) if response is not None else None
                if path is None:
                    break
                more = Asked(Request(path, headers=asked.request.headers), check=asked.check)
                response = await _once(connection, kind.name, more, start, log)
        await connection.close()

    async def generations() -> None:
        connection = Connection(port)
        while goes_on():
            health = await connection.ask(Request("/_mgmt/health"))
            log.generations.add(str(health.json().get("generation")))
            await asyncio.sleep(0.5)
        await connection.close()

    await asyncio.gather(*(client(n) for n in range(clients)), generations())


async def _once(connection: Connection, kind: str, asked: Asked, start: float, log: Log) -> Response | None:
    """Ask one thing and note what came of it; None if it was wrong."""
    what = f"{kind}: {asked.request.method} {asked.request.path} {asked.request.body or ''}"
    began = time.perf_counter()
    try:
        response = await connection.ask(asked.request)
    except (OSError, asyncio.IncompleteReadError, ValueError) as exc:
        log.wrong(f"{what}: {type(exc).__name__} {exc}")
        await connection.close()
        return None
    log.times[kind].append((began - start, time.perf_counter() - began))
    log.sent += len(response.body)
    log.statuses[response.status] += 1
    try:
        asked.examine(response)
    except Exception as exc:
        log.wrong(f"{what}: {type(exc).__name__} {exc}")
        return None
    return response
