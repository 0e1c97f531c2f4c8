"""Counters of a server process in Prometheus' text format.

Each worker process counts for itself; with several, scrape them one by one or sum over restarts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histogram in seconds."""


class Metrics:
    """What happened since the process started; all updates come from the event loop's thread."""

    def __init__(self) -> None:
        self._requests: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        self._bytes: defaultdict[str, int] = defaultdict(int)
        self._buckets: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS) + 1))
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self.in_flight = 0
        self.items = 0
        """Tile-years in the catalogue."""
        self.damaged = False
        """Whether the index in force is not what its build wrote."""
        self.refused = False
        """Whether a newer build is there that could not be put in force."""

    def record(self, operation: str, method: str, status: int, seconds: float, sent: int) -> None:
        """Count a finished request."""
        self._requests[operation, method, status] += 1
        self._bytes[operation] += sent
        self._seconds[operation] += seconds
        self._buckets[operation][bisect_left(BUCKETS, seconds)] += 1

    def text(self) -> str:
        """Return everything in the exposition format."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield "# HELP tessera_requests_total Requests answered."
        yield "# TYPE tessera_requests_total counter"
        for (operation, method, status), n in sorted(self._requests.items()):
            labels = f'operation="{operation}",method="{method}",status="{status}"'
            yield f"tessera_requests_total{{{labels}}} {n}"
        yield "# HELP tessera_request_seconds Time to answer."
        yield "# TYPE tessera_request_seconds histogram"
        for operation, counts in sorted(self._buckets.items()):
            total = 0
            for bound, n in zip((*BUCKETS, "+Inf"), counts, strict=True):
                total += n
                yield f'tessera_request_seconds_bucket{{operation="{operation}",le="{bound}"}} {total}'
            yield f'tessera_request_seconds_sum{{operation="{operation}"}} {self._seconds[operation]:.6f}'
            yield f'tessera_request_seconds_count{{operation="{operation}"}} {total}'
        yield "# HELP tessera_response_bytes_total Body bytes sent."
        yield "# TYPE tessera_response_bytes_total counter"
        for operation, n in sorted(self._bytes.items()):
            yield f'tessera_response_bytes_total{{operation="{operation}"}} {n}'
        for name, text, value in (
            ("tessera_requests_in_flight", "Requests being answered.", self.in_flight),
            ("tessera_catalogue_items", "Items in the catalogue.", self.items),
            ("tessera_index_damaged", "Whether the index in force is damaged.", int(self.damaged)),
            ("tessera_build_refused", "Whether a newer build was refused.", int(self.refused)),
        ):
            yield f"# HELP {name} {text}"
            yield f"# TYPE {name} gauge"
            yield f"{name} {value}"
