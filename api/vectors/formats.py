"""Which format a body has, and which one a response should have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from api.http.links import COVERAGE_JSON
from catalog_builder.errors import QueryError
from catalog_builder.storage.headers import MEDIA_GEOJSON
from catalog_builder.vectors.tables.body import BodyFormat
from catalog_builder.vectors.tables.write import StreamFormat

ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
CSV = "text/csv"
RESPONSES: Mapping[StreamFormat, str] = {
    "geojson": MEDIA_GEOJSON,
    "arrow": ARROW,
    "parquet": PARQUET,
    "csv": CSV,
}
"""Media types of responses; the first is for clients that take anything."""
EdrFormat = Literal["CoverageJSON", "GeoJSON"]
EDR_RESPONSES: Mapping[EdrFormat, str] = {"CoverageJSON": COVERAGE_JSON, "GeoJSON": MEDIA_GEOJSON}
"""Media types of responses to EDR queries."""
ALIASES: Mapping[str, tuple[str, ...]] = {
    MEDIA_GEOJSON: ("application/json",),
    COVERAGE_JSON: ("application/vnd.cov+json", "application/json"),
}
"""What clients also call them."""
BODIES: Mapping[str, BodyFormat] = {
    MEDIA_GEOJSON: "geojson",
    "application/json": "geojson",
    CSV: "csv",
    ARROW: "arrow",
    "application/vnd.apache.arrow.file": "arrow",
    PARQUET: "parquet",
    "application/x-parquet": "parquet",
}
"""Media types of bodies."""


def body_format(content_type: str | None) -> BodyFormat:
    """Return the format of a body.

    Raises
    ------
    QueryError
        If it is not one of :data:`BODIES`.
    """
    kind = (content_type or "").partition(";")[0].strip().lower()
    found = BODIES.get(kind)
    if found is None:
        raise QueryError(f"Content-Type: expected one of {', '.join(BODIES)}, found '{kind[:60]}'")
    return found


def response_format[F: str](asked: str | None, accept: str | None, of: Mapping[F, str]) -> F:
    """Return the format of a response: ``f``, else the first of ``Accept`` by its weights.

    Parameters
    ----------
    asked, accept
        Parameter and header.
    of
        Media types by format.

    Examples
    --------
    >>> response_format(None, "text/csv;q=0.5, application/vnd.apache.parquet", RESPONSES)
    'parquet'

    Raises
    ------
    QueryError
        If ``f`` is unknown, or nothing else is accepted.
    """
    if asked is not None:
        for name, media in of.items():
            if asked.lower() in (name.lower(), media):
                return name
        raise QueryError(f"f: expected one of {', '.join(of)}, found '{asked[:40]}'")
    for kind in _by_weight(accept or "*/*"):
        for name, media in of.items():
            if kind in (media, *ALIASES.get(media, ()), "*/*", f"{media.partition('/')[0]}/*"):
                return name
    raise QueryError(f"Accept: expected one of {', '.join(of.values())}, found '{(accept or '')[:60]}'")


def _by_weight(accept: str) -> list[str]:
    """Return the media types of an Accept header, the heaviest first."""
    found = []
    for part in accept.lower().split(","):
        kind, *parameters = (text.strip() for text in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            number = float(weight)
        except ValueError:
            number = 0.0
        if number > 0:
            found.append((number, kind))
    return [kind for _, kind in sorted(found, key=lambda pair: -pair[0])]
