"""Metrics in Prometheus' text format, complete whichever worker responds.

One worker counts in its memory. Several count in files of a folder that they share, which
prometheus-client maps into memory and sums up: ``tessera-stac serve --workers N`` makes the folder and
sets ``PROMETHEUS_MULTIPROC_DIR`` to it. Without it each scrape would reach a different worker, and every
counter would seem to jump back and forth.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from api.catalogue.snapshot import Snapshot
from api.catalogue.store import Store
from catalog_builder import __version__
from catalog_builder.errors import UnavailableError

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histogram in seconds."""
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that names the folder which workers share; prometheus-client's own."""


class Metrics:
    """The metrics of this worker, or of all that share :data:`FOLDER`."""

    def __init__(self) -> None:
        # a second series for each of ours, which is not needed
        disable_created_metrics()  # type: ignore[no-untyped-call]
        mine = self._registry = CollectorRegistry()
        self._requests = Counter(
            "tessera_requests", "Requests answered.", ["operation", "method", "status"], registry=mine
        )
        self._seconds = Histogram(
            "tessera_request_seconds", "Response time.", ["operation"], buckets=BUCKETS, registry=mine
        )
        self._bytes = Counter(
            "tessera_response_bytes",
            "Response body bytes sent: of search, data, pages.",
            ["operation"],
            registry=mine,
        )
        self._errors = Counter("tessera_errors", "Requests that failed, by reason.", ["kind"], registry=mine)
        self._failures = Counter(
            "tessera_catalogue_refresh_failures",
            "Checks for a new build that found one which cannot be read.",
            registry=mine,
        )
        self._in_flight = Gauge(
            "tessera_requests_in_flight",
            "Requests in progress.",
            multiprocess_mode="livesum",
            registry=mine,
        )
        for kind in ERRORS:
            self._errors.labels(kind)  # zero is a value too: an alert on the first failure needs it
        self._in_flight.set(0)

    def begin(self) -> None:
        """Count an incoming request."""
        self._in_flight.inc()

    def end(self, operation: str, method: str, status: int, seconds: float, sent: int) -> None:
        """Count a completed request."""
        self._in_flight.dec()
        self._requests.labels(operation, method, str(status)).inc()
        self._bytes.labels(operation).inc(sent)
        self._seconds.labels(operation).observe(seconds)

    def error(self, kind: str) -> None:
        """Count a failure; its kind is one of :data:`ERRORS`."""
        self._errors.labels(kind).inc()

    def refresh_failed(self) -> None:
        """Count a failed check for a new build."""
        self._failures.inc()

    def text(self, store: Store) -> bytes:
        """Return everything in the exposition format."""
        registry = self._registry
        folder = os.environ.get(FOLDER)
        if folder:
            for worker in set(_workers(folder)) - set(_living(folder)):
                # its requests in flight are gone with it; its counters are kept
                multiprocess.mark_process_dead(worker, folder)  # type: ignore[no-untyped-call]
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
        state = CollectorRegistry()
        state.register(_State(store, tuple(_living(folder)) if folder else (os.getpid(),)))
        return generate_latest(registry) + generate_latest(state)


ERRORS = (
    "bad_request", "not_found", "too_large", "too_slow", "too_many", "client_gone",
    "unreadable", "search_timeout", "unavailable", "fault",
)  # fmt: skip
"""Kinds of failures: of the client, of an item's file, of the machine (too slow; database unreachable), of
the software."""


@dataclass(frozen=True, slots=True)
class _State(Collector):
    """The catalogue being served and each worker's resources, read on request."""

    store: Store
    workers: tuple[int, ...]

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily("tessera_stac", "The program.", {"version": __version__})
        with contextlib.suppress(UnavailableError):  # the database is unreachable: the request metrics remain
            yield from _of_catalogue(self.store.current())
        for name, text, is_so in (
            ("tessera_index_damaged", "Whether the index being served is damaged.", self.store.damage),
            ("tessera_build_refused", "Whether a newer build was refused.", self.store.refused),
        ):
            yield GaugeMetricFamily(name, text, int(is_so is not None))
        memory = GaugeMetricFamily(
            "tessera_worker_memory_bytes",
            "Resident memory of a worker, or of a process of its own.",
            labels=["worker"],
        )
        files = GaugeMetricFamily("tessera_worker_open_files", "Open descriptors.", labels=["worker"])
        cpu = Metric("tessera_worker_cpu_seconds", "CPU time used.", "counter")
        for worker in [pid for each in self.workers for pid in (each, *_working_for(each))]:
            with contextlib.suppress(OSError):  # it ended just now; or there is no /proc
                home = Path(f"/proc/{worker}")
                pages = int((home / "statm").read_text().split()[1])
                ticks = (home / "stat").read_text().rpartition(")")[2].split()[11:13]
                label = str(worker)
                memory.add_metric([label], pages * os.sysconf("SC_PAGE_SIZE"))
                files.add_metric([label], sum(1 for _ in (home / "fd").iterdir()))
                cpu.add_sample(
                    "tessera_worker_cpu_seconds_total",
                    {"worker": label},
                    sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"),
                )
        yield from (memory, files, cpu)


def _of_catalogue(snapshot: Snapshot) -> Iterator[Metric]:
    generation = {"generation": snapshot.generation}
    yield InfoMetricFamily("tessera_catalogue", "The catalogue being served.", generation)
    if snapshot.built is not None:
        yield GaugeMetricFamily(
            "tessera_catalogue_built_timestamp_seconds", "When its index was written.", snapshot.built
        )
    items = GaugeMetricFamily("tessera_catalogue_items", "Items in it.", labels=["collection"])
    for record in snapshot.collections.values():
        items.add_metric([record.id], record.n_items)
    yield items


def _working_for(worker: int) -> Iterator[int]:
    """Yield the processes that a worker has started: :mod:`api.relayed`."""
    with contextlib.suppress(OSError):  # it ended just now; or there is no /proc
        for thread in Path(f"/proc/{worker}/task").iterdir():
            yield from map(int, (thread / "children").read_text().split())


def _workers(folder: str) -> Iterator[int]:
    """Return every worker that keeps its requests in flight in the folder."""
    for path in Path(folder).glob("gauge_livesum_*.db"):
        yield int(path.stem.rpartition("_")[2])


def _living(folder: str) -> Iterator[int]:
    for worker in _workers(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, 0)
            yield worker
