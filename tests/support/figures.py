"""A server's metrics, read as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

_ORDER = ("operation", "method", "status", "le", "kind", "collection", "generation", "version", "worker")

Figures = dict[tuple[str, tuple[str, ...]], float]


def samples(text: str) -> Figures:
    """Return every sample by its name and the values of its labels, in the order we document them."""
    found: Figures = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sample.labels[k] for k in sorted(sample.labels, key=_ORDER.index))
            assert (sample.name, labels) not in found, "a series may appear once"
            found[sample.name, labels] = sample.value
    return found
